"""docs/add-an-architecture.md, followed to the letter."""

from pathlib import Path

from pages import ROOT
from worked_example import follow_page

PAGE = ROOT / "docs" / "add-an-architecture.md"


def test_the_worked_example_runs_as_the_page_says(tmp_path: Path) -> None:
    rows = follow_page(PAGE, "separable_cnn", tmp_path)
    assert all(row.accuracy is not None for row in rows)
    # Each domain drew one of the two.
    assert {row.architecture for row in rows} == {"separable-cnn", "cnn-small"}
