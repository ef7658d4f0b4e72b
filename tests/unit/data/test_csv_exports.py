"""What programs and devices export: clocks, signs, headers and marks, read rightly or refused."""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graft.data.folder import FolderWorld
from graft.data.importers.csv import CsvReport, convert_csv
from graft.data.importers.csv_columns import CsvColumns
from graft.data.importers.csv_stamps import StampReader
from graft.data.importers.csv_windows import Windowing
from graft.errors import DatasetFormatError

COUNT = 240
START = datetime(2026, 11, 28, 23, 59, 59)
SMALL = Windowing(rate_hz=100, window=16, step=8, block_s=0.6)


def convert(folder: Path, text: str | bytes, name: str = "p1.csv", **named: Any) -> CsvReport:
    source = folder / "in"
    source.mkdir(exist_ok=True)
    (source / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    columns = CsvColumns(**{"sensors": ("x",), "label": "label", "delimiter": None, **named})
    done = convert_csv(
        source, folder / "out", columns, SMALL, name="m", licence="CC0", overwrite=True
    )
    assert sum(done.account.values()) == done.lines
    return done


def value(i: int) -> float:
    return round(10 * math.sin(i / 3), 3)


def label(i: int) -> str:
    return ("walk", "sit")[i // 60 % 2]


def table(row: Callable[[int], str], head: str = "label,x", count: int = COUNT) -> str:
    return "\n".join([head, *map(row, range(count)), ""])


PLAIN = 4 * 6  # windows of four stretches of 60 lines


def stamp(form: str, sign: str = ".", after: str = "") -> Callable[[int], str]:
    def text(i: int) -> str:
        moment = START + timedelta(milliseconds=10 * i)
        part = f"{sign}{moment.microsecond // 1000:03d}" if sign != "" else ""
        return moment.strftime(form) + part + moment.strftime(after)

    return text


@pytest.mark.parametrize(
    "time",
    [
        stamp("%Y-%m-%dT%H:%M:%S", after="Z"),
        stamp("%Y-%m-%dT%H:%M:%S", after="+01"),
        stamp("%Y-%m-%d %H:%M:%S", after=" CET"),
        stamp("%Y%m%dT%H%M%S"),
        stamp("%d.%m.%Y %H:%M:%S", ","),
        stamp("%d.%m.%Y, %H:%M:%S", ":"),
        stamp("%m/%d/%Y %I:%M:%S", after=" %p"),
        stamp("%d-%b-%Y %H:%M:%S"),
        stamp("%b %d, %Y %H:%M:%S"),
        stamp("%a %b %d %H:%M:%S", after=" %Y"),
        stamp("%a, %d %b %Y %H:%M:%S", after=" GMT"),
        stamp("%H:%M:%S"),
        stamp("%I:%M:%S", after=" %p"),
        stamp("%I:%M:%S"),
        stamp("%M:%S"),
        lambda i: (START + timedelta(milliseconds=10 * i)).isoformat(),
        lambda i: f"{46354.9999 + i / 8_640_000:.11f}",
        lambda i: f"{i * 10 + 1000:,}",
        lambda i: f"{(i * 10 + 65_000) % 65_536}",
        lambda i: f"{i / 100:.3E}",
    ],
)  # fmt: skip
def test_clocks_as_programs_write_them(tmp_path: Path, time: Callable[[int], str]) -> None:
    done = convert(
        tmp_path, table(lambda i: f'"{time(i)}",{label(i)},{value(i)}', "t,label,x"), time="t"
    )
    assert (done.windows, done.account["in windows"]) == (PLAIN, COUNT - 4 * 4)


def test_compact_digits_are_a_date_and_no_number(tmp_path: Path) -> None:
    time = stamp("%Y%m%d%H%M%S")
    rows = table(lambda i: f"{time(i).replace('.', '')},{label(i)},{value(i)}", "t,label,x")
    done = convert(tmp_path, rows, time="t")
    assert (done.windows, done.read_as[0][:21]) == (PLAIN, "t is a date with a ti")


def test_days_and_months_have_one_order_in_a_file(tmp_path: Path) -> None:
    def rows(first: str, second: str) -> str:
        return table(
            lambda i: f"{first if i < 120 else second} 10:0{i // 60}:{i % 60:02d},{label(i)},1.5",
            "t,label,x",
        )

    with pytest.raises(DatasetFormatError, match="wanted one order of day and month"):
        convert(tmp_path, rows("13/01/2026", "01/14/2026"), time="t")
    reader = StampReader("p1.csv", "stamp")
    for first, second, days in (
        ("01/02", "02/02", 1),
        ("01/02", "01/03", 1),
        ("01/02", "01/20", 18),
    ):
        reader = StampReader("p1.csv", "stamp")
        one, two = reader.seconds(pa.array([f"{day}/2026 10:00:00" for day in (first, second)]))
        assert two - one == days * 86_400
    reader = StampReader("p1.csv", "stamp")
    reader.seconds(pa.array(["01/02/2026 10:00:00"]))
    with pytest.raises(DatasetFormatError, match="after '01/02/2026 10:00:00', day first"):
        reader.seconds(pa.array(["01/20/2026 10:00:00"]))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (lambda v: f"{1000 + v:,.2f}", None),
        (lambda v: f"{1000 + v:,.2f}".translate(str.maketrans(",.", ".,")), None),
        (lambda v: f"{1000 + v:,.2f}".replace(",", "\u202f"), None),
        (lambda v: f"{1000 + v:,.2f}".replace(",", "'"), None),
        (lambda v: f"{v:.2f}".replace("-", "\u2212"), None),
        (lambda v: f"{v:.3E}", None),
        (lambda v: f"'{v:.3f}'", None),
        (lambda v: f"{995 + int(v):,}", "the comma may separate thousands or decimals"),
    ],
)
def test_numbers_as_programs_write_them(
    tmp_path: Path, cell: Callable[[float], str], expected: str | None
) -> None:
    text = table(lambda i: f"{label(i)};{cell(value(i))}", "label;x")
    if expected:
        with pytest.raises(DatasetFormatError, match=expected):
            convert(tmp_path, text)
        assert convert(tmp_path, text, decimal=".").windows == PLAIN
        return
    assert convert(tmp_path, text).windows == PLAIN
    x = FolderWorld(tmp_path / "out").load("p1").x[0, 0]
    assert min(abs(x - value(0)).min(), abs(x - 1000 - value(0)).min()) < 0.01
    assert np.ptp(x) < 21


