"""Tables of readings -> a domain folder: read, understand times, cut windows, account for lines.

Legend: L lines, K channels, N windows, T samples of a window.
"""

import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.files import make_folder
from graft.core.outputs import check_output, new_folder
from graft.core.records import DOMAIN_ID
from graft.core.streams import Lazy
from graft.core.tasks import Modality, Task
from graft.data.class_names import remarks_on_classes, remarks_on_persons
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain
from graft.data.importers import csv_account as account
from graft.data.importers.csv_account import LineTally
from graft.data.importers.csv_clock import FEW_LINES, Pace, find_unit, read_clock
from graft.data.importers.csv_columns import UNITS_S, CsvColumns
from graft.data.importers.csv_files import check_names, find_files, path_fields
from graft.data.importers.csv_intervals import Intervals, read_intervals
from graft.data.importers.csv_lines import Recordings, read_recordings
from graft.data.importers.csv_windows import (
    Plan,
    Windowing,
    pace_of,
    plan_even,
    plan_timed,
    recordings,
)
from graft.data.importers.csv_words import clock_notes, file_note, left_out_words, yield_remarks
from graft.data.public.recordings import natural_key
from graft.errors import DomainEmptyError

# Windows of more bytes are written uncompressed, so that they can be read as they are indexed.
_LARGE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvReport:
    """What ``convert_csv`` wrote and what it left out, in words.

    ``account`` is the number of lines by what became of them, which are together all ``lines``;
    ``read_as`` what was inferred; ``renamed`` domain ids of persons whose names are none.
    """

    folder: Path
    classes: tuple[str, ...]
    domains: int
    windows: int
    blocks: int
    lines: int
    account: Mapping[str, int]
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
    passed_over: tuple[str, ...]
    read_as: tuple[str, ...]
    renamed: Mapping[str, str]
    remarks: tuple[str, ...]


