"""Files of several sensors at rates of their own -> a domain folder of named streams.

The first stream has the labels and gives the windows; the others are read over the same times.

Legend: L lines, K channels, N windows, T samples of a window.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from graft.core.files import make_folder
from graft.core.outputs import check_output, new_folder
from graft.core.records import BoolArray, FloatArray
from graft.core.streams import Streams
from graft.core.tasks import InputSpec, Modality, Task
from graft.data.class_names import remarks_on_classes, remarks_on_persons
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain
from graft.data.importers import csv_account as account
from graft.data.importers.csv import CsvReport, domain_ids, plan_people
from graft.data.importers.csv_account import LineTally
from graft.data.importers.csv_columns import CsvColumns
from graft.data.importers.csv_files import RecordingFile, find_files
from graft.data.importers.csv_intervals import Intervals, read_intervals
from graft.data.importers.csv_lines import Readings, Recordings, read_recordings
from graft.data.importers.csv_windows import Part, Plan, RowArray, Windowing
from graft.data.importers.csv_words import file_note, yield_remarks
from graft.data.public.recordings import natural_key
from graft.errors import ConfigError, DatasetFormatError, DomainEmptyError

_TEXT = re.compile(r"([A-Za-z]\w{0,63})=(.+)@([\d.]+)")
_PATH = "{user}/{stream}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvStream:
    """Files of one sensor: ``name`` is the {stream} of their paths."""

    name: str
    sensors: tuple[str, ...]
    rate_hz: float


def parse_stream(text: str) -> CsvStream:
    """A stream of "NAME=COLUMN,COLUMN@RATE"; raises ConfigError for any other text."""
    found = _TEXT.fullmatch(text.strip())
    try:
        rate_hz = float(found[3]) if found else 0.0
    except ValueError:
        rate_hz = 0.0
    if found is None or not rate_hz > 0:
        raise ConfigError(
            f"stream: got {text!r}, wanted NAME=COLUMN,COLUMN@RATE, e.g. acc=x,y,z@50"
        )
    sensors = tuple(name.strip() for name in found[2].split(","))
    return CsvStream(name=found[1], sensors=sensors, rate_hz=rate_hz)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Track:
    """One stream's lines, the plan of each person, and its windows."""

    stream: CsvStream
    lines: Recordings
    plans: Mapping[str, Plan]
    windowing: Windowing
    place_of: Mapping[str, str]

    def parts(self, user: str, place: str) -> list[Part]:
        """The person's unbroken parts in a folder of recordings."""
        plan = self.plans.get(user, Plan())
        return [part for part in plan.parts if self.place(user, part) == place]

    def place(self, user: str, part: Part) -> str:
        """The folder that a part was recorded in."""
        return self.place_of[self.lines.takes[part.take].file]


