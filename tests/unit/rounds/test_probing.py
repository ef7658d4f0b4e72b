"""Who demotes is offered others: by another order, whose answer counts, at the new bases' price."""

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
from fakes import SIGNER
from small_system import ARRIVING, FOUNDERS, System
from test_demotion import shuffled

from graft.core.config import SelectionConfig
from graft.core.records import Answer, LearnReport, Order, ProbeOrder, SystemState, failure_of
from graft.errors import EdgeError
from graft.rounds import Round

Expand = Callable[..., tuple[Round, System]]
NEWCOMER = ARRIVING[0][0]


def offering(count: int) -> dict[str, object]:
    """Settings by which so many of the three founders are offered, and all that stand chosen."""
    return {
        "newcomers": (NEWCOMER,),
        "comparisons": (),
        "selection": SelectionConfig(num_sources=count, num_candidates=count),
    }


def probes(system: System) -> list[list[str]]:
    """Whom the newcomer was offered, probe by probe."""
    return [
        [card.domain_id for card in order.candidates]
        for order in system.orders
        if isinstance(order, ProbeOrder)
    ]


def with_liars(state: SystemState, liars: Collection[str]) -> SystemState:
    catalogue = tuple(
        SIGNER.sign(shuffled(card)) if card.domain_id in liars else card for card in state.catalogue
    )
    return replace(state, catalogue=catalogue)


@pytest.fixture
def nearest(expand_founded: Expand) -> list[str]:
    """The founders, the newcomer's nearest first."""
    _, system = expand_founded(**offering(3))
    assert len(probes(system)) == 1
    return probes(system)[0]


def test_a_demoted_candidate_gives_its_place_to_the_next_nearest(
    expand_founded: Expand, founded: SystemState, nearest: list[str]
) -> None:
    liar, second, third = nearest
    done, system = expand_founded(state=with_liars(founded, [liar]), **offering(2))
    assert probes(system) == [[liar, second], [second, third]]
    (report,) = done.reports
    assert isinstance(report, LearnReport)
    assert sorted(report.source_domains) == sorted([second, third])
    assert {demotion.domain_id for demotion in done.state.demotions} == {liar}


def test_a_base_is_charged_once_however_often_it_is_probed(
    expand_founded: Expand, founded: SystemState, nearest: list[str]
) -> None:
    _, system = expand_founded(state=with_liars(founded, nearest[:1]), **offering(2))
    bases = [e for e in system.entries if (e.phase, e.sender) == ("probe", "depot")]
    carried = [entry.payload_bytes for entry in bases if not entry.cached]
    assert sorted(carried) == sorted(card.base_bytes for card in founded.catalogue)
    # Both orders and both answers are rows of their own.
    assert sum(entry.message == "query.probe" for entry in system.entries) == 4


def test_without_a_demotion_nobody_is_asked_twice(expand_founded: Expand) -> None:
    _, system = expand_founded(**offering(2))
    assert len(probes(system)) == 1


def test_where_the_catalogue_has_no_other_the_first_selection_stands(
    expand_founded: Expand, founded: SystemState, nearest: list[str]
) -> None:
    done, system = expand_founded(state=with_liars(founded, nearest[:1]), **offering(3))
    assert len(probes(system)) == 1
    (report,) = done.reports
    assert isinstance(report, LearnReport)
    assert sorted(report.source_domains) == sorted(nearest[1:])


def test_liars_without_end_are_probed_twice_and_no_more(
    expand_founded: Expand, founded: SystemState, nearest: list[str]
) -> None:
    _, system = expand_founded(state=with_liars(founded, FOUNDERS), **offering(1))
    assert probes(system) == [[nearest[0]], [nearest[1]]]


def test_a_second_probe_that_fails_is_the_newcomers_failure(
    expand_founded: Expand, founded: SystemState, nearest: list[str]
) -> None:
    asked: list[Order] = []

    def fail_the_second(order: Order, answer: Answer) -> Answer:
        if isinstance(order, ProbeOrder):
            asked.append(order)
        return failure_of(order, EdgeError("spilt")) if len(asked) == 2 else answer

    done, _ = expand_founded(
        change=fail_the_second, state=with_liars(founded, nearest[:1]), **offering(2)
    )
    assert [(each.domain_id, each.method) for each in done.failures] == [(NEWCOMER, "hat")]
    assert len(done.reports) == 1
