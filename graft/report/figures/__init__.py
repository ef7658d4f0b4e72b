"""Figures of the report, drawn by matplotlib into files."""

import os

# A display's backend is of no use to files, and a name that matplotlib does not know, as another
# program's environment may have it, fails its import.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
