"""Folders and files that a person names as output: what is not graft's own is never removed."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.core.files import make_folder, replace_file
from graft.errors import DataError

_LOG = logging.getLogger("graft")


def check_output(out: Path, sources: Iterable[object] = ()) -> Path:
    """The real path of ``out``.

    Raises DataError where it is, holds or lies in a source, or holds the working folder or the
    home folder. Sources that are no local paths are never touched by an output.
    """
    real = out.resolve()
    for source in sources:
        if not isinstance(source, Path):
            continue
        own = source.resolve()
        how = "is" if _same(real, own) else "holds" if _within(own, real) else "lies in"
        if how != "lies in" or _within(real, own):
            raise DataError(f"{out}: got an output that {how} the source {source}, "
                            "wanted one apart from it")  # fmt: skip
    for find in (Path.cwd, Path.home):
        with contextlib.suppress(OSError, RuntimeError):  # it was removed, or nobody has one
            place = find().resolve()
            if real == place or real in place.parents:
                raise DataError(
                    f"{out}: got an output that is or holds {place}, wanted a folder in it"
                )
    return real


def _same(one: Path, two: Path) -> bool:
    """Whether two real paths are one place, also where names differ in case alone or by a mount."""
    try:
        return one == two or one.samefile(two)
    except OSError:
        return False


def _within(path: Path, folder: Path) -> bool:
    return any(_same(parent, folder) for parent in path.parents)


@contextmanager
def new_folder(
    out: Path, *, sources: Iterable[object] = (), overwrite: bool = False
) -> Iterator[Path]:
    """A fresh folder beside ``out`` that replaces it when the block ends without an error.

    ``overwrite`` allows that ``out`` already holds something. What graft wrote there goes once the
    new folder is whole; anything else is moved to a fresh name beside it, which is logged. Raises
    DataError where ``out`` holds something and ``overwrite`` is off, and as ``check_output`` does.
    """
    real = check_output(out, sources)
    if real.exists() and not (real.is_dir() or real.is_file()):  # others use it: /dev/null, a pipe
        raise DataError(f"{out}: got a device or socket, wanted a folder to write")
    if not real.parent.is_dir() and real.parent.exists():
        raise DataError(f"{out}: got a path in the file {real.parent}, wanted one in a folder")
    if real.exists() and not overwrite and (not real.is_dir() or any(real.iterdir())):
        raise DataError(f"{out}: got a path that already holds something, wanted an empty one")
    make_folder(real.parent)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=real.parent))
    try:
        partial.chmod(0o755)
        yield partial
        _replace_folder(partial, real)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_output(
    out: Path, content: bytes, *, sources: Iterable[object] = (), mark: bytes = b"graft"
) -> None:
    """Write a file that a person named, as ``check_output_file`` allows."""
    check_output_file(out, sources, mark)
    replace_file(out, content)


def check_output_file(out: Path, sources: Iterable[object] = (), mark: bytes = b"graft") -> None:
    """Raise DataError where ``out`` is a folder, a file without ``mark``, or as ``check_output``.

    A file of an earlier call holds ``mark``, so that it may be replaced.
    """
    check_output(out, sources)
    if out.is_dir():
        raise DataError(f"{out}: got a folder, wanted a file to write")
    if out.exists() and mark not in out.read_bytes():
        raise DataError(f"{out}: got a file that graft did not write, wanted another name")


def fresh_folder(folder: Path) -> Path:
    """An empty working folder; only what an earlier call made under this name is removed.

    A file beside it marks the folder as one that may be removed. Raises DataError for a folder
    that holds something and has no mark.
    """
    mark = folder.with_name(f".{folder.name}.made-by-graft")
    check_output(folder)
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise DataError(f"{folder}: got a folder that no earlier call made, wanted an empty one")
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    mark.touch()
    return folder


def _replace_folder(partial: Path, out: Path) -> None:
    """Rename ``partial`` to ``out``; what was there goes or is kept once it is replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        partial.rename(out)
        return
    is_ours = _is_ours(out, partial)
    before = Path(tempfile.mkdtemp(prefix=f"{out.name[:200]}.before-", dir=out.parent))
    kept = before if out.is_dir() else before / out.name
    out.rename(kept)
    try:
        partial.rename(out)
    except OSError:
        kept.rename(out)
        with contextlib.suppress(OSError):
            before.rmdir()
        raise
    if is_ours:
        shutil.rmtree(before)
    else:
        _LOG.warning("%s held files that graft did not write: all it held is in %s", out, kept)


def _is_ours(old: Path, new: Path) -> bool:
    """Whether all files of ``old`` have names like those that ``new`` has in the same folders."""
    if not old.is_dir():
        return False
    files = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    names = {path for path in files if path.parent == Path()}
    kinds = {(path.parent, path.suffix) for path in files if path.parent != Path()}
    return all(
        path.is_dir() or (inner := path.relative_to(old)) in names
        or (inner.parent, inner.suffix) in kinds
        for path in old.rglob("*")
    )  # fmt: skip
