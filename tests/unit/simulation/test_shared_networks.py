"""Networks that simulated devices share: each transfer still has its row, and no change is shared."""

from typing import cast

import numpy as np
import pytest
import torch
from graft_simulation.shared_networks import SharedNetworks

from graft.core.records import ModelCard, Parameters, Precision
from graft.core.tasks import Task
from graft.models import build_network, parameters_of
from graft.wire.transfer.transport import DeviceTransport

TASK = Task(name="demo", modality="imu", sample_shape=(3, 16), classes=("a", "b", "c"))


class Transport:
    """Gives any model, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fetch(self, card: ModelCard, precision: Precision) -> Parameters:
        self.asked.append("fetch")
        return parameters_of(build_network(card.architecture, TASK, int(card.model_id, 16)))

    def receive(self, card: ModelCard, precision: Precision) -> None:
        self.asked.append("receive")


def card(number: int) -> ModelCard:
    return ModelCard(
        model_id=f"{number:064x}", domain_id="ann", architecture="mlp", round_index=0,
        payload_bytes=9, base_bytes=4, residual_bytes=5, class_mask_C=np.ones(3, np.bool_),
    )  # fmt: skip


@pytest.fixture
def transport() -> Transport:
    return Transport()


def get(shared: SharedNetworks, transport: Transport, number: int = 1) -> torch.nn.Module:
    return shared.network(cast(DeviceTransport, transport), TASK, card(number), "base")


def test_a_second_device_receives_a_model_and_does_not_build_it(transport: Transport) -> None:
    shared = SharedNetworks()
    first = get(shared, transport)
    assert get(shared, transport) is first
    assert transport.asked == ["fetch", "receive"]


def test_a_network_that_was_changed_is_built_anew(transport: Transport) -> None:
    shared = SharedNetworks()
    first = get(shared, transport)
    with torch.no_grad():
        next(first.parameters()).mul_(1.0)  # even where it has the values that it had
    second = get(shared, transport)
    second.requires_grad_(False)
    third = get(shared, transport)
    assert len({id(first), id(second), id(third)}) == 3
    third.train()
    assert get(shared, transport) is third
    assert not third.training


def test_the_oldest_networks_leave_first(transport: Transport) -> None:
    one = sum(each.nbytes for each in build_network("mlp", TASK, 0).state_dict().values())
    shared = SharedNetworks(max_bytes=2 * one)
    first = get(shared, transport, 1)
    get(shared, transport, 2)
    assert get(shared, transport, 1) is first
    get(shared, transport, 3)
    assert get(shared, transport, 1) is first
    get(shared, transport, 2)
    assert transport.asked == ["fetch", "fetch", "receive", "fetch", "receive", "fetch"]
