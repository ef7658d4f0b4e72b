"""Figures of what it cost: payload bytes by phase, and measured time by device class."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from graft.core.results import ResultRow
from graft.report.figures.canvas import (
    INK,
    MAIN,
    PHASE_COLOURS,
    WIDE,
    Canvas,
    axes_px,
    draw_svg,
    row_title,
    text_width_px,
)
from graft.report.formatting import PHASES, SHIP_ALL, bytes_text, display_name, seconds_text
from graft.report.run import DOWN, UP, payload_by
from graft.report.summary import PERCENTILES, percentile

ROW_PX = 46
MOST_ROUNDS = 16
# More dots of a class would hide one another and make the page large.
_MOST_DOTS = 400


def bytes_by_phase(ledger: pa.Table, main_method: str, canvas: Canvas = WIDE) -> str:
    """Payload bytes of rounds 1 and later, down and up, stacked by phase.

    For the main method, ship-all where it was run, and the system's own messages.
    """
    bars = phase_bars(ledger, main_method)
    return _phase_figure(bars, canvas, "Payload bytes down and up by phase")


def bytes_by_round(ledger: pa.Table, main_method: str, canvas: Canvas = WIDE) -> str:
    """Payload bytes of the main method and the system's own messages, both ways, a bar a round.

    Beyond ``MOST_ROUNDS`` the last ones are shown.
    """
    own = (pc.field("round_index") >= 1) & pc.field("method").isin([main_method, ""])
    sums: dict[int, dict[str, int]] = defaultdict(dict)
    by_part = payload_by(ledger.filter(own), "round_index", "phase")
    for (round_index, phase), num_bytes in by_part.items():
        sums[round_index][phase] = num_bytes
    bars = [(f"round {index}", sums[index]) for index in sorted(sums)[-MOST_ROUNDS:]]
    return _phase_figure(bars, canvas, "Payload bytes per round by phase")


def _phase_figure(bars: Sequence[tuple[str, dict[str, int]]], canvas: Canvas, title: str) -> str:
    def draw(figure: Figure) -> None:
        phases = [phase for phase in PHASES if any(phase in parts for _, parts in bars)]
        lines = _legend(figure, phases, canvas)
        axes = axes_px(figure, left=16, right=24, top=8 + 22 * lines, bottom=44)
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.set_ylim(max(1, len(bars)), 0)
        longest = max((sum(parts.values()) for _, parts in bars), default=0) or 1
        axes.set_xlim(0, longest * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if canvas.is_narrow else 8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: bytes_text(x)))
        axes.set_xlabel("payload bytes")
        for number, (name, parts) in enumerate(bars):
            _stacked_bar(axes, number, name, parts, longest)

    height = 10 + 44 + ROW_PX * max(1, len(bars)) + (44 if canvas.is_narrow else 22)
    return draw_svg(draw, canvas=canvas, height_px=height, title=title)


def phase_bars(ledger: pa.Table, main_method: str) -> list[tuple[str, dict[str, int]]]:
    """Named bars, each the payload bytes of its phases; ship-all's only where it was charged."""
    sums = payload_by(ledger.filter(pc.field("round_index") >= 1), "method", "up", "phase")
    bars = []
    for method in dict.fromkeys((main_method, SHIP_ALL, "")):
        if any(key[0] == method for key in sums):
            for up in (DOWN, UP):
                parts = {key[2]: sums[key] for key in sums if key[:2] == (method, up)}
                bars.append((f"{display_name(method)}, {'up' if up else 'down'}", parts))
    return bars


