"""A depot, or a device, in a process of its own, to be killed in the middle; started by tests.

``depot FOLDER PORT``: takes a tenth of a second over every message, so that a model is never wholly
in flight. ``fetch`` and ``push`` with FOLDER PORT PRECISION|SEED: a device with its cache, its
journal and its clock; a line on stdout when it is done.
"""

import sys
import time
from pathlib import Path

import numpy as np
from graft_client.depot_client import GrpcLink, growing_wait, open_channel
from graft_server.depot.server import DepotServer
from graft_server.depot.uploads import Upload
from graft_server.model_store import DirectoryStore

from graft.core.records import FloatArray, ModelCard
from graft.core.tensor_types import Shapes
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.transfer_log import JournalMeter
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

SHAPES: Shapes = {"w": (1_000, 1_500), "b": (1_000,)}  # 6 MB: the base alone is 5 chunks
MESSAGE_S = 0.1


def shapes_of(architecture: str) -> Shapes:
    return SHAPES


def model(seed: int) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def card_of(store: DirectoryStore, name: str) -> ModelCard:
    exact, base, residual = (
        store.path(name, part).stat().st_size for part in ("exact", "base", "residual")
    )
    return ModelCard(
        model_id=name,
        domain_id="source",
        architecture="net",
        payload_bytes=exact,
        base_bytes=base,
        residual_bytes=residual,
        class_mask_C=np.ones(2, np.bool_),
        round_index=0,
    )


def serve_slowly(folder: Path, port: int) -> None:
    from graft_server.depot import service as depot_service

    append, read = Upload.append, depot_service.pb.Chunk

    def slow_append(self: Upload, data: bytes) -> None:
        time.sleep(MESSAGE_S)
        append(self, data)

    class SlowMessages:
        def __getattr__(self, name: str) -> object:
            return getattr(messages, name)

        @staticmethod
        def Chunk(data: bytes) -> object:  # noqa: N802
            time.sleep(MESSAGE_S)
            return read(data=data)

    messages = depot_service.pb
    Upload.append = slow_append  # type: ignore[method-assign]
    depot_service.pb = SlowMessages()  # type: ignore[assignment]
    store = DirectoryStore(folder / "store", shapes_of=shapes_of)
    with DepotServer(store, f"127.0.0.1:{port}", insecure=True):
        print("serving", flush=True)
        time.sleep(60)


def run_device(what: str, folder: Path, port: int, argument: str) -> None:
    journal = JournalMeter(folder / "journal")
    with open_channel(f"127.0.0.1:{port}", insecure=True) as channel:
        transport = DeviceTransport(
            link=GrpcLink(channel),
            cache=FolderCache(folder / "device"),
            verify=lambda card: None,
            shapes_of=shapes_of,
            label=TransferLabel(run="r", round_index=0, method="hat", domain_id="ward"),
            record=journal.record,
            clock=time.monotonic,
            max_attempts=12,
            wait_before_retry=growing_wait(time.sleep),
            wait_out=time.sleep,
        )
        print("begun", flush=True)
        if what == "push":
            name, *_ = transport.push("net", model(int(argument)))
        else:
            (exact,) = (folder / "store").glob("*.safetensors")
            name = exact.stem
            store = DirectoryStore(folder / "store", shapes_of=shapes_of)
            card = card_of(store, name)
            transport.fetch(card, "base" if argument == "base" else "exact")
    print(f"done {name}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "depot":
        serve_slowly(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        run_device(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
