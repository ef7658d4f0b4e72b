"""Knowledge transfers between rounds: where the sources joined, and where their models served."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graft.core.results import ResultRow
from graft.report.figures.canvas import INK, MAIN, QUIET, SOFT, WIDE, Canvas, axes_px, draw_svg
from graft.report.formatting import count_text

# (round the source joined in, round of the target domain) -> number of transfers.
Transfers = Mapping[tuple[int, int], int]
_MOST_GROUPS = {True: 6, False: 12}
_THICKEST_PX = 26.0


def transfers_by_round(rows: Iterable[ResultRow], method: str) -> Transfers:
    """Count the transfers of ``method`` from sources of each round to targets of each other."""
    rows = sorted(rows, key=lambda row: row.round_index, reverse=True)
    joined = {row.domain_id: row.round_index for row in rows}  # the earliest round stays
    return Counter(
        (joined[source], row.round_index)
        for row in rows
        if row.method == method and row.round_index >= 1
        for source in row.source_domains
        if source in joined
    )


def transfer_words(transfers: Transfers) -> str:
    """The graph in one sentence."""
    total = sum(transfers.values())
    if not total:
        return "No target domain learned from a source."
    later = sum(count for (source, _), count in transfers.items() if source >= 1)
    return (
        f"{count_text(total, 'transfer')} from a source to a target domain; in "
        f"{later / total * 100:.0f} % of them the source had been a target domain itself."
    )


def transfer_figure(transfers: Transfers, domains: Mapping[int, int], canvas: Canvas = WIDE) -> str:
    """Arcs from the rounds of the sources to those of the target domains, by transfers.

    ``domains``: how many domains joined in each round. Many rounds are shown in groups.
    """
    groups = _groups(sorted(domains), _MOST_GROUPS[canvas.is_narrow])
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    arcs: Counter[tuple[int, int]] = Counter()
    for (source, target), count in transfers.items():
        arcs[group_of[source], group_of[target]] += count

    def draw(figure: Figure) -> None:
        axes = axes_px(figure, left=20, right=20, top=16, bottom=8)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        last = max(1, len(groups) - 1)
        axes.set_xlim(-0.5, last + 0.5)
        axes.set_ylim(-0.32, 1.08)
        most = max(arcs.values(), default=1)
        for (source, target), count in sorted(arcs.items(), key=lambda arc: -arc[1]):
            _arc(axes, source, target, count, _THICKEST_PX * count / most, last)
        for number, group in enumerate(groups):
            joined = sum(domains[index] for index in group)
            axes.plot([number], [0], "o", color=INK, markersize=9, markeredgewidth=0, zorder=6)
            for line, (text, colour) in enumerate(
                ((_group_name(group, canvas), INK), (f"{joined:,}", SOFT))
            ):
                axes.annotate(text, (number, 0), xytext=(0, -20 - 17 * line), ha="center",
                              textcoords="offset points", va="center_baseline", color=colour,
                              fontweight="normal" if line else "bold")  # fmt: skip

    title = "Knowledge transfers between rounds"
    return draw_svg(draw, canvas=canvas, height_px=260 if canvas.is_narrow else 330, title=title)


def _groups(rounds: Sequence[int], most: int) -> list[list[int]]:
    """The initial domains' round by itself, and the others in at most ``most`` - 1 even groups."""
    later = [index for index in rounds if index >= 1]
    size = max(1, -(-len(later) // (most - 1)))
    groups = [later[start : start + size] for start in range(0, len(later), size)]
    return [[index for index in rounds if index < 1], *groups] if 0 in rounds else groups


def _group_name(group: Sequence[int], canvas: Canvas) -> str:
    if group[0] == 0:
        return "initial domains"
    span = str(group[0]) if len(group) == 1 else f"{group[0]} to {group[-1]}"
    return span if canvas.is_narrow else f"round{'s' * (len(group) > 1)} {span}"


def _arc(axes: Axes, source: int, target: int, count: int, thickness_px: float, last: int) -> None:
    width = target - source
    turn = np.linspace(0, np.pi, 48)
    height = 0.25 + 0.7 * max(0, width - 1) / max(1, last - 1) if width else 0.16
    radius = width / 2 or 0.12
    middle = (source + target) / 2
    x, y = middle - radius * np.cos(turn), height * np.sin(turn)
    colour = MAIN if source else QUIET
    axes.plot(x, y, color=colour, linewidth=max(0.8, thickness_px), alpha=0.45, zorder=2,
              solid_capstyle="butt")  # fmt: skip
    if thickness_px >= 1.2:
        axes.annotate(f"{count:,}", (middle, height), ha="center", va="center_baseline",
                      color=INK, zorder=7)  # fmt: skip
