"""Text files as blocks of columns: encodings, line ends, quotes and lines of no use.

A cell never runs over lines: a line is a row, so that a stray quote costs its own line alone.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from graft.core.records import IntArray
from graft.data.importers.csv_columns import (
    COMMENT_SIGNS,
    CsvColumns,
    Header,
    column_name,
    find_header,
    row_of,
    split_line,
)
from graft.data.importers.csv_numbers import MISSING, Decimal, number_of
from graft.data.importers.csv_stamps import TimeKind, time_kind
from graft.errors import DatasetFormatError

# Lines that say nothing of readings and part none of them.
COMMENT = "a comment"
_COMMENT = re.compile(rb"(?m)^[ \t\"]*(?:#|%|//)")
_BLOCK_BYTES = 1 << 22
_LONGEST_LINE = 1 << 24
_FORMS = (str.lower, str.upper, str.title, str.capitalize)
_NULLS = sorted({form(word) for word in MISSING for form in _FORMS} | {"NaN"})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """Some rows of a file.

    ``line_L`` are their lines' numbers, ``columns`` the wanted columns by name, numbers or
    strings. ``broken`` are lines between them that are no row: number, reason, what was there.
    """

    line_L: IntArray
    columns: dict[str, pa.Array]
    broken: list[tuple[int, str, str]]

    @property
    def breaks(self) -> list[int]:
        """The numbers of the broken lines that end a stretch: a comment does not."""
        return [number for number, reason, _ in self.broken if reason != COMMENT]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenFile:
    """A file's rows, and what its first lines say: decimal signs, kind of times, a time, all
    columns' names, and in words what is not as usual."""

    rows: Iterator[Rows]
    decimals: Mapping[str, Decimal | None] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    time_kind: TimeKind = "number"
    time_sample: str = ""
    notes: tuple[str, ...] = ()


Advance = Callable[[int], None]


def open_text(path: Path, columns: CsvColumns, advance: Advance) -> OpenFile:
    """Find the header of a text file and read the rows below it; ``advance`` gets bytes read."""
    blocks = _Blocks(path, columns.encoding, advance)
    found = open_blocks(path, blocks, columns)
    if blocks.encoding == "utf-8":
        return found
    return replace(found, notes=(*found.notes, f"read as {blocks.encoding}"))


def open_blocks(path: Path, blocks: Iterator[bytes], columns: CsvColumns) -> OpenFile:
    """The rows of blocks of whole lines in UTF-8."""
    first = next(blocks, b"")
    top = first.decode("utf-8", "replace").split("\n")[:400]
    if "\0" in top[0]:
        raise DatasetFormatError(f"{path}: got bytes that are no text, wanted a table of text")
    header = find_header(path, top, columns)
    kind = time_kind(header.time_sample)
    reader = _RowReader(header)

    def rows() -> Iterator[Rows]:
        number = header.line + 1
        block = _without_lines(first, header.line)
        while block:
            yield reader.read(block, number)
            number += block.count(b"\n")
            block = next(blocks, b"")

    notes = []
    if header.line > 1:
        notes.append(f"the header is line {header.line}")
    if len(header.names) > len(split_line(header.text, header.delimiter) or header.names):
        notes.append("lines begin with a number that the header does not name")
    if "," in header.decimals.values():
        notes.append("numbers with a decimal comma")
    return OpenFile(
        rows=rows(), decimals=header.decimals, names=header.names, time_kind=kind,
        time_sample=header.time_sample, notes=tuple(notes),
    )  # fmt: skip


