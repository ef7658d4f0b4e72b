"""The compiled trainer: C beside this file, built once a machine with its own compiler.

Where nothing can be built, the baseline that ``python -m graft.training.compiled.build`` left in
the package is taken, as for an image without a compiler. Without either, or with
``GRAFT_NO_KERNELS=1``, there is none and everything still trains through PyTorch, only slower.
"""

import ctypes
import hashlib
import logging
import os
import platform
import stat
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_SOURCE = "kernels.c"
# Not -ffast-math: NaN and infinity must come out as PyTorch's loop would give them.
_FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
# What a baseline asks of a processor: AVX2 and FMA, or 64-bit ARM; elsewhere the compiler's own.
_BASELINES = {"x86_64": "x86-64-v3", "amd64": "x86-64-v3", "aarch64": "armv8-a", "arm64": "armv8-a"}
_BESIDE = Path(__file__).parent / "built"
_log = logging.getLogger(__name__)


def load_kernels() -> ctypes.CDLL | None:
    """The compiled library, or None where it is not wanted or cannot be built."""
    asked = os.environ.get
    # The folder is looked for once: a training asks for the library hundreds of times.
    return (
        None if asked("GRAFT_NO_KERNELS") == "1" else _load(asked("XDG_CACHE_HOME"), asked("HOME"))
    )


def kernels_built() -> bool:
    """Whether this process has the compiled library."""
    return load_kernels() is not None


def cache_folder() -> Path:
    """Where built libraries lie: the user's cache, not the package, which may be read-only.

    Without a cache that can be written, a folder for this user alone among the temporary ones:
    training through PyTorch would give other rounding, and so another hash.
    """
    own = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "graft"
    with suppress(OSError):
        if own.is_absolute():
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(own, os.W_OK) or any(own.glob("kernels-*.so")):
                return own
    spare = Path(tempfile.gettempdir()) / f"graft-{os.getuid()}"
    with suppress(OSError):
        spare.mkdir(mode=0o700, exist_ok=True)
        facts = spare.lstat()
        if (
            facts.st_uid == os.getuid()
            and stat.S_ISDIR(facts.st_mode)
            and not facts.st_mode & 0o077
        ):
            return spare  # nobody else can put a library there
    return own


@lru_cache(maxsize=4)
def _load(*_: str | None) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(build_kernels(cache_folder())))
    except (OSError, subprocess.SubprocessError) as error:
        baseline = _library_path(_BESIDE, baseline=True)
        if not baseline.exists():
            _log.info("no compiled kernels, training through PyTorch: %s", error)
            return None
        library = ctypes.CDLL(str(baseline))
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.graft_train.argtypes = [
        *[pointer] * 6, count, pointer, ctypes.c_double, pointer,
    ]  # fmt: skip
    library.graft_features.argtypes = [
        pointer, count, *[pointer] * 3, count, ctypes.c_float, pointer,
    ]  # fmt: skip
    library.graft_heads.argtypes = [pointer]
    return library


def build_kernels(folder: Path, compiler: str = "cc", *, baseline: bool = False) -> Path:
    """The library's path, compiled first if this source, flags and CPU have none there yet; raises
    OSError without a compiler or a writable folder, SubprocessError where it fails.

    A ``baseline`` runs on every processor of its kind.
    """
    here, flags = Path(__file__).parent, _flags(baseline=baseline)
    path = _library_path(folder, baseline=baseline)
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


def _flags(*, baseline: bool) -> tuple[str, ...]:
    # A portable run's sums are the same on every processor: fused and vectorised in one way.
    if not baseline and os.environ.get("GRAFT_PORTABLE") != "1":
        return (*_FLAGS, "-march=native")
    least = _BASELINES.get(platform.machine().lower())
    return _FLAGS if least is None else (*_FLAGS, f"-march={least}")


def _library_path(folder: Path, *, baseline: bool) -> Path:
    here, flags = Path(__file__).parent, _flags(baseline=baseline)
    sources = [path.read_bytes() for path in (here / _SOURCE, *sorted(here.glob("*.h")))]
    processor = _processor() if "-march=native" in flags else ""
    key = b"\0".join([*sources, repr(flags).encode(), processor.encode()])
    return folder / f"kernels-{hashlib.sha256(key).hexdigest()[:20]}.so"


def _processor() -> str:
    """What ``-march=native`` depends on: homes are shared between unlike machines."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8", "replace").splitlines() if facts.exists() else []
    features = [line for line in lines if line.lower().startswith(("model name", "flags", "feat"))]
    return "\n".join([platform.machine(), platform.system(), platform.processor(), *features[:3]])


if __name__ == "__main__":
    print(build_kernels(_BESIDE, baseline=True))
