"""Devices are drawn by share, hold what fits, and refuse by name what does not."""

from collections import Counter

import numpy as np
import pytest

from graft.core.config import DeviceConfig
from graft.core.records import ModelCard
from graft.core.tasks import Task
from graft.devices import (
    DeviceClass,
    affordable_sources,
    assign_device,
    device_classes,
    fitting_architectures,
)
from graft.devices.classes import TRAINING_SHARE, assign_architecture
from graft.errors import ArchitectureError
from graft.models import network_cost, offered_architectures

TASK = Task(name="w", modality="imu", sample_shape=(6, 64), classes=tuple("abcdefgh"))
DOMAINS = [f"user-{index:06d}" for index in range(1_000)]


def machine(memory_bytes: int) -> DeviceClass:
    return DeviceClass(name="bench", memory_bytes=memory_bytes, flops_per_s=1e9, source="test")


def need(architecture: str) -> int:
    return network_cost(architecture, TASK).training_memory_bytes


def card(domain_id: str, payload_bytes: int) -> ModelCard:
    return ModelCard(
        model_id="0" * 64,
        domain_id=domain_id,
        architecture="mlp",
        payload_bytes=payload_bytes,
        base_bytes=1,
        residual_bytes=1,
        class_mask_C=np.ones(8, np.bool_),
        round_index=0,
    )


def test_every_class_says_where_its_figures_come_from() -> None:
    for name, device in device_classes().items():
        assert device.name == name
        assert device.memory_bytes > 0
        assert device.flops_per_s > 0
        assert device.source


def test_the_shares_of_the_classes_are_met() -> None:
    config = DeviceConfig(microcontroller_fraction=0.2, phone_fraction=0.5, gateway_fraction=0.3)
    counts = Counter(assign_device(d, 0, config).name for d in DOMAINS)
    # The deviation of a share over 1,000 draws is at most 0.016; four of them.
    assert counts["microcontroller"] == pytest.approx(200, abs=64)
    assert counts["phone"] == pytest.approx(500, abs=64)
    assert counts["gateway"] == pytest.approx(300, abs=64)


def test_a_share_of_nothing_is_never_drawn() -> None:
    config = DeviceConfig(microcontroller_fraction=0.0, phone_fraction=0.0, gateway_fraction=1.0)
    assert {assign_device(d, 3, config).name for d in DOMAINS[:50]} == {"gateway"}


def test_a_device_depends_on_seed_and_domain_only() -> None:
    config = DeviceConfig()
    phone = device_classes()["phone"]

    def draw(domains: list[str], seed: int) -> dict[str, tuple[str, str]]:
        return {
            d: (assign_device(d, seed, config).name, assign_architecture(d, seed, TASK, phone))
            for d in domains
        }

    first = draw(DOMAINS[:40], 0)
    assert draw(DOMAINS[:40][::-1], 0) == first
    assert draw(DOMAINS[20:40], 0).items() <= first.items()
    assert draw(DOMAINS[:40], 1) != first


def test_every_architecture_that_fits_is_drawn_and_no_other() -> None:
    sizes = sorted((need(name), name) for name in offered_architectures(TASK))
    fitting = {name for _, name in sizes[:3]}
    # Half of the memory is for training: just enough for the third smallest.
    device = machine(int(sizes[2][0] / TRAINING_SHARE))
    assert set(fitting_architectures(TASK, device)) == fitting
    drawn = {assign_architecture(d, 0, TASK, device) for d in DOMAINS[:100]}
    assert drawn == fitting


def test_a_device_one_byte_too_small_does_not_get_the_architecture() -> None:
    enough = int(need("cnn-small") / TRAINING_SHARE)
    assert fitting_architectures(TASK, machine(enough), ("cnn-small",)) == ("cnn-small",)
    with pytest.raises(ArchitectureError, match="no architecture fits bench"):
        fitting_architectures(TASK, machine(enough - 1), ("cnn-small",))


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ((100, 100, 100), 2),  # 250 bytes of room: 100 + 100, and 50 are left
        ((250,), 1),
        ((100, 200, 50), 1),  # the second does not fit, and nothing jumps the queue
        ((), 0),
    ],
)
def test_sources_are_kept_in_order_while_there_is_room(sizes: tuple[int, ...], kept: int) -> None:
    device = machine(need("mlp") + 250)
    cards = [card(f"d{place}", size) for place, size in enumerate(sizes)]
    assert affordable_sources(cards, "mlp", TASK, device) == tuple(cards[:kept])


def test_a_device_without_room_for_one_source_says_so() -> None:
    with pytest.raises(ArchitectureError, match="one source of 251 bytes"):
        affordable_sources([card("d", 251)], "mlp", TASK, machine(need("mlp") + 250))
