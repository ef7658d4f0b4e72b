"""One grown system for all tests of the rounds, and a way to expand it again."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from small_system import ARRIVING, CONFIG, Grown, System, keep

from graft.core.records import Answer, Order, SystemState
from graft.rounds import Round


@pytest.fixture(scope="session")
def grown() -> Grown:
    system = System()
    rounds, digest = system.grow()
    return Grown(system=system, rounds=rounds, digest=digest)


@pytest.fixture(scope="session")
def founded(grown: Grown) -> SystemState:
    """The state after round 0, and the store that holds its models (``grown.system.store``)."""
    return grown.rounds[0].state


@pytest.fixture
def expand_founded(grown: Grown, founded: SystemState) -> Callable[..., tuple[Round, System]]:
    """One round after the founders', on a system of the test's own."""

    def expand(
        change: Callable[[Order, Answer], Answer] = keep,
        newcomers: tuple[str, ...] = ARRIVING[0],
        state: SystemState = founded,
        **settings: object,
    ) -> tuple[Round, System]:
        system = System(
            config=replace(CONFIG, **settings),  # type: ignore[arg-type]
            change=change,
            store=grown.system.store,
        )
        return system.expand(state, newcomers), system

    return expand
