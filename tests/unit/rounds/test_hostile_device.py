"""A hostile device's answers, as benchmarks/trust/hostile.py has them, beside four honest ones."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from graft_server.request_log import response_to
from small_system import CONFIG, WORLD, Grown, System
from test_rejected_sources import QUIET

from graft.core.exchange import Request, Response
from graft.core.records import SystemState
from graft.rounds import Round, digest
from graft.rounds.admissible import digest_failure
from graft.wire.messages.codec import _serialise
from graft.wire.messages.protobuf import message_of

DEVICE = Path(__file__).resolve().parents[3] / "benchmarks" / "trust" / "hostile_device"
TARGETS = tuple(WORLD.domain_ids[3:8])
*HONEST, HOSTILE = TARGETS


@pytest.fixture(scope="module")
def spoilers() -> dict[str, Callable[[Request, Response], Response]]:
    sys.path.insert(0, str(DEVICE))
    before = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize as hostile_device

        found: dict[str, Callable[[Request, Response], Response]] = hostile_device.SPOILERS
    finally:
        sys.path.remove(str(DEVICE))
        del sys.modules["sitecustomize"]
        if before is not None:
            sys.modules["sitecustomize"] = before
    return found


def served(system: System, trained: SystemState) -> tuple[Round, dict[str, str]]:
    """A round of all five, and the honest ones' models."""
    done = system.expand(trained, TARGETS)
    return done, {c.domain_id: c.model_id for c in done.state.catalogue if c.domain_id in HONEST}


@pytest.fixture(scope="module")
def undisturbed(trained: SystemState, grown: Grown) -> dict[str, str]:
    models = served(System(config=replace(CONFIG, **QUIET), store=grown.system.store), trained)[1]
    assert set(models) == set(HONEST)
    return models


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("inadmissible-profile", "wanted 0 to"), ("inadmissible-result", "wanted 0 to"),
        ("anothers-model", "wanted its own"), ("false-reports", ""), ("markup", "[/]"),
    ],
)  # fmt: skip
def test_the_honest_ones_get_the_same_models_and_the_culprit_is_named(
    trained: SystemState, grown: Grown, undisturbed: dict[str, str],
    spoilers: dict[str, Callable[[Request, Response], Response]], kind: str, named: str,
) -> None:  # fmt: skip
    def hostile(request: Request, response: Response) -> Response:
        if request.domain_id != HOSTILE:
            return response
        try:  # as the server takes what came from the network
            body = _serialise(message_of(spoilers[kind](request, response)))
            return digest(request, response_to(request, body), WORLD.task)
        except Exception as error:
            return digest_failure(request, error)

    system = System(config=replace(CONFIG, **QUIET), change=hostile, store=grown.system.store)
    done, models = served(system, trained)
    assert models == undisturbed
    # Of what it accuses, the server finds nothing.
    assert not any(report.confirmed for report in done.state.rejections)
    if kind == "false-reports":
        assert {report.by for report in done.state.rejections} == {HOSTILE}
        assert not done.failures
    else:
        (failure,) = done.failures
        assert failure.domain_id == HOSTILE
        assert named in failure.message