class _Blocks(Iterator[bytes]):
    """Blocks of whole lines in UTF-8 that end with a line feed each."""

    def __init__(self, path: Path, encoding: str | None, advance: Advance) -> None:
        self._path, self._advance = path, advance
        self._raw = self._read_raw()
        first = next(self._raw, b"")
        self.encoding = encoding or _encoding(path, first)
        self._is_utf8 = self.encoding == "utf-8" and encoding is None
        try:
            decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        except LookupError as error:
            raise DatasetFormatError(
                f"encoding: got {encoding!r}, wanted one that Python knows"
            ) from error
        self._decode = decoder.decode
        self._lines = self._whole_lines(first.removeprefix(codecs.BOM_UTF8))

    def __next__(self) -> bytes:
        return next(self._lines)

    def _read_raw(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                is_packed = file.peek(2)[:2] == b"\x1f\x8b"
                content: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if is_packed else file
                before = 0
                while chunk := content.read(_BLOCK_BYTES):
                    self._advance(file.tell() - before)
                    before = file.tell()
                    yield chunk
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetFormatError(
                f"{self._path}: got {error}, wanted a readable file"
            ) from error

    def _whole_lines(self, first: bytes) -> Iterator[bytes]:
        rest, chunk = b"", first
        while chunk:
            text = rest + (
                chunk if self._is_utf8 else self._decode(chunk).encode("utf-8", "replace")
            )
            held = b"\r" if text.endswith(b"\r") else b""  # the line feed may be in the next chunk
            if b"\r" in text:
                text = text[: len(text) - len(held)]
                text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            end = text.rfind(b"\n") + 1
            if end:
                yield self._as_utf8(text[:end])
            rest = text[end:] + held
            if len(rest) > _LONGEST_LINE:
                raise DatasetFormatError(
                    f"{self._path}: got a line of more than {_LONGEST_LINE} bytes, wanted text"
                )
            chunk = next(self._raw, b"")
        if rest.strip(b"\r"):
            yield self._as_utf8(rest.rstrip(b"\r") + b"\n")

    def _as_utf8(self, lines: bytes) -> bytes:
        """Whole lines; those that are no UTF-8 are Windows-1252, of which Latin-1 is a part."""
        if not self._is_utf8 or lines.isascii():
            return lines
        try:
            lines.decode()
        except UnicodeDecodeError:
            _check_western(self._path, lines)
            self.encoding = "cp1252"
            return b"".join(map(_utf8_line, lines.splitlines(keepends=True)))
        return lines


def _utf8_line(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace").encode()
    return line


def _encoding(path: Path, first: bytes) -> str:
    if first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = first[:65_536]
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if sample and sample[start::2].count(0) > len(sample) / 5:
            return name
    return "utf-8"


def _check_western(path: Path, chunk: bytes) -> None:
    if re.search(rb"\xff\xfe|[\x00-\x08\x0e-\x1a\x81\x8d\x8f\x90\x9d]", chunk):
        raise DatasetFormatError(
            f"{path}: got bytes that are no text, wanted a CSV file in UTF-8, UTF-16 or Latin-1"
        )


def _without_lines(block: bytes, number: int) -> bytes:
    at = 0
    for _ in range(number):
        at = block.find(b"\n", at) + 1
    return block[at:]


class _RowReader:
    """Parses blocks below one header, at once where every line is a row, else line by line."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._names = [f"c{index}" for index in range(header.width)]
        at = {name: self._names[index] for name, index in header.index_of.items()}
        self._own = at
        self._texts = {column: pa.string() for column in at.values()}
        signs = header.decimals
        self._decimal = "," if set(signs.values()) == {","} else "."
        numbers = [name for name, sign in signs.items() if (sign or ".") == self._decimal]
        self._types = {**self._texts, **{at[name]: pa.float64() for name in numbers}}

    def read(self, block: bytes, number: int) -> Rows:
        """``number`` is that of the block's first line."""
        if self._header.delimiter == " ":
            block = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", block))
        for types in (self._types, self._texts):
            try:
                rows = self._read_at_once(block, number, types)
            except pa.ArrowInvalid:
                continue
            return rows if rows is not None else self._read_lines(block, number)
        return self._read_lines(block, number)

    def _read_at_once(
        self, block: bytes, number: int, types: dict[str, pa.DataType]
    ) -> Rows | None:
        """None where a quote does not end on its line, a line is the header again or a comment, or
        one ends with more separators than the others."""
        header = self._header
        quotes = b'"' in block
        if (quotes and _has_open_quote(block)) or (
            header.text.strip() and _again(block, header.text)
        ):
            return None
        broken: list[tuple[int, str, int]] = []
        if _COMMENT.search(block):
            return None

        def skip(row: pa_csv.InvalidRow) -> str:
            broken.append((row.number, row.text, row.actual_columns))
            return "skip"

        table = pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(
                column_names=self._names, use_threads=False, block_size=len(block) + 1
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=header.delimiter, quote_char='"' if quotes else False,
                newlines_in_values=False, invalid_row_handler=skip,
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(types), column_types=types, null_values=_NULLS,
                strings_can_be_null=False, decimal_point=self._decimal,
            ),
        )  # fmt: skip
        filled_N = _filled_lines(block)
        if table.num_rows + len(broken) != len(filled_N):
            return None
        if any(
            row_of(split_line(text, header.delimiter) or [], header.num_cells) is not None
            for _, text, count in broken if count >= header.num_cells
        ):  # fmt: skip
            return None
        bad = [row - 1 for row, _, _ in broken]
        lines = [
            (number + int(filled_N[row - 1]), *_wrong_count(header, count))
            for row, text, count in broken if text.strip(" ")
        ]  # fmt: skip
        columns = {name: table[own].combine_chunks() for name, own in self._own.items()}
        return Rows(line_L=number + np.delete(filled_N, bad), columns=columns, broken=lines)

    def _read_lines(self, block: bytes, number: int) -> Rows:
        header = self._header
        numbers, rows, broken = [], [], []
        for index, line in enumerate(block.decode("utf-8", "replace").split("\n")[:-1], number):
            if not line.strip(" "):
                continue
            cells = split_line(line, header.delimiter)
            row = None if cells is None else row_of(cells, header.num_cells)
            if cells is None:
                broken.append((index, "a quote that does not end on its line", ""))
            elif (
                tuple(map(column_name, cells))[: header.num_cells]
                == header.names[: header.num_cells]
            ):
                broken.append((index, "the header again", ""))
            elif line.lstrip(' "').startswith(COMMENT_SIGNS) and not _has_number(header, row):
                broken.append((index, COMMENT, ""))
            elif row is None:
                broken.append((index, *_wrong_count(header, len(cells))))
            else:
                numbers.append(index)
                rows.append(row)
        columns = {
            name: pa.array([cells[at] for cells in rows], pa.string())
            for name, at in header.index_of.items()
        }
        return Rows(line_L=np.array(numbers, np.int64), columns=columns, broken=broken)


def _has_number(header: Header, row: list[str] | None) -> bool:
    return row is not None and any(
        number_of(row[header.index_of[name]], sign) is not None
        for name, sign in header.decimals.items()
    )


def _wrong_count(header: Header, count: int) -> tuple[str, str]:
    return f"not {header.num_cells} values as the header has", f" with {count}"


def _has_open_quote(block: bytes) -> bool:
    content = np.frombuffer(block, np.uint8)
    quotes_L = np.cumsum(content == ord('"'), dtype=np.int64)[np.flatnonzero(content == ord("\n"))]
    return bool((np.diff(quotes_L, prepend=0) % 2).any())


def _again(block: bytes, text: str) -> bool:
    return b"\n" + text.encode() + b"\n" in b"\n" + block


def _filled_lines(block: bytes) -> IntArray:
    """The indices of the lines that hold something."""
    num_lines = block.count(b"\n")
    if b"\n\n" not in block and not block.startswith(b"\n"):
        return np.arange(num_lines)
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    return np.flatnonzero(np.diff(ends, prepend=-1) > 1)
