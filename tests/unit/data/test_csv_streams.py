"""Files of several sensors at rates of their own: aligned by their times, every line accounted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.streams import Streams
from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.importers.csv import CsvReport
from graft.data.importers.csv_columns import CsvColumns
from graft.data.importers.csv_streams import CsvStream, convert_streams, parse_stream
from graft.data.importers.csv_windows import Windowing
from graft.errors import ConfigError, DataError

STREAMS = tuple(map(parse_stream, ("acc=x,y@50", "gyro=x@100", "heart=bpm@1")))
T0 = 1_764_338_701_000


def write(folder: Path, seconds: int = 24, heart_from: float = 0.0) -> None:
    """Sensors that show the time, so that a row tells whether its streams are aligned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rate, head in (
        ("acc", 50, "t,x,y,what"),
        ("gyro", 100, "t,x"),
        ("heart", 1, "t,bpm"),
    ):
        lines = [head]
        for i in range(seconds * rate):
            t = i / rate
            if name == "heart" and t < heart_from:
                continue
            values = {"acc": f"{t},{t % 1},{('walk', 'sit')[int(t) // 6 % 2]}", "gyro": f"{10 * t}",
                      "heart": f"{100 * t}"}[name]  # fmt: skip
            lines.append(f"{T0 + round(1000 * t)},{values}")
        (folder / f"{name}.csv").write_text("\n".join([*lines, ""]), "utf-8")


def convert(source: Path, streams: tuple[CsvStream, ...] = STREAMS, **named: Any) -> CsvReport:
    columns = CsvColumns(
        **{"sensors": ("x",), "label": "what", "time": "t", "delimiter": None, **named}
    )
    windowing = Windowing(rate_hz=50, window=128, step=64, block_s=3)
    done = convert_streams(
        source, source.parent / "out", streams, columns, windowing, name="m", licence="CC0",
        overwrite=True,
    )  # fmt: skip
    assert sum(done.account.values()) == done.lines
    return done


def test_streams_of_unlike_rates_are_aligned_by_time(tmp_path: Path) -> None:
    write(tmp_path / "in" / "ann")
    write(tmp_path / "in" / "bob")
    done = convert(tmp_path / "in")
    assert (done.domains, done.lines) == (2, 2 * 24 * 151)
    world = FolderWorld(tmp_path / "out")
    assert [(spec.name, spec.shape, spec.rate_hz) for spec in world.task.inputs] == [
        ("acc", (2, 128), 50), ("gyro", (1, 256), 100), ("heart", (1, 2), 1),
    ]  # fmt: skip
    data = world.load("ann")
    assert isinstance(data.x, Streams)
    begin_N = data.x["acc"][:, 0, 0]
    np.testing.assert_allclose(data.x["gyro"][:, 0, 0], 10 * begin_N, atol=1e-2)
    inside_N = begin_N < 22  # the last reading is held
    np.testing.assert_allclose(
        data.x["heart"][inside_N, 0], 100 * (begin_N[inside_N, None] + [0, 1]), atol=0.1
    )
    assert [world.task.classes[y] for y in data.y_N] == [
        ("walk", "sit")[int(t + 0.01) // 6 % 2] for t in begin_N
    ]
    assert not [f for f in explain_folder(tmp_path / "out") if f.is_problem]


def test_windows_that_a_stream_does_not_cover_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "in" / "ann")
    write(tmp_path / "in" / "bob", heart_from=10)
    write(tmp_path / "in" / "cid")
    (tmp_path / "in" / "cid" / "heart.csv").unlink()
    done = convert(tmp_path / "in")
    world = FolderWorld(tmp_path / "out")
    assert world.inputs("cid") == ("acc", "gyro")
    assert "cid has no stream heart" in done.remarks
    bob = world.load("bob").x
    assert len(bob) < len(world.load("ann").x)
    assert bob["acc"][:, 0].min() >= 9
    assert done.account["outside the windows that all streams cover"] > 500


def test_labels_come_from_paths_too(tmp_path: Path) -> None:
    for what in ("walk", "sit"):
        write(tmp_path / "in" / "ann" / what, seconds=8)
    (tmp_path / "in" / "ann" / "walk" / "notes.csv").write_text("a,b\n", "utf-8")
    done = convert(tmp_path / "in", label=None, path="{user}/{label}/{stream}")
    assert done.passed_over == ("ann/walk/notes.csv",)
    data = FolderWorld(tmp_path / "out").load("ann")
    # Both recordings have the same times: each is aligned within its own folder.
    np.testing.assert_allclose(data.x["gyro"][:, 0, 0], 10 * data.x["acc"][:, 0, 0], atol=1e-2)
    assert sorted(set(data.y_N.tolist())) == [0, 1]


@pytest.mark.parametrize(
    ("streams", "named", "words"),
    [
        (STREAMS, {"time": None}, "wanted --time"),
        (STREAMS[:1], {}, "fewer than two"),
        (STREAMS, {"path": "{user}/*"}, r"wanted \{stream\}"),
        ((*STREAMS, parse_stream("emg=a@9")), {}, "no file of the stream 'emg'"),
        ((STREAMS[1], STREAMS[0]), {}, "wanted 'what' among them"),
        ((STREAMS[0], parse_stream("gyro=x@1000")), {}, "wanted --rate 1000"),
    ],
)
def test_what_cannot_be_aligned_is_one_line(
    tmp_path: Path, streams: tuple[CsvStream, ...], named: dict[str, Any], words: str
) -> None:
    write(tmp_path / "in" / "ann", seconds=8)
    with pytest.raises((DataError, ConfigError), match=words) as caught:
        convert(tmp_path / "in", streams, **named)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_reads_the_documented_streams(tmp_path: Path) -> None:
    write(tmp_path / "recordings" / "ann")
    words = ["data", "from-csv", str(tmp_path / "recordings"), "--stream", "acc=x,y@50"]
    words += ["--stream", "gyro=x@100", "--stream", "heart=bpm@1", "--label", "what"]
    words += ["--time", "t", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert FolderWorld(tmp_path / "out").task.input_names == ("acc", "gyro", "heart")
    for text in ("acc", "acc=x", "acc=x@0", "acc=x@1.2.3", "1=x@5"):
        with pytest.raises(ConfigError, match="wanted NAME=COLUMN"):
            parse_stream(text)
