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
from graft.core.records import DOMAIN_ID, Modality, Task
from graft.core.streams import Lazy
from graft.data.class_names import remarks_on_classes
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain
from graft.data.importers import csv_account as account
from graft.data.importers.csv_account import LineTally
from graft.data.importers.csv_clock import FEW_LINES, check_pace, find_unit, read_clock
from graft.data.importers.csv_columns import UNITS_S, CsvColumns
from graft.data.importers.csv_files import check_names, find_files, path_fields
from graft.data.importers.csv_lines import Recordings, read_recordings
from graft.data.importers.csv_windows import (
    Plan,
    Windowing,
    pace_of,
    plan_even,
    plan_timed,
    recordings,
)
from graft.data.public.recordings import natural_key
from graft.errors import DomainEmptyError

# Windows of more bytes are written uncompressed, so that they can be read as they are indexed.
_LARGE_BYTES = 64 << 20
_LOW_YIELD = 0.5


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
    check_output(out, [source])
    found = find_files(source, columns.path)
    if columns.user is None and "user" not in path_fields(columns.path):
        check_names(found.files)
    make_folder(out.resolve().parent)
    with (
        new_folder(out, sources=[source], overwrite=overwrite) as folder,
        tempfile.TemporaryDirectory(prefix=".lines-", dir=folder.parent) as place,
    ):
        tally, notes = LineTally(), dict[str, list[str]]()
        lines = read_recordings(found.files, columns, Path(place), tally, notes, progress)
        tally.check_share(source)
        read_as = [_note(note, names, len(found.files)) for note, names in notes.items()]
        plans = _plan(lines, columns, windowing, read_as)
        labels = {code: label for label, code in lines.labels.items()}
        own = {
            user: sorted({labels[part.label] for part in plan.parts}, key=natural_key)
            for user, plan in plans.items()
        }
        classes = tuple(sorted({label for each in own.values() for label in each}, key=natural_key))
        chosen = [user for user in plans if len(own[user]) >= 2]
        left_out = [
            _left_out(user, own[user], plans[user], windowing)
            for user in plans if user not in chosen
        ]  # fmt: skip
        remarks = [
            *_remarks(plans, windowing),
            *remarks_on_classes(classes, {user: own[user] for user in chosen}),
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
        skipped=tally.words(),
        left_out=tuple(left_out),
        passed_over=found.passed_over,
        read_as=tuple(read_as),
        renamed=renamed,
        remarks=tuple(remarks),
    )


def domain_ids(users: Iterable[str]) -> dict[str, str]:
    """A domain id of each user: the user's name where it is one, else the nearest in ASCII."""
    users = list(users)
    ids = {user: user for user in users if DOMAIN_ID.fullmatch(user)}
    for user in users:
        if user in ids:
            continue
        text = user.replace("ß", "ss").replace("æ", "ae").replace("ø", "o").replace("ł", "l")
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        text = re.sub(r"[^A-Za-z0-9._@]+", "-", text).strip("-.")[:100] or "person"
        own, count = text if DOMAIN_ID.fullmatch(text) else f"person-{text}", 1
        while own in ids.values():
            count += 1
            own = f"{text}-{count}"
        ids[user] = own
    return ids


def _plan(
    lines: Recordings, columns: CsvColumns, windowing: Windowing, read_as: list[str]
) -> dict[str, Plan]:
    """The plan of each person, by name in order."""
    plans = {user: Plan() for user in sorted(lines.users)}
    unit_s, usual = _unit(lines, columns, windowing, read_as) if columns.time else ({}, 0.0)
    for user, plan in plans.items():
        own = lines.lines(lines.users[user])
        if columns.time is None:
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
            clock = read_clock(chosen["time"], lines.takes[take].kind)
            unit = unit_s[lines.takes[take].kind]
            own_usual = clock.usual if len(chosen) >= FEW_LINES else usual or clock.usual
            plan_timed(index_L, chosen, clock, unit, own_usual * unit, windowing, plan,
                       values if is_sparse else None)  # fmt: skip
    _note_clocks(plans, windowing, read_as)
    return plans


def _unit(
    lines: Recordings, columns: CsvColumns, windowing: Windowing, read_as: list[str]
) -> tuple[dict[str, float], float]:
    """Seconds of one unit of each kind of times, and the usual interval of all recordings."""
    paces: dict[str, list[Any]] = {"number": [], "stamp": [], "clock": []}
    for user, code in lines.users.items():
        own = lines.lines(code)
        for number, index in recordings(own):
            take = lines.takes[number]
            paces[take.kind].append(pace_of(take, user, own["time"][index]))
    unit_s = {"number": 1.0, "stamp": 1.0, "clock": 1.0}
    if paces["number"]:
        unit = find_unit(paces["number"], windowing.rate_hz, columns.time_unit, UNITS_S)
        unit_s["number"] = UNITS_S[unit or "s"]
        if unit:
            usual = float(np.median([pace.usual for pace in paces["number"] if pace.usual]))
            read_as.append(
                f"{columns.time} is in {unit}{'' if columns.time_unit else ' (inferred)'}: lines "
                f"usually {usual:.6g} {unit} apart, {1 / (usual * unit_s['number']):.4g} a second"
            )
    for kind in ("stamp", "clock"):
        telling = [pace for pace in paces[kind] if pace.lines >= FEW_LINES] or paces[kind]
        for pace in telling:
            check_pace(pace, 1.0, windowing.rate_hz)
        if telling:
            read_as.append(
                f"{columns.time} is a {'date with a time' if kind == 'stamp' else 'time of day'}, "
                f"such as {telling[0].sample or 'a timestamp'}"
            )
    every = [pace.usual for each in paces.values() for pace in each
             if pace.usual and pace.lines >= FEW_LINES]  # fmt: skip
    return unit_s, float(np.median(every)) if every else 0.0


