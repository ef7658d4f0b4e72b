"""Laws of the summary's numbers."""

import math
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.core.config import ExpansionConfig
from graft.core.results import ResultRow
from graft.core.tables import ledger_table
from graft.report.figures.labels import label_positions, spread
from graft.report.figures.pareto import pareto_front
from graft.report.figures.traffic import phase_bars
from graft.report.formatting import bytes_text, percent_text, seconds_text, shortened
from graft.report.summary import (
    MethodSummary,
    domain_gains,
    mean_interval,
    percentile,
    share_interval,
    summarise,
    summarise_rounds,
)
from graft.report.tables import markdown_table, summary_dict, table_cells

Fail = Callable[[Sequence[ResultRow], str, str], list[ResultRow]]
T_975_2 = 4.302652729911275  # Student's t, 2 degrees of freedom, from a printed table


def by_method(summaries: Sequence[MethodSummary]) -> dict[str, MethodSummary]:
    return {summary.method: summary for summary in summaries}


def test_the_mean_and_its_interval_are_students_over_targets(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    hat = summarise(rows, ledger, config)[0]
    # 0.8, 0.9, 0.7: mean 0.8, deviations 0, 0.1, -0.1, so s = sqrt(0.02 / 2) = 0.1
    half = T_975_2 * 0.1 / math.sqrt(3)
    assert hat.method == "hat"
    assert hat.accuracy_mean == pytest.approx(0.8)
    assert 0.8 + half > 1  # no accuracy: this side is on the scale of logits
    assert hat.accuracy_interval == pytest.approx(share_interval((0.8 - half, 0.8 + half)))
    assert hat.macro_f1_mean == pytest.approx(0.7)
    assert (hat.worst_accuracy, hat.worst_domain) == (0.7, "c")


def test_the_gain_is_paired_by_target(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    hat = summarise(rows, ledger, config)[0]
    # Gains 0.1, 0.3, -0.1: mean 0.1, s = sqrt((0 + 0.04 + 0.04) / 2) = 0.2
    half = T_975_2 * 0.2 / math.sqrt(3)
    assert hat.gain_mean == pytest.approx(0.1)
    assert hat.gain_interval == pytest.approx((0.1 - half, 0.1 + half))
    assert hat.gain_pairs == 3
    assert [item.domain_id for item in domain_gains(rows, "hat")] == ["c", "a", "b"]


def test_bytes_are_payload_of_later_rounds_charged_to_the_method(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    found = by_method(summarise(rows, ledger, config))
    # 3 x (50 + 200) down and 3 x 10 up; neither round 0's 7 MB nor the system's profiles.
    assert (found["hat"].bytes_down, found["hat"].bytes_up) == (750, 30)
    assert found["hat"].ship_all_share == pytest.approx(750 / 3000)
    assert found["average-kd-all"].ship_all_share == 1.0
    assert found["label-only"].ship_all_share == 0.0


def test_without_ship_all_its_share_is_not_run(rows: list[ResultRow], ledger: pa.Table) -> None:
    config = ExpansionConfig(rounds=2, method="hat", comparisons=("label-only",))
    kept = [row for row in rows if row.method != "average-kd-all"]
    hat = summarise(kept, ledger, config)[0]
    assert hat.ship_all_share is None
    assert "not run" in table_cells(hat)


def test_times_and_memory_are_summed_and_topped(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    hat = summarise(rows, ledger, config)[0]
    assert (hat.device_s_total, hat.device_s_mean, hat.peak_memory_bytes) == (6.0, 2.0, 2000)


def test_a_failed_target_is_flagged_and_keeps_its_bytes(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig, with_failure: Fail
) -> None:
    summaries = summarise(with_failure(rows, "c", "hat"), ledger, config)
    hat = summaries[0]
    assert not hat.complete
    assert (hat.failed, hat.missing, hat.count_label) == (("c",), (), "2 of 3")
    assert hat.accuracy_mean == pytest.approx(0.85)
    assert hat.bytes_down == 750
    # The share leaves c out on both sides: 500 of 2,000.
    assert hat.ship_all_share == pytest.approx(0.25)
    assert table_cells(hat)[:2] == ("HaT-style *", "2 of 3")
    assert "incomplete" in markdown_table(summaries)
    assert summary_dict(summaries)["methods"][0]["complete"] is False


def test_a_target_without_a_row_is_missing_and_not_forgotten(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    kept = [row for row in rows if (row.domain_id, row.method) != ("b", "label-only")]
    found = by_method(summarise(kept, ledger, config))
    assert found["label-only"].missing == ("b",)
    assert found["label-only"].count_label == "2 of 3"
    assert found["hat"].gain_pairs == 2


def test_a_nan_accuracy_is_no_result(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig
) -> None:
    rows.append(ResultRow(domain_id="d", method="hat", round_index=2, accuracy=math.nan))
    hat = summarise(rows, ledger, config)[0]
    assert hat.failed == ("d",)
    assert hat.accuracy_mean == pytest.approx(0.8)


def test_one_target_has_a_mean_and_no_interval(
    rows: list[ResultRow], config: ExpansionConfig
) -> None:
    rounds = {(r.method, r.round_index): r for r in summarise_rounds(rows, config)}
    assert rounds["hat", 1].accuracy_mean == pytest.approx(0.85)
    assert rounds["hat", 2].accuracy_mean == pytest.approx(0.7)
    assert rounds["hat", 2].accuracy_interval is None
    assert (rounds["hat", 1].finished, rounds["hat", 1].wanted) == (2, 2)


def test_a_run_without_targets_has_summaries_of_nothing(config: ExpansionConfig) -> None:
    hat = summarise([], ledger_table([]), config)[0]
    assert (hat.wanted, hat.accuracy_mean, hat.gain_mean, hat.bytes_down) == (0, None, None, 0)


def test_the_front_holds_complete_methods_that_none_beats(
    rows: list[ResultRow], ledger: pa.Table, config: ExpansionConfig, with_failure: Fail
) -> None:
    # label-only: 0.7 for 0 bytes; hat: 0.8 for 750; ship-all: 0.7 for 3,000, beaten twice.
    front = pareto_front(summarise(rows, ledger, config))
    assert [item.method for item in front] == ["label-only", "hat"]
    front = pareto_front(summarise(with_failure(rows, "a", "hat"), ledger, config))
    assert [item.method for item in front] == ["label-only"]


def test_bars_stack_phases_down_and_up(ledger: pa.Table) -> None:
    bars = dict(phase_bars(ledger, "hat"))
    assert bars["HaT-style, down"] == {"probe": 150, "ship": 600}
    assert bars["HaT-style, up"] == {"report": 30}
    assert bars["Ship-all (averaged), down"] == {"ship": 3000}
    assert bars["System's own, up"] == {"profile": 90}


def test_a_percentile_is_the_nearest_rank() -> None:
    ranked = [float(n) for n in range(1, 21)]
    # Of 20 values p50 is the 10th and p95 the 19th; p99 rounds 19.8 up to the 20th.
    assert [percentile(ranked, share) for share in (0.5, 0.95, 0.99)] == [10.0, 19.0, 20.0]
    assert percentile([3.0], 0.5) == 3.0


def test_spread_labels_keep_their_order_gap_and_bounds() -> None:
    # Three wishes at one height, 10 apart: the middle one stays.
    assert spread([50.0, 50.0, 50.0], 10, 0, 100) == [40.0, 50.0, 60.0]
    assert spread([99.0, 1.0, 98.0], 10, 0, 100) == [100.0, 1.0, 90.0]
    assert spread([5.0, 5.0, 5.0], 80, 0, 100) == [0.0, 50.0, 100.0]


def test_labels_of_one_place_do_not_cover_each_other() -> None:
    points = [(200.0, 200.0)] * 4
    positions = label_positions(points, [80.0] * 4, 16, (0, 0, 400, 400))
    boxes = [position.box(point, 80, 16) for position, point in zip(positions, points, strict=True)]
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart_x = one[2] <= other[0] or other[2] <= one[0]
            assert apart_x or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (12_345_678, "12.3 MB")],
)
def test_bytes_have_three_figures(num_bytes: int, text: str) -> None:
    assert bytes_text(num_bytes) == text


def test_a_small_share_is_not_shown_as_none() -> None:
    assert percent_text(0.0001) == "< 0.1 %"
    assert percent_text(0.0) == "0.0 %"


def test_durations_carry_into_minutes_and_hours() -> None:
    assert [seconds_text(s) for s in (0.42, 42.0, 185.0, 7620.0)] == [
        "0.42 s",
        "42 s",
        "3 min 05 s",
        "2 h 07 min",
    ]


def test_a_long_id_keeps_both_ends() -> None:
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abcde", 5) == "abcde"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_an_interval_of_accuracies_lies_inside_0_to_100_percent(values: list[float]) -> None:
    plain = mean_interval(values)
    interval = share_interval(plain)
    assert plain is not None
    assert interval is not None
    low, high = interval
    assert 0 <= low <= high <= 1
    assert low - 1e-9 <= sum(values) / len(values) <= high + 1e-9
    if plain[0] >= 0 and plain[1] <= 1:
        assert interval == plain


def test_an_interval_that_left_the_scale_is_taken_on_that_of_logits() -> None:
    low, high = share_interval((-0.2, 0.6)) or (0.0, 0.0)
    assert low == pytest.approx(1 / (1 + 4 * math.exp(0.4 / 0.16)))
    assert high == pytest.approx(1 / (1 + 4 * math.exp(-0.4 / 0.16)))
