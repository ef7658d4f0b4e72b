"""What a figure writes beside its axes stays within the picture."""

import re

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from graft.report.figures.canvas import NARROW, PERCENT_PX, WIDE, Canvas, axes_px, percent_axis


@pytest.fixture(params=[WIDE, NARROW], ids=lambda canvas: canvas.name)
def axes(request: pytest.FixtureRequest) -> Axes:
    canvas: Canvas = request.param
    with matplotlib.rc_context({"font.size": canvas.font_px, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(canvas.width_px / 72, 5), dpi=72)
        FigureCanvasAgg(figure)
        made = axes_px(figure, left=PERCENT_PX, right=14, top=14, bottom=44)
        percent_axis(made)
        return made


@pytest.mark.parametrize(
    "limits", [(0.0, 1.0), (0.815, 0.903), (0.861, 0.866), (0.99, 1.0), (0.5, 0.55)]
)
def test_per_cents_beside_an_axis_are_not_cut_off(axes: Axes, limits: tuple[float, float]) -> None:
    axes.set_ylim(limits)
    axes.figure.canvas.draw()
    labels = [label for label in axes.get_yticklabels() if label.get_text()]
    assert len(labels) >= 3
    for label in labels:
        assert re.fullmatch(r"\d+(\.\d)? %", label.get_text())
        assert label.get_window_extent().x0 >= 0
