"""A card describes its own domain's model; a report counts where the server finds the fault too."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes import SIGNER
from small_system import ARRIVING, INITIAL_DOMAINS, System
from test_rejected_sources import QUIET, forged, shuffled

from graft.core.config import SelectionConfig, TrustConfig
from graft.core.exchange import ProbeRequest, Request, Response, Selection, TrainResult
from graft.core.records import ModelCard, RejectedSource, SystemState
from graft.rounds import Round

Expand = Callable[..., tuple[Round, System]]
TARGET = ARRIVING[0][0]
ALL_OFFERED = {**QUIET, "selection": SelectionConfig(num_sources=3)}


def in_cards(change: Callable[[ModelCard], ModelCard]) -> Callable[[Request, Response], Response]:
    """Answers of the target domain's with its card changed."""

    def changed(request: Request, response: Response) -> Response:
        if request.domain_id != TARGET or not isinstance(response, TrainResult):
            return response
        assert response.card is not None
        return replace(response, card=change(response.card))

    return changed


def one_failure(done: Round) -> str:
    (failure,) = done.failures
    assert (failure.domain_id, failure.error) == (TARGET, "EdgeError")
    assert TARGET not in {card.domain_id for card in done.state.catalogue}
    return failure.message


def test_another_domains_model_is_not_ones_own(
    expand_trained: Expand, trained: SystemState
) -> None:
    stolen = trained.catalogue[0]

    def claim(card: ModelCard) -> ModelCard:
        return replace(stolen, domain_id=TARGET, round_index=1, class_mask_C=card.class_mask_C)

    done, _ = expand_trained(change=in_cards(claim), **QUIET)
    assert f"of {stolen.domain_id}, wanted its own" in one_failure(done)


def test_two_domains_of_a_round_cannot_have_one_model(expand_trained: Expand) -> None:
    cards: list[ModelCard] = []

    def copy_the_first(request: Request, response: Response) -> Response:
        if isinstance(response, TrainResult) and response.card is not None:
            cards.append(response.card)
            return replace(response, card=replace(cards[0], domain_id=response.domain_id))
        return response

    done, _ = expand_trained(change=copy_the_first, **QUIET)
    assert {failure.domain_id for failure in done.failures} == {ARRIVING[0][1]}


def test_a_source_that_a_method_keeps_as_it_is_is_offered_once(expand_trained: Expand) -> None:
    done, _ = expand_trained(method="best-source", **QUIET)
    assert not done.failures
    ids = [card.model_id for card in done.state.catalogue]
    assert len(set(ids)) < len(ids)
    assert [card.domain_id for card in done.state.owned] == list(INITIAL_DOMAINS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: replace(card, parents=("f" * 64,)), "learnt from f"),
        (
            lambda card: replace(card, class_mask_C=np.zeros_like(card.class_mask_C)),
            "knows no class",
        ),
    ],
    ids=["parents", "mask"],
)
def test_a_card_that_cannot_be_is_refused(
    expand_trained: Expand, change: Callable[[ModelCard], ModelCard], message: str
) -> None:
    done, _ = expand_trained(change=in_cards(change), **QUIET)
    assert message in one_failure(done)


def test_sources_that_were_not_sent_are_refused(expand_trained: Expand) -> None:
    def boast(request: Request, response: Response) -> Response:
        if request.domain_id == TARGET and isinstance(response, TrainResult):
            return replace(response, source_domains=("nobody",), diagnostics=None)
        return response

    done, _ = expand_trained(change=boast, **QUIET)
    assert "learnt from nobody" in one_failure(done)


def test_a_liar_beside_the_owner_of_its_model_is_rejected_alone(
    expand_trained: Expand, trained: SystemState
) -> None:
    # As in a catalogue of an earlier version; a device must not take the owner for the liar.
    owner = trained.catalogue[0]
    liar = SIGNER.sign(replace(shuffled(owner), domain_id="liar"))
    _, system = expand_trained(**ALL_OFFERED)
    (first, *_) = [each for each in system.requests if isinstance(each, ProbeRequest)]
    candidates = (liar.for_probe(), owner.for_probe())
    request = replace(first, candidates=candidates, coarse_distances=(0.1, 0.2))
    (response,) = system.edge().ask([request])
    assert isinstance(response, Selection)
    assert [each.domain_id for each in response.rejected] == ["liar"]
    assert response.chosen == (owner.model_id,)


def accuse_all(request: Request, response: Response) -> Response:
    """What colluding target domains say of everything that they are offered."""
    if not isinstance(request, ProbeRequest) or not isinstance(response, Selection):
        return response
    rejected = tuple(
        RejectedSource(
            by=request.domain_id, domain_id=c.domain_id, model_id=c.model_id, reason="centroids"
        )
        for c in request.candidates
    )
    return replace(response, rejected=rejected)


def test_colluding_target_domains_silence_nobody(expand_trained: Expand) -> None:
    done, _ = expand_trained(change=accuse_all, **ALL_OFFERED)
    accusers = {(each.domain_id, each.by) for each in done.state.rejections}
    assert len(accusers) == len(INITIAL_DOMAINS) * len(ARRIVING[0])  # written down
    assert done.state.reported_sources(1) == frozenset()


def test_a_fault_that_the_server_finds_too_counts(
    expand_trained: Expand, trained: SystemState
) -> None:
    done, _ = expand_trained(state=forged(trained, shuffled), **ALL_OFFERED)
    assert done.state.reported_sources(2) == {INITIAL_DOMAINS[0]}


def test_a_doubt_of_one_domain_stays_its_own(
    expand_trained: Expand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graft.rounds.probe.disagreeing_sources", lambda *arguments: [0])
    done, _ = expand_trained(trust=TrustConfig(disagreement=True), **ALL_OFFERED)
    assert {each.reason for each in done.state.rejections} == {"disagreement"}
    assert done.state.reported_sources(1) == frozenset()


def test_a_result_cannot_accuse_a_source_that_it_was_not_sent(
    expand_trained: Expand, trained: SystemState
) -> None:
    def slander(request: Request, response: Response) -> Response:
        if request.domain_id != TARGET or not isinstance(response, TrainResult):
            return response
        absent = next(
            card for card in trained.catalogue if card.domain_id not in response.source_domains
        )
        told = RejectedSource(
            by=TARGET, domain_id=absent.domain_id, model_id=absent.model_id, reason="scale"
        )
        return replace(response, rejected=(told,))

    done, _ = expand_trained(change=slander, **QUIET)
    assert "never offered" in one_failure(done)
    assert done.state.rejections == ()


def test_expired_reports_are_dropped(expand_trained: Expand, trained: SystemState) -> None:
    accused = trained.catalogue[0]
    told = RejectedSource(
        by="ann", domain_id=accused.domain_id, model_id=accused.model_id, reason="scale"
    )
    state = replace(trained.note([told]), round_index=9)
    assert expand_trained(state=state, **QUIET)[0].state.rejections == (told,)
    state = replace(state, round_index=10)
    assert expand_trained(state=state, **QUIET)[0].state.rejections == ()
