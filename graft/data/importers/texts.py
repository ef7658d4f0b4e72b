"""Rows of a table -> a domain folder: a column of texts, or columns that make a vector."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.core.outputs import check_output
from graft.core.tasks import InputSpec
from graft.data.importers.accounting import RowTally, check_share_option
from graft.data.importers.labelled import (
    Destination,
    ImportReport,
    LabelledRow,
    Progress,
    content_hash,
    write_labelled,
)
from graft.data.importers.table import RowCells, RowColumns, cell_text, read_rows, skip_not_utf8
from graft.errors import ConfigError, DatasetFormatError

_SHOW_EVERY = 4096


def import_table(
    source: Path,
    to: Destination,
    columns: RowColumns,
    *,
    text: str | None = None,
    vector: Sequence[str] = (),
    max_bytes: int = 4096,
    progress: Progress | None = None,
) -> ImportReport:
    """Write the domain folder ``to.out`` from a CSV, TSV, Parquet or JSON lines file.

    Parameters
    ----------
    source
        The table, UTF-8.
    to
        The domain folder, and the share of rows that may be no text or no vector.
    columns
        Those of domain, label and group.
    text
        The column of texts.
    vector
        Instead: a column of lists of numbers, or several columns of one number each.
    max_bytes
        The longest sample of text, in bytes of UTF-8: of a longer text, which is kept whole in the
        folder, a model reads the first whole characters within it.
    progress
        Called with what is done, the number done and the number in all (0: not known).

    Raises
    ------
    ConfigError
        For none or both of ``text`` and ``vector``, and numbers that cannot be.
    DataError
        ``to.out`` holds something, or is not apart from the source.
    DatasetFormatError
        The table is missing or damaged, lacks a column, or too many rows cannot be read.
    DomainEmptyError
        No domain has two classes.
    """
    if (text is None) == (not vector):
        raise ConfigError(f"columns: got text {text!r} and vector {[*vector]}, wanted one of them")
    if max_bytes < 1:
        raise ConfigError(f"max-bytes: got {max_bytes}, wanted 1 or more")
    check_share_option(to.max_unreadable)
    check_output(to.out, [source])
    tally = RowTally()
    lengths: list[int] = []

    def rows(_: Path) -> Iterator[LabelledRow]:
        cells = _shown(read_rows(source, columns, [text] if text else vector, tally), progress)
        if text is None:
            return _vector_rows(cells, source, tally)
        return _text_rows(cells, tally, lengths)

    def spec_of(kept: Sequence[LabelledRow]) -> InputSpec:
        if text is None:
            shape = kept[0].value.shape
            return InputSpec(name="vector", kind="vector", shape=shape, modality="vector")
        longest = (min(max_bytes, max(lengths)),)
        return InputSpec(name="text", kind="tokens", shape=longest, dtype="uint8", modality="text")

    def remarks() -> Iterator[str]:
        longer = sum(length > max_bytes for length in lengths)
        if longer:
            yield f"{longer} texts are longer than the {max_bytes} bytes that a model reads"

    return write_labelled(rows, to, tally, spec_of, source=str(source), remarks=remarks)


def _text_rows(
    cells: Iterator[RowCells], tally: RowTally, lengths: list[int]
) -> Iterator[LabelledRow]:
    for row in cells:
        try:
            value = cell_text(row.values[0]).strip().replace("\0", " ")
            content = value.encode("utf-8")
        except UnicodeError:  # no UTF-8, or a half of a surrogate pair in JSON
            skip_not_utf8(tally, row.where)
            continue
        if not content:
            tally.skip("no text", row.where)
            continue
        lengths.append(len(content))
        yield _labelled(row, content, value)


def _vector_rows(cells: Iterator[RowCells], source: Path, tally: RowTally) -> Iterator[LabelledRow]:
    """The rows with a vector of the usual length."""
    read: list[tuple[RowCells, npt.NDArray[np.float32]]] = []
    for row in cells:
        vector = _vector(row.values)
        if vector is None:
            tally.skip("no vector of finite numbers", row.where, unreadable=True)
        else:
            read.append((row, vector))
    lengths = Counter(len(vector) for _, vector in read)
    if not lengths:
        raise DatasetFormatError(
            f"{source}: got no row with a vector, wanted one at least; " + "; ".join(tally.words())
        )
    usual = min(lengths, key=lambda length: (-lengths[length], length))
    for row, vector in read:
        if len(vector) == usual:
            yield _labelled(row, vector.tobytes(), vector)
        else:
            tally.skip(f"a vector of another length than {usual}", row.where, unreadable=True)


def _labelled(row: RowCells, content: bytes, value: Any) -> LabelledRow:
    return LabelledRow(
        domain=row.domain,
        label=row.label,
        group=row.group,
        content=content_hash(content),
        value=value,
    )


def _vector(cells: Sequence[Any]) -> npt.NDArray[np.float32] | None:
    """The numbers of one cell that holds a list, or of several; None where they are none."""
    try:
        if len(cells) == 1 and isinstance(cells[0], bytes | str):
            cells = cell_text(cells[0]).replace(",", " ").strip("[] \t").split()
        elif len(cells) == 1 and isinstance(cells[0], Sequence):
            cells = cells[0]
        with np.errstate(over="ignore"):  # a number too large for float32 is found below
            vector = np.array(cells, np.float64).astype(np.float32)
    except (TypeError, ValueError):
        return None
    return vector if vector.ndim == 1 and len(vector) and np.isfinite(vector).all() else None


def _shown(cells: Iterator[RowCells], progress: Progress | None) -> Iterator[RowCells]:
    for number, row in enumerate(cells):
        if progress is not None and number % _SHOW_EVERY == 0:
            progress("rows", number, 0)
        yield row
