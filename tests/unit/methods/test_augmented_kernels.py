"""Augmented batches of the compiled trainer are those of ``targets.augment``."""

import shutil

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)

from graft.core.config import GraftConfig
from graft.core.tasks import Task
from graft.methods.blocks.targets import augment, augmentation_draws
from graft.models import build_network
from graft.training import compiled_plan
from graft.training.compiled.calls import CompiledTraining, Objective

SHAPES = {"imu": (7, 37), "emg": (7, 37), "pen": (2, 24), "image": (2, 9, 17)}
TASKS = {
    modality: Task(name="t", modality=modality, sample_shape=shape, classes=tuple("abc"))
    for modality, shape in SHAPES.items()
}
SETTINGS = GraftConfig(shift_fraction=0.25, rotation_degrees=30.0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("modality", TASKS)
@pytest.mark.parametrize("architecture", ["cnn-small", "mlp", "gru"])
def test_the_second_augmented_batch_has_pytorchs_gradients(
    modality: str, architecture: str
) -> None:
    task = TASKS[modality]
    if modality == "image":
        architecture = {"cnn-small": "image-cnn-small"}.get(architecture, "mlp")
    network = build_network(architecture, task, 3).train()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, *task.sample_shape, generator=generator)
    wanted_NC = torch.softmax(torch.randn(12, 3, generator=generator), 1)
    rows_SB = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [11, 3, 2, 9, 0, 0, 5, 1]])
    weight_B = torch.linspace(0.1, 1.0, 8)
    seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
    draws = augmentation_draws(x[rows_SB[0]], 2, task.modality, SETTINGS, seeded[0])
    plan = compiled_plan(network, x, 8)
    assert plan is not None
    training = CompiledTraining(plan, network, x, augmented=True)
    objective = Objective(wanted_NC=wanted_NC, weight_B=weight_B)
    losses_S = training.run(rows_SB, objective, [0.0, 0.0], 0.0, draws)

    for rows_B in rows_SB:
        batch = augment(x[rows_B], task.modality, SETTINGS, seeded[1])
    network.zero_grad()
    loss_B = F.cross_entropy(network(batch), wanted_NC[rows_B], reduction="none")
    (weight_B * loss_B).sum().backward()
    assert float(losses_S[1]) == pytest.approx(float((weight_B * loss_B).sum().detach()), rel=1e-5)
    found = training.named_gradients()
    for name, parameter in network.named_parameters():
        scale = parameter.grad.abs().max().item()
        torch.testing.assert_close(
            found[name], parameter.grad, atol=2e-4 * scale, rtol=1e-3, msg=name
        )