def test_each_column_has_its_own_decimal_sign(tmp_path: Path) -> None:
    def row(i: int) -> str:
        return f"{i / 100:.2f};{label(i)};" + f"{value(i):.2f}".replace(".", ",")

    rows = table(row, "t;label;x")
    assert convert(tmp_path, rows, time="t").windows == PLAIN


ROW = table(lambda i: f"{label(i)},{value(i)}")


@pytest.mark.parametrize(
    "text",
    [
        ROW.replace("\n", ",,,\n").replace("x,,,", "x", 1),
        "".join(line + ("," if at % 3 else "") + "\n" for at, line in enumerate(ROW.split("\n"))),
        "# " + ROW,
        "# a device\n# label,x,more\n" + ROW,
        table(lambda i: f'"{label(i)}", "{value(i)}"'),
        ROW.replace("label,x", 'label,"x\n"'),
        ROW.replace(",", "   "),
        ROW.encode("utf-32"),
        ROW.replace("\n", "\r\r\n"),
    ],
)  # fmt: skip
def test_marks_around_the_values_change_nothing(tmp_path: Path, text: str | bytes) -> None:
    assert convert(tmp_path, text).windows == PLAIN


def test_comments_and_repeated_headers_are_counted(tmp_path: Path) -> None:
    lines = ROW.split("\n")
    lines[30:30] = ["# battery low, 20 %"]
    done = convert(tmp_path, "\n".join(lines[:122] + lines))
    assert done.account["skipped: a comment"] == 2
    assert done.account["skipped: the header again"] == 1
    assert done.windows == 2 * 6 + PLAIN


@pytest.mark.parametrize("head", ["label,y,x", "x,label,y", "label,y,y"])
def test_another_header_in_the_middle_is_refused(tmp_path: Path, head: str) -> None:
    first = table(lambda i: f"{label(i)},{value(i)},9", "label,x,y")
    second = table(lambda i: f"{label(i)},9,{value(i)}", head)
    with pytest.raises(DatasetFormatError, match="line 242: got another header"):
        convert(tmp_path, first + second)


