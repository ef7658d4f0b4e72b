"""What is wrong with a domain folder, in words, with a remedy for each finding.

Legend: N rows of a domain, K channels, T samples of a window, D domains.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from graft.core.config import SplitConfig
from graft.core.records import BoolArray, FloatArray
from graft.core.streams import Lazy, Streams
from graft.core.tasks import Task
from graft.data.class_names import remarks_on_classes
from graft.data.domain import DomainData
from graft.data.folder import FolderWorld
from graft.data.splits import split_rows
from graft.errors import (
    DataError,
    DatasetFormatError,
    DomainClassError,
    DomainEmptyError,
    DomainShapeError,
    DomainValueError,
)

# Initial domains and target domains both need some.
_FEW_DOMAINS = 5
# Of a stream that is read from the disk as it is indexed, so many rows are looked at.
_LOOK = 256
# Of a domain's samples that stand elsewhere, too.
_COPIED = 0.1
# A domain so much stronger or weaker than the others is probably in another unit.
_SCALE_APART = 20.0
_ADVICE: Mapping[type[DataError], str] = MappingProxyType(
    {
        DomainEmptyError: "Record more, or leave this domain out by removing its file.",
        DomainClassError: "A label is an index into dataset.toml's classes, counted from 0, and "
        "a domain needs rows of two classes or more: number the labels anew, or leave the domain "
        "out by removing its file.",
        DomainValueError: "Drop the windows that hold a missing reading before you write the "
        "file; graft never fills in what was not measured.",
        DomainShapeError: "Every row of x has dataset.toml's sample_shape, channels before time: "
        "x.transpose(0, 2, 1) swaps them, and y and group are whole numbers, one a row.",
        DatasetFormatError: "The layout is dataset.toml beside a folder domains with one .npz of "
        "x and y a domain (docs/data.md); graft data from-csv writes it from CSV files.",
    }
)
_CLASS_ADVICE = (
    "Classes that mean the same should have one name: graft data from-csv --map-label OLD=NEW."
)
# A window with so large a part of straight lines was drawn between few readings.
_STRAIGHT = 0.75
_BLOCK_ROWS = 2048
_SPLIT_ADVICE = (
    "Give each recording segment a group number of its own, and at least two segments to each "
    "class; long recordings may be cut into blocks."
)
_OVERLAP_ADVICE = (
    "One of the two would test what the other trained. Give all windows that overlap one group "
    "number: a group a recording, or a block of it that no window crosses."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing about a folder: ``what`` it is, and what to do. ``domain_id`` is "" for the
    folder itself; ``error`` is the error's name, or "" for a remark that stops nothing."""

    domain_id: str
    error: str
    what: str
    advice: str

    @property
    def is_problem(self) -> bool:
        return bool(self.error)


