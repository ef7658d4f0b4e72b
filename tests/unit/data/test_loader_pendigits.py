"""Pen digits in small: two files of different people, traces along the pen's way."""

from pathlib import Path

import numpy as np
import pytest

from graft.data.domain import DomainData
from graft.data.public.archives import open_originals
from graft.data.public.pendigits import read_pendigits
from graft.data.public.recordings import Tally
from graft.errors import DatasetFormatError

HEADER = ".INCLUDE  dene.doc\n\n.HIERARCHY  DIGIT\n"


def trace(digit: int, writer: int, index: int, *strokes: list[tuple[int, int]]) -> str:
    lines = [f'\n.SEGMENT DIGIT    {index} ? "{digit}"', f".COMMENT {digit} {writer}  {index}"]
    for stroke in strokes:
        lines += [".PEN_DOWN", *(f" {x}  {y}" for x, y in stroke), ".PEN_UP", ".DT 100"]
    return "\n".join(lines) + "\n"


def load(folder: Path, train: str, test: str) -> tuple[list[DomainData], Tally]:
    folder.mkdir(exist_ok=True)
    (folder / "pendigits-train").write_text(HEADER + train)
    (folder / "pendigits-test").write_text(HEADER + test)
    tally = Tally()
    with open_originals(folder) as originals:
        return list(read_pendigits(originals, tally)), tally


LINE = [(0, 0), (10, 0)]


def test_the_same_number_in_both_files_is_two_people_and_traces_follow_their_index(
    tmp_path: Path,
) -> None:
    train = trace(3, 1, 2, LINE) + trace(4, 12, 1, LINE) + trace(5, 1, 1, LINE)
    domains, tally = load(tmp_path, train, trace(6, 1, 1, LINE))
    assert [data.domain_id for data in domains] == ["train-01", "train-12", "test-01"]
    assert domains[0].y_N.tolist() == [5, 3]
    assert domains[0].group_N.tolist() == [0, 1]
    assert (tally.recordings, tally.windows, tally.rows) == (4, 4, 8)


def test_points_lie_evenly_on_the_way_and_the_aspect_is_kept(tmp_path: Path) -> None:
    # An L, 20 down and 10 across, with the pen's points crowded at its start: a way of 30,
    # so point k of 64 lies at 30 k / 63. The longer side, 20, becomes [-1, 1].
    corner = [(0, 20), (0, 19), (0, 18), (0, 0), (10, 0)]
    domains, _ = load(tmp_path, trace(1, 1, 1, corner), trace(1, 1, 1, corner))
    x, y, pen = domains[0].x[0]
    way = 30 * np.arange(64) / 63
    np.testing.assert_allclose(y, (20 - np.minimum(way, 20) - 10) / 10, atol=1e-6)
    np.testing.assert_allclose(x, (np.maximum(way - 20, 0) - 5) / 10, atol=1e-6)
    assert (pen == 1).all()


def test_the_pen_is_up_on_the_way_between_strokes(tmp_path: Path) -> None:
    # Strokes of 21 each and 21 between them: points 0..21 on the first, 42..63 on the second.
    strokes = [[(0, 0), (21, 0)], [(42, 0), (63, 0)]]
    domains, _ = load(tmp_path, trace(1, 1, 1, *strokes), trace(1, 1, 1, *strokes))
    pen = domains[0].x[0, 2]
    assert pen[:22].all()
    assert not pen[23:42].any()
    assert pen[44:].all()


def test_a_dot_is_a_finite_sample_at_the_centre(tmp_path: Path) -> None:
    domains, _ = load(tmp_path, trace(1, 1, 1, [(5, 5)]), trace(1, 1, 1, [(5, 5)]))
    assert domains[0].x[0, :2].tolist() == [[0.0] * 64] * 2


def test_corrupt_lines_are_counted_and_a_missing_file_named(tmp_path: Path) -> None:
    broken = trace(1, 1, 1, LINE).replace(" 10  0", " 10\n x y\n 10  0")
    _, tally = load(tmp_path, broken, trace(1, 1, 1, LINE))
    assert tally.skipped_lines == {"pendigits-train": 2}
    (tmp_path / "pendigits-test").unlink()
    with open_originals(tmp_path) as originals, pytest.raises(DatasetFormatError, match="test"):
        list(read_pendigits(originals, Tally()))
