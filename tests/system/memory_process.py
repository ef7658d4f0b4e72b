"""A depot, or a device, that tells by how much its resident memory grew at most; for tests.

``depot FOLDER MEGABYTES``: prints its port, serves until its stdin ends, then prints the growth.
``push`` and ``fetch`` with FOLDER MEGABYTES PORT: print the growth. What a device pushes is in its
memory before the count begins, as a trained model is.
"""

import sys
import time
from pathlib import Path

import numpy as np
from depot_process import card_of
from graft_client.depot_client import GrpcLink, open_channel
from graft_server.depot.server import DepotServer
from graft_server.model_store import DirectoryStore

from graft.core.records import FloatArray
from graft.core.tensor_types import Shapes
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

NUM_TENSORS = 12


def shapes_of_size(megabytes: int) -> Shapes:
    """Twelve matrices of a thousand rows, and a vector, of so many MB in float32."""
    width = megabytes * 1_000_000 // (4 * 1_000 * NUM_TENSORS)
    return {f"w{i:02}": (1_000, width) for i in range(NUM_TENSORS)} | {"b": (1_000,)}


def model(shapes: Shapes) -> dict[str, FloatArray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def status_mb(key: str) -> float:
    """One figure of this process's status file, in MB of 1,000,000 bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024 / 1e6


class Growth:
    """From now on."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak starts anew
        self.start_mb = status_mb("VmRSS")

    def report(self) -> None:
        print(f"{status_mb('VmHWM') - self.start_mb:.1f}", flush=True)


def main(what: str, folder: Path, megabytes: int, *rest: str) -> None:
    shapes = shapes_of_size(megabytes)
    store = DirectoryStore(folder / "store", shapes_of=lambda architecture: shapes)
    if what == "depot":
        with DepotServer(store, "127.0.0.1:0", insecure=True) as depot:
            growth = Growth()
            print(depot.port, flush=True)
            sys.stdin.read()
            growth.report()
        return
    with open_channel(f"127.0.0.1:{rest[0]}", insecure=True) as channel:
        transport = DeviceTransport(
            link=GrpcLink(channel),
            cache=FolderCache(folder / what),
            verify=lambda card: None,
            shapes_of=lambda architecture: shapes,
            label=TransferLabel(run="r", round_index=0, method="hat", domain_id="ward"),
            record=lambda row: None,
            clock=time.monotonic,
        )
        if what == "push":
            pushed = model(shapes)
            growth = Growth()
            transport.push("net", pushed)
        else:
            (exact,) = (folder / "store").glob("*.safetensors")
            card = card_of(store, exact.stem)
            growth = Growth()
            base = transport.fetch(card, "base")
            fetched = transport.fetch(card, "exact")
            assert {name: array.shape for name, array in fetched.items()} == shapes
            growth.report()
            wanted = model(shapes)["w00"]
            assert fetched["w00"].tobytes() == wanted.tobytes()
            assert np.abs(base["w00"] - wanted).max() < 0.05
            return
    growth.report()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