def test_lines_of_another_encoding_are_read_each_by_itself(tmp_path: Path) -> None:
    text = ROW.replace("walk", "größer")
    done = convert(tmp_path, text.encode() + text.encode("latin-1"))
    assert done.classes == ("größer", "sit")


def test_names_that_may_be_one_persons_or_one_class(tmp_path: Path) -> None:
    people = ("007", "7", "Ann", "ann")
    rows = [f"{people[i // 60]},{(1, '1.0', 2)[i % 60 // 20]},{value(i)}" for i in range(240)]
    done = convert(tmp_path, "\n".join(["who,label,x", *rows]), user="who")
    assert sorted(FolderWorld(tmp_path / "out").domain_ids) == ["007", "7", "Ann", "ann-2"]
    assert "'1' and '1.0' differ only in how a number is written" in done.remarks[0]
    assert "'007' and '7'; 'Ann' and 'ann' differ only in case" in done.remarks[-1]


DEVICES = {
    "phyphox": (
        '"Time (s)","Acceleration x (m/s^2)","label"\n',
        lambda i: f"{i / 100:.9E},{value(i):.9E},{label(i)}",
        {"sensors": ("Acceleration x (m/s^2)",), "time": "Time (s)"},
    ),
    "Sensor Logger": (
        "time,seconds_elapsed,z,y,x,label\n",
        lambda i: f"{1764338701000000000 + i * 10_000_000},{i / 100},1,2,{value(i)},{label(i)}",
        {"time": "time"},
    ),
    "Shimmer": (
        '"sep=\t"\nS_Timestamp_Unix_CAL\tS_Accel_LN_X_CAL\tlabel\nms\tm/(s^2)\tno units\n',
        lambda i: f"{1764338701000 + i * 10}.0\t{value(i)}\t{label(i)}\t",
        {"sensors": ("S_Accel_LN_X_CAL",), "time": "S_Timestamp_Unix_CAL"},
    ),
    "ActiGraph": (
        "------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.4 Firmware v3.2.1 date "
        "format M/d/yyyy at 100 Hz  Filter Normal -----------\nSerial Number: MOS2A123\n"
        "Start Time 12:00:00\nStart Date 11/28/2026\nEpoch Period (hh:mm:ss) 00:00:00\n"
        "Download Time 13:00:00\nDownload Date 11/28/2026\nCurrent Memory Address: 0\n"
        "Current Battery Voltage: 4.22     Mode = 12\n"
        "--------------------------------------------------\n"
        "Timestamp,Accelerometer X,label\n",
        lambda i: f"{stamp('%m/%d/%Y %H:%M:%S')(i)},{value(i)},{label(i)}",
        {"sensors": ("Accelerometer X",), "time": "Timestamp"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_files_of_devices(tmp_path: Path, device: str) -> None:
    head, row, named = DEVICES[device]
    done = convert(tmp_path, head + "\n".join(map(row, range(COUNT))), **named)
    assert done.windows == PLAIN


def test_lines_that_begin_with_a_number_that_the_header_does_not_name(tmp_path: Path) -> None:
    def row(i: int) -> str:
        return f'"{i + 1}" {i / 100} "{"get up" if label(i) == "sit" else "walk"}" {value(i)}'

    done = convert(tmp_path, table(row, '"time" "label" "x"'), time="time")
    assert (done.classes, done.windows) == (("get up", "walk"), PLAIN)
    assert "begin with a number" in done.read_as[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"PK\x03\x04\x14\0\0\0\x08\0" * 9, "bytes that are no text"),
        (b'"time,label,x"\n"0,sit,1"\n', "is each line in quotes"),
    ],
)
def test_what_is_no_table_says_why(tmp_path: Path, text: bytes, words: str) -> None:
    with pytest.raises(DatasetFormatError, match=words):
        convert(tmp_path, text, time="time")


def test_a_file_without_a_header_says_what_to_do(tmp_path: Path) -> None:
    empatica = "1544027337.0, 1544027337.0, 1544027337.0\n32.0, 32.0, 32.0\n-5, 23, 12\n"
    with pytest.raises(DatasetFormatError, match="write a line with the 3 columns' names"):
        convert(tmp_path, empatica)
