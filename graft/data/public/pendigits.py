"""Reader of the pen digits: UNIPEN traces of 44 writers, one domain a writer.

Legend: P points of a trace, T = 64 points after resampling.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graft.core.records import FloatArray
from graft.data.domain import DomainData
from graft.data.public.archives import Originals, unpack_lzw
from graft.data.public.recordings import RowArray, Tally, describe
from graft.errors import DatasetFormatError

NUM_POINTS = 64

DESCRIPTION = describe("pendigits")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trace:
    digit: int
    writer: int
    index: int
    strokes: tuple[RowArray, ...]


def read_pendigits(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a writer, "train-01" to "train-30" and "test-01" to "test-14".

    The two files hold different people although their numbers both start at 1. A sample is
    (3, 64), one trace, its own group, in the order the writer wrote them: x and y at 64
    points evenly spaced along the pen's way, centred, the longer side of the trace's box
    scaled to [-1, 1] and its aspect unchanged; and 1 where the pen is down, 0 on the straight
    way between two strokes.
    Raises DatasetFormatError where one of the two files is missing or holds no trace.
    """
    for part, original in (("train", "tra"), ("test", "tes")):
        name = f"pendigits-{part}"
        raw = _read_part(originals, name, f"pendigits-orig.{original}")
        traces = list(_read_traces(raw, name, tally))
        if not traces:
            raise DatasetFormatError(f"{originals.label}: {name}: got no trace, wanted some")
        for writer in sorted({trace.writer for trace in traces}):
            written = sorted((t for t in traces if t.writer == writer), key=lambda t: t.index)
            yield tally.domain(
                f"{part}-{writer:02d}",
                DESCRIPTION.task.sample_shape,
                [(_resample(t.strokes)[None], t.digit, index) for index, t in enumerate(written)],
            )


def _read_part(originals: Originals, name: str, official: str) -> bytes:
    """One of the two files, plain or, as UCI packs it, compressed under its official name."""
    if originals.matching(rf"{re.escape(official)}\.Z"):
        return unpack_lzw(originals.only(rf"{re.escape(official)}\.Z", name))
    return originals.only(rf"(?:{name}|{re.escape(official)})", name)


def _read_traces(raw: bytes, name: str, tally: Tally) -> Iterator[_Trace]:
    """The traces of one UNIPEN file; a line that is no pair of numbers is skipped."""
    num_skipped = 0
    for segment in raw.decode("ascii", "replace").split("\n.SEGMENT ")[1:]:
        lines = segment.splitlines()
        head = next((line.split() for line in lines if line.startswith(".COMMENT")), [])
        if len(head) != 4 or not all(part.isdecimal() for part in head[1:]) or int(head[1]) > 9:
            num_skipped += len(lines)
            continue
        strokes: list[list[tuple[float, float]]] = []
        for line in lines[1:]:
            if line.startswith(".PEN_DOWN"):
                strokes.append([])
            elif line.strip() and not line.startswith("."):
                point = _parse_point(line)
                if point is None or not strokes:
                    num_skipped += 1
                else:
                    strokes[-1].append(point)
        arrays = tuple(np.array(stroke) for stroke in strokes if stroke)
        if arrays:
            tally.add_recording(rows=sum(len(stroke) for stroke in arrays))
            yield _Trace(
                digit=int(head[1]), writer=int(head[2]), index=int(head[3]), strokes=arrays
            )
    tally.add_skipped(name, num_skipped)


def _parse_point(line: str) -> tuple[float, float] | None:
    parts = line.split()
    try:
        return (int(parts[0]), int(parts[1])) if len(parts) == 2 else None
    except ValueError:
        return None


def _resample(strokes: tuple[RowArray, ...]) -> FloatArray:
    """One trace (3, T) from its strokes' points (P, 2)."""
    points_P2 = np.concatenate(strokes)
    # The way from one point to the next is drawn unless the next one begins a stroke.
    drawn_P = np.ones(len(points_P2))
    drawn_P[np.cumsum([len(stroke) for stroke in strokes])[:-1]] = 0.0
    way_P = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points_P2, axis=0).T))])
    along_T = np.linspace(0.0, way_P[-1], NUM_POINTS)
    x_T, y_T = (np.interp(along_T, way_P, points_P2[:, axis]) for axis in (0, 1))
    # side="left" finds the way's later end; the trace's first point belongs to its stroke.
    end_T = np.searchsorted(way_P, along_T, side="left").clip(0, len(way_P) - 1)
    low, high = points_P2.min(axis=0), points_P2.max(axis=0)
    centre = (low + high) / 2
    # A trace of a single dot has no size; it stays at the centre.
    half_side = max(float((high - low).max()) / 2, 1.0)
    sample_3T = [(x_T - centre[0]) / half_side, (y_T - centre[1]) / half_side, drawn_P[end_T]]
    return np.stack(sample_3T).astype(np.float32)
