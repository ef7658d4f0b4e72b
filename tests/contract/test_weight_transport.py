"""What every way from a device to the model store does: in process, and over gRPC."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from graft_client.depot_client import GrpcLink, open_channel
from graft_server.depot.server import DepotServer
from graft_server.model_store import DirectoryStore

from graft.core.payload import encode_payload, model_id
from graft.core.records import FloatArray, LedgerEntry, ModelCard
from graft.core.tensor_types import Shapes
from graft.errors import (
    ArchitectureError,
    ModelMissingError,
    PayloadChangedError,
    PayloadError,
    PayloadLimitError,
    PayloadTruncatedError,
    TransportError,
)
from graft.wire.payload import blocks
from graft.wire.transfer.cache import FolderCache, MemoryCache, PartCache
from graft.wire.transfer.link import Chunk, DirectoryLink, Link, Part
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

SHAPES: Shapes = {"w": (300, 400), "b": (300,)}  # 481 kB: more than one chunk


def shapes_of(architecture: str) -> Shapes:
    if architecture != "net":
        raise ArchitectureError(f"{architecture} is unknown")
    return SHAPES


def model(seed: int = 0) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", shapes_of=shapes_of)


@pytest.fixture(params=["directory", "grpc"])
def link(request: pytest.FixtureRequest, store: DirectoryStore) -> Iterator[Link]:
    if request.param == "directory":
        yield DirectoryLink(store)
        return
    with (
        DepotServer(store, "127.0.0.1:0", insecure=True) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        yield GrpcLink(channel)


@pytest.fixture(params=["memory", "folder", "files"])
def cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PartCache:
    """In the last case every model counts as large, here and in the depot."""
    if request.param == "files":
        monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 0)
    return MemoryCache() if request.param == "memory" else FolderCache(tmp_path / "cache")


@pytest.fixture
def rows() -> list[LedgerEntry]:
    return []


def accept(card: ModelCard) -> None:
    pass


def device(
    link: Link,
    cache: PartCache,
    rows: list[LedgerEntry],
    verify: Callable[[ModelCard], None] = accept,
) -> DeviceTransport:
    ticks = count()
    return DeviceTransport(
        link=link,
        cache=cache,
        verify=verify,
        shapes_of=shapes_of,
        label=TransferLabel(run="r", round_index=2, method="hat", domain_id="ward"),
        record=rows.append,
        clock=lambda: float(next(ticks)),
    )


def card_of(store: DirectoryStore, seed: int = 0) -> ModelCard:
    name = store.put(encode_payload("net", model(seed)), "net")
    lengths = [len(store.part(name, part)) for part in ("exact", "base", "residual")]
    return ModelCard(
        model_id=name,
        domain_id="source",
        architecture="net",
        payload_bytes=lengths[0],
        base_bytes=lengths[1],
        residual_bytes=lengths[2],
        class_mask_C=np.ones(3, np.bool_),
        round_index=0,
    )


def test_the_exact_fetch_brings_the_model_to_the_bit(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    fetched = device(link, cache, rows).fetch(card_of(store), "exact")
    assert {name: fetched[name].tobytes() for name in SHAPES} == {
        name: array.tobytes() for name, array in model().items()
    }


def test_what_the_device_holds_is_not_sent_again(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    card, transport = card_of(store), device(link, cache, rows)
    transport.fetch(card, "base")
    transport.fetch(card, "exact")
    transport.fetch(card, "exact")
    assert [(row.phase, row.message, row.payload_bytes, row.cached) for row in rows] == [
        ("probe", "payload.base", card.base_bytes, False),
        ("ship", "payload.base", 0, True),
        ("ship", "payload.residual", card.residual_bytes, False),
        ("ship", "payload.base", 0, True),
        ("ship", "payload.residual", 0, True),
    ]


def test_a_probe_sees_the_same_whatever_is_held(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    card, transport = card_of(store), device(link, cache, rows)
    cold = transport.fetch(card, "base")
    transport.fetch(card, "exact")
    held = transport.fetch(card, "base")
    assert all(cold[name].tobytes() == held[name].tobytes() for name in SHAPES)


def test_a_pushed_model_can_be_fetched_by_its_hash(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    name, exact, base, residual = device(link, cache, rows).push("net", model(7))
    payload = encode_payload("net", model(7))
    assert (name, exact) == (model_id(payload), len(payload))
    assert store.part(name, "exact") == payload
    assert (base, residual) == tuple(len(store.part(name, p)) for p in ("base", "residual"))
    assert [(row.phase, row.sender, row.message, row.payload_bytes) for row in rows] == [
        ("register", "ward", "payload.base", base),
        ("register", "ward", "payload.residual", residual),
        # An id of 64 letters (tag, length, letters), three lengths of a tag and the three
        # seven-bit groups that numbers from 2^14 to 2^21 take.
        ("acknowledge", "depot", "payload.stored", (1 + 1 + 64) + 3 * (1 + 3)),
    ]
    assert all(2**14 <= size < 2**21 for size in (exact, base, residual))


def test_wire_bytes_exceed_payload_bytes_by_headers_and_what_a_call_takes(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    transport = device(link, cache, rows)
    transport.fetch(card_of(store), "exact")
    transport.push("net", model(8))
    *parts, response = rows
    # A fetch 140, a push 300 (on its first part); the link's first call 3,040 for a connection.
    calls = [140 + 3_040, 140, 300, 0]
    for row, call_bytes in zip(parts, calls, strict=True):
        # 66 of 1,514 bytes of a segment are headers, TLS takes 22 of each 16 kB.
        assert 1.045 < (row.wire_bytes - call_bytes) / row.payload_bytes < 1.05
    # gRPC's prefix, an HTTP/2 frame's header, a TLS record's, a segment's, the call's own.
    assert response.wire_bytes == response.payload_bytes + 5 + 9 + 22 + 66 + 145
    assert {row.wire_source for row in rows} == {link.wire_source}


def test_the_modelled_wire_weighs_what_the_measured_one_does(
    store: DirectoryStore, tmp_path: Path
) -> None:
    card = card_of(store)
    weighed: list[list[int]] = []
    with (
        DepotServer(store, "127.0.0.1:0", insecure=True) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        for link in (DirectoryLink(store), GrpcLink(channel)):
            rows: list[LedgerEntry] = []
            transport = device(link, MemoryCache(), rows)
            transport.fetch(card, "exact")
            transport.push("net", model(9))
            weighed.append([row.wire_bytes for row in rows])
    assert weighed[0] == weighed[1]


def test_an_unknown_model_is_missing_at_once(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    with pytest.raises(ModelMissingError):
        device(link, cache, rows).fetch(replace(card_of(store), model_id="0" * 64), "base")
    assert [(row.attempt, row.outcome) for row in rows] == [(0, "refused")]


def test_a_model_of_unknown_architecture_is_never_fetched(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    with pytest.raises(ArchitectureError):
        device(link, cache, rows).fetch(replace(card_of(store), architecture="x"), "base")
    assert rows == []


def test_a_card_that_does_not_verify_moves_no_byte_and_costs_the_cache_nothing(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    def refuse(card: ModelCard) -> None:
        raise PayloadChangedError("unsigned")

    held, new = card_of(store, 0), card_of(store, 1)
    device(link, cache, rows).fetch(held, "base")
    rows.clear()
    for card in (held, new):
        for precision in ("base", "exact"):
            with pytest.raises(PayloadChangedError, match="unsigned"):
                device(link, cache, rows, refuse).fetch(card, precision)  # type: ignore[arg-type]
    assert rows == []
    assert cache.holds(held.model_id, "base")


@pytest.mark.parametrize(
    ("off_by", "error"), [(1, PayloadTruncatedError), (-1, PayloadChangedError)]
)
def test_a_length_other_than_the_card_says_is_refused(
    store: DirectoryStore,
    link: Link,
    cache: PartCache,
    rows: list[LedgerEntry],
    off_by: int,
    error: type[PayloadError],
) -> None:
    card = card_of(store)
    with pytest.raises(error):
        device(link, cache, rows).fetch(replace(card, base_bytes=card.base_bytes + off_by), "base")
    assert rows[-1].outcome == "refused"


def test_a_model_forged_on_the_way_is_refused_and_forgotten(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    card, other = card_of(store, 0), card_of(store, 1)
    forged = replace(other, model_id=card.model_id)
    for part in ("base", "residual"):
        path = store.path(card.model_id, part)
        path.write_bytes(store.part(other.model_id, part))
    with pytest.raises(PayloadChangedError, match="hashes to"):
        device(link, cache, rows).fetch(forged, "exact")
    assert not cache.holds(card.model_id, "base")
    assert not cache.holds(card.model_id, "residual")


def test_a_push_of_wrong_shapes_is_refused(
    store: DirectoryStore, link: Link, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    with pytest.raises(PayloadLimitError):
        device(link, cache, rows).push("net", {"w": np.ones((300, 401), np.float32)})


class BreakingLink:
    """Breaks its first ``breaks`` streams after one kilobyte."""

    wire_source = "modelled"

    def __init__(self, inner: Link, breaks: int) -> None:
        self._inner = inner
        self._breaks = breaks

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        for piece in self._inner.read(model_id, part, offset):
            if self._breaks:
                self._breaks -= 1
                yield Chunk(data=piece.data[:1_000], wire_bytes=1_000)
                raise TransportError("cut")
            yield piece

    received = send = None


@pytest.mark.parametrize("breaks", [1, 4])
def test_a_broken_stream_goes_on_where_it_stopped(
    store: DirectoryStore, cache: PartCache, rows: list[LedgerEntry], breaks: int
) -> None:
    card = card_of(store)
    transport = device(BreakingLink(DirectoryLink(store), breaks), cache, rows)  # type: ignore[arg-type]
    transport.fetch(card, "base")
    assert [(row.attempt, row.outcome) for row in rows] == [
        *((attempt, "lost") for attempt in range(breaks)),
        (breaks, "ok"),
    ]
    assert sum(row.payload_bytes for row in rows) == card.base_bytes  # nothing twice
    assert [row.measured_s for row in rows] == [1.0] * (breaks + 1)


def test_attempts_are_bounded_and_every_byte_of_them_is_counted(
    store: DirectoryStore, cache: PartCache, rows: list[LedgerEntry]
) -> None:
    transport = device(BreakingLink(DirectoryLink(store), 99), cache, rows)  # type: ignore[arg-type]
    with pytest.raises(TransportError, match="5 attempts"):
        transport.fetch(card_of(store), "base")
    assert [row.payload_bytes for row in rows] == [1_000] * 5


def test_a_damaged_cache_file_is_fetched_again(
    store: DirectoryStore, tmp_path: Path, rows: list[LedgerEntry]
) -> None:
    card, cache = card_of(store), FolderCache(tmp_path / "cache")
    transport = device(DirectoryLink(store), cache, rows)
    transport.fetch(card, "base")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    transport.fetch(card, "base")
    assert [row.payload_bytes for row in rows] == [card.base_bytes] * 2
