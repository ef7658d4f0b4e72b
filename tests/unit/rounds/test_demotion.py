"""A source that contradicts itself is demoted: by the newcomer at once, by the server in time."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import SIGNER
from small_system import ARRIVING, CONFIG, FOUNDERS, Grown, System

from graft.core.config import SelectionConfig, TrustConfig
from graft.core.records import (
    Answer,
    Demotion,
    LearnReport,
    ModelCard,
    Order,
    ProbeOrder,
    Selection,
    SystemState,
)
from graft.rounds import Round

Expand = Callable[..., tuple[Round, System]]
LIAR = FOUNDERS[0]
QUIET = {"comparisons": (), "selection": SelectionConfig(num_sources=2)}


def forged(state: SystemState, change: Callable[[ModelCard], ModelCard]) -> SystemState:
    catalogue = tuple(
        SIGNER.sign(change(card)) if card.domain_id == LIAR else card for card in state.catalogue
    )
    return replace(state, catalogue=catalogue)


def shuffled(card: ModelCard) -> ModelCard:
    """Centroids that belong to other classes."""
    assert card.centroids_CF is not None
    order = np.roll(np.arange(len(card.centroids_CF)), 3)
    return replace(card, centroids_CF=card.centroids_CF[order].copy())


def learnt(done: Round) -> list[LearnReport]:
    reports = [report for report in done.reports if isinstance(report, LearnReport)]
    assert len(reports) == len(ARRIVING[0])
    return reports


def sources(done: Round) -> set[str]:
    return {domain_id for report in learnt(done) for domain_id in report.source_domains}


def test_honest_sources_are_demoted_by_nobody(grown: Grown) -> None:
    assert all(done.state.demotions == () for done in grown.rounds)


def test_forged_centroids_are_found_out_named_and_not_learnt_from(
    expand_founded: Expand, founded: SystemState
) -> None:
    lying = forged(founded, shuffled)
    trusting, _ = expand_founded(
        state=lying,
        **{
            **QUIET,
            "trust": TrustConfig(verify=False),
            "selection": SelectionConfig(num_sources=3),
        },
    )
    assert LIAR in sources(trusting)
    done, _ = expand_founded(state=lying, **{**QUIET, "selection": SelectionConfig(num_sources=3)})
    assert LIAR not in sources(done)
    assert {(d.by, d.domain_id, d.reason) for d in done.state.demotions} == {
        (newcomer, LIAR, "centroids") for newcomer in ARRIVING[0]
    }


def test_a_source_that_two_demoted_is_ranked_behind_all_others(
    expand_founded: Expand, founded: SystemState
) -> None:

    def offered(state: SystemState) -> list[list[str]]:
        _, system = expand_founded(state=state, **QUIET)
        return [
            [each.domain_id for each in order.candidates]
            for order in system.orders
            if isinstance(order, ProbeOrder)
        ]

    nearest = offered(founded)[0][0]
    card = next(card for card in founded.catalogue if card.domain_id == nearest)
    demotions = [
        Demotion(by=by, domain_id=nearest, model_id=card.model_id, reason="scale")
        for by in ("ann", "ben")
    ]
    assert offered(founded.note(demotions[:1]))[0][0] == nearest
    assert all(order[-1] == nearest for order in offered(founded.note(demotions)))


@pytest.mark.parametrize("field", ["model_id", "domain_id"])
def test_a_demotion_of_what_was_never_offered_is_refused(
    expand_founded: Expand, field: str
) -> None:
    other = {"model_id": "0" * 64, "domain_id": "nobody"}[field]

    def slander(order: Order, answer: Answer) -> Answer:
        if not isinstance(answer, Selection) or not isinstance(order, ProbeOrder):
            return answer
        card = order.candidates[0]
        told = Demotion(
            by=answer.domain_id, domain_id=card.domain_id, model_id=card.model_id, reason="scale"
        )
        return replace(answer, demoted=(replace(told, **{field: other}),))

    done, _ = expand_founded(change=slander, **QUIET)
    assert {failure.error for failure in done.failures} == {"EdgeError"}
    assert done.state.demotions == ()


def test_a_lone_dissenter_is_named_in_the_report(
    expand_founded: Expand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.rounds.training.outsiders", lambda *arguments: [1])
    done, _ = expand_founded(
        **{**QUIET, "selection": SelectionConfig(num_sources=3)},
        trust=TrustConfig(disagreement=True),
    )
    reports = [report for report in done.reports if isinstance(report, LearnReport)]
    assert all(len(report.source_domains) == 2 for report in reports)
    assert {d.reason for d in done.state.demotions} == {"disagreement"}
    assert {d.by for d in done.state.demotions} == set(ARRIVING[0])


def test_noise_and_budget_of_the_run_hold_for_every_simulated_domain(
    expand_founded: Expand, founded: SystemState
) -> None:
    noisy = replace(CONFIG.policy, epsilon=1.0, total_epsilon=2.0)
    done, _ = expand_founded(policy=noisy, **QUIET)
    again, _ = expand_founded(policy=noisy, **QUIET)
    assert not done.failures
    plain, _ = expand_founded(**QUIET)
    for one, two, exact in zip(done.profiles, again.profiles, plain.profiles, strict=True):
        np.testing.assert_array_equal(one.statistics_D, two.statistics_D)
        assert not np.array_equal(one.statistics_D, exact.statistics_D)
    assert all(report.trace is None for report in learnt(done))
    assert all(report.trace is not None for report in learnt(plain))
    spent, _ = expand_founded(policy=replace(noisy, total_epsilon=1.5), **QUIET)
    assert {failure.error for failure in spent.failures} == {"PolicyError"}
    assert "centroids of" in spent.failures[0].message
