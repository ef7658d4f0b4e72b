"""How a score is judged, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.errors import ConfigError, DomainEmptyError, DomainShapeError, DomainValueError
from graft.selection.evaluation import top_k_regret, top_k_shortfall, weighted_tau

TRUTH = [0.9, 0.6, 0.3]


def test_tau_weighs_a_swap_by_its_ranks() -> None:
    # Three pairs of ranks: (0, 1) weighs 1 + 1/2, (0, 2) 1 + 1/3, (1, 2) 1/2 + 1/3; in all 11/3.
    # Last two swapped: 11/3 - 2 (5/6) = 2 left of 11/3. First two swapped: 11/3 - 2 (3/2) = 2/3.
    assert weighted_tau([3, 2, 1], TRUTH) == pytest.approx(1)
    assert weighted_tau([3, 1, 2], TRUTH) == pytest.approx(6 / 11)
    assert weighted_tau([2, 3, 1], TRUTH) == pytest.approx(2 / 11)
    assert weighted_tau([1, 2, 3], TRUTH) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("scores", "truth"), [([1, 1, 1], TRUTH), ([1, 2, 3], [0.5] * 3), ([1], [1])]
)
def test_where_nothing_is_ranked_tau_is_zero(scores: list[float], truth: list[float]) -> None:
    assert weighted_tau(scores, truth) == 0


@pytest.mark.parametrize(
    ("k", "regret", "shortfall"),
    # Chosen in the order 0.3, 0.9, 0.6. Means of the best one, two, three: 0.9, 0.75, 0.6.
    [(1, 0.6, 0.6), (2, 0.0, 0.15), (3, 0.0, 0.0), (9, 0.0, 0.0)],
)
def test_regret_is_of_the_best_and_shortfall_of_the_mean(
    k: int, regret: float, shortfall: float
) -> None:
    scores = [2.0, 1.0, 3.0]
    assert top_k_regret(scores, TRUTH, k) == pytest.approx(regret)
    assert top_k_shortfall(scores, TRUTH, k) == pytest.approx(shortfall)


PAIRS = st.lists(
    st.tuples(st.integers(-9, 9), st.integers(0, 100)), min_size=2, max_size=10,
    unique_by=(lambda pair: pair[0], lambda pair: pair[1]),
)  # fmt: skip


@settings(deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_only_the_order_of_the_scores_counts(pairs: list[tuple[int, int]], random) -> None:
    shuffled = random.sample(pairs, len(pairs))
    judged = []
    for each, stretch in ((pairs, 1.0), (shuffled, 1.0), (pairs, 3.5)):
        scores, truth = np.array(each, np.float64).T
        scores = np.exp(stretch * scores / 9)
        assert top_k_regret(scores, truth, 2) <= top_k_regret(scores, truth, 1)
        assert -1 <= weighted_tau(scores, truth) <= 1
        judged.append(
            (weighted_tau(scores, truth), top_k_regret(scores, truth, 2),
             top_k_shortfall(scores, truth, 2))
        )  # fmt: skip
    np.testing.assert_allclose(judged, [judged[0]] * 3)


@settings(deadline=None)
@given(PAIRS)
def test_the_truth_itself_is_the_best_score(pairs: list[tuple[int, int]]) -> None:
    truth = np.array(pairs, np.float64)[:, 1]
    assert weighted_tau(truth, truth) == pytest.approx(1)
    assert weighted_tau(-truth, truth) == pytest.approx(-1)
    for k in range(1, len(truth) + 1):
        assert top_k_regret(truth, truth, k) == top_k_shortfall(truth, truth, k) == 0


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(DomainShapeError, match="2,"):
        weighted_tau([1, 2], [1, 2, 3])
    with pytest.raises(DomainEmptyError):
        top_k_regret([], [], 1)
    with pytest.raises(DomainValueError):
        top_k_shortfall([np.nan, 1], [0, 1], 1)
    with pytest.raises(ConfigError):
        top_k_regret([1], [1], 0)