def convert_csv(
    source: Path,
    out: Path,
    columns: CsvColumns,
    windowing: Windowing,
    *,
    name: str,
    licence: str,
    modality: Modality = "imu",
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> CsvReport:
    """Write the domain folder ``out`` from a table of readings or a folder of them, all or nothing.

    Files are CSV or other separated text, also compressed by gzip, Parquet, or the first sheet of a
    workbook. A person with fewer than two classes of whole windows is left out and named.

    Parameters
    ----------
    source, out
        A file or folder, and the domain folder.
    columns, windowing
        What columns mean, and how lines become samples.
    name, licence, modality
        Of the data set.
    overwrite
        Whether ``out`` may hold something.
    progress
        Called with a file's name, the bytes read and the bytes of all files.

    Raises
    ------
    DatasetFormatError
        Where files, columns, times or most lines are of no use.
    DomainEmptyError
        Where nobody has windows of two classes.
    DataError
        Where ``out`` holds something already, or is, holds or lies in ``source``.
    """
    labelled = columns.intervals
    sources = [source, *([labelled.path] if labelled else [])]
    check_output(out, sources)
    found = find_files(source, columns.path, labelled.path if labelled else None)
    if columns.user is None and "user" not in path_fields(columns.path):
        check_names(found.files)
    make_folder(out.resolve().parent)
    with (
        new_folder(out, sources=sources, overwrite=overwrite) as folder,
        tempfile.TemporaryDirectory(prefix=".lines-", dir=folder.parent) as place,
    ):
        tally, notes = LineTally(), dict[str, list[str]]()
        intervals = read_intervals(columns) if labelled else None
        lines = read_recordings(found.files, columns, Path(place), tally, notes, progress)
        tally.check_share(source)
        read_as = [file_note(note, names, len(found.files)) for note, names in notes.items()]
        plans = plan_people(lines, columns, windowing, read_as, intervals)
        labels = {code: label for label, code in lines.labels.items()}
        own = {
            user: sorted({labels[part.label] for part in plan.parts}, key=natural_key)
            for user, plan in plans.items()
        }
        classes = tuple(sorted({label for each in own.values() for label in each}, key=natural_key))
        chosen = [user for user in plans if len(own[user]) >= 2]
        left_out = [
            left_out_words(user, own[user], plans[user], windowing)
            for user in plans if user not in chosen
        ]  # fmt: skip
        remarks = [
            *yield_remarks(plans, windowing),
            *(intervals.remarks() if intervals else ()),
            *remarks_on_classes(classes, {user: own[user] for user in chosen}),
            *remarks_on_persons(chosen),
        ]
        _settle(tally, plans, chosen)
        if not chosen:
            raise DomainEmptyError(
                f"{source}: got nobody with windows of two classes, wanted at least one; a window "
                f"takes {windowing.window} lines in a row of one label. "
                + "; ".join([*left_out[:5], *remarks[:2], *tally.words()[:2]])
            )
        shape = (len(columns.sensors), windowing.window)
        task = Task(name=name, modality=modality, sample_shape=shape, classes=classes)
        ids = domain_ids(chosen)
        class_of = {code: classes.index(each) for code, each in labels.items() if each in classes}
        blocks = 0
        for number, user in enumerate(chosen):
            if progress is not None:
                progress(f"writing {ids[user]}", number, len(chosen))
            values = lines.values(lines.users[user])
            data = _domain(ids[user], plans[user], values, windowing, class_of)
            size = int(np.prod(data.x.shape)) * 4
            write_domain(folder, data, compressed=size <= _LARGE_BYTES)
            blocks += len(np.unique(data.group_N))
        renamed = {user: ids[user] for user in chosen if ids[user] != user}
        write_dataset(
            folder, task, channels=columns.sensors, rate_hz=windowing.rate_hz, licence=licence,
            persons={domain_id: user for user, domain_id in renamed.items()},
        )  # fmt: skip
    return CsvReport(
        folder=out,
        classes=classes,
        domains=len(chosen),
        windows=sum(plans[user].num_windows for user in chosen),
        blocks=blocks,
        lines=tally.lines,
        account=tally.account(),
        skipped=(*tally.words(), *(intervals.skipped if intervals else ())),
        left_out=tuple(left_out),
        passed_over=found.passed_over,
        read_as=tuple(read_as),
        renamed=renamed,
        remarks=tuple(remarks),
    )


def domain_ids(users: Iterable[str]) -> dict[str, str]:
    """A domain id of each user: the user's name where it is one, else the nearest in ASCII; ids
    that differ in case alone would be one file on some file systems, and get a number."""
    users = list(users)
    ids: dict[str, str] = {}
    for user in [*filter(DOMAIN_ID.fullmatch, users), *users]:
        if user in ids:
            continue
        text = user.replace("ß", "ss").replace("æ", "ae").replace("ø", "o").replace("ł", "l")
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        text = re.sub(r"[^A-Za-z0-9._@]+", "-", text).strip("-.")[:100] or "person"
        text = user if DOMAIN_ID.fullmatch(user) else text
        own, count = text if DOMAIN_ID.fullmatch(text) else f"person-{text}", 1
        taken = {each.casefold() for each in ids.values()}
        while own.casefold() in taken:
            count += 1
            own = f"{text}-{count}"
        ids[user] = own
    return ids


def plan_people(
    lines: Recordings, columns: CsvColumns, windowing: Windowing, read_as: list[str],
    intervals: Intervals | None = None,
) -> dict[str, Plan]:  # fmt: skip
    """The plan of each person, by name in order; ``intervals`` give lines their labels."""
    plans = {user: Plan() for user in sorted(lines.users)}
    times = _times(lines, columns, windowing, read_as) if columns.time else None
    if intervals is not None and times is not None:
        lines.labels.update(intervals.labels)
        main_unit = next(
            name for name, unit_s in UNITS_S.items() if unit_s == times.unit_s["number"]
        )
        every = [
            (user, lines.takes[take], own["time"][index] * times.unit_s[lines.takes[take].kind])
            for user, code in lines.users.items()
            for own in [lines.lines(code)]
            for take, index in recordings(own)
        ]
        intervals.settle(every, main_unit, read_as)
        del every  # recordings may be long
    for user, plan in plans.items():
        own = lines.lines(lines.users[user])
        if times is None:
            plan_even(own, windowing, plan)
            continue
        values = None
        for take, index in recordings(own):
            is_sparse = lines.takes[take].file in lines.sparse
            index_L = None if isinstance(index, slice) else index
            if not is_sparse and own["blank"].any():
                # Lines without a value of some sensor are skipped ones, counted when read.
                index_L = np.arange(len(own))[index]
                own["skips"][index_L] += np.cumsum(own["blank"][index_L])
                index_L = index_L[~own["blank"][index_L]]
            chosen = own if index_L is None else own[index_L]
            if not len(chosen):
                continue
            if is_sparse and values is None:
                values = np.asarray(lines.values(lines.users[user])[:])
            kind = lines.takes[take].kind
            clock = read_clock(chosen["time"], kind, bursts=times.bursts[kind])
            unit = times.unit_s[kind]
            if intervals is not None:
                label_L = intervals.label(user, lines.takes[take], clock.seconds(unit))
                chosen["label"][slice(None) if clock.order_L is None else clock.order_L] = label_L
            own_usual = clock.usual if len(chosen) >= FEW_LINES else times.usual or clock.usual
            plan_timed(index_L, chosen, clock, unit, own_usual * unit, windowing, plan,
                       values if is_sparse else None)  # fmt: skip
    clock_notes(plans, windowing, read_as)
    return plans


@dataclass(frozen=True, kw_only=True, slots=True)
class _Times:
    """How times of each kind are read: seconds of a unit, whether lines arrive in bursts, and the
    usual interval of all recordings, in the unit."""

    unit_s: Mapping[str, float]
    bursts: Mapping[str, bool]
    usual: float


def _times(
    lines: Recordings, columns: CsvColumns, windowing: Windowing, read_as: list[str]
) -> _Times:
    paces: dict[str, list[Pace]] = {"number": [], "stamp": [], "clock": []}
    for user, code in lines.users.items():
        own = lines.lines(code)
        for number, index in recordings(own):
            take = lines.takes[number]
            paces[take.kind].append(pace_of(take, user, own["time"][index]))
    unit_s, bursts, every = {"number": 1.0, "stamp": 1.0, "clock": 1.0}, {}, []
    for kind, own_paces in paces.items():
        is_number = kind == "number"
        units_s = UNITS_S if is_number else {"s": 1.0}
        wanted = columns.time_unit if is_number else "s"
        unit, bursts[kind] = find_unit(own_paces, windowing.rate_hz, wanted, units_s)
        unit_s[kind] = units_s[unit or "s"]
        telling = [pace for pace in own_paces if pace.usual and pace.lines >= FEW_LINES]
        usual = [(bursts[kind] and pace.burst) or pace.usual for pace in telling]
        every += usual
        if usual and is_number:
            apart = float(np.median(usual))
            read_as.append(
                f"{columns.time} is in {unit}{'' if columns.time_unit else ' (inferred)'}: lines "
                f"usually {apart:.6g} {unit} apart, {1 / (apart * unit_s[kind]):.4g} a second"
            )
        elif usual:
            what = "date with a time" if kind == "stamp" else "time of day"
            read_as.append(
                f"{columns.time} is a {what}, such as {telling[0].sample or 'a timestamp'}"
            )
    return _Times(unit_s=unit_s, bursts=bursts, usual=float(np.median(every)) if every else 0.0)


def _settle(tally: LineTally, plans: Mapping[str, Plan], chosen: list[str]) -> None:
    """Account for every line that could be used."""
    for user, plan in plans.items():
        for reason, count in plan.lines.items():
            is_lost = user not in chosen and reason in (account.IN_WINDOWS, account.RESTS)
            tally.add(account.LEFT_OUT if is_lost else reason, count)


def _domain(
    domain_id: str, plan: Plan, values_LK: Any, windowing: Windowing, class_of: Mapping[int, int]
) -> DomainData:
    """A person's rows; those of many windows are computed as they are written."""
    counts = [[count for _, count in windowing.blocks(part.num_samples)] for part in plan.parts]
    sizes = [count for each in counts for count in each]
    rows_of_part = np.array([sum(each) for each in counts])
    shape = (values_LK.shape[1], windowing.window)

    def windows(at: int) -> Any:
        return np.concatenate(list(plan.parts[at].windows(values_LK, windowing)))

    end_P = np.cumsum(rows_of_part)

    def read(rows_N: Any) -> Any:
        """Rows in ascending order, as a writer reads them."""
        parts = np.unique(np.searchsorted(end_P, rows_N, side="right"))
        found = np.concatenate([windows(at) for at in parts.tolist()])
        first = end_P[parts] - rows_of_part[parts]
        known = np.concatenate(
            [np.arange(start, end) for start, end in zip(first, end_P[parts], strict=True)]
        )
        return found[np.searchsorted(known, rows_N)]

    num_rows = int(rows_of_part.sum())
    return DomainData(
        domain_id=domain_id,
        x=Lazy(read, np.arange(num_rows), shape, np.dtype(np.float32)),
        y_N=np.repeat([class_of[part.label] for part in plan.parts], rows_of_part),
        group_N=np.repeat(np.arange(len(sizes)), sizes),
    )
