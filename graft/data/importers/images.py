"""Pictures -> a domain folder: a tree of domain/class/file, or a table of paths."""

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graft.core.files import replace_file
from graft.core.outputs import check_output
from graft.core.tasks import InputSpec
from graft.data.columns import AnyArray
from graft.data.importers.accounting import RowTally, check_share_option
from graft.data.importers.labelled import (
    Destination,
    ImportReport,
    LabelledRow,
    Progress,
    content_hash,
    domain_id_of,
    write_labelled,
)
from graft.data.importers.table import RowColumns, cell_text, read_rows, skip_not_utf8
from graft.data.public.recordings import natural_key
from graft.data.stream_columns import decode_picture
from graft.errors import ConfigError, DatasetFormatError, DomainValueError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LARGEST_SIZE = 4096


@dataclass(frozen=True, slots=True)
class _Found:
    """A picture's file and what its place says of it."""

    path: Path
    domain: str
    label: str
    group: str


def import_images(
    source: Path,
    to: Destination,
    *,
    size: int = 224,
    path_column: str = "path",
    columns: RowColumns | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Write the domain folder ``to.out`` from pictures, all or nothing; nothing else is written.

    A picture is turned as its camera says, brought to RGB, cut to a square about its centre,
    resized, and kept as a PNG file without any metadata of the original.

    Parameters
    ----------
    source
        A folder of domain/class/file, where files in a folder below the class are one group; or a
        table (CSV, TSV, Parquet, JSON lines) of paths, relative to the table's folder.
    to
        The domain folder, and the share of pictures that may be missing or not decode.
    size
        Pixels of a picture's side.
    path_column, columns
        Of a table: the column of paths, and those of domain, label and group.
    progress
        Called with what is done, the number done and the number in all.

    Raises
    ------
    ConfigError
        For a size or share that cannot be.
    DataError
        ``to.out`` holds something, or is not apart from the source.
    DatasetFormatError
        The source is missing, has no pictures, or too many that cannot be read.
    DomainEmptyError
        No domain has two classes.
    """
    if not 1 <= size <= _LARGEST_SIZE:
        raise ConfigError(f"size: got {size}, wanted 1 to {_LARGEST_SIZE} pixels")
    check_share_option(to.max_unreadable)
    check_output(to.out, [source])
    tally = RowTally()
    if source.is_dir():
        found = _tree(source, tally)
    else:
        found = _listed(source, path_column, columns or RowColumns(), tally)
        check_output(to.out, [each.path for each in found])
    if not found:
        raise DatasetFormatError(
            f"{source}: got no picture, wanted domain/class/file of {', '.join(SUFFIXES)}; "
            + "; ".join(tally.words())
        )
    spec = InputSpec(
        name="image", kind="image", shape=(3, size, size), dtype="uint8", modality="image"
    )
    return write_labelled(
        lambda folder: _converted(found, folder, spec, tally, progress),
        to,
        tally,
        lambda _: spec,
        source=str(source),
        as_files=True,
    )


def _tree(folder: Path, tally: RowTally) -> list[_Found]:
    """The pictures of domain/class/file, by class and then in the order of their names."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent) / name
            parts = path.relative_to(folder).parts
            if path.suffix.lower() not in SUFFIXES or name.startswith("."):
                tally.read += 1
                tally.skip(f"not a picture by its suffix ({path.suffix})", str(Path(*parts)))
            elif len(parts) < 3:
                tally.read += 1
                tally.skip("not in a folder domain/class", str(Path(*parts)))
            else:
                group = "/".join(parts[1:-1]) if len(parts) > 3 else ""
                found.append(_Found(path, parts[0], parts[1], group))
    return sorted(found, key=lambda each: natural_key(str(each.path)))


def _listed(table: Path, path_column: str, columns: RowColumns, tally: RowTally) -> list[_Found]:
    """The pictures that a table names, in its order; a path twice is counted and taken once."""
    found = []
    seen: Counter[Path] = Counter()
    for row in read_rows(table, columns, [path_column], tally):
        try:
            path = table.parent / cell_text(row.values[0])
        except UnicodeDecodeError:
            skip_not_utf8(tally, row.where)
            continue
        seen[path] += 1
        if seen[path] > 1:
            tally.skip("a path that is listed before", row.where)
            continue
        tally.read -= 1  # it is counted when the picture is read
        found.append(_Found(path, row.domain, row.label, row.group))
    return found


def _converted(
    found: Sequence[_Found],
    folder: Path,
    spec: InputSpec,
    tally: RowTally,
    progress: Progress | None,
) -> Iterator[LabelledRow]:
    """The pictures that decode, written below their domains; the others are counted and named."""
    for number, each in enumerate(found):
        if progress is not None:
            progress("pictures", number, len(found))
        tally.read += 1
        try:
            content = each.path.read_bytes()
            picture = decode_picture(str(each.path), content, spec.shape)
        except OSError as error:
            tally.skip(f"file cannot be read ({error.strerror})", str(each.path), unreadable=True)
        except DomainValueError:
            tally.skip("picture does not decode", str(each.path), unreadable=True)
        else:
            name = f"pictures/{number:06d}.png"
            home = folder / "domains" / domain_id_of(each.domain)
            replace_file(home / name, _png(picture), mode=0o600, durable=False)
            yield LabelledRow(
                domain=each.domain,
                label=each.label,
                group=each.group,
                content=content_hash(content),
                value=name,
            )


def _png(picture: AnyArray) -> bytes:
    """A picture (3, height, width) as a file that gives the same pixels."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(packed, "PNG")
    return packed.getvalue()
