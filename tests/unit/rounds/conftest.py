"""One grown system for all tests of the rounds, and a way to expand it again."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from small_system import ARRIVING, CONFIG, Grown, System, keep

from graft.core.exchange import Request, Response
from graft.core.records import SystemState
from graft.rounds import Round


@pytest.fixture(scope="session")
def grown() -> Grown:
    system = System()
    rounds, digest = system.grow()
    return Grown(system=system, rounds=rounds, digest=digest)


@pytest.fixture(scope="session")
def trained(grown: Grown) -> SystemState:
    """The state after round 0, and the store that holds its models (``grown.system.store``)."""
    return grown.rounds[0].state


@pytest.fixture
def expand_trained(grown: Grown, trained: SystemState) -> Callable[..., tuple[Round, System]]:
    """One round after the initial domains', on a system of the test's own."""

    def expand(
        change: Callable[[Request, Response], Response] = keep,
        targets: tuple[str, ...] = ARRIVING[0],
        state: SystemState = trained,
        **settings: object,
    ) -> tuple[Round, System]:
        system = System(
            config=replace(CONFIG, **settings),  # type: ignore[arg-type]
            change=change,
            store=grown.system.store,
        )
        return system.expand(state, targets), system

    return expand
