"""Labels of intervals in a file of their own: every line has its label, or is counted."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from graft.cli.main import app
from graft.data.folder import FolderWorld
from graft.data.importers.csv import CsvReport, convert_csv
from graft.data.importers.csv_columns import CsvColumns, label_file
from graft.data.importers.csv_windows import Windowing
from graft.errors import ConfigError, DataError, DatasetFormatError

RATE, WINDOW = 10, 10
START = datetime.datetime(2026, 3, 29, 10, tzinfo=datetime.UTC)
INTERVALS = ("ann,0,20,sit", "ann,20,40,walk", "ann,50,70,sit", "bob,0,30,walk", "bob,30,60,sit")


def recordings(
    folder: Path, time: Callable[[float], object] = "{:.1f}".format, seconds: int = 80
) -> Path:
    """A minute and more of two people; the reading is the second."""
    source = folder / "in"
    source.mkdir(exist_ok=True)
    for person in ("ann", "bob"):
        lines = [f"{time(i / RATE)};{i // RATE}" for i in range(seconds * RATE)]
        (source / f"{person}.csv").write_text("\n".join(["t;x", *lines, ""]), "utf-8")
    return source


def labels(folder: Path, *lines: str, head: str = "user,start,end,label") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([head, *(lines or INTERVALS), ""]), "utf-8")
    return path


def convert(source: Path, path: Path, *, shift: str = "0", **named: Any) -> CsvReport:
    columns = CsvColumns(
        sensors=("x",), time="t", delimiter=None, intervals=label_file(path, "start,end", shift),
        **named,
    )  # fmt: skip
    windowing = Windowing(rate_hz=RATE, window=WINDOW, step=WINDOW, block_s=2)
    done = convert_csv(
        source, source.parent / "out", columns, windowing, name="m", licence="CC0", overwrite=True
    )
    assert sum(done.account.values()) == done.lines
    return done


def labelled(folder: Path, person: str) -> dict[str, set[int]]:
    """The seconds that windows of each label begin in."""
    world = FolderWorld(folder / "out")
    data = world.load(person)
    seconds: dict[str, set[int]] = {}
    for x, y in zip(data.x[:, 0, 0], data.y_N, strict=True):
        seconds.setdefault(world.task.classes[y], set()).add(int(x))
    return seconds


WANTED = {"sit": {*range(20), *range(50, 70)}, "walk": {*range(20, 40)}}


def test_each_line_has_the_label_of_its_interval(tmp_path: Path) -> None:
    done = convert(recordings(tmp_path), labels(tmp_path))
    assert labelled(tmp_path, "ann") == WANTED
    assert labelled(tmp_path, "bob") == {"walk": {*range(30)}, "sit": {*range(30, 60)}}
    assert done.account == {"in windows": 1200, "in no interval with a label": 400}


def test_a_line_of_two_labels_is_counted_and_two_intervals_of_one_are_one(tmp_path: Path) -> None:
    path = labels(tmp_path, "ann,0,20,sit", "ann,16,40,walk", "ann,30,50,walk", "bob,0,30,walk",
                  "bob,30,60,sit", "cat,0,30,sit", "bob,60,60,sit", "bob,70,NaN,sit",
                  "bob,70,80,nan", "bob,70,80,")  # fmt: skip
    done = convert(recordings(tmp_path), path)
    assert labelled(tmp_path, "ann") == {"sit": {*range(16)}, "walk": {*range(20, 50)}}
    assert done.account["in intervals of two labels"] == 40
    assert any("1 of 6 intervals hold no line, first line 7" in text for text in done.remarks)
    assert len(done.skipped) == 3
    assert "labels.csv: 2 lines skipped: no label, first line 10" in done.skipped


def stamp(zone: str | None, form: str = "%Y-%m-%d %H:%M:%S.%f") -> Callable[[float], str]:
    """Times of a zone that is stated; or of none, at that many hours from UTC."""
    hours = int(zone or 0)
    shift = datetime.timezone(datetime.timedelta(hours=hours))
    return lambda s: (
        (START + datetime.timedelta(seconds=s)).astimezone(shift).strftime(form)
        + (f"{hours:+03d}:00" if zone else "")
    )


@pytest.mark.parametrize(
    ("line", "interval"),
    [
        (lambda s: f"{START.timestamp() * 1000 + s * 1000:.0f}", stamp("+2")),
        (stamp("+1"), lambda s: f"{START.timestamp() + s:.0f}"),
        (stamp(None), stamp("-5")),
        (lambda s: f"{s * 1000:.0f}", lambda s: s),
        (lambda s: s, lambda s: f"{s * 1e9:.0f}"),
        (lambda s: s, lambda s: f"{s:.3f}".replace(".", ",")),
        (stamp(None, "%H:%M:%S.%f"), stamp(None, "%d.%m.%Y %H:%M:%S")),
        (lambda s: stamp(None, "%H:%M:%S.%f")(s + 50_360), lambda s: stamp(None, "%H:%M:%S")(s + 50_360)),
    ],
)  # fmt: skip
def test_clocks_of_lines_and_intervals_may_be_unlike(
    tmp_path: Path, line: Callable[[float], object], interval: Callable[[float], object]
) -> None:
    own = [text.split(",") for text in INTERVALS]
    texts = [f"{a};{interval(float(b))};{interval(float(c))};{d}" for a, b, c, d in own]
    convert(recordings(tmp_path, line), labels(tmp_path, *texts, head="user;start;end;label"))
    assert labelled(tmp_path, "ann") == WANTED


def test_another_clock_is_refused_with_a_guess_and_a_shift_sets_it(tmp_path: Path) -> None:
    source = recordings(tmp_path, lambda s: f"{START.timestamp() + s:.1f}")
    own = [text.split(",") for text in INTERVALS]
    local = stamp(None)
    path = labels(tmp_path, *(f"{a},{local(7200 + float(b))},{local(7200 + float(c))},{d}"
                              for a, b, c, d in own))  # fmt: skip
    with pytest.raises(DatasetFormatError, match="is --label-shift -7200 meant, another zone"):
        convert(source, path)
    convert(source, path, shift="-7200")
    assert labelled(tmp_path, "ann") == WANTED
    path = labels(tmp_path)
    with pytest.raises(DatasetFormatError, match="0 of 5 intervals that hold a line"):
        convert(source, path)
    convert(source, path, shift="start")
    assert labelled(tmp_path, "ann") == WANTED


def test_sessions_and_columns_of_people_are_matched_by_name(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    lines = ["who;run;t;x"]
    for person, run in (("ann", "a"), ("ann", "b"), ("Jörg", "a")):
        lines += [f"{person};{run};{i / RATE};{i // RATE}" for i in range(40 * RATE)]
    (source / "all.csv").write_text("\n".join([*lines, ""]), "utf-8")
    texts = ["ann,a,0,20,sit", "ann,b,0,20,walk", "Jörg,a,0,20,sit", "Jörg,a,20,40,walk"]
    path = labels(tmp_path, *texts, head="who,run,start,end,label")
    convert(source, path, user="who", session="run")
    assert labelled(tmp_path, "ann") == {"sit": {*range(20)}, "walk": {*range(20)}}


def test_a_folder_of_labels_beside_the_recordings_has_one_file_a_person(tmp_path: Path) -> None:
    source = recordings(tmp_path)
    (source / "marks").mkdir()
    for person in ("ann", "bob"):
        own = [text.split(",", 1)[1] for text in INTERVALS if text.startswith(person)]
        text = "\n".join(["start,end,what", *own, ""])
        (source / "marks" / f"{person}.csv").write_text(text, "utf-8")
    done = convert(source, source / "marks", label="what", map_label={"sit": "rest"})
    assert done.domains == 2
    assert labelled(tmp_path, "ann") == {"rest": WANTED["sit"], "walk": WANTED["walk"]}


@pytest.mark.parametrize(
    ("lines", "head", "words"),
    [
        (("0,20,sit", "20,40,walk"), "start,end,label", "intervals of nobody"),
        (("ann,0,20,sit",), "user,begin,end,label", "'start' among them"),
        (("ann,20,0,sit", "bob,30,10,walk"), "user,start,end,label", "ends before it starts"),
    ],
)
def test_intervals_of_no_use_are_one_line(
    tmp_path: Path, lines: tuple[str, ...], head: str, words: str
) -> None:
    with pytest.raises(DatasetFormatError, match=words) as error:
        convert(recordings(tmp_path), labels(tmp_path, *lines, head=head))
    assert "\n" not in str(error.value)


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for interval, shift in (("start", "0"), ("start,end", "soon"), ("start,end", "nan")):
        with pytest.raises(ConfigError):
            label_file(tmp_path, interval, shift)
    with pytest.raises(ConfigError, match="wanted --time"):
        CsvColumns(sensors=("x",), intervals=label_file(tmp_path, "start,end", "0"))
    with pytest.raises(ConfigError, match="label: got a column and a field"):
        CsvColumns(
            sensors=("x",), time="t", path="{user}/{label}",
            intervals=label_file(tmp_path, "start,end", "0"),
        )  # fmt: skip


def test_an_output_that_would_replace_the_labels_is_refused(tmp_path: Path) -> None:
    source, path = recordings(tmp_path), labels(tmp_path)
    (tmp_path / "out").mkdir()
    path = path.rename(tmp_path / "out" / "labels.csv")
    with pytest.raises(DataError, match="holds the source"):
        convert(source, path)
    assert path.read_text("utf-8").startswith("user,")


def test_the_command_reads_the_documented_intervals(tmp_path: Path) -> None:
    source = recordings(tmp_path)
    for person in ("ann", "bob"):
        text = (source / f"{person}.csv").read_text("utf-8").replace("t;", "time;")
        (source / f"{person}.csv").write_text(text, "utf-8")
    path = labels(tmp_path, head="user,from,to,label")
    found = CliRunner().invoke(app, [
        "data", "from-csv", str(source), "--sensors", "x", "--rate", str(RATE), "--time", "time",
        "--labels", str(path), "--interval", "from,to", "--window", str(WINDOW), "--block", "2",
        "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "in no interval with a label" in found.output
    assert np.all(FolderWorld(tmp_path / "out").load("ann").y_N >= 0)
