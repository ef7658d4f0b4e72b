"""Ranks, Friedman and Nemenyi against values worked out by hand or printed by Demsar (2006)."""

import pytest
from evidence_rows import row

from graft.bench.ranks import alike_groups, critical_difference, rank_methods


@pytest.mark.parametrize(
    ("num_methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_the_quantiles_are_those_of_the_printed_table(num_methods: int, q: float) -> None:
    # With 6 N = k (k + 1) the critical difference is q itself.
    blocks = num_methods * (num_methods + 1) / 6
    assert critical_difference(num_methods, blocks) == pytest.approx(q, abs=1e-3)


def test_the_critical_difference_of_the_papers_example() -> None:
    # Section 3.2.4: four methods on fourteen sets, 2.569 sqrt(4 x 5 / (6 x 14)) = 1.25.
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)


def test_groups_are_the_largest_runs_within_the_difference() -> None:
    assert alike_groups((1.0, 1.5, 2.6, 4.0), 1.2) == ((0, 1), (1, 2))
    assert alike_groups((1.0, 1.5, 2.0, 4.0), 1.2) == ((0, 2),)
    assert alike_groups((1.0, 3.0, 5.0), 1.0) == ()


def table(**accuracies: tuple[float, ...]):
    return [
        row(method=method.replace("_", "-"), domain_id=f"d{place}", accuracy=accuracy)
        for method, values in accuracies.items()
        for place, accuracy in enumerate(values)
    ]


def test_mean_ranks_give_ties_the_mean_of_their_places() -> None:
    # Ranks by block: main 1, 1, 2.5; one 2, 2.5, 1; two 3, 2.5, 2.5.
    rows = table(main=(0.9, 0.9, 0.5), one=(0.8, 0.4, 0.6), two=(0.7, 0.4, 0.5))
    ranking = rank_methods(rows, gamma=0.1, main="main", num_sources=5)
    assert ranking is not None
    assert ranking.methods == ("main", "one", "two")
    assert ranking.mean_ranks == pytest.approx((4.5 / 3, 5.5 / 3, 8 / 3))
    assert ranking.num_blocks == 3


def test_friedman_by_hand() -> None:
    # Ranks 1, 2, 3 in each of four blocks: 12 x 4 / (3 x 4) (1 + 4 + 9 - 3 x 16 / 4) = 8, which
    # is chi-squared with 2 degrees of freedom: p = exp(-8 / 2).
    rows = table(main=(0.9,) * 4, one=(0.8,) * 4, two=(0.7,) * 4)
    ranking = rank_methods(rows, gamma=0.1, main="main", num_sources=5)
    assert ranking is not None
    assert ranking.p_value == pytest.approx(0.0183156, rel=1e-4)


def test_ties_everywhere_are_no_difference() -> None:
    rows = table(main=(0.9,) * 4, one=(0.9,) * 4, two=(0.9,) * 4)
    ranking = rank_methods(rows, gamma=0.1, main="main", num_sources=5)
    assert ranking is not None
    assert ranking.p_value == 1.0
    assert ranking.alike == ((0, 2),)


def test_the_oracle_ablations_and_what_lacks_a_block_stay_out() -> None:
    rows = table(
        main=(0.9, 0.8), one=(0.8, 0.7), two=(0.7, 0.6), all_labels=(1.0, 1.0), short=(0.9,),
        main_no_heads=(0.8, 0.8),
    )  # fmt: skip
    ranking = rank_methods(rows, gamma=0.1, main="main", num_sources=5)
    assert ranking is not None
    assert set(ranking.methods) == {"main", "one", "two"}
    assert ranking.left_out == ("short",)


def test_two_methods_or_one_block_are_not_ranked() -> None:
    assert (
        rank_methods(table(main=(0.9, 0.8), one=(0.1, 0.2)), gamma=0.1, main="main", num_sources=5)
        is None
    )
    single = table(main=(0.9,), one=(0.8,), two=(0.7,))
    assert rank_methods(single, gamma=0.1, main="main", num_sources=5) is None
