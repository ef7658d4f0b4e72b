"""Files as people bring them: each kind of trouble has its right value, or one line that names it."""

import gzip
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from graft.cli.main import app
from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.importers.csv import CsvReport, convert_csv
from graft.data.importers.csv_columns import CsvColumns
from graft.data.importers.csv_windows import Windowing
from graft.errors import DataError, DatasetFormatError

Write = Callable[[str, Iterable[str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, lines: Iterable[str], encoding: str = "utf-8") -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*lines, ""]), encoding)
        return tmp_path / "in"

    return write_file


def readings(
    time: Callable[[int], object] | None, count: int = 2400, labels: Sequence[str] = ("walk", "sit")
) -> list[str]:
    """A header and lines whose label changes every 600 lines."""
    head = "time,label,x" if time else "label,x"
    lines = [f"{labels[i // 600 % 2]},{math.sin(i / 3):.4f}" for i in range(count)]
    return [head, *(f"{time(i)},{line}" if time else line for i, line in enumerate(lines))]


def convert(
    source: Path, *, rate: float = 100, max_gap: float | None = None, **named: Any
) -> CsvReport:
    columns = CsvColumns(**{"sensors": ("x",), "label": "label", "delimiter": None, **named})
    windowing = Windowing(rate_hz=rate, max_gap_s=max_gap)
    done = convert_csv(
        source, source.parent / "out", columns, windowing, name="m", licence="CC0", overwrite=True
    )
    assert sum(done.account.values()) == done.lines
    return done


@pytest.mark.parametrize(
    ("factor", "unit", "start"),
    [
        (0.01, "s", 0),
        (10, "ms", 0),
        (1e4, "us", 0),
        (1e7, "ns", 0),
        (0.01, "s", 1.7e9),
        (10, "ms", 1.7e12),
    ],
)
def test_the_unit_of_times_is_inferred_said_and_checked(
    write: Write, factor: float, unit: str, start: float
) -> None:
    source = write(
        "p1.csv",
        readings(
            lambda i: f"{start + i * factor:.10g}" if start < 1e9 else f"{start + i * factor:.2f}"
        ),
    )
    done = convert(source, time="time")
    assert done.windows == 4 * 8
    assert any(f"time is in {unit} (inferred)" in text for text in done.read_as)
    wrong = "ms" if unit == "s" else "s"
    with pytest.raises(DatasetFormatError, match=rf"is --time-unit {unit}\?") as caught:
        convert(source, time="time", time_unit=wrong)
    assert "\n" not in str(caught.value)


def test_files_of_unlike_units_are_refused(write: Write) -> None:
    write("p1.csv", readings(lambda i: i * 10))
    source = write("p2.csv", readings(lambda i: i / 100))
    with pytest.raises(DatasetFormatError, match="wanted one unit in all files"):
        convert(source, time="time")


def test_a_rate_more_than_twice_the_lines_own_is_refused(write: Write) -> None:
    source = write(
        "p1.csv", readings(lambda i: f"2023-11-14T10:{i // 2400:02d}:{i / 40 % 60:06.3f}")
    )
    with pytest.raises(DatasetFormatError, match="Is --rate 40 meant"):
        convert(source, time="time", rate=100)
    assert convert(source, time="time", rate=40).windows > 0


def test_lines_of_one_whole_second_are_spread_and_named(write: Write, tmp_path: Path) -> None:
    lines = [
        f"{1_700_000_000 + i // 40},{('walk', 'sit')[i // 1200 % 2]},{math.sin(2 * math.pi * 0.2 * i) if i // 1200 % 2 == 0 else 0:.4f}"
        for i in range(4800)
    ]
    done = convert(write("p1.csv", ["time,label,x", *lines]), time="time", rate=40)
    assert any("40 lines share a time or arrive" in text for text in done.read_as)
    x = FolderWorld(tmp_path / "out").load("p1").x
    assert float(x.std()) > 0.4  # the 8 Hz walk is there
    assert done.windows <= 4800 // 64


