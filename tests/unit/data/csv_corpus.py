"""A seeded grammar of CSV files as people have them, and what they should give, slowly.

A file is written from ``Line`` records; ``expected`` computes the windows from the same records by
the definition in docs/data.md, with loops and exact milliseconds.
"""

import gzip
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

WINDOW, STEP = 16, 8
PEOPLE = ("ann", "Jörg Müller", "p 3")
LABELS = ("walk", "sit", "Treppe hinauf", "größer")
EPOCH_MS = 1_700_000_000_000


@dataclass
class Line:
    """A line below the header; ``kind`` "ok", "bad" (its person's) or "broken" (everybody's)."""

    kind: str
    person: str
    label: str
    t_ms: int
    values: tuple[float, float]
    written_ms: int = 0


@dataclass
class Spec:
    """How a file is written and read."""

    seed: int
    rate: int = 50
    faster: int = 1
    separator: str = ","
    encoding: str = "utf-8"
    ends: str = "\n"
    packed: bool = False
    clock: str = "none"
    coarse: int = 1
    order: str = "kept"
    decimal: str = "."
    quoted: bool = False
    preamble: int = 0
    units: bool = False
    blank_lines: bool = False
    restart: bool = False
    max_gap: float | None = None
    more_cells: str = ""
    comments: int = 0
    header_sign: str = ""
    double: bool = False
    minus: str = "-"
    thousands: str = ""
    lines: list[Line] = field(default_factory=list)

    @property
    def interval_ms(self) -> int:
        return 1000 // (self.rate * self.faster)


def make(seed: int) -> Spec:
    """One file of the grammar."""
    chance = random.Random(seed)
    spec = Spec(seed=seed, rate=chance.choice([10, 20, 25, 50, 100]))
    spec.separator = chance.choice([",", ";", "\t", "|"])
    spec.encoding = chance.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
    spec.ends = chance.choice(["\n", "\n", "\r\n", "\r"])
    spec.packed = chance.random() < 0.2
    spec.clock = chance.choice(
        [
            "none",
            "none",
            "s",
            "ms",
            "us",
            "ns",
            "epoch-s",
            "epoch-ms",
            "epoch-ns",
            "iso",
            "iso-z",
            "iso-zone",
            "german",
        ]
    )
    spec.decimal = "," if spec.separator != "," and chance.random() < 0.4 else "."
    spec.quoted = chance.random() < 0.2
    spec.preamble = chance.choice([0, 0, 0, 1, 4])
    spec.units = chance.random() < 0.2
    spec.blank_lines = chance.random() < 0.2
    timed = spec.clock != "none"
    if chance.random() < 0.4:
        spec.max_gap = chance.choice([2, 4, 6]) / spec.rate
    damage = chance.choice([0.0, 0.0, 0.01, 0.03])
    drops = chance.choice([0.0, 0.0, 0.01, 0.04]) if timed else 0.0
    if timed and spec.rate <= 50 and chance.random() < 0.2:
        spec.faster = 2
    if timed and chance.random() < 0.15 and spec.clock != "german":
        spec.coarse, damage, drops = chance.choice([4, 8]), 0.0, 0.0
    elif timed:
        spec.order = chance.choice(["kept", "kept", "swapped", "shuffled"])
        spec.restart = spec.order == "kept" and spec.clock[:5] != "epoch" and chance.random() < 0.2
    _vary(spec, random.Random(f"more {seed}"))
    people = PEOPLE[: chance.choice([1, 2, 3])]
    own = {person: _person(spec, person, chance, damage, drops) for person in people}
    if chance.random() < 0.3 and len(people) > 1:  # lines alternate
        tracks = list(own.values())
        while any(tracks):
            track = chance.choice([each for each in tracks if each])
            spec.lines += [track.pop(0) for _ in range(min(len(track), chance.choice([1, 1, 5])))]
    else:
        spec.lines = [line for track in own.values() for line in track]
    return spec


