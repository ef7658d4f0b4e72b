"""Text of what the report shows: display names of methods, and numbers with their units."""

import typing

from graft.core.records import Phase
from graft.core.tasks import OutputKind

PHASES: tuple[str, ...] = typing.get_args(Phase)
LABEL_ONLY = "label-only"
LABEL_ONLY_RECIPE = "label-only-recipe"
SHIP_ALL = "average-kd-all"
ALL_LABELS = "all-labels"  # trains on labels that no target domain has: a reference
REFERENCES = (ALL_LABELS, "pooled-reference")  # what uses more than a deployed device has
# What the first and the second score of an output's kind are called.
SCORE_TITLES: dict[OutputKind, tuple[str, str]] = {
    "classes": ("accuracy", "macro-F1"),
    "labels": ("macro-F1", "average precision"),
    "amount": ("R\N{SUPERSCRIPT TWO}", "absolute error"),
}
NOT_RUN = "not run"
NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
GROWTH_TITLES = {
    "grow-had": "Growth, HAD-style",
    "grow-lwf": "Growth, LwF",
    "grow-ewc": "Growth, EWC",
    "grow-naive": "Growth, naive",
    "grow-joint": "Growth, all rows again (reference)",
}


def capitalised(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def display_name(method: str) -> str:
    """The name a reader sees: the method's title; of one that is not installed, its identifier."""
    if not method:
        return "System's own"
    from graft.methods import methods_by_name  # torch

    known = methods_by_name().get(method)
    return known.title if known else GROWTH_TITLES.get(method, method)


def bytes_text(num_bytes: float | None) -> str:
    """Payload bytes in decimal units with three figures, e.g. "12.3 MB"."""
    if num_bytes is None:
        return NONE
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        # 999.5 and not 1000, so that rounding never shows "1000 kB".
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    if unit == "B":
        return f"{size:.0f} B"
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"


def percent_text(share: float | None, digits: int = 1) -> str:
    """A share of 1 as per cent; a share too small for the digits says so and not "0.0 %"."""
    if share is None:
        return NONE
    smallest = 10.0**-digits
    if 0 < share * 100 < smallest / 2:
        return f"< {smallest:.{digits}f} %"
    return f"{share * 100:.{digits}f} %"


def interval_text(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """An interval of shares as per cent figures without the sign, e.g. "76.0 to 80.4"."""
    if interval is None:
        return NONE
    low, high = (f"{number * 100:+.1f}" if signed else f"{number * 100:.1f}" for number in interval)
    return f"{low} to {high}".replace("-", MINUS)


def points_text(difference: float | None) -> str:
    """A difference of accuracies in percentage points, always signed."""
    return NONE if difference is None else f"{difference * 100:+.1f}".replace("-", MINUS)


def seconds_text(seconds: float | None) -> str:
    """A duration, e.g. "0.42 s", "3 min 05 s", "2 h 07 min"."""
    if seconds is None:
        return NONE
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def count_text(count: int, noun: str) -> str:
    """A count with its noun, e.g. "1 target domain", "2 target domains"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def shortened(text: str, limit: int = 24) -> str:
    """``text`` cut in its middle to ``limit`` characters: ids often differ at their ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[-(limit - 1 - head) :]}"