@pytest.mark.parametrize("apart_ms", [0, 1])
def test_lines_that_arrive_in_bursts_are_spread(
    write: Write, tmp_path: Path, apart_ms: int
) -> None:
    source = write("p1.csv", readings(lambda i: i // 10 * 100 + apart_ms * (i % 10)))
    done = convert(source, time="time")
    assert any("10 lines share a time or arrive together" in text for text in done.read_as)
    found = FolderWorld(tmp_path / "out").load("p1").x
    convert(write("p1.csv", readings(None)))
    np.testing.assert_allclose(found, FolderWorld(tmp_path / "out").load("p1").x, atol=1e-3)


def test_times_that_a_spreadsheet_shortened_are_named(write: Write) -> None:
    source = write("p1.csv", readings(lambda i: "1.70E+12"))
    with pytest.raises(DatasetFormatError, match="a spreadsheet shortened it"):
        convert(source, time="time")
    source = write("p1.csv", readings(lambda i: "12"))
    with pytest.raises(DatasetFormatError, match="too coarse a clock"):
        convert(source, time="time")


def test_two_lines_of_each_time_at_the_rate_are_two_sensors_or_people(write: Write) -> None:
    source = write("p1.csv", readings(lambda i: i // 2 * 10))
    with pytest.raises(DatasetFormatError, match="2 lines of each time"):
        convert(source, time="time")


def test_a_stray_quote_costs_its_own_line_and_is_named(write: Write) -> None:
    lines = [f"{line},{'a note' if i else 'note'}" for i, line in enumerate(readings(None))]
    lines[300] = lines[300].replace("a note", '"strap loose')
    done = convert(write("p1.csv", lines))
    assert (done.lines, done.windows) == (2400, 32 - 2)
    assert done.skipped == (
        "p1.csv: 1 line skipped: a quote that does not end on its line, first line 301",
    )


def test_pauses_that_leave_no_window_are_counted_and_filled_on_demand(write: Write) -> None:
    lines = [
        line for i, line in enumerate(readings(lambda i: f"{i / 100:.2f}")) if not i or i % 100 >= 4
    ]
    write("p2.csv", readings(lambda i: f"{i / 100:.2f}"))
    source = write("p1.csv", lines)
    done = convert(source, time="time")
    assert done.account["cut by pauses: too short for a window"] == 2304
    assert "cut at 20 pauses of more than 0.03 s, longest unbroken 96 lines" in done.left_out[0]
    assert "--max-gap 0.051" in done.remarks[0]
    filled = convert(source, time="time", max_gap=0.051)
    assert filled.domains == 2
    assert any("missing lines in gaps" in text for text in filled.read_as)


def test_every_kind_of_file_gives_the_same_windows(write: Write, tmp_path: Path) -> None:
    lines = readings(lambda i: i * 10)
    plain = convert(write("p1.csv", lines), time="time")
    wanted = FolderWorld(tmp_path / "out").load("p1").x
    source = tmp_path / "in"
    table = pa_csv.read_csv(source / "p1.csv")
    kinds: dict[str, Callable[[Path], object]] = {
        "P1.CSV": lambda path: path.write_text("\n".join(lines), "utf-16"),
        "p1.csv.gz": lambda path: path.write_bytes(gzip.compress("\n".join(lines).encode())),
        "p1.tsv": lambda path: path.write_text("\n".join(lines).replace(",", "\t"), "utf-8"),
        "p1.txt": lambda path: path.write_text("\r\n".join(lines).replace(",", ";").replace(".", ","), "latin-1"),
        "p1.parquet": lambda path: pq.write_table(table, path),
        "p1.xlsx": lambda path: _sheet(path, table),
    }  # fmt: skip
    before = source / "p1.csv"
    for name, make in kinds.items():
        before.unlink()
        before = source / name
        make(before)
        assert convert(source, time="time").windows == plain.windows, name
        (domain_id,) = FolderWorld(tmp_path / "out").domain_ids
        np.testing.assert_allclose(
            FolderWorld(tmp_path / "out").load(domain_id).x, wanted, atol=1e-6
        )


def _sheet(path: Path, table: pa.Table) -> None:
    book = openpyxl.Workbook()
    book.active.append(table.column_names)
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        book.active.append(row)
    book.save(path)


def test_hidden_companions_are_no_recordings_and_others_are_named(write: Write) -> None:
    for name in ("P1.CSV", "sub/p2.csv"):
        write(name, readings(None))
    for name in ("._P1.CSV", ".DS_Store", "Thumbs.db", "__MACOSX/p1.csv", "readme.txt", "a.pdf"):
        write(name, ["\0\0"])
    done = convert(write("sub/~$x.csv", ["no"]))
    assert done.domains == 2
    assert done.passed_over == ("a.pdf", "readme.txt", "5 hidden files of an operating system")


def test_names_stand_as_in_the_file_below_a_preamble_and_above_units(write: Write) -> None:
    lines = ["Exported by an app;v2", "", "Time since start in ms ;X (m/s²) ;label", "ms;m/s²;"]
    lines += [f"{i * 10};{i % 9},5;{('walk', 'sit')[i // 600 % 2]}" for i in range(1200)]
    source = write("p1.csv", lines)
    done = convert(source, sensors=("X (m/s²)",), time="Time since start in ms ")
    assert (done.lines, done.account["skipped: a row of units or names below the header"]) == (
        1201,
        1,
    )
    assert any("decimal comma" in text for text in done.read_as)
    assert (
        convert(source, sensors=("x (M/S²) ",), time=" TIME since start in ms").windows
        == done.windows
    )


def test_paths_state_people_and_labels(write: Write, tmp_path: Path) -> None:
    for who in ("Jörg Müller", "s2"):
        for what in ("walk", "sit"):
            write(f"{who}/{what}.csv", ["x", *map(str, range(600))])
    source = write("notes.csv", ["x", "1"])
    done = convert(source, label=None, path="{user}/{label}")
    assert done.renamed == {"Jörg Müller": "Jorg-Muller"}
    assert done.passed_over == ("notes.csv (not {user}/{label})",)
    world = FolderWorld(tmp_path / "out")
    assert world.person("Jorg-Muller") == "Jörg Müller"
    assert world.task.classes == ("sit", "walk")


@pytest.mark.parametrize("time", [None, "time"])
def test_somebody_without_a_usable_line_is_left_out(write: Write, time: str | None) -> None:
    write("p1.csv", readings(lambda i: i * 10))
    source = write("p2.csv", ["time,label,x", *["5,walk,"] * 30])
    for max_gap in (None, 0.05):
        done = convert(source, time=time, max_gap=max_gap)
        assert done.left_out == ("p2: no whole window, wanted two classes or more",)
        assert done.account["skipped: x is not a number"] == 30


def test_words_for_a_missing_value_are_no_class_unless_they_are_named(write: Write) -> None:
    lines = readings(None, labels=("walk", "None")) + readings(None, labels=("sit", "n/a"))[1:]
    source = write("p1.csv", lines)
    assert convert(source).classes == ("sit", "walk")
    assert convert(source, map_label={"None": "None", "n/a": "None"}).classes == (
        "None",
        "sit",
        "walk",
    )
    done = convert(source, map_label={"None": "rest", "n/a": ""})
    assert done.classes == ("rest", "sit", "walk")
    assert done.account["skipped: a label that is left out by --map-label"] == 1200


def test_names_of_one_class_and_classes_of_one_domain_are_remarks(
    write: Write, tmp_path: Path
) -> None:
    write("p1.csv", readings(None, labels=("walk", "sit_down")))
    source = write("p2.csv", readings(None, labels=("Walk", "sit down")))
    done = convert(source)
    assert "'walk' and 'Walk' differ only in case; --map-label Walk=walk" in done.remarks[0]
    assert "differ only in signs, blanks or accents" in done.remarks[1]
    assert done.remarks[2].startswith("4 classes are in one domain alone")
    found = [finding.what for finding in explain_folder(tmp_path / "out")]
    assert set(done.remarks) <= set(found)


def test_lines_out_of_order_are_sorted_and_a_second_take_is_not(
    write: Write, tmp_path: Path
) -> None:
    lines = readings(lambda i: i * 10)
    plain = convert(write("p1.csv", lines), time="time")
    wanted = FolderWorld(tmp_path / "out").load("p1").x
    mixed = [lines[0], *lines[7:1:-1], lines[1], *lines[8:]]
    done = convert(write("p1.csv", mixed), time="time")
    assert any("out of order" in text for text in done.read_as)
    np.testing.assert_array_equal(FolderWorld(tmp_path / "out").load("p1").x, wanted)
    again = convert(write("p1.csv", [*lines, *lines[1:]]), time="time")
    assert again.windows == 2 * plain.windows


def test_sensors_of_unlike_rates_are_read_at_their_own(write: Write, tmp_path: Path) -> None:
    lines = ["time,label,x,y"]
    for i in range(2400):
        y = f"{i}" if i % 4 == 0 else ""
        lines.append(f"{i * 10},{('walk', 'sit')[i // 600 % 2]},{i},{y}")
    done = convert(write("p1.csv", lines), sensors=("x", "y"), time="time")
    assert done.windows == 32
    x = FolderWorld(tmp_path / "out").load("p1").x
    np.testing.assert_allclose(x[0, 1, :120], x[0, 0, :120], atol=1e-3)


def test_windows_that_are_straight_lines_are_a_remark(write: Write, tmp_path: Path) -> None:
    source = write("p1.csv", readings(None))
    convert(source)
    folder = tmp_path / "out"
    assert not [f for f in explain_folder(folder) if "straight" in f.what]
    coarse = np.interp(
        np.arange(2400), np.arange(0, 2400, 50), np.random.default_rng(0).normal(size=48)
    )
    lines = [f"{('walk', 'sit')[i // 600 % 2]},{value:.7f}" for i, value in enumerate(coarse)]
    convert(write("p1.csv", ["label,x", *lines]))
    assert any("32 of 32 windows are straight lines" in f.what for f in explain_folder(folder))


def test_what_is_no_table_is_one_line(write: Write, tmp_path: Path) -> None:
    write("p1.csv", [])
    for name, content in (
        ("p1.csv", b""), ("p1.csv", bytes(range(256)) * 40), ("p1.csv.gz", b"\x1f\x8bno"),
        ("p1.parquet", b"PAR1"), ("p1.xlsx", b"PK"), ("p1.csv", b"label,x\n" + b'"' * 200_000),
    ):  # fmt: skip
        path = tmp_path / "in" / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            convert(path, time=None)
        assert "\n" not in str(caught.value)
        path.unlink()


def test_the_command_prints_the_account_and_refuses_the_source(
    write: Write, tmp_path: Path
) -> None:
    source = write("p1.csv", readings(None))
    words = ["data", "from-csv", str(source), "--label", "label", "--sensors", "x", "--rate", "100"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--format", "json"])
    facts = json.loads(done.stdout)
    assert sum(facts["account"].values()) == facts["lines"] == 2400
    table = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "two")]).stdout
    assert "2,304 (96.0 %) in windows" in table
    for out in (source, tmp_path, source / "out"):
        with pytest.raises(DataError, match="the source"):
            CliRunner().invoke(
                app,
                [*words, "--out", str(out), "--overwrite"],
                catch_exceptions=False,
                standalone_mode=False,
            )
    assert (source / "p1.csv").exists()


def test_an_output_that_is_no_folder_or_another_name_of_the_source_is_refused(
    write: Write, tmp_path: Path
) -> None:
    source = write("p1.csv", readings(None)) / "p1.csv"
    os.mkfifo(tmp_path / "pipe")
    os.link(source, tmp_path / "again.csv")
    (tmp_path / "link").symlink_to(source.parent)
    columns = CsvColumns(sensors=("x",), label="label")
    for out, words in (
        (tmp_path / "pipe", "a device or socket"), (tmp_path / "again.csv" / "out", "source"),
        (tmp_path / "again.csv", "is the source"), (tmp_path / "link" / "p1.csv", "is the source"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words):
            convert_csv(source, out, columns, Windowing(rate_hz=100), name="m", licence="CC0",
                        overwrite=True)  # fmt: skip
    assert (tmp_path / "pipe").is_fifo()
    assert source.read_text("utf-8") == (tmp_path / "again.csv").read_text("utf-8")
