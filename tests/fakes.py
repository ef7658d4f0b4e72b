"""Small honest implementations of the ports, for tests: a store, a world's devices."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from graft_client.device_factory import DeviceFactory
from graft_server.signing import Signer
from graft_simulation.simulated_devices import OpenDevice

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.exchange import Request, Response
from graft.core.payload import decode_payload, model_id
from graft.core.ports import Edge, ModelStore
from graft.core.records import LedgerEntry
from graft.core.tensor_types import Shapes
from graft.data.domain import World
from graft.errors import ModelMissingError, TransportError
from graft.models import parameter_shapes
from graft.privacy import Cost, SeededReleases, SitePolicy
from graft.rounds import Device
from graft.wire.payload.parts import split_payload
from graft.wire.transfer.cache import MemoryCache
from graft.wire.transfer.link import DirectoryLink

RUN = "run"
SIGNER = Signer(RUN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
Record = Callable[[LedgerEntry], None]


class MemoryStore:
    """``ModelStore`` in a dictionary."""

    def __init__(self, shapes_of: Callable[[str], Shapes]) -> None:
        self.shapes_of = shapes_of
        self.parts: dict[tuple[str, str], bytes] = {}

    def put(self, payload: bytes, architecture: str) -> str:
        decode_payload(payload, self.shapes_of(architecture), None)
        name = model_id(payload)
        base, residual = split_payload(payload)
        for part, data in {"base": base, "residual": residual, "exact": payload}.items():
            self.parts[name, part] = data
        return name

    def part(self, model_id: str, part: str) -> bytes:
        if model_id not in self:
            raise ModelMissingError(model_id)
        if (model_id, part) not in self.parts:
            raise TransportError(part)
        return self.parts[model_id, part]

    def num_bytes(self, model_id: str, part: str) -> int:
        return len(self.part(model_id, part))

    def __contains__(self, model_id: str) -> bool:
        return (model_id, "exact") in self.parts


def world_store(world: World) -> MemoryStore:
    """An empty store that takes the architectures of a world's task."""
    return MemoryStore(lambda architecture: parameter_shapes(architecture, world.task))


def world_devices(
    world: World, config: ExpansionConfig, store: ModelStore, record: Record
) -> OpenDevice:
    """A device a domain, straight to the store; its clock ticks once a look.

    It takes the cards that ``SIGNER`` signed.
    """
    caches: dict[tuple[str, str], MemoryCache] = {}
    ticks = count()
    factory = DeviceFactory(
        config=config,
        world=world,
        run=RUN,
        public_key=SIGNER.public_key,
        link=DirectoryLink(store),
        clock=lambda: float(next(ticks)),
    )

    @contextmanager
    def open_device(request: Request) -> Iterator[Device]:
        cache = caches.setdefault((request.domain_id, request.method), MemoryCache())
        yield factory.device(request, cache, record)

    return open_device


class SpoiledEdge:
    """An edge whose answers go through ``change`` on the way up."""

    def __init__(self, edge: Edge, change: Callable[[Request, Response], Response]) -> None:
        self._edge = edge
        self._change = change

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        responses = self._edge.ask(requests)
        return [self._change(o, a) for o, a in zip(requests, responses, strict=True)]


def site_policy(**settings: object) -> SitePolicy:
    """A site's policy of which nothing is spent yet; its noise is the same each time."""
    config = PolicyConfig(**settings)  # type: ignore[arg-type]
    return SitePolicy(config, SeededReleases(config, ("site",), Cost(epsilon=0, delta=0)))
