"""The matrix as a folder: what the tables say, which figures are drawn, what is kept as figures."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from evidence_rows import row, set_rows

from graft.bench.report import (
    Matrix,
    analyse_matrix,
    matrix_figures,
    overview_grids,
    overview_page,
    rows_command,
    summary_figures,
    write_matrix_report,
)
from graft.bench.rows import BenchmarkRow, read_benchmark_rows, write_benchmark_rows
from graft.bench.tables import ablation_grid, set_grid
from graft.report.formatting import MINUS, NONE


def weigh(rows: Sequence[BenchmarkRow]) -> Matrix:
    return analyse_matrix(rows, main="main", num_sources=5)


def whole_matrix() -> list[BenchmarkRow]:
    """Two sets, two gammas, an ablation and a sweep of N_p."""
    rows = [r for data in ("a", "b") for gamma in (0.1, 0.2) for r in set_rows(data, gamma)]
    for seed, name in ((0, "p"), (0, "q"), (1, "p"), (1, "r")):
        rows.append(row(method="main-no-heads", seed=seed, domain_id=name, accuracy=0.65))
        rows.append(row(num_sources=1, seed=seed, domain_id=name, accuracy=0.55))
    return rows


def cells(markdown: str, method: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {method}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_outlive_the_disk(tmp_path: Path) -> None:
    rows = [*set_rows(), row(domain_id="s", accuracy=None, error="DataError", sources=["x", "y"])]
    write_benchmark_rows(rows, tmp_path / "new" / "rows.parquet")
    again = read_benchmark_rows(tmp_path / "new" / "rows.parquet")
    assert again == sorted(rows, key=lambda r: r.key)


def test_a_sets_table_has_every_figure() -> None:
    summaries = weigh(set_rows()).summaries[0.1]["a"]
    found = cells(set_grid(summaries, "main").markdown(), "Label only")
    # Mean 60 %, worst q of seed 0; the main method gains 15 points (see test_evidence_summary).
    assert found[1] == "60.0 %"
    assert found[3] == "50.0 % (q, seed 0)"
    assert found[4] == "+15.0"
    assert found[6:9] == ["40.0 %", "10 B", "100 B"]
    assert found[9:] == ["not run", "2 s", "1 kB"]
    assert (found[2], found[5]) == ("n too small", "n too small")  # three persons


def test_an_interval_of_five_persons_is_shown() -> None:
    rows = [row(method=m, domain_id=d) for m in ("main", "label-only") for d in "pqrst"]
    found = cells(set_grid(weigh(rows).summaries[0.1]["a"], "main").markdown(), "Label only")
    assert found[2] == "50.0 to 50.0"


def test_negative_transfer_is_a_figure_and_a_sentence() -> None:
    rows = [row(num_test=40, accuracy=0.5), row(method="label-only-recipe", num_test=40)]
    figures = summary_figures(weigh(rows))
    assert figures["all/gamma=0.1/main/negative_transfer"]["value"] == 0
    assert "0 of 1 target domain end below" in overview_page(weigh(rows), [])


def test_the_overview_has_sets_side_by_side_the_gap_and_the_rank() -> None:
    matrix = weigh(whole_matrix())
    grid = overview_grids(matrix)[1]
    assert grid.title == "gamma 0.2"
    # 0.6 of the way on both sets (see test_evidence_summary). Three methods with all-labels
    # left out are two: no ranks at this gamma.
    assert cells(grid.markdown(), "main") == ["main", "75.0 %", "75.0 %", "75.0 %", "60 %", NONE]


def test_a_mean_over_fewer_targets_is_not_shown_beside_others() -> None:
    matrix = weigh([*whole_matrix(), row(method="short", gamma=0.2)])
    grid = overview_grids(matrix)[1]
    assert cells(grid.markdown(), "short") == ["short", NONE, NONE, NONE, NONE, NONE]


def test_an_ablation_is_told_as_the_change_it_makes() -> None:
    matrix = weigh(whole_matrix())
    grid = ablation_grid(matrix.summaries[0.1], "main", 0.1)
    assert grid is not None
    # 0.65 everywhere against 0.8, 0.7, 0.9, 0.6: changes -0.15, -0.05, -0.25, 0.05, mean -0.10.
    main, variant = grid.rows
    assert main == ("main", "75.0 %", "75.0 %")
    change = variant[1].replace(MINUS, "-")
    assert re.fullmatch(r"-10\.0 \(-\d+\.\d to \+\d+\.\d\)", change)
    assert variant[2] == NONE
    assert ablation_grid(matrix.summaries[0.2], "main", 0.2) is None


def test_every_figure_is_drawn_and_the_same_each_time() -> None:
    matrix = weigh(whole_matrix())
    drawn = matrix_figures(matrix)
    assert set(drawn) == {
        "ablations", "sources-main", *(f"{what}-{data}" for data in ("a", "b")
                                       for what in ("accuracy", "bytes", "domains", "gamma")),
    }  # fmt: skip
    for svg in drawn.values():
        ElementTree.fromstring(svg)
    for name, svg in drawn.items():
        assert ("main-no-heads" in svg) == (name == "ablations"), name
    assert drawn == matrix_figures(weigh(reversed(whole_matrix())))


def test_a_ranking_has_its_diagram() -> None:
    rows = [*set_rows(), *(row(method="other", seed=s, domain_id=d, accuracy=0.3)
                           for s, d in ((0, "p"), (0, "q"), (1, "p"), (1, "r")))]  # fmt: skip
    svg = matrix_figures(weigh(rows))["ranks-gamma0.1"]
    # Ranks by block: main 1, 1, 1, 1.5; label-only 2, 2, 2, 1.5; other 3. 2.343 sqrt(12 / 24).
    assert "mean ranks over 4 blocks, critical difference 1.66" in svg
    for name in ("main  1.12", "1.88", "3.00  other"):
        assert name in svg


def test_the_worst_domain_is_named_by_its_mean_over_seeds() -> None:
    # Gains over label-only: p (0.1 + 0.3) / 2 = 0.2, q 0.2, r 0.
    svg = matrix_figures(weigh(set_rows()))["domains-a"]
    assert re.search(r"Lowest: r\s\+0\.0,", svg)
    assert re.search(r"p\s\+20\.0", svg)


def test_failures_are_named() -> None:
    rows = [*set_rows(), row(domain_id="s", accuracy=None, error="DataError", error_message="bad")]
    page = overview_page(weigh(rows), [])
    assert "1 row failed" in page
    assert "a, seed 0, gamma 0.1, main, s: DataError: bad" in page


def test_the_command_names_what_the_rows_hold_and_no_folder() -> None:
    rows = [*set_rows(), row(data="imu", gamma=0.05)]
    # Set "a" has two target domains of each seed.
    assert rows_command(rows) == (
        "graft bench accuracy --data a=FOLDER --data imu --gamma 0.05 --gamma 0.1 "
        "--seeds 2 --targets 2"
    )


def test_the_folder_holds_tables_figures_and_summary_and_nothing_stale(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "sources-gone.svg").write_text("old")
    (tmp_path / "summary.json").write_text('{"old": {}}')
    page = write_matrix_report(weigh(whole_matrix()), tmp_path)
    named = set(re.findall(r"\((figures/[^)]+|[^()]+\.md)\)", page.read_text("utf-8")))
    present = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert present == named | {"overview.md", "summary.json"}
    figure = json.loads((tmp_path / "summary.json").read_text())["a/gamma=0.1/label-only/main_gain"]
    assert figure["value"] == pytest.approx(15.0)
    assert figure["seeds"] == [0, 1]
    assert "old" not in json.loads((tmp_path / "summary.json").read_text())


def test_targets_stand_with_their_figures() -> None:
    figures = summary_figures(weigh([*set_rows("myo"), *set_rows("a")]))
    assert figures["myo/gamma=0.1/label-only/main_gain"]["target"] == ">= 8"
    assert figures["a/gamma=0.1/label-only/main_gain"]["target"] is None
