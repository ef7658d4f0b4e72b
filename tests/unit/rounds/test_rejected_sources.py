"""A source that contradicts itself is rejected: by the target domain at once, by the server in time."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import SIGNER
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, Grown, System

from graft.core.config import SelectionConfig, TrustConfig
from graft.core.exchange import ProbeRequest, Request, Response, Selection, TrainResult
from graft.core.records import ModelCard, RejectedSource, SystemState
from graft.rounds import Round

Expand = Callable[..., tuple[Round, System]]
LIAR = INITIAL_DOMAINS[0]
QUIET = {"comparisons": (), "selection": SelectionConfig(num_sources=2)}


def forged(state: SystemState, change: Callable[[ModelCard], ModelCard]) -> SystemState:
    catalogue = tuple(
        SIGNER.sign(change(card)) if card.domain_id == LIAR else card for card in state.catalogue
    )
    return replace(state, catalogue=catalogue)


def shuffled(card: ModelCard) -> ModelCard:
    """Centroids that belong to other classes."""
    assert card.centroids_CF is not None
    request = np.roll(np.arange(len(card.centroids_CF)), 3)
    return replace(card, centroids_CF=card.centroids_CF[request].copy())


def learnt(done: Round) -> list[TrainResult]:
    reports = [report for report in done.reports if isinstance(report, TrainResult)]
    assert len(reports) == len(ARRIVING[0])
    return reports


def sources(done: Round) -> set[str]:
    return {domain_id for report in learnt(done) for domain_id in report.source_domains}


def test_honest_sources_are_rejected_by_nobody(grown: Grown) -> None:
    assert all(done.state.rejections == () for done in grown.rounds)


def test_forged_centroids_are_found_out_named_and_not_learnt_from(
    expand_trained: Expand, trained: SystemState
) -> None:
    lying = forged(trained, shuffled)
    trusting, _ = expand_trained(
        state=lying,
        **{
            **QUIET,
            "trust": TrustConfig(verify=False),
            "selection": SelectionConfig(num_sources=3),
        },
    )
    assert LIAR in sources(trusting)
    done, _ = expand_trained(state=lying, **{**QUIET, "selection": SelectionConfig(num_sources=3)})
    assert LIAR not in sources(done)
    assert {(d.by, d.domain_id, d.reason) for d in done.state.rejections} == {
        (target, LIAR, "centroids") for target in ARRIVING[0]
    }


def test_a_source_that_two_rejected_is_ranked_behind_all_others(
    expand_trained: Expand, trained: SystemState
) -> None:

    def offered(state: SystemState) -> list[list[str]]:
        _, system = expand_trained(state=state, **QUIET)
        return [
            [each.domain_id for each in request.candidates]
            for request in system.requests
            if isinstance(request, ProbeRequest)
        ]

    nearest = offered(trained)[0][0]
    card = next(card for card in trained.catalogue if card.domain_id == nearest)
    rejections = [
        RejectedSource(
            by=by, domain_id=nearest, model_id=card.model_id, reason="scale", confirmed=True
        )
        for by in ("ann", "ben")
    ]
    assert offered(trained.note(rejections[:1]))[0][0] == nearest
    assert all(request[-1] == nearest for request in offered(trained.note(rejections)))


@pytest.mark.parametrize("field", ["model_id", "domain_id"])
def test_a_rejection_of_what_was_never_offered_is_refused(
    expand_trained: Expand, field: str
) -> None:
    other = {"model_id": "0" * 64, "domain_id": "nobody"}[field]

    def slander(request: Request, response: Response) -> Response:
        if not isinstance(response, Selection) or not isinstance(request, ProbeRequest):
            return response
        card = request.candidates[0]
        told = RejectedSource(
            by=response.domain_id, domain_id=card.domain_id, model_id=card.model_id, reason="scale"
        )
        return replace(response, rejected=(replace(told, **{field: other}),))

    done, _ = expand_trained(change=slander, **QUIET)
    assert {failure.error for failure in done.failures} == {"EdgeError"}
    assert done.state.rejections == ()


def test_a_lone_dissenter_is_named_in_the_report(
    expand_trained: Expand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.rounds.training.disagreeing_sources", lambda *arguments: [1])
    done, _ = expand_trained(
        **{**QUIET, "selection": SelectionConfig(num_sources=3)},
        trust=TrustConfig(disagreement=True),
    )
    reports = [report for report in done.reports if isinstance(report, TrainResult)]
    assert all(len(report.source_domains) == 2 for report in reports)
    assert {d.reason for d in done.state.rejections} == {"disagreement"}
    assert {d.by for d in done.state.rejections} == set(ARRIVING[0])


def test_noise_and_budget_of_the_run_hold_for_every_simulated_domain(
    expand_trained: Expand, trained: SystemState
) -> None:
    noisy = replace(CONFIG.policy, epsilon=1.0, total_epsilon=3.0)
    done, _ = expand_trained(policy=noisy, **QUIET)
    again, _ = expand_trained(policy=noisy, **QUIET)
    assert not done.failures
    plain, _ = expand_trained(**QUIET)
    for one, two, exact in zip(done.profiles, again.profiles, plain.profiles, strict=True):
        np.testing.assert_array_equal(one.statistics_D, two.statistics_D)
        assert not np.array_equal(one.statistics_D, exact.statistics_D)
    assert all(report.diagnostics is None for report in learnt(done))
    assert all(report.diagnostics is not None for report in learnt(plain))
    # A profile, a probe and centroids are paid for, each in its turn; before the last the scores
    # of a test, where they have noise.
    for total, refused, scores in (
        (1.5, "probe of", False), (2.5, "centroids of", False), (2.5, "scores of", True),
        (3.5, "centroids of", True),
    ):  # fmt: skip
        policy = replace(noisy, total_epsilon=total, noisy_metrics=scores)
        spent, _ = expand_trained(policy=policy, **QUIET)
        assert {failure.error for failure in spent.failures} == {"PolicyError"}
        assert refused in spent.failures[0].message
    policy = replace(noisy, total_epsilon=4.0, noisy_metrics=True)
    hidden, _ = expand_trained(policy=policy, **QUIET)
    for one, two in zip(learnt(hidden), learnt(done), strict=True):
        rows = ("num_test", "num_labelled", "num_unlabelled")
        assert {*one.metrics} == {"accuracy", "macro_f1", *rows}
        assert [one.metrics[name] for name in rows] == [two.metrics[name] for name in rows]
        assert one.metrics["accuracy"] != two.metrics["accuracy"]
