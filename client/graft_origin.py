"""Which files answer to ``import graft``: the installed ones, whatever else is on the import path.

``PYTHONPATH`` comes before the installed packages, and Flower puts an app's own folder before
both; a ``graft.py`` in either would be imported in place of the package.
"""

import os
import signal
import sys
from importlib.machinery import PathFinder
from pathlib import Path

_PACKAGES = ("graft", "graft_server", "graft_client", "graft_simulation")


def main() -> None:
    """The ``graft`` command, whose child processes find the same packages as it does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's end, as Ctrl-C
    if put_first():
        later = filter(None, [os.environ.get("PYTHONPATH")])
        os.environ["PYTHONPATH"] = os.pathsep.join([*_folders(), *later])
    from graft.core.ending import check_working_folder, end_process, run_process

    def run() -> None:
        check_working_folder()
        from graft.cli.main import main as command

        command()

    end_process(run_process(run))  # what an import raises, too; the command has its own


def put_first() -> bool:
    """Put the folders of graft's packages first on the import path; False where they are."""
    folders = _folders()
    found = [PathFinder.find_spec(name) for name in _PACKAGES]
    if all(s and s.origin and str(Path(s.origin).resolve().parents[1]) in folders for s in found):
        return False
    sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]
    return True


def _folders() -> list[str]:
    """The folders that hold the packages: one where they are installed, four in a working copy."""
    here = Path(__file__).resolve().parent
    if (here / "graft").is_dir():
        return [str(here)]
    return [str(here.parent / name) for name in ("", "server", "client", "simulation")]


if __name__ == "__main__":
    main()
