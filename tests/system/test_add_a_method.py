"""docs/add-a-method.md, followed to the letter."""

from pathlib import Path

from pages import ROOT
from worked_example import follow_page

PAGE = ROOT / "docs" / "add-a-method.md"


def test_the_worked_example_runs_as_the_page_says(tmp_path: Path) -> None:
    rows = follow_page(PAGE, "confident_kd", tmp_path)
    targets = [row for row in rows if row.round_index]
    by_method = {
        method: [row.accuracy for row in targets if row.method == method]
        for method in ("confident-kd", "label-only", "average-kd-selected")
    }
    assert {len(accuracies) for accuracies in by_method.values()} == {7}  # 12 - round(0.4 * 12)
    assert by_method["confident-kd"] != by_method["average-kd-selected"]