def _note_clocks(plans: Mapping[str, Plan], windowing: Windowing, read_as: list[str]) -> None:
    late = sum(plan.late for plan in plans.values())
    if late:
        read_as.append(f"{late} lines were out of order and are sorted by time")
    shared = {user: plan.shared for user, plan in plans.items() if plan.shared > 1}
    if shared:
        user, count = max(shared.items(), key=lambda each: each[1])
        read_as.append(
            f"{count:g} lines share a time ({user}): the column has too coarse a clock, and lines "
            "of one time are spread evenly; without --time they are taken at --rate"
        )
    filled = sum(plan.filled for plan in plans.values())
    if filled:
        limit = max(plan.limit_s for plan in plans.values()) or windowing.max_gap_s or 0.0
        read_as.append(
            f"{filled} missing lines in gaps of at most {limit:.3g} s are filled by interpolation"
        )
    faster = {
        user: 1 / plan.usual_s / windowing.rate_hz
        for user, plan in plans.items() if plan.usual_s
    }  # fmt: skip
    for user, factor in list(faster.items()):
        if factor > 1.5 or factor < 0.9:
            how = "averaged down" if factor > 1 else "interpolated up"
            others = sum(1 for each in faster.values() if each > 1.5 or each < 0.9) - 1
            more = f" and {others} more" if others else ""
            read_as.append(
                f"lines of {user}{more} are at {factor * windowing.rate_hz:.4g} Hz and {how} to "
                f"{windowing.rate_hz:g} Hz"
            )
            break


def _settle(tally: LineTally, plans: Mapping[str, Plan], chosen: list[str]) -> None:
    """Account for every line that could be used."""
    for user, plan in plans.items():
        for reason, count in plan.lines.items():
            is_lost = user not in chosen and reason in (account.IN_WINDOWS, account.RESTS)
            tally.add(account.LEFT_OUT if is_lost else reason, count)


def _left_out(user: str, labels: list[str], plan: Plan, windowing: Windowing) -> str:
    windows = f"windows of {labels[0]!r} alone" if labels else "no whole window"
    text = f"{user}: {windows}, wanted two classes or more"
    return text + (f": {_cut_words(plan, windowing)}" if plan.pauses else "")


def _cut_words(plan: Plan, windowing: Windowing) -> str:
    count = len(plan.pauses)
    return (
        f"cut at {count} pause{'s' if count > 1 else ''} of more than {plan.limit_s:.3g} s, "
        f"longest unbroken {plan.longest} lines; a window takes {windowing.window}"
    )


def _remarks(plans: Mapping[str, Plan], windowing: Windowing) -> list[str]:
    """Whose lines are mostly in no window, why, and the option that helps."""
    found = []
    for user, plan in plans.items():
        total = sum(plan.lines.values())
        used = plan.lines.get(account.IN_WINDOWS, 0)
        if not total or used >= _LOW_YIELD * total:
            continue
        others = {reason: count for reason, count in plan.lines.items()
                  if reason != account.IN_WINDOWS}  # fmt: skip
        reason, count = max(others.items(), key=lambda each: each[1])
        words = f"{reason}, {count} lines"
        if reason == account.PAUSES:
            words = _cut_words(plan, windowing)
            gap_s = float(np.quantile(plan.pauses, 0.9)) * 1.001 if plan.pauses else 0.0
            most_s = windowing.window / windowing.rate_hz / 2
            helps = (
                f"--max-gap {_up(gap_s)} fills them" if gap_s <= most_s else "a shorter --window"
            )
        elif reason == account.SKIPS:
            helps = "--max-gap bridges single lines"
        elif reason == account.RESTS:
            helps = "a smaller --step or --window"
        else:
            helps = f"a shorter --window; the longest has {plan.longest} samples"
        found.append(
            f"{user}: {used} of {total} lines ({100 * used / total:.0f} %) are in windows: "
            f"{words}; {helps}"
        )
    return [
        *found[:10],
        *([f"and {len(found) - 10} more people like these"] if len(found) > 10 else []),
    ]


def _up(value: float) -> str:
    """A number with two digits that is not below the value."""
    scale = 10 ** (int(np.floor(np.log10(value))) - 1)
    return f"{np.ceil(value / scale - 1e-9) * scale:.4g}"


def _note(note: str, names: list[str], num_files: int) -> str:
    if len(names) == num_files:
        return f"all files: {note}"
    more = f" and {len(names) - 1} more files" if len(names) > 1 else ""
    return f"{names[0]}{more}: {note}"


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