def convert_streams(
    source: Path,
    out: Path,
    streams: Sequence[CsvStream],
    columns: CsvColumns,
    windowing: Windowing,
    *,
    name: str,
    licence: str,
    modality: Modality = "imu",
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> CsvReport:
    """Write the domain folder ``out`` of several streams, all or nothing.

    A window is kept where every stream that its person has covers it; a person without a file of a
    stream lacks that stream.

    Parameters
    ----------
    source, out
        A folder with a file for each stream in each folder of recordings, and the domain folder.
    streams
        The first has the labels, and its rate is that of ``windowing``.
    columns
        As ``convert_csv`` has them, sensors aside; ``time`` is wanted, in all files. The path has
        ``{stream}``, by default "{user}/{stream}".
    windowing
        In samples of the first stream.

    Raises
    ------
    ConfigError, DataError
        As ``convert_csv`` does, and for streams that cannot be aligned.
    """
    if columns.time is None:
        raise ConfigError("time: got no column, wanted --time: streams are aligned by their times")
    if len({stream.name for stream in streams}) < max(2, len(streams)):
        raise ConfigError("stream: got fewer than two different names, wanted --stream for each")
    labelled = columns.intervals
    sources = [source, *([labelled.path] if labelled else [])]
    check_output(out, sources)
    pattern = columns.path or _PATH
    if "{stream}" not in pattern:
        raise ConfigError(f"path: got {pattern!r}, wanted {{stream}} in it")
    found = find_files(source, pattern, labelled.path if labelled else None)
    make_folder(out.resolve().parent)
    with (
        new_folder(out, sources=sources, overwrite=overwrite) as folder,
        tempfile.TemporaryDirectory(prefix=".lines-", dir=folder.parent) as place,
    ):
        tally, read_as = LineTally(), list[str]()
        intervals = read_intervals(columns) if labelled else None
        passed_over, tracks = list(found.passed_over), list[_Track]()
        for stream in streams:
            files = [
                f for f in found.files if f.stated["stream"].casefold() == stream.name.casefold()
            ]
            if not files:
                raise DatasetFormatError(
                    f"{source}: got no file of the stream {stream.name!r} by {pattern}, wanted one"
                )
            own = Path(place) / stream.name
            own.mkdir()
            tracks.append(
                _read(stream, files, columns, windowing, own, tally, read_as, progress,
                      has_labels=not tracks, share=windowing.window / streams[0].rate_hz,
                      intervals=None if tracks else intervals)
            )  # fmt: skip
        known = {stream.name.casefold() for stream in streams}
        passed_over += [file.name for file in found.files if _stream_of(file) not in known]
        tally.check_share(source)
        return _write(
            tracks, folder, out, tally, read_as, tuple(passed_over), source=source, name=name,
            licence=licence, modality=modality, progress=progress, intervals=intervals,
        )  # fmt: skip


def _stream_of(file: RecordingFile) -> str:
    return file.stated["stream"].casefold()


def _read(
    stream: CsvStream, files: Sequence[RecordingFile], columns: CsvColumns, windowing: Windowing,
    folder: Path, tally: LineTally, read_as: list[str],
    progress: Callable[[str, int, int], None] | None, *, has_labels: bool, share: float,
    intervals: Intervals | None,
) -> _Track:  # fmt: skip
    own_columns = replace(
        columns, sensors=stream.sensors, path=None if has_labels and columns.label else "{label}",
        label=columns.label if has_labels else None,
        intervals=columns.intervals if has_labels else None,
    )  # fmt: skip
    own_files = files
    if not has_labels:  # of any label: another stream has them
        own_files = [
            replace(file, stated=MappingProxyType({**file.stated, "label": "any"}))
            for file in files
        ]
    own = windowing
    if not has_labels:
        length = max(1, int(share * stream.rate_hz + 1e-6))
        own = replace(windowing, rate_hz=stream.rate_hz, window=length, step=length,
                      max_gap_s=None if windowing.max_gap_s is None else
                      min(windowing.max_gap_s, length / stream.rate_hz / 2),
                      block_s=max(windowing.block_s, length / stream.rate_hz + 1))  # fmt: skip
    notes: dict[str, list[str]] = {}
    lines = read_recordings(own_files, own_columns, folder, tally, notes, progress)
    read_as += [file_note(note, names, len(files)) for note, names in notes.items()]
    said: list[str] = []
    plans = plan_people(lines, own_columns, own, said, intervals)
    read_as += [f"{stream.name}: {text}" for text in said]
    place_of = {file.name: repr(sorted({**file.stated, "stream": ""}.items())) for file in files}
    return _Track(stream=stream, lines=lines, plans=plans, windowing=own, place_of=place_of)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Person:
    """A person's rows of every stream, in the order of their first stream."""

    x: Mapping[str, FloatArray]
    labels: list[str]
    groups: list[int]


def _person(tracks: Sequence[_Track], user: str, tally: LineTally) -> _Person:
    """The windows that all of a person's streams cover; accounts for all of their lines."""
    first, *others = tracks
    present = [track for track in others if user in track.plans and track.plans[user].parts]
    labels = {code: label for label, code in first.lines.labels.items()}
    values = {track.stream.name: track.lines.values(track.lines.users[user])
              for track in (first, *present)}  # fmt: skip
    rows: dict[str, list[FloatArray]] = {name: [] for name in values}
    person = _Person(x={}, labels=[], groups=[])
    every: dict[str, list[RowArray]] = {}
    kept: dict[str, list[RowArray]] = {}
    length_s = first.windowing.window / first.windowing.rate_hz
    group = 0
    for part in first.plans[user].parts:
        place = first.place(user, part)
        windows = list(part.windows(values[first.stream.name], first.windowing))
        blocks = first.windowing.blocks(part.num_samples)
        assert part.time_L is not None
        for (start, count), own in zip(blocks, windows, strict=True):
            offset_N = (start + np.arange(count) * first.windowing.step) / first.windowing.rate_hz
            time_N = part.start_s + part.time_L[0] + offset_N
            covered = [_over(track, track.parts(user, place), time_N, values[track.stream.name])
                       for track in present]  # fmt: skip
            good_N = np.logical_and.reduce([np.ones(count, bool), *(good for good, _ in covered)])
            every.setdefault(place, []).append(time_N)
            kept.setdefault(place, []).append(time_N[good_N])
            if not good_N.any():
                continue
            rows[first.stream.name].append(own[good_N])
            for track, (_, x) in zip(present, covered, strict=True):
                rows[track.stream.name].append(x[good_N])
            person.labels.extend([labels[part.label]] * int(good_N.sum()))
            person.groups.extend([group] * int(good_N.sum()))
            group += 1
    for track in (first, *(track for track in others if user in track.plans)):
        _account(track, user, kept, length_s, tally, is_kept=len(set(person.labels)) > 1)
    return replace(person, x={name: np.concatenate(x) for name, x in rows.items() if x})


def _over(
    track: _Track, parts: Sequence[Part], time_N: RowArray, values_LK: Readings
) -> tuple[BoolArray, FloatArray]:
    """Which windows from these times a stream covers, and its samples (N, K, T) in them."""
    rate_hz, length = track.windowing.rate_hz, track.windowing.window
    grid_T = np.arange(length) / rate_hz
    good_N = np.zeros(len(time_N), bool)
    x = np.zeros((len(time_N), len(track.stream.sensors), length), np.float32)
    for part in parts:
        assert part.time_L is not None
        # A reading stands for its interval, so that a stream may begin or end one inside a window.
        begin = part.start_s + part.time_L[0] - max(part.usual_s, 1 / rate_hz)
        end = part.start_s + part.time_L[-1] + max(part.usual_s, 1 / rate_hz)
        own = np.flatnonzero((time_N >= begin) & (time_N + grid_T[-1] <= end) & ~good_N)
        if not len(own):
            continue
        at = (time_N[own, None] - part.start_s + grid_T).ravel()
        samples = part.at(values_LK, at, rate_hz)
        x[own] = samples.reshape(len(own), length, -1).transpose(0, 2, 1)
        good_N[own] = True
    return good_N, x


def _account(
    track: _Track, user: str, kept: Mapping[str, list[RowArray]], length_s: float,
    tally: LineTally, *, is_kept: bool,
) -> None:  # fmt: skip
    """Account for a stream's lines of a person: in a window that was kept, or why not."""
    plan = track.plans[user]
    used = 0
    for part in plan.parts:
        assert part.time_L is not None
        starts = np.sort(np.concatenate([np.empty(0), *kept.get(track.place(user, part), ())]))
        if len(starts):
            time_L = part.start_s + part.time_L + 0.5 / track.windowing.rate_hz
            before_L = np.searchsorted(starts, time_L, side="right") - 1
            used += int(((before_L >= 0) & (time_L < starts[before_L] + length_s)).sum())
    short = {reason: count for reason, count in plan.lines.items()
             if reason not in (account.IN_WINDOWS, account.RESTS)}  # fmt: skip
    rest = sum(plan.lines.values()) - sum(short.values()) - used
    for reason, count in (*short.items(), (account.UNCOVERED, rest), (account.IN_WINDOWS, used)):
        is_lost = not is_kept and reason in (account.UNCOVERED, account.IN_WINDOWS)
        tally.add(account.LEFT_OUT if is_lost else reason, count)
    plan.lines[account.IN_WINDOWS] = used
    plan.lines[account.RESTS] = rest


def _write(
    tracks: Sequence[_Track], folder: Path, out: Path, tally: LineTally, read_as: list[str],
    passed_over: tuple[str, ...], *, source: Path, name: str, licence: str, modality: Modality,
    progress: Callable[[str, int, int], None] | None, intervals: Intervals | None,
) -> CsvReport:  # fmt: skip
    first = tracks[0]
    for track in tracks[1:]:  # lines of people without a labelled file
        for user in track.plans.keys() - first.plans.keys():
            tally.add(account.LEFT_OUT, sum(track.plans[user].lines.values()))
    users = list(first.plans)
    left_out, people = list[str](), dict[str, _Person]()
    for number, user in enumerate(users):
        if progress is not None:
            progress(f"aligning {user}", number, len(users))
        person = _person(tracks, user, tally)
        if len(set(person.labels)) > 1:
            people[user] = person
        else:
            only = f"windows of {person.labels[0]!r} alone" if person.labels else "no whole window"
            left_out.append(f"{user}: {only}, wanted two classes or more in all of their streams")
    labels = {user: sorted(set(person.labels), key=natural_key) for user, person in people.items()}
    classes = tuple(sorted({each for own in labels.values() for each in own}, key=natural_key))
    lacking = [f"{user} has no stream {track.stream.name}" for user in people
               for track in tracks if track.stream.name not in people[user].x]  # fmt: skip
    remarks = [
        *yield_remarks({user: first.plans[user] for user in users}, first.windowing),
        *(intervals.remarks() if intervals else ()),
        *lacking[:10],
        *([f"and {len(lacking) - 10} more people lack a stream"] if len(lacking) > 10 else []),
        *remarks_on_classes(classes, labels), *remarks_on_persons(list(people)),
    ]  # fmt: skip
    if not people:
        raise DomainEmptyError(
            f"{source}: got nobody with windows of two classes that all streams cover, wanted at "
            "least one. " + "; ".join([*left_out[:5], *remarks[:2], *tally.words()[:2]])
        )
    task = Task(name=name, modality="mixed", classes=classes, inputs=tuple(
        InputSpec(name=track.stream.name, kind="window", rate_hz=track.stream.rate_hz,
                  shape=(len(track.stream.sensors), track.windowing.window), modality=modality)
        for track in tracks))  # fmt: skip
    ids = domain_ids(people)
    for user, person in people.items():
        x = Streams(person.x) if len(person.x) > 1 else next(iter(person.x.values()))
        data = DomainData(
            domain_id=ids[user], x=x, y_N=np.array([classes.index(each) for each in person.labels]),
            group_N=np.array(person.groups), inputs=tuple(person.x),
        )  # fmt: skip
        write_domain(folder, data, task=task)
    renamed = {user: ids[user] for user in people if ids[user] != user}
    write_dataset(
        folder, task, channels={track.stream.name: track.stream.sensors for track in tracks},
        licence=licence, persons={domain_id: user for user, domain_id in renamed.items()},
    )  # fmt: skip
    return CsvReport(
        folder=out,
        classes=classes,
        domains=len(people),
        windows=sum(len(person.labels) for person in people.values()),
        blocks=sum(len(set(person.groups)) for person in people.values()),
        lines=tally.lines,
        account=tally.account(),
        skipped=(*tally.words(), *(intervals.skipped if intervals else ())),
        left_out=tuple(left_out),
        passed_over=passed_over,
        read_as=tuple(read_as),
        renamed=renamed,
        remarks=tuple(remarks),
    )