def _vary(spec: Spec, chance: random.Random) -> None:
    """What was added to the grammar later: other clocks, signs, comments and columns."""
    is_plain = spec.clock in ("iso", "iso-z", "iso-zone", "german", "epoch-s")
    if is_plain and chance.random() < 0.6:
        spec.clock = chance.choice(
            ["iso-mixed", "us", "named", "compact", "digits", "day", "epoch-d"]
        )
    if spec.clock == "day":
        spec.order, spec.restart = "kept", False
    if spec.clock == "epoch-d" and spec.interval_ms < 20:
        spec.clock = "named"
    if spec.clock != "german" and chance.random() < 0.05:
        spec.encoding = "utf-32"
    spec.more_cells = chance.choice(["", "", "", "all", "lines", "some"])
    spec.comments = chance.choice([0, 0, 0, 2, 5])
    spec.header_sign = chance.choice(["", "", "", "# ", "#"])
    spec.double = chance.random() < 0.2
    if spec.encoding.startswith("utf"):
        spec.minus = chance.choice(["-", "-", "\u2212"])
    if chance.random() < 0.15 and spec.minus == "-":
        spec.thousands = {".": ",", ",": "."}[spec.decimal]
        if spec.thousands == spec.separator:
            spec.thousands = "'"


def _person(
    spec: Spec, person: str, chance: random.Random, damage: float, drops: float
) -> list[Line]:
    lines, start = [], chance.randrange(0, 5000, 1000)
    for take in range(2 if spec.restart else 1):
        t_ms = start
        for _ in range(chance.choice([2, 3, 4])):
            label = chance.choice(LABELS[:3] if spec.encoding != "cp1252" else LABELS)
            for _ in range(spec.coarse * chance.randrange(8, 200 // spec.coarse)):
                t_ms += spec.interval_ms
                if chance.random() < drops:
                    t_ms += spec.interval_ms * chance.choice([0, 1, 2, 6])
                    continue
                kind = "ok"
                if chance.random() < damage:
                    kind = chance.choice(["bad", "bad", "broken"])
                values = (chance.randrange(-200, 200) / 4, chance.randrange(-200, 200) / 4)
                if spec.thousands:
                    values = (values[0] + 1000, values[1] - 1000)
                lines.append(Line(kind, person, label, t_ms, values, t_ms))
        assert take < 2
    if spec.coarse > 1:
        tick = spec.coarse * spec.interval_ms
        first = lines[0].t_ms
        for line in lines:
            line.written_ms = first + (line.t_ms - first) // tick * tick
    if spec.order == "swapped":
        for at in range(5, len(lines) - 5, 23):
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
    elif spec.order == "shuffled":
        chance.shuffle(lines)
    return lines


def write(spec: Spec, folder: Path) -> Path:
    """The file of a spec."""
    chance = random.Random(spec.seed)
    timed = spec.clock != "none"
    names = ["who", " What", "Zeit (t) ", "acc x", "acc-y", "note"]
    if spec.double:
        names[-1:] = ["more", "more", "note"]
    if not timed:
        names.remove("Zeit (t) ")
    units = [{"Zeit (t) ": "ms", "acc x": "m/s²", "acc-y": "m/s²"}.get(name, "") for name in names]
    if spec.more_cells == "all":
        names.append("")
    rows = [spec.header_sign + spec.separator.join(names)]
    if spec.units:
        rows.append(spec.separator.join(units))
    comments = [*range(0, len(spec.lines), max(1, len(spec.lines) // (spec.comments or 1)))]
    for number, line in enumerate(spec.lines):
        if spec.blank_lines and chance.random() < 0.02:
            rows.append("")
        if number in comments[: spec.comments]:
            rows.append("# a comment")
        rows.append(_row(spec, line, timed, chance))
    top = [f"Exported by app {number}" for number in range(spec.preamble)]
    text = spec.ends.join([*top, *rows, ""])
    content = text.encode(spec.encoding)
    path = folder / ("all.CSV.gz" if spec.packed else "all.CSV")
    path.write_bytes(gzip.compress(content) if spec.packed else content)
    return path


def num_lines(spec: Spec) -> int:
    """How many lines the account has."""
    return len(spec.lines) + spec.units + min(spec.comments, len(spec.lines))


def _row(spec: Spec, line: Line, timed: bool, chance: random.Random) -> str:
    swap = str.maketrans({",": spec.thousands, ".": spec.decimal, "-": spec.minus})
    x, y = (f"{value:,.2f}".translate(swap) for value in line.values)
    person, label, note = line.person, line.label, chance.choice(["", "ok"])
    if note and spec.double:
        note = f'"a{spec.separator} ""b"""'
    how = chance.randrange(3)
    if line.kind == "bad":
        if how == 0:
            x = chance.choice(["", "NaN", "ten", "-", "N/A", "+inf", "1.2.3"])
            y = x  # a sensor alone without a value may have a rate of its own
        elif how == 1:
            label = chance.choice(["", "nan", "NULL"])
        else:
            y = "1e39"
    elif line.kind == "broken" and how == 1:
        person = chance.choice(["", "N/A"])
    elif line.kind == "broken" and how == 2:
        note = '"strap loose'
    more = ["1", "2"] if spec.double else []
    texts = [person, label, *([_time(spec, line)] if timed else []), x, y, *more, note]
    if spec.quoted and note[:1] != '"':
        texts = [f'"{text}"' for text in texts]
    if line.kind == "broken" and how == 0:
        texts = texts[:-2]
    elif spec.more_cells and (spec.more_cells != "some" or chance.random() < 0.3):
        texts.append("")
    return spec.separator.join(texts)


def _time(spec: Spec, line: Line) -> str:
    t_ms, clock = line.written_ms, spec.clock
    moment = datetime(2023, 11, 12, 22) + timedelta(milliseconds=t_ms)
    if clock in ("german", "us", "named", "day", "compact", "digits"):
        if clock == "day":  # over midnight
            moment += timedelta(hours=1, minutes=59, seconds=55)
        sign = "," if clock == "german" and spec.separator != "," else "."
        form = {
            "german": "%d.%m.%Y %H:%M:%S",
            "us": "%m/%d/%Y %I:%M:%S",
            "day": "%H:%M:%S",
            "named": "%d-%b-%Y %H:%M:%S",
            "compact": "%Y%m%dT%H%M%S",
            "digits": "%Y%m%d%H%M%S",
        }
        text = f"{moment.strftime(form[clock])}{sign if clock != 'digits' else ''}{t_ms % 1000:03d}"
        return text + (moment.strftime(" %p") if clock == "us" else "")
    if clock == "iso-mixed":
        text = moment.isoformat(timespec="microseconds")
        return text.rstrip("0").rstrip(".")
    if clock.startswith("iso"):
        text = moment.isoformat(timespec="milliseconds")
        return text + {"iso": "", "iso-z": "Z", "iso-zone": "+01:00"}[clock]
    if clock == "epoch-d":
        return f"{46354 + t_ms / 86_400_000:.12f}".replace(".", spec.decimal)
    if clock.startswith("epoch"):
        t_ms += EPOCH_MS
    unit = clock.removeprefix("epoch-")
    if unit == "s":
        return f"{t_ms / 1000:.3f}".replace(".", spec.decimal)
    return str(t_ms * {"ms": 1, "us": 1000, "ns": 1_000_000}[unit])


def options(spec: Spec) -> dict[str, Any]:
    """Columns as a person names them."""
    time = {} if spec.clock == "none" else {"time": "Zeit (t)"}
    return {
        "sensors": ("acc x", "acc-y"),
        "label": "What",
        "user": "who",
        "delimiter": None,
        **time,
    }


def expected(spec: Spec) -> dict[str, list[tuple[str, list[list[list[float]]]]]]:
    """By person, label and windows (channels, samples) of each block, by the definition."""
    found: dict[str, list[tuple[str, list[list[list[float]]]]]] = {}
    for person in dict.fromkeys(line.person for line in spec.lines if line.kind == "ok"):
        own, skips = [], 0
        for line in spec.lines:
            if line.kind == "broken" or (line.kind == "bad" and line.person == person):
                skips += 1
            elif line.kind == "ok" and line.person == person:
                own.append((line, skips))
        found[person] = [
            (label, windows)
            for label, points in (_timed if spec.clock != "none" else _even)(spec, own)
            for windows in _cut(spec, _resampled(spec, points))
            if windows
        ]
    return found


def _even(spec: Spec, own: list[tuple[Line, int]]) -> list[tuple[str, Any]]:
    parts: list[tuple[str, Any]] = []
    at, before = 0, (own[0][0].label, own[0][1])
    for line, skips in own:
        lacking = skips - before[1]
        bridged = (
            spec.max_gap is not None and lacking and lacking + 1 <= spec.max_gap * spec.rate + 1e-6
        )
        if not parts or line.label != before[0] or (lacking and not bridged):
            parts.append((line.label, []))
        at += lacking + 1 if bridged else 1
        parts[-1][1].append((at * 1000 / spec.rate, line.values))
        before = (line.label, skips)
    return [(label, (points, 1000 / spec.rate)) for label, points in parts]


def _timed(spec: Spec, own: list[tuple[Line, int]]) -> list[tuple[str, Any]]:
    is_sorted = any(b[0].t_ms < a[0].t_ms for a, b in pairwise(own)) and not spec.restart
    if is_sorted:
        own = sorted(own, key=lambda each: each[0].t_ms)
    steps = [b[0].t_ms - a[0].t_ms for a, b in pairwise(own)]
    ahead = [step for step in steps if step > 0]
    usual = median(ahead) if len(own) >= 16 and ahead else spec.interval_ms
    limit = 3 * usual if spec.max_gap is None else max(spec.max_gap * 1000, 1.5 * usual)
    has_skips = len({skips for _, skips in own}) > 1
    parts: list[tuple[str, Any]] = []
    for at, (line, skips) in enumerate(own):
        is_cut = not at
        if at:
            step, before = steps[at - 1], own[at - 1]
            is_cut = step < 0 or step > limit + 1e-6 or line.label != before[0].label
            if spec.max_gap is None:
                lacks = step > 1.5 * usual and has_skips if is_sorted else skips != before[1]
                is_cut = is_cut or lacks
        if is_cut:
            parts.append((line.label, []))
        parts[-1][1].append((line.t_ms, line.values))
    return [(label, (points, usual)) for label, points in parts]


def _resampled(spec: Spec, part: Any) -> list[list[float]]:
    """Samples (time, channels) at the rate: an average over a sample's length, then lines."""
    points, usual = part
    width = max(1, round(1000 / (usual * spec.rate)))
    times = [t for t, _ in points]
    smooth = []
    for at in range(len(points)):
        near = [
            min(max(at + shift, 0), len(points) - 1)
            for shift in range(-(width // 2), width - width // 2)
        ]
        smooth.append([sum(points[i][1][k] for i in near) / width for k in range(2)])
    samples, left = [], 0
    for number in range(int((times[-1] - times[0]) * spec.rate / 1000 + 1e-3) + 1):
        t = times[0] + number * 1000 / spec.rate
        while left + 1 < len(times) and times[left + 1] <= t + 1e-9:
            left += 1
        right = min(left + 1, len(times) - 1)
        span = times[right] - times[left]
        share = (t - times[left]) / span if span else 0.0
        samples.append(
            [smooth[left][k] + share * (smooth[right][k] - smooth[left][k]) for k in range(2)]
        )
    return samples


def _cut(spec: Spec, samples: list[list[float]]) -> list[list[list[list[float]]]]:
    """Windows of each block; blocks are even parts of two seconds or more."""
    count = max(1, len(samples) // (2 * spec.rate))
    bounds = [0]
    for index in range(count):
        bounds.append(bounds[-1] + len(samples) // count + (index < len(samples) % count))
    blocks = []
    for start, end in pairwise(bounds):
        starts = range(start, end - WINDOW + 1, STEP)
        blocks.append(
            [[[row[k] for row in samples[at : at + WINDOW]] for k in range(2)] for at in starts]
        )
    return blocks
