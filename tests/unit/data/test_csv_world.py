"""Laws of CSV recordings: what a window may hold, what parts a recording, what is skipped."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.core.config import SplitConfig
from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.importers.csv import CsvReport, convert_csv
from graft.data.importers.csv_columns import CsvColumns
from graft.data.importers.csv_windows import Windowing
from graft.data.splits import split_rows
from graft.errors import ConfigError, DataError, DatasetFormatError, DomainEmptyError

COLUMNS = CsvColumns(sensors=("a", "b"), label="what", user="who")
# Windows of 8, 4 apart, in blocks of 2 s at 10 Hz = 20 lines or more.
SMALL = Windowing(rate_hz=10, window=8, step=4, block_s=2)
Write = Callable[..., Path]


def lines(who: str, what: str, count: int, start: int = 0) -> list[str]:
    """Lines whose first sensor counts, so that every window tells where it was cut."""
    return [f"{who},{what},{start + i},{(start + i) % 7}" for i in range(count)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(rows: list[str], name: str = "all.csv", header: str = "who,what,a,b") -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
        return tmp_path / "in"

    return write_file


def convert(
    source: Path, windowing: Windowing = SMALL, columns: CsvColumns = COLUMNS
) -> tuple[FolderWorld, CsvReport]:
    out = source.parent / "out"
    report = convert_csv(
        source, out, columns, windowing, name="mine", licence="CC0", overwrite=True
    )
    return FolderWorld(out), report


def test_every_person_is_a_domain_and_every_label_a_class(write: Write) -> None:
    rows = [*lines("bob", "10", 40), *lines("ann", "2", 40), *lines("bob", "2", 40, 100)]
    rows += lines("ann", "10", 40, 100)
    world, report = convert(write(rows))
    assert list(world.domain_ids) == ["ann", "bob"]
    assert world.task.classes == ("2", "10")
    assert world.table.channels == ("a", "b")
    assert world.table.rate_hz == 10
    # 40 lines are two blocks of 20; each holds (20 - 8) // 4 + 1 = 4 windows.
    assert (report.domains, report.blocks, report.windows, report.lines) == (2, 8, 32, 160)
    bob = world.load("bob")
    assert bob.y_N.tolist() == [1] * 8 + [0] * 8
    assert bob.group_N.tolist() == [group for group in range(4) for _ in range(4)]
    np.testing.assert_array_equal(bob.x[1, 0], np.arange(4, 12))


def test_windows_that_overlap_are_never_parted_between_train_and_test(write: Write) -> None:
    rows = [*lines("ann", "walk", 203), *lines("ann", "rest", 197, 1000)]
    world, _ = convert(write(rows))
    data = world.load("ann")
    split = split_rows(data, SplitConfig(), seed=3)
    used = [set(data.x[rows, 0].ravel().tolist()) for rows in (split.train_N, split.test_N)]
    assert used[0]
    assert used[1]
    assert not used[0] & used[1]
    # An even cut loses no block's rest: at most 7 lines of 203 are in no window of a block.
    assert len(used[0] | used[1]) > 0.8 * 400
    assert not [f for f in explain_folder(Path(world._path)) if f.is_problem]


def test_a_line_that_cannot_be_used_is_skipped_named_and_never_spanned(write: Write) -> None:
    rows = [*lines("ann", "walk", 60), *lines("ann", "rest", 60, 100)]
    rows[10] = "ann,walk,ten,0"  # line 12 of the file, under its header
    rows[12] = "ann,walk,12"
    rows[15] = "ann,,15,1"
    rows[17] = ",walk,17,1"
    rows[18] = "ann,walk,1e39,1"  # no float32
    world, report = convert(write(rows))
    assert report.skipped == (
        "all.csv: 2 lines skipped: a is not a number, first line 12 with 'ten'",
        "all.csv: 1 line skipped: no what, first line 17",
        "all.csv: 1 line skipped: no who, first line 19",
        "all.csv: 1 line skipped: not 4 values as the header has, first line 14 with 3",
    )
    data = world.load("ann")
    for window in data.x[:, 0]:
        assert (np.diff(window) == 1).all()
    # 0-9 hold one window of 8; 11, 13-14, 16 (and 17, nobody's) none; 19-59 are 41 lines.
    assert data.x[0, 0, 0] == 0
    assert data.x[1, 0, 0] == 19


def test_people_whose_lines_alternate_have_stretches_of_their_own(write: Write) -> None:
    pairs = zip(lines("ann", "walk", 20), lines("bob", "walk", 20), strict=True)
    rows = [line for pair in pairs for line in pair]
    rows += [*lines("ann", "rest", 20), *lines("bob", "rest", 20)]
    world, _ = convert(write(rows))
    assert len(world.load("ann").x) == len(world.load("bob").x) == 8


def test_without_a_user_column_a_file_is_a_person(write: Write) -> None:
    write([*lines("", "1", 20), *lines("", "2", 20)], "p1.csv")
    source = write([*lines("", "1", 20), *lines("", "2", 20)], "p2.csv")
    columns = CsvColumns(sensors=("a", "b"), label="what")
    assert list(convert(source, columns=columns)[0].domain_ids) == ["p1", "p2"]
    write([], "more/p1.csv")
    with pytest.raises(DatasetFormatError, match="second file of the name 'p1'"):
        convert(source, columns=columns)


def test_a_session_ends_a_recording(write: Write) -> None:
    rows = [f"ann,{w},{i},0,{i // 12}" for w in ("1", "2") for i in range(24)]
    source = write(rows, header="who,what,a,b,take")
    columns = CsvColumns(sensors=("a", "b"), label="what", user="who", session="take")
    data = convert(source, columns=columns)[0].load("ann")
    # Sessions of 12 lines: windows start at 0 and 4 of each.
    assert data.x[:4, 0, 0].tolist() == [0, 4, 12, 16]
    assert data.group_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def timed(
    write: Write, times_ms: list[int], values: list[float], windowing: Windowing
) -> list[list[float]]:
    rows = [f"ann,1,{v},0,{t}" for t, v in zip(times_ms, values, strict=True)]
    rows += [f"ann,2,{v},0,{t}" for t, v in zip(times_ms, values, strict=True)]
    source = write(rows, header="who,what,a,b,ms")
    columns = CsvColumns(sensors=("a", "b"), label="what", user="who", time="ms", time_unit="ms")
    data = convert(source, windowing, columns)[0].load("ann")
    return data.x[data.y_N == 0, 0].tolist()


def test_times_bring_uneven_lines_to_an_even_rate(write: Write) -> None:
    """A ramp of 1 a second, seen at uneven moments, is a ramp of 0.1 a sample at 10 Hz."""
    times_ms = [0, 130, 180, 310, 400, 490, 610, 700, 830, 900, 1000]
    windowing = Windowing(rate_hz=10, window=11, step=11, block_s=1.1)
    (window,) = timed(write, times_ms, [t / 1000 for t in times_ms], windowing)
    # Averaging over neighbours is off by less than a line's jitter of 40 ms.
    np.testing.assert_allclose(window, np.arange(11) / 10, atol=0.04)


def test_a_pause_and_a_clock_that_runs_back_end_a_recording(write: Write) -> None:
    windowing = Windowing(rate_hz=10, window=4, step=4, block_s=0.4)
    times_ms = [0, 100, 200, 300, 1000, 1100, 1200, 1300, 0, 100, 200, 300]
    windows = timed(write, times_ms, [float(i) for i in range(12)], windowing)
    np.testing.assert_allclose(windows, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])


def test_a_faster_recording_is_averaged_before_it_is_thinned(write: Write) -> None:
    """Alternating +1 and -1 at 100 Hz is no signal at 10 Hz; picking every tenth would keep it."""
    times_ms = [10 * i for i in range(100)]
    values = [1.0 if i % 2 == 0 else -1.0 for i in range(100)]
    windowing = Windowing(rate_hz=10, window=8, step=8, block_s=0.8)
    (window, *_) = timed(write, times_ms, values, windowing)
    np.testing.assert_allclose(window[1:], 0, atol=1e-6)


def test_who_has_no_two_classes_is_left_out_and_named(write: Write) -> None:
    rows = [*lines("ann", "1", 20), *lines("ann", "2", 20), *lines("bob", "1", 20)]
    rows += lines("cid", "1", 5)
    _, report = convert(write(rows))
    assert report.domains == 1
    assert report.left_out == (
        "bob: windows of '1' alone, wanted two classes or more",
        "cid: no whole window, wanted two classes or more",
    )


@pytest.mark.parametrize(
    ("rows", "header", "error", "words"),
    [
        (lines("ann", "1", 9), "who,what,a,c", DatasetFormatError, "wanted 'b' among them"),
        (lines("ann", "1", 9), "who;what;a;b", DatasetFormatError, "is the delimiter ','?"),
        (lines("ann", "1", 9), "who,what,a,b,b", DatasetFormatError, "'b' 2 times"),
        (["ann,1,x,y"] * 9 + lines("ann", "1", 8), "who,what,a,b", DatasetFormatError, "8 of 17"),
        ([], "who,what,a,b", DatasetFormatError, "0 of 0"),
        (lines("ann", "1", 30), "who,what,a,b", DomainEmptyError, "nobody with windows of two"),
    ],
)
def test_what_is_of_no_use_is_named_and_nothing_is_written(
    write: Write, rows: list[str], header: str, error: type[DataError], words: str
) -> None:
    source = write(rows, header=header)
    with pytest.raises(error, match=words):
        convert(source)
    assert not (source.parent / "out").exists()


def test_a_file_that_is_no_text_or_not_there_is_named(write: Write, tmp_path: Path) -> None:
    source = write([])
    (source / "all.csv").write_bytes(b"who,what,a,b\n\xff\xfe,1,2,3\n")
    with pytest.raises(DatasetFormatError, match="UTF-8"):
        convert(source)
    with pytest.raises(DatasetFormatError, match=r"no \.csv file"):
        convert(tmp_path / "nowhere")


def test_a_block_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least the 128 samples of a window: 2\.56 s"):
        Windowing(rate_hz=50, window=128, step=64, block_s=2)
    for settings in ({"step": 0}, {"rate_hz": float("inf")}, {"block_s": float("nan")}):
        with pytest.raises(ConfigError, match="wanted more than 0"):
            Windowing(**{"rate_hz": 50, **settings})


@pytest.mark.parametrize(
    "columns",
    [{"sensors": ()}, {"delimiter": ";;"}, {"label": "a"}, {"user": ""}, {"sensors": ("a", "a")}],
)
def test_columns_that_cannot_be_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CsvColumns(**{"sensors": ("a", "b"), "label": "what", **columns})


def test_the_same_files_give_the_same_bytes(write: Write, tmp_path: Path) -> None:
    source = write([*lines("ann", "1", 40), *lines("ann", "2", 40)])
    first, second = (
        convert_csv(source, tmp_path / name, COLUMNS, SMALL, name="m", licence="CC0").folder
        for name in ("one", "two")
    )
    for name in ("dataset.toml", "domains/ann.npz"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_natural_order_reads_the_files_as_they_were_numbered(write: Write) -> None:
    for take in range(1, 12):
        source = write(lines("ann", "12"[take % 2], 8, 100 * take), f"take{take}.csv")
    data = convert(source)[0].load("ann")
    assert all(one < two for one, two in pairwise(data.x[:, 0, 0]))