def explain_folder(
    path: Path,
    config: SplitConfig | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Everything wrong or odd in a domain folder, problems first.

    Problems are what a run would fail on, and windows that overlap across groups, with which its
    accuracies would be wrong. Remarks are what a run accepts, though perhaps not as meant.

    Parameters
    ----------
    path
        The folder of ``dataset.toml``.
    config
        How rows are split; by default as a run does.
    progress
        Called before each domain with its id, its number and the number of domains.
    """
    config = config or SplitConfig()
    try:
        world = FolderWorld(path)
    except DataError as error:
        return (_problem("", error),)
    findings: list[Finding] = []
    scales: dict[str, dict[str, FloatArray]] = {}
    own: dict[str, list[int]] = {}
    seen: dict[int, str] = {}
    for number, domain_id in enumerate(world.domain_ids):
        if progress is not None:
            progress(domain_id, number, len(world.domain_ids))
        try:
            data = world.load(domain_id)
        except DataError as error:
            findings.append(_problem(domain_id, error))
            continue
        own[domain_id] = np.unique(data.y_N).tolist() if data.y_N.ndim == 1 else []
        streams = _sensor_streams(data, world.task)
        findings += _explain_domain(data, streams, world.task.classes, config)
        findings += [each for part in [*streams.values()][:1] for each in _copies(part, seen)]
        for name, part in streams.items():
            scales.setdefault(name, {})[domain_id] = part.x.std(axis=(0, *range(2, part.x.ndim)))
    for name, of_stream in scales.items():
        findings += _compare_scales(of_stream, world.table.stream_channels.get(name, ()))
    classes = world.task.classes
    names = {domain_id: [classes[label] for label in labels] for domain_id, labels in own.items()}
    findings += [_remark("", what, _CLASS_ADVICE) for what in remarks_on_classes(classes, names)]
    if len(world.domain_ids) < _FEW_DOMAINS:
        findings.append(
            _remark(
                "",
                f"The folder holds {len(world.domain_ids)} domains.",
                f"With fewer than {_FEW_DOMAINS} there are hardly any sources to learn from.",
            )
        )
    return tuple(sorted(findings, key=lambda finding: not finding.is_problem))


def overlapping_rows(data: DomainData) -> tuple[int, int] | None:
    """The first row whose beginning is the end of the row before it, of another group, and how
    many samples they share; None where there is no such pair, and for what is no window."""
    if data.x.ndim != 3:
        return None
    x, length = data.x, data.x.shape[2]
    for row in np.flatnonzero(data.group_N[1:] != data.group_N[:-1]) + 1:
        before_KT, own_KT = x[row - 1], x[row]
        for hop in np.flatnonzero((before_KT == own_KT[:, :1]).all(0)):
            shared_KT = before_KT[:, hop:]
            # Any two stretches of silence are equal, and so may be a few samples.
            is_evidence = (
                shared_KT.shape[1] >= max(2, length // 8) and (np.ptp(shared_KT, axis=1) > 0).any()
            )
            if (
                is_evidence
                and np.array_equal(shared_KT, own_KT[:, : length - hop])
                and not _repeats(own_KT)
            ):
                return int(row), int(length - hop)
    return None


def _sensor_streams(data: DomainData, task: Task) -> dict[str, DomainData]:
    """The domain with each of its streams of windows or pictures alone, by the stream's name; the
    first rows of one that lies on the disk."""
    only = (data.inputs or task.input_names)[0]
    columns = dict(data.x.items()) if isinstance(data.x, Streams) else {only: data.x}
    found = {}
    for spec in task.inputs:
        if spec.name in columns and spec.kind in ("window", "audio", "image"):
            column = columns[spec.name]
            rows = slice(0, _LOOK if isinstance(column, Lazy) else len(column))
            found[spec.name] = replace(data, x=column[np.arange(len(column))[rows]],
                                       y_N=data.y_N[rows], group_N=data.group_N[rows])  # fmt: skip
    return found


def _repeats(own_KT: FloatArray) -> bool:
    """Whether a window repeats itself: another one of that kind may be equal to it."""
    length = own_KT.shape[1]
    periods = np.flatnonzero((own_KT[:, 1 : length // 2] == own_KT[:, :1]).all(0)) + 1
    return any(np.array_equal(own_KT[:, at:], own_KT[:, :-at]) for at in periods.tolist())


def _explain_domain(
    data: DomainData,
    streams: Mapping[str, DomainData],
    classes: tuple[str, ...],
    config: SplitConfig,
) -> list[Finding]:
    for name, part in streams.items():
        overlap = overlapping_rows(part)
        if overlap is not None:
            row, shared = overlap
            what = (
                f"Rows {row - 1} and {row}{_of(name, streams)} share {shared} of "
                f"{part.x.shape[2]} samples and belong to the groups "
                f"{data.group_N[row - 1]} and {data.group_N[row]}."
            )
            return [_problem(data.domain_id, DatasetFormatError(what), _OVERLAP_ADVICE)]
    try:
        split = split_rows(data, config, seed=0)
    except DataError as error:
        return [_problem(data.domain_id, error, _SPLIT_ADVICE)]
    findings = []
    untested: list[int] = []
    if data.y_N.ndim == 1:
        untested = sorted(set(data.y_N.tolist()) - set(data.y_N[split.test_N].tolist()))
    if untested:
        names = ", ".join(classes[label] for label in untested)
        findings.append(
            _remark(data.domain_id, f"No row of {names} is left to test.", _SPLIT_ADVICE)
        )
    for name, part in streams.items():
        findings += _explain_stream(part, _of(name, streams))
    return findings


def _of(name: str, streams: Mapping[str, DomainData]) -> str:
    """Which stream is meant, where there are several."""
    return f" of {name}" if len(streams) > 1 else ""


def _explain_stream(part: DomainData, where: str) -> list[Finding]:
    findings = []
    still = np.ptp(np.moveaxis(part.x, 1, 0).reshape(part.x.shape[1], -1), axis=1) == 0
    if still.any():
        indices = ", ".join(str(index) for index in np.flatnonzero(still))
        findings.append(
            _remark(
                part.domain_id,
                f"The channels of index {indices}{where} never change.",
                "Was that sensor connected?",
            )
        )
    blocks = range(0, len(part.x), _BLOCK_ROWS)
    straight = sum(int(straight_rows(part.x[at : at + _BLOCK_ROWS]).sum()) for at in blocks)
    if straight:
        findings.append(
            _remark(
                part.domain_id,
                f"{straight} of {len(part.x)} windows{where} are straight lines: readings that "
                "were interpolated between few others.",
                "Are the times' unit and the rate the recording's own? Compare what graft data "
                "from-csv said of them.",
            )
        )
    return findings


def straight_rows(x: FloatArray) -> BoolArray:
    """Which windows (N, K, T) move along straight lines in every channel that moves."""
    if x.ndim != 3 or x.shape[2] < 8:
        return np.zeros(len(x), bool)
    step = np.diff(x.astype(np.float64), axis=2)
    bend = np.abs(np.diff(step, axis=2))
    slope = np.minimum(np.abs(step[:, :, 1:]), np.abs(step[:, :, :-1]))
    # float32 rounds each sample.
    blur = 4 * np.finfo(np.float32).eps * np.abs(x).max(axis=2, keepdims=True)
    is_line = (slope > 4 * blur) & (bend <= 2 * blur + 1e-3 * slope)
    moves = (np.abs(step) > 4 * blur).any(axis=2)
    is_straight: BoolArray = (is_line.mean(axis=2) > _STRAIGHT) | ~moves
    straight_N: BoolArray = is_straight.all(axis=1) & moves.any(axis=1)
    return straight_N


def _copies(part: DomainData, seen: dict[int, str]) -> list[Finding]:
    """Samples that stand in another group or domain, too; ``seen`` are those of the domains before,
    by their content. Single ones may be equal by chance."""
    own: dict[int, int] = {}
    twice, others = 0, Counter[str]()
    for row in np.flatnonzero(np.ptp(part.x.reshape(len(part.x), -1), axis=1) > 0).tolist():
        key, group = hash(part.x[row].tobytes()), int(part.group_N[row])
        twice += own.setdefault(key, group) != group
        others.update([seen[key]] if key in seen else ())
    for key in own:
        seen.setdefault(key, part.domain_id)
    where, most = (others.most_common(1) or [("", 0)])[0]
    found = [(twice, "in another group"), (most, f"in {where}")]
    return [
        _remark(
            part.domain_id,
            f"{count} of {len(part.x)} samples also stand {place}.",
            "Is a recording there twice? One copy would test what the other trained.",
        )
        for count, place in found if count > _COPIED * len(part.x)
    ]  # fmt: skip


def _compare_scales(scales: Mapping[str, FloatArray], channels: tuple[str, ...]) -> list[Finding]:
    if len(scales) < 3:
        return []
    scale_DK = np.stack(list(scales.values()))
    usual_K = np.median(scale_DK, axis=0)
    findings = []
    for domain_id, scale_K in scales.items():
        for k in np.flatnonzero((scale_K > 0) & (usual_K > 0)):
            ratio = float(scale_K[k] / usual_K[k])
            if not 1 / _SCALE_APART < ratio < _SCALE_APART:
                channel = channels[k] if channels else k
                what = f"Channel {channel} moves {ratio:.3g} times as much as elsewhere."
                findings.append(_remark(domain_id, what, "Is it in the same unit?"))
    return findings


def _problem(domain_id: str, error: DataError, advice: str = "") -> Finding:
    return Finding(
        domain_id=domain_id,
        error=type(error).__name__,
        what=str(error),
        advice=advice or _ADVICE.get(type(error), _ADVICE[DatasetFormatError]),
    )


def _remark(domain_id: str, what: str, advice: str) -> Finding:
    return Finding(domain_id=domain_id, error="", what=what, advice=advice)
