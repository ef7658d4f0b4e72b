"""Tables of texts and vectors as domain folders: every row accounted for."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.importers.labelled import Destination, ImportReport
from graft.data.importers.table import RowColumns
from graft.data.importers.texts import import_table
from graft.data.stream_columns import texts_of
from graft.errors import ConfigError, DataError, DatasetFormatError

COLUMNS = RowColumns(domain="shop", label="stars", group="author")
PLAIN = RowColumns(domain="shop", label="stars")


def convert(
    source: Path, out: Path, columns: RowColumns = PLAIN, share: float = 0.02, **options: object
) -> ImportReport:
    to = Destination(out=out, name="reviews", licence="mine", max_unreadable=share)
    return import_table(source, to, columns, **options)  # type: ignore[arg-type]


def reviews(rows: int = 6) -> list[dict[str, object]]:
    return [
        {
            "shop": shop,
            "stars": row % 2,
            "author": f"person {row // 2}",
            "said": f"{shop} №{row}, ok",
        }
        for shop in ("books", "tools")
        for row in range(rows)
    ]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_texts_of_every_format_give_one_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    rows = reviews()
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        mark = "," if suffix == "csv" else "\t"
        lines = [mark.join(f'"{value}"' for value in row.values()) for row in rows]
        path.write_text("\ufeff" + "\n".join([mark.join(rows[0]), *lines]))
    report = convert(path, tmp_path / "out", COLUMNS, text="said")
    world = FolderWorld(tmp_path / "out")
    assert (report.rows_read, report.rows_kept, report.domains) == (12, 12, 2)
    assert world.task.classes == ("0", "1")
    assert world.task.inputs[0].is_text
    data = world.load("tools")
    assert texts_of(data.x)[5] == "tools №5, ok"
    assert (data.y_N.tolist(), data.group_N.tolist()) == ([0, 1] * 3, [0, 0, 1, 1, 2, 2])
    assert not any(finding.is_problem for finding in explain_folder(tmp_path / "out"))


def test_rows_that_are_no_utf8_or_have_no_label_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [b"shop,stars,said"]
    lines += [
        f"{row['shop']},{row['stars']},{row['said']!r}".replace(", ok", "").encode()
        for row in reviews(50)
    ]
    lines += [b"books,1,caf\xe9", b"books,,fine", b"books,1", b"books,1,", b"b\xff,1,fine"]
    path.write_bytes(b"\n".join(lines))
    report = convert(path, tmp_path / "out", text="said", share=0.03)
    assert (report.rows_read, report.rows_kept) == (105, 100)
    assert [words.partition(", first")[0] for words in report.skipped] == [
        "1 row: no stars",
        "1 row: no text",
        "1 row: not 3 values as the header has",
        "2 rows: text that is not UTF-8",
    ]
    with pytest.raises(DatasetFormatError, match=r"got 3 of 105 rows .*\(--max-unreadable\)"):
        convert(path, tmp_path / "other", text="said")
    json_path = tmp_path / "table.jsonl"
    json_path.write_bytes(b'{"shop": "a"}\n[1]\n{"said": "\xff"}\n{"said": "\\ud800"}\n')
    with pytest.raises(DatasetFormatError, match="wanted 'stars' once among them"):
        convert(json_path, tmp_path / "other", text="said")


def test_long_texts_stay_whole_and_equal_ones_are_one_group(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    rows = [*reviews(), {"shop": "books", "stars": 1, "said": "é" * 40}]
    rows += [{"shop": "books", "stars": 1, "said": "books №1, ok"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = convert(path, tmp_path / "out", text="said", max_bytes=33)
    data = FolderWorld(tmp_path / "out").load("books")
    assert data.x.shape == (8, 33)
    assert texts_of(data.x)[6] == "é" * 16  # no half of a character
    assert (
        pq.read_table(tmp_path / "out" / "domains" / "books.parquet")["text"][6].as_py() == "é" * 40
    )
    assert data.group_N.tolist() == [0, 1, 2, 3, 4, 5, 6, 1]
    assert report.remarks == (
        "1 texts are longer than the 33 bytes that a model reads",
        "1 rows repeat another of their domain",
    )


def test_vectors_come_from_a_list_or_from_columns(tmp_path: Path) -> None:
    rows = [
        {"shop": shop, "stars": row % 2, "v": [row, 2.5, -1.0], "a": row, "b": 2.5}
        for shop in ("books", "tools")
        for row in range(4)
    ]
    listed, flat = tmp_path / "table.parquet", tmp_path / "table.csv"
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "v": [1.0, None, 2.0]},
                                         {**rows[0], "v": [1.0]}]), listed)  # fmt: skip
    report = convert(listed, tmp_path / "a", vector=["v"], share=0.5)
    data = FolderWorld(tmp_path / "a").load("tools")
    assert data.x.tolist() == [[row, 2.5, -1.0] for row in range(4)]
    assert data.x.dtype == np.float32
    assert [words.partition(", first")[0] for words in report.skipped] == [
        "1 row: a vector of another length than 3", "1 row: no vector of finite numbers",
    ]  # fmt: skip
    flat.write_text("\n".join(["shop,stars,a,b,v",
        *(f"{r['shop']},{r['stars']},{r['a']},{r['b']},\"[{r['a']}, 7]\"" for r in rows)]))  # fmt: skip
    convert(flat, tmp_path / "b", vector=["a", "b"])
    assert FolderWorld(tmp_path / "b").load("books").x.tolist() == [[row, 2.5] for row in range(4)]
    convert(flat, tmp_path / "c", vector=["v"])
    assert FolderWorld(tmp_path / "c").load("books").x.tolist() == [[row, 7] for row in range(4)]
    assert FolderWorld(tmp_path / "b").task.inputs[0].kind == "vector"


def test_what_cannot_be_is_one_typed_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("shop,stars,said\n" + "\n".join(f"a,{row},text" for row in range(4)))
    for options in ({}, {"text": "said", "vector": ["stars"]}):
        with pytest.raises(ConfigError, match="wanted one of them"):
            convert(path, tmp_path / "out", **options)
    with pytest.raises(DataError, match="wanted one apart from it"):
        convert(path, tmp_path, text="said")
    with pytest.raises(DatasetFormatError, match="wanted 'words' once among them"):
        convert(path, tmp_path / "out", text="words")
    with pytest.raises(DatasetFormatError, match="got no row with a vector"):
        convert(path, tmp_path / "out", vector=["said"])
    for name, content in (("x.parquet", b"PAR1 torn"), ("x.xlsx", b""), ("x.csv", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetFormatError) as raised:
            convert(tmp_path / name, tmp_path / "out", text="said")
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "TABLE.JSONL"
    path.write_text("\n".join(json.dumps(row) for row in reviews()))
    assert convert(path, tmp_path / "out", text="said").rows_kept == 12
