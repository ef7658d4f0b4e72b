"""Nothing that crosses the wire holds a domain's rows or labels; a planted leak is found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import graft_simulation.in_process as local
import numpy as np
import pytest
from fakes import RUN, SIGNER, world_devices, world_store
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, WORLD

from graft.core.exchange import Request
from graft.core.records import DomainProfile
from graft.privacy import profile_domain
from graft.rounds import Device, expand_system, train_initial_domains
from graft.wire.messages.codec import encode_request, encode_response

DOMAINS = (*INITIAL_DOMAINS, *ARRIVING[0])
# A run of values: one could be there by chance, so many in a row cannot.
RUN_LENGTH = 4


class Wire:
    """Everything that goes over a small run's wire, both ways."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[bytes] = []
        self.store = world_store(WORLD)
        self._patch(monkeypatch, "encode_request", encode_request)
        self._patch(monkeypatch, "encode_response", encode_response)

    def _patch(
        self, monkeypatch: pytest.MonkeyPatch, name: str, encode: Callable[..., bytes]
    ) -> None:
        def heard(record: object) -> bytes:
            data = encode(record)
            self.messages.append(data)
            return data

        monkeypatch.setattr(local, name, heard)

    def run(self, change: Callable[[Device], Device] = lambda device: device) -> list[bytes]:
        """Initial domains and one round of target domains; returns all messages and payloads."""
        devices = world_devices(WORLD, CONFIG, self.store, lambda entry: None)

        @contextmanager
        def open_device(request: Request) -> Iterator[Device]:
            with devices(request) as device:
                yield change(device)

        edge = local.LocalEdge(RUN, WORLD.domain_ids, open_device, lambda entry: None)
        trained = train_initial_domains(INITIAL_DOMAINS, edge, SIGNER.sign)
        done = expand_system(trained.state, ARRIVING[0], edge, SIGNER.sign, CONFIG)
        assert not trained.failures
        assert not done.failures
        return [*self.messages, *self.store.parts.values()]


def needles() -> Iterator[tuple[str, bytes]]:
    """Pieces of every window and of every domain's labels, as a leak would write them."""
    for domain_id in DOMAINS:
        data = WORLD.load(domain_id)
        for dtype in ("<f4", "<f8", ">f4"):
            flat = data.x.astype(dtype).reshape(len(data.x), -1)
            for row, values in enumerate(flat):
                yield f"{domain_id} window {row} as {dtype}", values[:RUN_LENGTH].tobytes()
                yield f"{domain_id} window {row} as {dtype}", values[-RUN_LENGTH:].tobytes()
        for dtype in ("<i8", "<i4", "<i2", "u1", "<f4", "<f8"):
            yield f"{domain_id} labels as {dtype}", data.y_N.astype(dtype).tobytes()


def found_in(wire: Sequence[bytes]) -> list[str]:
    """What of the needles is in any message, however it is laid out between others."""
    # Values of a leak lie at any offset of four bytes or of one: search, do not slice.
    haystack = b"\0".join(wire)
    return [name for name, needle in needles() if needle in haystack]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


def test_no_window_and_no_label_crosses_the_wire(wire: Wire) -> None:
    sent = wire.run()
    assert len(wire.messages) > 20
    assert len(wire.store.parts) >= 3 * len(DOMAINS)
    assert found_in(sent) == []


def test_a_window_in_a_profile_is_found(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(domain_id: str, *rest: Any) -> DomainProfile:
        profile = profile_domain(domain_id, *rest)
        leaked_D = profile.statistics_D.copy()
        leaked_D[: 2 * RUN_LENGTH] = WORLD.load(domain_id).x[0].reshape(-1)[: 2 * RUN_LENGTH]
        return replace(profile, statistics_D=leaked_D)

    monkeypatch.setattr("graft.rounds.requests.profile_domain", leaking)
    leaks = found_in(wire.run())
    assert f"{INITIAL_DOMAINS[0]} window 0 as <f4" in leaks
    assert len(leaks) >= len(DOMAINS)


def test_labels_as_class_counts_are_found(wire: Wire) -> None:
    data = WORLD.load(INITIAL_DOMAINS[0])
    leaked = [*wire.run(), b"any" + data.y_N.astype(np.uint8).tobytes() + b"thing"]
    assert found_in(leaked) == [f"{INITIAL_DOMAINS[0]} labels as u1"]