def time_by_device_class(rows: Iterable[ResultRow], main_method: str, canvas: Canvas = WIDE) -> str:
    """Measured seconds of the main method's target domains by device class, with percentiles."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.round_index >= 1 and row.method == main_method and row.compute_s is not None:
            groups[row.device_class or "unknown"].append(row.compute_s)

    def draw(figure: Figure) -> None:
        axes = axes_px(figure, left=16, right=24, top=2, bottom=44)
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.set_ylim(_time_row_px(canvas) * max(1, len(groups)), 0)
        longest = max((max(values) for values in groups.values()), default=1.0)
        axes.set_xlim(0, (longest or 1.0) * 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if canvas.is_narrow else 8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.12g} s"))
        axes.set_xlabel("measured device seconds per target domain")
        for number, name in enumerate(sorted(groups)):
            top_px = number * _time_row_px(canvas)
            _time_row(axes, top_px, name, sorted(groups[name]), canvas)

    title = "Measured time per target domain by device class"
    return draw_svg(
        draw, canvas=canvas, height_px=46 + _time_row_px(canvas) * max(1, len(groups)), title=title
    )


def evenly(ranked: Sequence[float], most: int) -> Sequence[float]:
    """At most ``most`` of rising values, evenly by rank, the lowest and the highest among them."""
    if len(ranked) <= most:
        return ranked
    return [ranked[round(index * (len(ranked) - 1) / (most - 1))] for index in range(most)]


def _legend(figure: Figure, phases: Sequence[str], canvas: Canvas) -> int:
    """Draw the phases' keys along the top; returns the number of lines used."""
    height = figure.get_size_inches()[1] * 72
    x, line = 16.0, 0
    for phase in phases:
        width = text_width_px(figure, phase) + 36
        if x + width > canvas.width_px and x > 16:
            x, line = 16.0, line + 1
        y = height - 14 - 22 * line
        figure.add_artist(
            Rectangle((x / canvas.width_px, (y - 5) / height), 12 / canvas.width_px, 12 / height,
                      facecolor=PHASE_COLOURS[phase], linewidth=0)
        )  # fmt: skip
        figure.text((x + 18) / canvas.width_px, (y + 1) / height, phase, va="center_baseline")
        x += width
    return line + 1


def _stacked_bar(axes: Axes, number: int, name: str, parts: dict[str, int], longest: float) -> None:
    total = sum(parts.values())
    left = 0.0
    for phase in PHASES:
        width = parts.get(phase, 0)
        axes.barh([number + 0.74], [width], left=left, height=0.36,
                  color=PHASE_COLOURS[phase], linewidth=0)  # fmt: skip
        left += width
    if 0 < total < longest * 0.002:
        # Too short to see, and yet not nothing.
        phase = max(parts, key=lambda name: parts[name])
        axes.plot([0, 0], [number + 0.56, number + 0.92], color=PHASE_COLOURS[phase], linewidth=2)
    row_title(axes, (0, number + 0.3), f"{name}:", bytes_text(total), below_px=0)


def _time_row(
    axes: Axes, top_px: float, name: str, ranked: Sequence[float], canvas: Canvas
) -> None:
    """One device class from ``top_px`` down: name, percentiles, a dot for each target domain."""
    middle = top_px + _time_row_px(canvas) - 20
    # Spread by rank and not by chance, so that the figure is the same each time.
    shown = evenly(ranked, _MOST_DOTS)
    heights = [middle + (rank * 7) % 11 - 5 for rank in range(len(shown))]
    axes.scatter(shown, heights, s=34, color=MAIN, alpha=0.45, linewidths=0, zorder=3)
    marks = {share: percentile(ranked, share) for share in PERCENTILES}
    for share, value in marks.items():
        axes.plot([value, value], [middle - 10, middle + 10], color=INK, zorder=4,
                  linewidth=2.6 if share == 0.5 else 1.3)  # fmt: skip
    text = " · ".join(f"p{share * 100:.0f} {seconds_text(v)}" for share, v in marks.items())
    below_px = 17 if canvas.is_narrow else 0
    row_title(axes, (0, top_px + 14), name, f"n {len(ranked)} · {text}", below_px)


def _time_row_px(canvas: Canvas) -> float:
    return 72 if canvas.is_narrow else 56
