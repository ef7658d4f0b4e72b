"""The critical-difference diagram: mean ranks on a line, and bars over what does not differ."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graft.bench.ranks import Ranking
from graft.report.figures.canvas import (
    INK,
    RULE,
    SOFT,
    WIDE,
    axes_px,
    draw_svg,
    method_colour,
    method_text_colour,
    text_width_px,
)
from graft.report.formatting import count_text, display_name

LINE_PX = 20
BAR_PX = 9
AXIS_PX = 66
FIRST_NAME_PX = 30


def critical_difference_diagram(ranking: Ranking, main: str, title: str) -> str:
    """The best rank stands left; a bar joins methods that Nemenyi's test does not tell apart."""
    best = (len(ranking.methods) + 1) // 2
    below_px = FIRST_NAME_PX + BAR_PX * len(ranking.alike) + LINE_PX * best
    height = AXIS_PX + below_px

    def draw(figure: Figure) -> None:
        names = [f"{display_name(method)}  00.00" for method in ranking.methods]
        left, right = (
            max(text_width_px(figure, name, bold=True) for name in side) + 14
            for side in (names[:best], names[best:])
        )
        axes = axes_px(figure, left=left, right=right, top=0, bottom=0)
        axes.set_axis_off()
        count = len(ranking.methods)
        room = (count - 1) * 0.02
        axes.set_xlim(1 - room, count + room)
        axes.set_ylim(height, 0)  # pixels from the top
        _rank_axis(axes, count)
        _difference(axes, ranking.critical_difference)
        for number, (first, last) in enumerate(ranking.alike):
            y = AXIS_PX + 12 + BAR_PX * number
            ends = (ranking.mean_ranks[first] - room, ranking.mean_ranks[last] + room)
            axes.plot(ends, (y, y), color=INK, linewidth=4, solid_capstyle="butt", zorder=4)
        start = AXIS_PX + FIRST_NAME_PX + BAR_PX * len(ranking.alike)
        for place, (method, rank) in enumerate(
            zip(ranking.methods, ranking.mean_ranks, strict=True)
        ):
            at_left = place < best
            row = place if at_left else count - 1 - place
            _method_line(axes, method, rank, start + LINE_PX * row, method == main, at_left)

    told = (
        f"{title}: mean ranks over {count_text(ranking.num_blocks, 'block')}, critical "
        f"difference {ranking.critical_difference:.2f}"
    )
    return draw_svg(draw, canvas=WIDE, height_px=height, title=told)


def _rank_axis(axes: Axes, count: int) -> None:
    axes.plot((1, count), (AXIS_PX, AXIS_PX), color=SOFT, linewidth=1.2)
    for rank in range(1, count + 1):
        axes.plot((rank, rank), (AXIS_PX - 6, AXIS_PX), color=SOFT, linewidth=1.2)
        axes.text(rank, AXIS_PX - 10, str(rank), ha="center", va="bottom", color=SOFT)


def _difference(axes: Axes, difference: float) -> None:
    y = 26
    axes.plot((1, 1 + difference), (y, y), color=INK, linewidth=1.6)
    for end in (1, 1 + difference):
        axes.plot((end, end), (y - 4, y + 4), color=INK, linewidth=1.6)
    axes.text(1 + difference / 2, y - 6, f"critical difference {difference:.2f}", ha="center",
              va="bottom", color=INK)  # fmt: skip


def _method_line(
    axes: Axes, method: str, rank: float, y: float, is_main: bool, at_left: bool
) -> None:
    low, high = axes.get_xlim()
    edge = low if at_left else high
    colour = method_colour(method, is_main)
    points: Sequence[float] = (rank, rank, edge)
    axes.plot(points, (AXIS_PX, y, y), color=colour if is_main else RULE,
              linewidth=2 if is_main else 1.2, zorder=2)  # fmt: skip
    words = (display_name(method), f"{rank:.2f}")
    axes.annotate(
        "  ".join(words if at_left else words[::-1]), (edge, y), xytext=(-6 if at_left else 6, 0),
        textcoords="offset points", ha="right" if at_left else "left",
        va="center_baseline", annotation_clip=False, color=method_text_colour(method, is_main),
        fontweight="bold" if is_main else "normal",
    )  # fmt: skip
