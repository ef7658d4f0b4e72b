"""The matrix in numbers, each worked out by hand.

Set "a" has two seeds and three persons; p is a target domain of both seeds. Accuracies by pair:

              (0, p)  (0, q)  (1, p)  (1, r)
main            0.8     0.7     0.9     0.6     mean 0.75
label-only      0.7     0.5     0.6     0.6     mean 0.60
all-labels      0.9     0.8     0.9     0.8     mean 0.85
"""

import math

import pytest
from evidence_rows import row, set_rows

from graft.bench.summary import (
    clustered_interval,
    methods_in_order,
    negative_transfer,
    overviews,
    summarise_matrix,
)
from graft.report.summary import mean_interval

# Student's t at 0.975 with one and with two degrees of freedom.
T1, T2 = 12.7062047, 4.3026527


def summary_of(method: str, rows, **changes):
    cell = {"data": "a", "gamma": 0.1, "main": "main", "num_sources": 5} | changes
    return next(item for item in summarise_matrix(rows, **cell) if item.method == method)


def test_one_value_a_person_gives_students_interval() -> None:
    values = [0.1, 0.4, 0.2, 0.7]
    low, high = clustered_interval([(str(n), value) for n, value in enumerate(values)])
    assert (low, high) == pytest.approx(mean_interval(values))


def test_values_of_one_person_are_not_independent() -> None:
    # Mean 0.3; residuals of p add up to -0.2 - 0.1 = -0.3, those of q to 0.3. Two clusters:
    # variance 2/1 (0.09 + 0.09) / 3^2 = 0.04, error 0.2, one degree of freedom.
    low, high = clustered_interval([("p", 0.1), ("p", 0.2), ("q", 0.6)])
    assert (low, high) == pytest.approx((0.3 - T1 * 0.2, 0.3 + T1 * 0.2))


@pytest.mark.parametrize("values", [[], [("p", 0.5)], [("p", 0.5), ("p", 0.6)]])
def test_one_person_gives_no_interval(values: list[tuple[str, float]]) -> None:
    assert clustered_interval(values) is None


def test_means_worst_and_paired_gain() -> None:
    summary = summary_of("label-only", set_rows())
    assert summary.accuracy_mean == pytest.approx(0.60)
    assert (summary.worst_accuracy, summary.worst_pair) == (0.5, (0, "q"))
    # Gains 0.1, 0.2, 0.3 and 0.0; mean 0.15. Residuals by person: p -0.05 + 0.15 = 0.10,
    # q 0.05, r -0.15. Variance 3/2 (0.01 + 0.0025 + 0.0225) / 16 = 0.00328125.
    assert summary.gain_mean == pytest.approx(0.15)
    assert summary.gain_pairs == 4
    error = math.sqrt(0.00328125)
    assert summary.gain_interval == pytest.approx((0.15 - T2 * error, 0.15 + T2 * error))


def test_the_gap_is_closed_from_label_only_to_all_labels() -> None:
    rows = set_rows()
    # (0.75 - 0.60) / (0.85 - 0.60) = 0.6
    assert summary_of("main", rows).gap_closed == pytest.approx(0.6)
    assert summary_of("label-only", rows).gap_closed == pytest.approx(0)
    assert summary_of("all-labels", rows).gap_closed == pytest.approx(1)


def test_no_gap_where_all_labels_gain_nothing() -> None:
    rows = [
        row(method=method, domain_id=name, accuracy=0.5)
        for method in ("main", "label-only", "all-labels")
        for name in ("p", "q")
    ]
    assert summary_of("main", rows).gap_closed is None


def test_bytes_are_means_and_the_share_of_ship_all_is_paired() -> None:
    rows = [
        row(domain_id="p", bytes_down=100, bytes_up=10),
        row(domain_id="q", bytes_down=300, bytes_up=30),
        row(domain_id="p", method="average-kd-all", bytes_down=1000),
        row(domain_id="r", method="average-kd-all", bytes_down=9000),
    ]
    summary = summary_of("main", rows)
    assert (summary.bytes_down, summary.bytes_up) == (200, 20)
    assert summary.ship_all_share == pytest.approx(0.1)  # on p alone, which both served


def test_a_failed_target_makes_a_method_incomplete_and_counts_in_no_mean() -> None:
    rows = [*set_rows(), row(seed=1, domain_id="s", method="label-only", accuracy=0.9)]
    rows.append(row(seed=1, domain_id="s", error="DomainEmptyError", accuracy=None))
    main = summary_of("main", rows)
    assert (main.count_label, main.complete) == ("4 of 5", False)
    assert main.accuracy_mean == pytest.approx(0.75)
    assert summary_of("label-only", rows).gain_pairs == 4


def test_rows_of_another_number_of_sources_stay_out() -> None:
    rows = [*set_rows(), row(num_sources=1, domain_id="q", accuracy=0.0)]
    assert summary_of("main", rows).accuracy_mean == pytest.approx(0.75)
    assert summary_of("main", rows, num_sources=1).accuracy_mean == 0.0


def test_the_main_method_comes_first() -> None:
    assert methods_in_order(set_rows(), "main") == ("main", "all-labels", "label-only")
    assert methods_in_order(set_rows(), "absent") == ("all-labels", "label-only", "main")


def test_overviews_average_sets_and_rank_what_lacks_one_last() -> None:
    rows = set_rows()
    rows += [row(data="b", method="main", accuracy=0.95, domain_id=name) for name in ("x", "y")]
    rows += [row(data="b", method="label-only", accuracy=0.5, domain_id=n) for n in ("x", "y")]
    summaries = {
        data: summarise_matrix(rows, data=data, gamma=0.1, main="main", num_sources=5)
        for data in ("a", "b")
    }
    found = overviews(summaries, "main")
    assert [item.method for item in found] == ["main", "label-only", "all-labels"]
    assert found[0].accuracy_mean == pytest.approx((0.75 + 0.95) / 2)
    assert found[2].accuracy_mean is None
    assert found[0].gap_closed is None  # "b" has no all-labels to reach for


def test_negative_transfer_counts_what_chance_does_not_explain() -> None:
    # Of 40 rows, six fewer are right at p: 2^-5 = 0.03; five fewer at q: 2^-4 = 0.06.
    def pair(method: str, domain_id: str, right: int):
        return row(method=method, domain_id=domain_id, accuracy=right / 40, num_test=40)

    rows = [
        pair("main", "p", 20), pair("own", "p", 26), pair("main", "q", 20), pair("own", "q", 25),
        pair("main", "r", 40), pair("own", "r", 20), pair("main", "s", 40),
    ]  # fmt: skip
    cell = {"gamma": 0.1, "main": "main", "num_sources": 5}
    assert negative_transfer(rows, reference="own", **cell) == (1, 3)
    assert negative_transfer(rows, reference="other", **cell) is None
