"""A world as a picture: a line a domain, its class balance left, its profile distances right."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from graft.report.figures.canvas import INK, MAIN, REFERENCE, SOFT, WIDE, draw_svg, text_width_px
from graft.report.formatting import count_text, shortened
from graft.report.world import WorldDescription

_PALE = "#f2f5f8"
_SHARE = LinearSegmentedColormap.from_list("share", [_PALE, MAIN])
# Near domains are the candidates of selection, so small distances have the strong colour.
_DISTANCE = LinearSegmentedColormap.from_list("distance", [REFERENCE, _PALE])
_TOP_PX, _BOTTOM_PX, _GAP_PX = 78, 110, 64
_MOST_LINES_NAMED = 60


def world_figure(world: WorldDescription) -> str:
    """A standalone SVG; the same text for the same world."""
    count = len(world.domain_ids)
    line_px = max(7.0, min(18.0, 640 / count))
    height = _TOP_PX + line_px * count + _BOTTOM_PX

    def draw(figure: Figure) -> None:
        names = [shortened(domain_id) for domain_id in world.domain_ids]
        is_named = count <= _MOST_LINES_NAMED
        left = 20 + (max(text_width_px(figure, name) for name in names) if is_named else 0)
        rest = WIDE.width_px - left - _GAP_PX - 16
        balance_px = rest * 0.45
        share_DC = world.counts_DC / world.rows_D[:, None]
        balance = _panel(figure, (left, balance_px), height, line_px * count)
        _paint(figure, balance, share_DC, _SHARE, height, "share of the domain's rows", "{:.0%}")
        balance.set_xticks(range(len(world.task.classes)))
        balance.set_xticklabels(
            [shortened(name) for name in world.task.classes], rotation=40, ha="right",
            rotation_mode="anchor",
        )  # fmt: skip
        balance.set_yticks(range(count) if is_named else [])
        balance.set_yticklabels(names if is_named else [], fontsize=min(WIDE.font_px, line_px))
        balance.set_title("Class balance", loc="left", color=INK, fontsize=WIDE.font_px)
        start = left + balance_px + _GAP_PX
        apart = _panel(figure, (start, rest - balance_px), height, line_px * count)
        _paint(
            figure, apart, world.distance_DD, _DISTANCE, height, "distance of profiles", "{:.1f}"
        )
        apart.set_xticks([])
        apart.set_yticks([])
        apart.set_xlabel("the same domains, in the same order")
        apart.set_title("Distance of profiles", loc="left", color=INK, fontsize=WIDE.font_px)
        caption = (
            f"{world.task.name}: {count_text(count, 'domain')} of "
            f"{count_text(len(set(world.persons)), 'person')}, "
            f"{count_text(int(world.rows_D.sum()), 'row')}, "
            f"{world.task.num_classes} classes; similar domains are adjacent"
        )
        figure.text(8 / WIDE.width_px, 1 - 22 / height, caption, color=INK, fontweight="bold")

    title = f"Class balance and profile distances of the domains of {world.task.name}"
    return draw_svg(draw, canvas=WIDE, height_px=height, title=title)


def _panel(figure: Figure, span_px: tuple[float, float], height: float, panel_px: float) -> Axes:
    start, width = span_px
    axes = figure.add_axes(
        (start / WIDE.width_px, _BOTTOM_PX / height, width / WIDE.width_px, panel_px / height)
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, pad=5)
    return axes


def _paint(
    figure: Figure,
    axes: Axes,
    values: npt.NDArray[np.float64],
    colours: LinearSegmentedColormap,
    height: float,
    meaning: str,
    form: str,
) -> None:
    """The values as coloured cells, and what the colours mean at the right above them."""
    most = float(values.max()) or 1.0
    axes.imshow(values, cmap=colours, vmin=0, vmax=most, aspect="auto", interpolation="none")
    box = axes.get_position()
    key_px = 90
    key = figure.add_axes(
        (box.x1 - key_px / WIDE.width_px, box.y1 + 10 / height, key_px / WIDE.width_px, 8 / height)
    )
    key.imshow(np.linspace(0, 1, 64)[None], cmap=colours, aspect="auto")
    key.set_axis_off()
    caption = f"{meaning}, {form.format(0)} to {form.format(most)}"
    key.annotate(caption, (0, 1), xycoords="axes fraction", xytext=(90, 4), color=SOFT,
                 textcoords="offset points", ha="right", fontsize=11)  # fmt: skip
