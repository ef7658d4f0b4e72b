"""A device that gets a module of 100 million parameters from a depot, probes it and trains its
adapters; prints the megabytes by which its memory grew. Arguments: FOLDER PORT SHA256."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from graft_client.depot_client import GrpcLink, open_channel
from memory_process import Growth
from torch import nn

from graft.core.payload import decode_payload, encode_payload
from graft.core.tasks import Task
from graft.models import (
    Architecture,
    Backbone,
    add_architecture,
    build_network,
    network_cost,
    network_from,
    parameter_shapes,
    parameters_of,
)
from graft.models.backbones import PREFIX, hold_backbone, tensors_of
from graft.models.building import backbone_shapes
from graft.training import features_in_batches
from graft.wire.transfer.cache import FolderCache
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

WIDTH, LAYERS = 2500, 16
TASK = Task(name="w", modality="imu", sample_shape=(6, 64), classes=("a", "b", "c"))


def encoder(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Sixteen dense layers of 2500 x 2500: 101 million parameters."""
    layers = [nn.Linear(shape[0] * shape[1], WIDTH)]
    layers += [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    return nn.Sequential(nn.Flatten(), *(m for each in layers for m in (each, nn.ReLU()))), WIDTH


def main(folder: Path, port: str, sha256: str) -> None:
    backbone = Backbone(name="large", licence="none", sha256=sha256)
    add_architecture(
        Architecture(
            name="large", takes="window", encoder=encoder, backbone=backbone, trained=("lora4",)
        )
    )
    import peft  # noqa: F401  (its imports are not the module's memory)

    growth = Growth()
    with open_channel(f"127.0.0.1:{port}", insecure=True) as channel:
        transport = DeviceTransport(
            link=GrpcLink(channel), cache=FolderCache(folder / "cache"), verify=lambda card: None,
            shapes_of=lambda name: parameter_shapes(name, TASK), record=lambda entry: None,
            label=TransferLabel(run="r", round_index=0, method="", domain_id="ward"),
            clock=time.monotonic,
        )  # fmt: skip
        shapes = backbone_shapes("large", TASK)
        hold_backbone(
            backbone, tensors_of(transport.fetch_backbone(PREFIX + "large", sha256, shapes))
        )
    x, y = torch.randn(48, *TASK.sample_shape), torch.arange(48) % 3
    assert network_cost("large", TASK).num_parameters < 1_000_000
    # A probe of what another device trained.
    payload = encode_payload("large", parameters_of(build_network("large", TASK, 1)))
    assert len(payload) < 4_000_000
    parameters = decode_payload(payload, parameter_shapes("large", TASK), None)[1]
    assert np.isfinite(features_in_batches(network_from("large", TASK, parameters), x)).all()
    network = build_network("large", TASK, 2).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, 1e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    growth.report()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
