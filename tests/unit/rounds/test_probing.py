"""Who rejects is offered others: by another request, whose answer counts, at the new bases' price."""

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
from fakes import SIGNER
from small_system import ARRIVING, INITIAL_DOMAINS, System
from test_rejected_sources import shuffled

from graft.core.config import SelectionConfig
from graft.core.exchange import ProbeRequest, Request, Response, TrainResult, failure_of
from graft.core.records import SystemState
from graft.errors import EdgeError
from graft.rounds import Round

Expand = Callable[..., tuple[Round, System]]
TARGET = ARRIVING[0][0]


def offering(count: int) -> dict[str, object]:
    """Settings by which so many of the three initial domains are offered, and all that stand chosen."""
    return {
        "targets": (TARGET,),
        "comparisons": (),
        "selection": SelectionConfig(num_sources=count, num_candidates=count),
    }


def probes(system: System) -> list[list[str]]:
    """Whom the target domain was offered, probe by probe."""
    return [
        [card.domain_id for card in request.candidates]
        for request in system.requests
        if isinstance(request, ProbeRequest)
    ]


def with_liars(state: SystemState, liars: Collection[str]) -> SystemState:
    catalogue = tuple(
        SIGNER.sign(shuffled(card)) if card.domain_id in liars else card for card in state.catalogue
    )
    return replace(state, catalogue=catalogue)


@pytest.fixture
def nearest(expand_trained: Expand) -> list[str]:
    """The initial domains, the target domain's nearest first."""
    _, system = expand_trained(**offering(3))
    assert len(probes(system)) == 1
    return probes(system)[0]


def test_a_rejected_candidate_gives_its_place_to_the_next_nearest(
    expand_trained: Expand, trained: SystemState, nearest: list[str]
) -> None:
    liar, second, third = nearest
    done, system = expand_trained(state=with_liars(trained, [liar]), **offering(2))
    assert probes(system) == [[liar, second], [second, third]]
    (report,) = done.reports
    assert isinstance(report, TrainResult)
    assert sorted(report.source_domains) == sorted([second, third])
    assert {rejection.domain_id for rejection in done.state.rejections} == {liar}


def test_a_base_is_charged_once_however_often_it_is_probed(
    expand_trained: Expand, trained: SystemState, nearest: list[str]
) -> None:
    _, system = expand_trained(state=with_liars(trained, nearest[:1]), **offering(2))
    bases = [e for e in system.entries if (e.phase, e.sender) == ("probe", "depot")]
    carried = [entry.payload_bytes for entry in bases if not entry.cached]
    assert sorted(carried) == sorted(card.base_bytes for card in trained.catalogue)
    # Both requests and both answers are rows of their own.
    assert sum(entry.message == "query.probe" for entry in system.entries) == 4


def test_without_a_rejection_nobody_is_asked_twice(expand_trained: Expand) -> None:
    _, system = expand_trained(**offering(2))
    assert len(probes(system)) == 1


def test_where_the_catalogue_has_no_other_the_first_selection_stands(
    expand_trained: Expand, trained: SystemState, nearest: list[str]
) -> None:
    done, system = expand_trained(state=with_liars(trained, nearest[:1]), **offering(3))
    assert len(probes(system)) == 1
    (report,) = done.reports
    assert isinstance(report, TrainResult)
    assert sorted(report.source_domains) == sorted(nearest[1:])


def test_liars_without_end_are_probed_twice_and_no_more(
    expand_trained: Expand, trained: SystemState, nearest: list[str]
) -> None:
    _, system = expand_trained(state=with_liars(trained, INITIAL_DOMAINS), **offering(1))
    assert probes(system) == [[nearest[0]], [nearest[1]]]


def test_a_second_probe_that_fails_is_the_targets_failure(
    expand_trained: Expand, trained: SystemState, nearest: list[str]
) -> None:
    asked: list[Request] = []

    def fail_the_second(request: Request, response: Response) -> Response:
        if isinstance(request, ProbeRequest):
            asked.append(request)
        return failure_of(request, EdgeError("spilt")) if len(asked) == 2 else response

    done, _ = expand_trained(
        change=fail_the_second, state=with_liars(trained, nearest[:1]), **offering(2)
    )
    assert [(each.domain_id, each.method) for each in done.failures] == [(TARGET, "hat")]
    assert len(done.reports) == 1
