"""What a target domain holds against a source, with numbers by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from graft.core.config import TrustConfig
from graft.core.records import RejectedSource, SystemState
from graft.selection import (
    above_chance,
    centroid_consistency,
    disagreeing_sources,
    logit_outliers,
    verify_source,
)
from graft.selection.source_checks import agrees

RNG = np.random.default_rng(0)


def test_the_measure_is_deviations_over_all_permutations_of_the_classes() -> None:
    logits_CC = RNG.normal(size=(5, 5)).astype(np.float32)
    own = logits_CC.astype(np.float64)
    own = own - own.mean(0) - own.mean(1)[:, None] + own.mean()
    traces = [sum(own[c, order[c]] for c in range(5)) for order in itertools.permutations(range(5))]
    assert np.mean(traces) == pytest.approx(0, abs=1e-12)
    wanted = np.trace(own) / np.std(traces)
    assert centroid_consistency(logits_CC, np.ones((5, 3), np.float32)) == pytest.approx(wanted)


def test_a_head_that_tells_every_centroid_has_the_most_there_is() -> None:
    assert centroid_consistency(np.eye(6, dtype=np.float32), np.ones((6, 2))) == pytest.approx(5)
    shuffled = np.roll(np.eye(6, dtype=np.float32), 1, axis=1)
    assert centroid_consistency(shuffled, np.ones((6, 2))) == pytest.approx(-1)


def test_withheld_or_few_centroids_are_held_against_nobody() -> None:
    few_CF = np.zeros((6, 2), np.float32)
    few_CF[:3] = 1
    for centroids_CF in (None, few_CF, np.zeros((6, 2), np.float32)):
        assert centroid_consistency(-np.eye(6, dtype=np.float32), centroids_CF) == math.inf


def test_classes_without_centroid_are_left_out() -> None:
    centroids_CF = np.ones((6, 2), np.float32)
    centroids_CF[0] = 0
    logits_CC = np.eye(6, dtype=np.float32)
    logits_CC[0] = logits_CC[:, 0] = 99
    assert centroid_consistency(logits_CC, centroids_CF) == pytest.approx(4)


@pytest.mark.parametrize(("correct", "better"), [(0, False), (1, False), (2, True), (8, True)])
def test_chance_is_half_of_all_guessers(correct: int, better: bool) -> None:
    # Of 8 guesses among 8 classes, 1 or more are right with 1 - (7/8)^8 = 0.66, 2 or more 0.26.
    y_L = np.arange(8)
    predicted_L = np.where(y_L < correct, y_L, (y_L + 1) % 8)
    assert above_chance(predicted_L, y_L, np.ones(8, np.bool_)) is better


def test_a_source_is_overblown_beside_the_others() -> None:
    assert logit_outliers([1.0, 2.0, 3.0, 7.9]) == []
    assert logit_outliers([1.0, 2.0, 3.0, 13.0]) == [3]
    assert logit_outliers([1.0, 14.0, 12.0, 2.0, 3.0]) == [1]  # above 4 x 3; 12 is not
    # Two say nothing of each other, and silence is the size of no model.
    assert logit_outliers([1.0, 100.0]) == []
    assert logit_outliers([0.0, 0.0, 0.0]) == []


def fault(
    config: TrustConfig,
    logits: float = 1.0,
    consistency: float = 3.0,
    better: bool = True,
    near: bool = False,
) -> str | None:
    return verify_source(logits, consistency, better, near, config)


def test_each_check_has_its_switch_and_its_word() -> None:
    usual, off = TrustConfig(), TrustConfig(verify=False)
    assert fault(usual) is None
    for logits in (89.0, math.nan, math.inf):
        assert fault(usual, logits=logits) == "scale"
        assert fault(off, logits=logits) is None
    assert fault(usual, logits=87.0) is None
    assert fault(usual, consistency=0.9) == "centroids"
    assert fault(off, consistency=0.9) is None
    assert fault(usual, better=False) is None  # honest sources of other people are no better
    strict = TrustConfig(chance=True)
    assert fault(strict, better=False) == "chance"
    assert fault(strict, better=False, near=True) == "profile"
    assert fault(strict, better=True, near=True) is None


def test_agreement_must_pass_what_marginals_give() -> None:
    one = np.arange(80) % 4
    assert agrees(one, one, 4)
    assert not agrees(one, np.repeat(np.arange(4), 20), 4)  # a quarter, as chance has it
    assert not agrees(np.zeros(80, np.int64), np.zeros(80, np.int64), 4)  # chance is 1


def sources(*predicted: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    log = np.full((len(predicted), len(predicted[0]), 4), -5.0, np.float32)
    for place, each in enumerate(predicted):
        log[place, np.arange(len(each)), each] = -0.1
    return log


def test_who_disagrees_is_out_unless_the_targets_own_labels_say_otherwise() -> None:
    truth, noise = np.arange(80) % 4, np.repeat(np.arange(4), 20)
    labelled_N = np.arange(80) < 12
    mask_SC = np.ones((4, 4), np.bool_)
    log_SNC = sources(truth, truth, truth, noise)
    assert disagreeing_sources(log_SNC, labelled_N, truth[:12], mask_SC) == [3]
    # The same four before a target domain whose labels the fourth alone has right: the labels decide.
    assert disagreeing_sources(log_SNC, labelled_N, noise[:12], mask_SC) == [0, 1, 2]
    assert (
        disagreeing_sources(log_SNC[2:], labelled_N, truth[:12], mask_SC[2:]) == []
    )  # two cannot tell


def test_many_who_know_nothing_are_no_majority() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(4, size=80)
    # Two of eight are right on three quarters of the rows; each of the others knows nothing.
    able = [np.where(rng.random(80) < 0.75, truth, rng.integers(4, size=80)) for _ in range(2)]
    noise = [rng.integers(4, size=80) for _ in range(6)]
    found = disagreeing_sources(
        sources(*able, *noise), np.arange(80) < 12, truth[:12], np.ones((8, 4), np.bool_)
    )
    assert not {0, 1} & set(found)
    assert len(found) >= 5


def told(by: str, domain_id: str, model_id: str = "a" * 64) -> RejectedSource:
    return RejectedSource(
        by=by, domain_id=domain_id, model_id=model_id, reason="scale", confirmed=True
    )


def test_a_source_is_suspect_once_several_targets_rejected_it() -> None:
    state = SystemState().note([told("ann", "x"), told("ann", "x", "b" * 64), told("ben", "y")])
    assert state.reported_sources(2) == frozenset()  # ann twice is one accuser
    state = state.note([told("ben", "x"), told("ann", "x")])
    assert state.reported_sources(2) == {"x"}
    assert state.reported_sources(1) == {"x", "y"}
    assert len(state.rejections) == 4
    assert state.note(reversed(state.rejections)) == state


def test_a_report_that_the_server_did_not_confirm_does_not_count() -> None:
    doubts = [replace(told(by, "x"), confirmed=False) for by in ("ann", "ben", "cem")]
    assert SystemState().note(doubts).reported_sources(1) == frozenset()


def test_a_reported_domain_has_no_vote() -> None:
    state = SystemState().note([told("ann", "x"), told("ben", "x"), told("cem", "ben")])
    assert state.reported_sources(2) == frozenset()
    assert state.reported_sources(1) == {"x", "ben"}


def test_reports_lose_weight_and_expire() -> None:
    state = SystemState(round_index=1).note([told("ann", "x"), told("ben", "x")])

    def reported(round_index: int, min_reports: int) -> bool:
        later = replace(state, round_index=round_index)
        return "x" in later.reported_sources(min_reports, report_rounds=10)

    # Rounds 1 to 6 see reports that are 0 to 5 rounds old, at full weight; at 10 they are gone.
    assert all(reported(index, 2) for index in range(1, 7))
    assert not reported(7, 2)
    assert reported(8, 1)
    assert not reported(11, 1)
