"""The compiled trainer: C beside this file, built once a machine with its own compiler.

Without a compiler, or with ``GRAFT_NO_KERNELS=1``, there is none and everything still trains
through PyTorch, only slower.
"""

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

_SOURCE = "kernels.c"
# Not -ffast-math: NaN and infinity must come out as PyTorch's loop would give them.
_FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_log = logging.getLogger(__name__)


def load_kernels() -> ctypes.CDLL | None:
    """The compiled library, or None where it is not wanted or cannot be built."""
    return None if os.environ.get("GRAFT_NO_KERNELS") == "1" else _load(cache_folder())


def kernels_built() -> bool:
    """Whether this process has the compiled library."""
    return load_kernels() is not None


def cache_folder() -> Path:
    """Where built libraries lie: the user's cache, not the package, which may be read-only."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graft"


@lru_cache(maxsize=4)
def _load(folder: Path) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(build_kernels(folder)))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("no compiled kernels, training through PyTorch: %s", error)
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.graft_train.argtypes = [
        *[pointer] * 6, count, pointer, ctypes.c_double, pointer,
    ]  # fmt: skip
    library.graft_features.argtypes = [
        pointer, count, *[pointer] * 3, count, ctypes.c_float, pointer,
    ]  # fmt: skip
    library.graft_heads.argtypes = [pointer]
    return library


def build_kernels(folder: Path, compiler: str = "cc") -> Path:
    """The library's path, compiled first if this source, flags and CPU have none there yet; raises
    OSError without a compiler or a writable folder, SubprocessError where it fails."""
    here = Path(__file__).parent
    sources = [(here / _SOURCE).read_bytes()]
    sources += [path.read_bytes() for path in sorted(here.glob("*.h"))]
    # A portable run's sums are the same on every processor: fused and vectorised in one way.
    portable = os.environ.get("GRAFT_PORTABLE") == "1"
    flags = (*_FLAGS, "-march=x86-64-v3" if portable else "-march=native")
    key = b"\0".join([*sources, repr(flags).encode(), b"" if portable else _processor().encode()])
    path = folder / f"kernels-{hashlib.sha256(key).hexdigest()[:20]}.so"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several processes may build at once: each its own file, then one atomic rename.
        with tempfile.TemporaryDirectory(dir=folder) as own:
            built = Path(own) / "kernels.so"
            subprocess.run(  # noqa: S603  (a fixed command on our own file)
                [compiler, *flags, "-o", str(built), str(here / _SOURCE), "-lm"],
                check=True, capture_output=True, timeout=300,
            )  # fmt: skip
            built.replace(path)
    return path


def _processor() -> str:
    """What ``-march=native`` depends on: homes are shared between unlike machines."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8", "replace").splitlines() if facts.exists() else []
    features = [line for line in lines if line.lower().startswith(("model name", "flags", "feat"))]
    return "\n".join([platform.machine(), platform.system(), platform.processor(), *features[:3]])
