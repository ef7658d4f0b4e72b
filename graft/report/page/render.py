"""Rendering of the one-file pages: Jinja2 templates, the style sheet, and figures as inline SVG.

Autoescaping is on: every text from data is escaped. Only what is drawn or written here (SVG, the
style sheet, the script, its JSON) is marked as safe.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from graft.core.text import printable
from graft.errors import missing_extra
from graft.report.figures.canvas import NARROW, WIDE, Canvas
from graft.report.formatting import (
    bytes_text,
    capitalised,
    count_text,
    display_name,
    interval_text,
    percent_text,
    points_text,
    seconds_text,
)

if TYPE_CHECKING:
    from markupsafe import Markup

_FILTERS: Mapping[str, Callable[..., str]] = {
    "bytes": bytes_text, "count_of": count_text, "interval": interval_text, "method": display_name,
    "capitalised": capitalised,
    "percent": percent_text, "points": points_text, "seconds": seconds_text,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFigure:
    """A figure drawn for wide and for narrow windows."""

    wide: "Markup"
    narrow: "Markup"


def page_figure(draw: Callable[[Canvas], str]) -> PageFigure:
    """Draw a figure on both canvases."""
    # Inside HTML the namespaces are known; without them the page holds no address at all.
    wide, narrow = (
        safe(re.sub(r' xmlns(:xlink)?="[^"]*"', "", draw(canvas), count=2))
        for canvas in (WIDE, NARROW)
    )
    return PageFigure(wide=wide, narrow=narrow)


def render(template: str, **values: Any) -> str:
    """Render a whole page; raises ExtraMissingError where Jinja2 is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing_extra("jinja2", "report") from error
    environment = Environment(
        loader=PackageLoader("graft.report.page"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template(template).render(style=safe(page_file("style.css")), **values)


def safe(text: str) -> "Markup":
    """Text that a template must not escape; never one that holds a name from data as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - written by this package


def page_file(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files("graft.report.page").joinpath(name).read_text("utf-8")


def flat_rows(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values as text."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows.extend(flat_rows(value, f"{prefix}{key}."))
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + key, shown))
    return rows
