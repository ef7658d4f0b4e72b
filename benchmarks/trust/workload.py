"""The two ends of a small piece of real work: a depot behind its TCP proxy, and a device of it.

    workload.py serve FOLDER ADDRESS        a depot on loopback, the TCP proxy before it
    workload.py device FOLDER ADDRESS WHAT [TIMES] [SECONDS]

WHAT is a large model ("fetch", "push", "exact"), a middling one fetched and pushed ("pair"), or
small ones so many TIMES: "small" each over a connection of its own, "base" and "pushes" over one.
After SECONDS a device gives up.

Started on the laboratory's machines; FOLDER holds certificates, the store and the TCP proxy's
lines. A device says how it ended as one line of JSON.
"""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc
import numpy as np
from graft_client.depot_client import GrpcLink, growing_wait, open_channel

from graft.core.payload import encode_payload, model_id
from graft.core.records import ModelCard, Parameters, Precision
from graft.core.tensor_types import Shapes
from graft.errors import GraftError, TransportError
from graft.wire.payload.parts import split_payload
from graft.wire.traffic_log import TrafficLog
from graft.wire.transfer.cache import MemoryCache
from graft.wire.transfer.link import Chunk, Part, Progress, StoredModel, UploadPlan
from graft.wire.transfer.transfer_log import JournalMeter
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

ARCHITECTURE = "net"
PORT = 9100
LARGE, MIDDLING, SMALL = 1_000_000, 10_000, 250
_PRECISION: dict[str, Precision] = {"base": "base", "exact": "exact"}
ATTEMPTS = 100  # the deadline ends it


def shapes_of(architecture: str) -> Shapes:
    """Two sizes of a network: one tensor of so many numbers."""
    return {"weight": (int(architecture.removeprefix(ARCHITECTURE)),)}


def payload(size: int, seed: int = 0) -> bytes:
    """A model of ``size`` random numbers, 4 bytes each."""
    return encode_payload(f"{ARCHITECTURE}{size}", _parameters(size, seed))


def serve(folder: Path, address: str) -> None:
    """Depot and TCP proxy until a signal ends them."""
    # These import torch, for which a device of the laboratory need not wait.
    from graft_server.deployment.tcp_proxy import TcpProxy
    from graft_server.depot.server import DepotServer, tls_credentials
    from graft_server.model_store import DirectoryStore

    store = DirectoryStore(folder / "store", shapes_of=shapes_of)
    for size in (LARGE, MIDDLING, SMALL):
        store.put(payload(size), f"{ARCHITECTURE}{size}")
    credentials = tls_credentials(
        key_pem=(folder / "server.key").read_bytes(),
        certificate_pem=(folder / "server.pem").read_bytes(),
    )
    meter = TrafficLog(folder / "relay.jsonl")
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with (
        DepotServer(store, "127.0.0.1:0", credentials=credentials) as depot,
        TcpProxy(
            f"{address}:{PORT}", f"127.0.0.1:{depot.port}", service="depot", record=meter.write
        ),
    ):
        print("serving", flush=True)
        over.wait()


def work(folder: Path, address: str, what: str, times: int, deadline_s: float) -> None:
    """A device's part, done by ``deadline_s`` of the monotonic clock; raises what the library
    raises."""

    def device() -> AbstractContextManager[DeviceTransport]:
        return _device(folder, address, deadline_s)

    if what in ("base", "pushes", "exact"):
        with device() as transport:
            for seed in range(times):
                if what == "pushes":
                    transport.push(f"{ARCHITECTURE}{SMALL}", _parameters(SMALL, seed))
                else:
                    transport.fetch(card(LARGE if what == "exact" else SMALL), _PRECISION[what])
    if what == "fetch":
        with device() as transport:
            transport.fetch(card(LARGE), "exact")
    if what == "push":
        with device() as transport:
            transport.push(f"{ARCHITECTURE}{LARGE}", _parameters(LARGE, seed=1))
    if what == "pair":
        with device() as transport:
            transport.fetch(card(MIDDLING), "exact")
            transport.push(f"{ARCHITECTURE}{MIDDLING}", _parameters(MIDDLING, seed=1))
    if what == "small":
        for _ in range(times):
            with device() as transport:
                transport.fetch(card(SMALL), "base")
                time.sleep(0.01)


def card(size: int) -> ModelCard:
    """The card of a model that ``serve`` holds; both ends make the same bytes."""
    exact = payload(size)
    base, residual = split_payload(exact)
    return ModelCard(
        model_id=model_id(exact),
        domain_id="source",
        architecture=f"{ARCHITECTURE}{size}",
        payload_bytes=len(exact),
        base_bytes=len(base),
        residual_bytes=len(residual),
        class_mask_C=np.ones(2, np.bool_),
        round_index=0,
    )


@contextmanager
def _device(folder: Path, address: str, deadline_s: float) -> Iterator[DeviceTransport]:
    journal = JournalMeter(folder / "journal.jsonl")
    label = TransferLabel(run="lab", round_index=0, method="graft", domain_id="device")
    ca_pem = (folder / "ca.pem").read_bytes()
    with open_channel(f"{address}:{PORT}", root_ca_pem=ca_pem) as channel:
        yield DeviceTransport(
            link=_PunctualLink(channel, deadline_s),
            cache=_Forgetful(),
            verify=lambda card: None,
            shapes_of=shapes_of,
            label=label,
            record=journal.record,
            clock=time.monotonic,
            max_attempts=ATTEMPTS,
            wait_before_retry=growing_wait(lambda wait_s: _sleep(wait_s, deadline_s)),
        )
    journal.close()


def _parameters(size: int, seed: int) -> Parameters:
    return {"weight": np.random.default_rng(seed).normal(size=size).astype(np.float32)}


class _PunctualLink(GrpcLink):
    """A link whose streams all end by the deadline."""

    def __init__(self, channel: grpc.Channel, deadline_s: float) -> None:
        super().__init__(channel)
        self._deadline_s = deadline_s

    def read(self, model_id: str, part: Part, offset: int) -> Iterator[Chunk]:
        self._timeout_s = self._left_s()
        return super().read(model_id, part, offset)

    def send(self, upload: UploadPlan, offset: int, progress: Progress) -> StoredModel:
        self._timeout_s = self._left_s()
        return super().send(upload, offset, progress)

    def _left_s(self) -> float:
        return max(0.1, self._deadline_s - time.monotonic())


def _sleep(wait_s: float, deadline_s: float) -> None:
    """Wait to try again; raises TransportError where that is too late."""
    if time.monotonic() + wait_s > deadline_s:
        raise TransportError("deadline: no time is left to try again")
    time.sleep(wait_s)


class _Forgetful(MemoryCache):
    """A cache that keeps nothing, so that every fetch is one."""

    def put(self, model_id: str, part: Part, data: bytes) -> None:
        return None


def main(
    role: str, folder: Path, address: str, what: str = "", times: str = "200", seconds: str = "600"
) -> int:
    """One end's life; the exit status."""
    if role == "serve":
        serve(folder, address)
        return 0
    try:
        work(folder, address, what, int(times), time.monotonic() + float(seconds))
    except (GraftError, grpc.RpcError) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return 1
    print(json.dumps({"error": None}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
