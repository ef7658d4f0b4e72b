"""What an import says of itself: how times were read, who is left out, which option helps."""

from collections.abc import Mapping

import numpy as np

from graft.data.importers import csv_account as account
from graft.data.importers.csv_windows import Plan, Windowing

# A person with a smaller part of the lines in windows has a remark.
_LOW_YIELD = 0.5


def clock_notes(plans: Mapping[str, Plan], windowing: Windowing, read_as: list[str]) -> None:
    late = sum(plan.late for plan in plans.values())
    if late:
        read_as.append(f"{late} lines were out of order and are sorted by time")
    turns = sum(plan.turns for plan in plans.values())
    if turns:
        how_often = "once" if turns == 1 else f"{turns} times"
        read_as.append(f"a clock ran over and began again {how_often}: its times are taken on")
    shared = {user: plan.shared for user, plan in plans.items() if plan.shared > 1}
    if shared:
        user, count = max(shared.items(), key=lambda each: each[1])
        read_as.append(
            f"{count:g} lines share a time or arrive together ({user}): the column has too coarse "
            "a clock, and such lines are spread evenly; without --time they are taken at --rate"
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


def left_out_words(user: str, labels: list[str], plan: Plan, windowing: Windowing) -> str:
    windows = f"windows of {labels[0]!r} alone" if labels else "no whole window"
    text = f"{user}: {windows}, wanted two classes or more"
    return text + (f": {_cut_words(plan, windowing)}" if plan.pauses else "")


def _cut_words(plan: Plan, windowing: Windowing) -> str:
    count = len(plan.pauses)
    return (
        f"cut at {count} pause{'s' if count > 1 else ''} of more than {plan.limit_s:.3g} s, "
        f"longest unbroken {plan.longest} lines; a window takes {windowing.window}"
    )


def yield_remarks(plans: Mapping[str, Plan], windowing: Windowing) -> list[str]:
    """Whose lines are mostly in no window, why, and the option that helps."""
    found = []
    for user, plan in plans.items():
        total = sum(plan.lines.values()) - plan.lines.get(account.OUTSIDE, 0)
        used = plan.lines.get(account.IN_WINDOWS, 0)
        if not total or used >= _LOW_YIELD * total:
            continue
        others = {reason: count for reason, count in plan.lines.items()
                  if reason not in (account.IN_WINDOWS, account.OUTSIDE)}  # fmt: skip
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
        elif reason == account.DISPUTED:
            helps = "intervals of one label at a time give them one"
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


def file_note(note: str, names: list[str], num_files: int) -> str:
    if len(names) == num_files:
        return f"all files: {note}"
    more = f" and {len(names) - 1} more files" if len(names) > 1 else ""
    return f"{names[0]}{more}: {note}"
