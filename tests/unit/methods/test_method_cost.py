"""The work that a method says it is, against what its own fit was seen to do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from graft.core.config import ExpansionConfig
from graft.core.tasks import Task
from graft.devices import DeviceClass, Pace
from graft.methods import find_method
from graft.methods.cost import read_all
from graft.models import build_network, network_cost
from graft.training import Prototypes, Source, TrainedModel, TrainingTask, count_steps
from graft.training.cost import ComputeCost, Reading, Training, WorkloadShape, compute_seconds

TASK = Task(name="w", modality="imu", sample_shape=(6, 64), classes=tuple("abcdefgh"))
SOURCES = ("mlp", "cnn-medium", "cnn-small", "cnn-medium")
NUM_PROTOTYPES = 3
METHODS = (
    "initial", "label-only", "all-labels", "best-source", "finetuned-any", "finetuned-same",
    "average-kd-selected", "average-kd-all", "camkd", "aekd", "feddf", "fedavg", "fedavg-local",
    "fedproto", "soft-kd", "kacfl", "hmkd", "shot", "decision", "hat", "graft",
)  # fmt: skip


class OperationCount(TorchDispatchMode):
    """Counts the tensor operations that are carried out, backward ones too."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def source(place: int, architecture: str) -> Source:
    return Source(
        model_id=str(place) * 64,
        domain_id=f"s{place}",
        architecture=architecture,
        network=build_network(architecture, TASK, place).eval(),
        mask_C=np.ones(TASK.num_classes, np.bool_),
    )


def task(architecture: str, num_labelled: int, num_unlabelled: int, max_steps: int) -> TrainingTask:
    config = ExpansionConfig()
    x = torch.randn(
        num_labelled + num_unlabelled, *TASK.sample_shape,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    y = torch.arange(len(x)) % TASK.num_classes
    centroids_CF = np.ones((TASK.num_classes, 64), np.float32)
    return TrainingTask(
        domain_task=TASK,
        architecture=architecture,
        x_L=x[:num_labelled],
        y_L=y[:num_labelled],
        x_U=x[num_labelled:],
        sources=tuple(source(place, name) for place, name in enumerate(SOURCES)),
        config=replace(config, training=replace(config.training, max_steps=max_steps)),
        seed=1,
        hidden_y_U=y[num_labelled:],
        average=source(9, architecture),
        prototypes=tuple(
            Prototypes(model_id="0" * 64, domain_id=f"s{place}", centroids_CF=centroids_CF)
            for place in range(NUM_PROTOTYPES)
        ),
    )


def shape_of(taken: TrainingTask, trained_model: TrainedModel) -> WorkloadShape:
    architecture_of = {each.domain_id: each.architecture for each in taken.sources}
    return WorkloadShape(
        task=TASK,
        config=taken.config,
        architecture=taken.architecture,
        trained_model=trained_model.architecture,
        sources=SOURCES,
        used=tuple(
            architecture_of.get(each.domain_id, "cnn-medium") for each in trained_model.used
        ),
        prototypes=NUM_PROTOTYPES,
        num_labelled=len(taken.x_L),
        num_unlabelled=len(taken.x_U),
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("architecture", ["cnn-small", "mlp"])
def test_flops_and_operations_are_those_of_the_fit(name: str, architecture: str) -> None:
    taken = task(architecture, num_labelled=12, num_unlabelled=60, max_steps=30)
    method = find_method(name)
    with FlopCounterMode(display=False) as flops:
        trained_model = method.fit(taken)
    with OperationCount() as operations:
        method.fit(taken)
    cost = method.cost(shape_of(taken, trained_model))
    assert cost.total_flops(TASK) == pytest.approx(flops.get_total_flops(), rel=0.15)
    # A step of a network alone, with its loss and Adam, is about 70 operations.
    told = cost.operations + 70 * sum(part.steps for part in cost.trained)
    if trained_model.architecture == taken.architecture and cost.trained:
        assert told == pytest.approx(operations.calls, rel=0.35)


def test_a_training_task_counts_steps_as_training_does() -> None:
    taken = task("mlp", num_labelled=12, num_unlabelled=60, max_steps=30)
    shape = WorkloadShape(
        task=TASK, config=taken.config, architecture="mlp", trained_model="mlp", num_labelled=12,
        num_unlabelled=60,
    )  # fmt: skip
    # 72 rows in batches of 32 are 3 steps an epoch; 30 steps are 10 epochs.
    assert (
        (shape.steps, shape.epochs) == (count_steps(72, taken.config.training)[1], 10) == (30, 10)
    )


def test_compute_seconds_are_flops_over_what_the_device_reaches() -> None:
    mlp = network_cost("mlp", TASK)
    cost = ComputeCost(
        trained=(Training(architecture="mlp", steps=10, rows=32),),
        read=(Reading(architecture="mlp", rows=100),),
        flops=5e6,
        operations=1_000,
    )
    total = 320 * mlp.training_flops_per_sample + 100 * mlp.flops_per_sample + 5e6
    assert cost.total_flops(TASK) == total
    plain = DeviceClass(name="d", memory_bytes=1, flops_per_s=1e9, source="test", efficiency=0.25)
    assert compute_seconds(cost, TASK, plain) == pytest.approx(total / (1e9 * 0.25))
    measured = replace(
        plain,
        operation_s=1e-5,
        architectures={"mlp": Pace(training=0.5, inference=0.1, step_s=0.002)},
    )
    wanted = (
        320 * mlp.training_flops_per_sample / (1e9 * 0.5) + 10 * 0.002
        + 100 * mlp.flops_per_sample / (1e9 * 0.1)
        + 5e6 / (1e9 * 0.25) + 1_000 * 1e-5
    )  # fmt: skip
    assert compute_seconds(cost, TASK, measured) == pytest.approx(wanted)


def test_works_add_up() -> None:
    one, other = read_all(["mlp"], 10), ComputeCost(flops=3.0)
    assert (one + other).total_flops(TASK) == one.total_flops(TASK) + 3.0


@pytest.mark.parametrize("architecture", ["cnn-small", "cnn-medium", "mlp", "mlp-500"])
def test_training_flops_are_what_a_forward_and_a_backward_pass_take(architecture: str) -> None:
    network = build_network(architecture, TASK, 0).train()
    with FlopCounterMode(display=False) as flops:
        network(torch.zeros(8, *TASK.sample_shape)).sum().backward()
    each = network_cost(architecture, TASK).training_flops_per_sample
    assert 8 * each == pytest.approx(flops.get_total_flops(), rel=0.02)
