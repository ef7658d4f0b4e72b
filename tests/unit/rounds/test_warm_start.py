"""A method with a warm start: a source of the own architecture, and bases alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from small_system import ARRIVING, CONFIG, System

from graft.core.config import SelectionConfig
from graft.core.exchange import TrainRequest, TrainResult
from graft.core.records import SystemState
from graft.rounds import Round

TARGETS = ARRIVING[0] + ARRIVING[1]
Expand = Callable[..., tuple[Round, System]]


@pytest.fixture
def expanded(expand_trained: Expand) -> tuple[Round, System]:
    """Every target domain taught by one source, by the method with a warm start and by one without."""
    return expand_trained(
        targets=TARGETS,
        method="graft",
        comparisons=("hat",),
        selection=SelectionConfig(num_sources=1, num_candidates=3),
    )


def sources_of(system: System, method: str, domain_id: str) -> tuple[str, ...]:
    (request,) = (
        request
        for request in system.requests
        if isinstance(request, TrainRequest)
        and (request.method, request.domain_id) == (method, domain_id)
    )
    return tuple(card.architecture for card in request.sources)


def test_the_chosen_include_the_own_architecture_where_a_candidate_is(
    expanded: tuple[Round, System], trained: SystemState
) -> None:
    done, system = expanded
    offered = {card.architecture for card in trained.catalogue}
    moved = 0
    for report in done.reports:
        assert isinstance(report, TrainResult)
        if report.method == "graft":
            assert report.architecture in offered
            assert sources_of(system, "graft", report.domain_id) == (report.architecture,)
            moved += sources_of(system, "hat", report.domain_id) != (report.architecture,)
    assert moved > 0  # otherwise the rule changed nothing


def test_bases_that_were_probed_are_all_it_needs(expand_trained: Expand) -> None:
    done, system = expand_trained(targets=TARGETS, method="graft", comparisons=("hat",))
    for domain_id in TARGETS:
        shipped = {
            method: Counter(
                entry.message
                for entry in system.entries
                if (entry.method, entry.receiver) == (method, domain_id) and not entry.cached
            )
            for method in ("graft", "hat")
        }
        assert shipped["hat"]["payload.residual"] == CONFIG.selection.num_sources
        assert "payload.residual" not in shipped["graft"]
    started = [
        report.metrics["started_from_source"]
        for report in done.reports
        if isinstance(report, TrainResult) and report.method == "graft"
    ]
    assert 1.0 in started


def test_without_a_candidate_of_its_own_it_starts_fresh(
    expand_trained: Expand, trained: SystemState
) -> None:
    mlp_only = replace(
        trained, catalogue=tuple(c for c in trained.catalogue if c.architecture == "mlp")
    )
    done, _ = expand_trained(targets=TARGETS, state=mlp_only, method="graft", comparisons=())
    reports = [report for report in done.reports if isinstance(report, TrainResult)]
    strangers = [report for report in reports if report.architecture != "mlp"]
    assert strangers
    for report in strangers:
        assert report.metrics["started_from_source"] == 0.0
