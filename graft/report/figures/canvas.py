"""Drawing surface of the figures: sizes, colours, and SVG text that a page can take in.

Figures are laid out in pixels (72 dots an inch, so that a point is a pixel). Colours are
drawn as fixed values and written out as CSS variables with those values as fallback, so one
figure reads well on light and on dark pages.
"""

import io
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator

from graft.report.formatting import LABEL_ONLY

INK = "#1b2430"
SOFT = "#56616e"
RULE = "#d4dae1"
MAIN = "#0063a8"
REFERENCE = "#b84a00"
QUIET = "#87919c"
PHASE_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "join": "#999934",
        "profile": "#cc79a7",
        "probe": "#e69f01",
        "ship": "#0072b2",
        "backbone": "#5d6b78",
        "report": "#019e73",
        "grow": "#8c510a",
        "register": "#d55e01",
        "acknowledge": "#7a5fb0",
    }
)
# Okabe and Ito's set where it fits; all phases keep 3:1 against both page backgrounds.
VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "--ink",
        SOFT: "--soft",
        RULE: "--rule",
        MAIN: "--main",
        REFERENCE: "--reference",
        QUIET: "--quiet",
        **{colour: f"--{phase}" for phase, colour in PHASE_COLOURS.items()},
    }
)


PERCENT_PX = 58  # "88.5 %" beside an axis


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """One width that figures are drawn for, in CSS pixels, and its text size."""

    name: str
    width_px: float
    font_px: float

    @property
    def is_narrow(self) -> bool:
        return self.width_px < 600


WIDE = Canvas(name="wide", width_px=1020, font_px=13)
NARROW = Canvas(name="narrow", width_px=330, font_px=12)


def draw_svg(
    draw: Callable[[Figure], None], *, canvas: Canvas, height_px: float, title: str
) -> str:
    """A standalone SVG of what ``draw`` puts on an empty figure; the same text each time.

    ``title`` is what a screen reader says of the figure.
    """
    settings: dict[Any, Any] = {  # matplotlib's own keys are a literal type
        "font.size": canvas.font_px,
        "font.family": "DejaVu Sans",
        "svg.fonttype": "none",
        "svg.hashsalt": "graft",
        "text.parse_math": False,  # a domain id may hold "$"
        "text.color": INK,
        "axes.labelcolor": SOFT,
        "axes.edgecolor": RULE,
        "axes.unicode_minus": True,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": SOFT,
        "ytick.labelcolor": SOFT,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(canvas.width_px / 72, height_px / 72), dpi=72)
        FigureCanvasAgg(figure)  # measures text; the SVG canvas cannot
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _page_ready(stream.getvalue(), canvas, height_px, title)


def axes_px(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with the given margins in pixels, without a frame, with a light grid along y."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=6)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    return axes


def text_width_px(figure: Figure, text: str, *, bold: bool = False) -> float:
    """Width of ``text`` in the figure's font size."""
    probe = figure.text(0, 0, text, fontweight="bold" if bold else "normal")
    width = probe.get_window_extent().width
    probe.remove()
    return float(width)


def row_title(axes: Axes, at: tuple[float, float], name: str, text: str, below_px: float) -> None:
    """``name`` in bold and ``text`` behind it, or ``below_px`` under it."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    beside = 0.0 if below_px else text_width_px(figure, name + "  ", bold=True)
    axes.text(*at, name, color=INK, va="center_baseline", fontweight="bold")
    axes.annotate(text, at, xytext=(beside, -below_px), textcoords="offset points",
                  va="center_baseline", color=SOFT)  # fmt: skip


def mark(artist: Artist, method: str, hover: str = "") -> None:
    """Say what an artist draws: the page's script hides what is of a method, and a browser shows
    ``hover`` under the pointer."""
    artist.set_gid(f"mark:{quote(method, safe='')}:{quote(hover, safe='')}")


def mark_label(label: Annotation, method: str) -> None:
    """``mark`` a label and the line to what it names."""
    for part in (label, label.arrow_patch):
        if part is not None:
            mark(part, method)


def method_colour(method: str, is_main: bool) -> str:
    """The main method and the label-only reference stand out; all others are muted."""
    if is_main:
        return MAIN
    return REFERENCE if method == LABEL_ONLY else QUIET


def method_text_colour(method: str, is_main: bool) -> str:
    """``method_colour``, darker where muted words would be hard to read."""
    colour = method_colour(method, is_main)
    return SOFT if colour == QUIET else colour


def percent_axis(axes: Axes) -> None:
    """Ticks along y in per cent of a share; they need ``PERCENT_PX`` on the left."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y * 100:.4g} %"))


def padded(values: Sequence[float], share: float) -> tuple[float, float]:
    """Limits that leave ``share`` of the values' span free on both sides."""
    low, high = min(values), max(values)
    margin = (high - low) * share or 0.05
    return low - margin, high + margin


def whole_numbers() -> MaxNLocator:
    """Ticks at whole numbers, for counts and rounds."""
    return MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _page_ready(svg: str, canvas: Canvas, height_px: float, title: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # A rule for "*" would apply to the whole page around the figure.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {canvas.width_px:g} {height_px:g}" width="{canvas.width_px:g}" '
        f'height="{height_px:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    )
    body = re.sub(r"^<svg[^>]*>", lambda _: head, body)
    body = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "system-ui, sans-serif", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(f": {colour}", f": var({variable}, {colour})")
    body = re.sub(r'<g id="mark:([^":]*):([^":]*)">', _marked_group, body)
    # Several figures share a page, where an id must be the figure's own.
    prefix = f"{canvas.name}{zlib.crc32(title.encode()):08x}-"
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    return body.strip()


def _marked_group(found: re.Match[str]) -> str:
    method, hover = (escape(unquote(text)) for text in found.groups())
    shown = f' data-method="{method}"' if method else ""
    return f"<g{shown}>" + (f"<title>{hover}</title>" if hover else "")
