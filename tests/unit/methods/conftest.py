"""A toy task whose classes a window's two channel means tell apart, with perfect teachers."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig, TrainingConfig
from graft.core.tasks import Task
from graft.methods.baselines import fit_all_labels
from graft.training import Source, TrainedModel, TrainingTask, predict_in_batches

TASK = Task(name="toy", modality="imu", sample_shape=(2, 16), classes=("a", "b", "c"))
CONFIG = ExpansionConfig(training=TrainingConfig(epochs=1_000, max_steps=60, learning_rate=3e-3))
MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]


def toy_rows(labels: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Class c lies on a circle at 120 c degrees, radius 2, with noise of 0.3 a sample."""
    rng = np.random.default_rng(seed)
    angle_N = 2 * np.pi * np.array(labels) / 3
    centre_N2 = 2 * np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    x = centre_N2[:, :, None] + rng.normal(0, 0.3, (len(labels), 2, 16))
    return torch.from_numpy(x.astype(np.float32)), torch.tensor(labels)


@pytest.fixture(scope="session")
def make_source() -> MakeSource:
    """A source trained on all of 90 rows; ``shift`` turns its labels by so many classes."""
    made: dict[tuple[str, int, str], Source] = {}

    def make(domain_id: str, shift: int = 0, architecture: str = "mlp") -> Source:
        key = (domain_id, shift, architecture)
        if key not in made:
            seed = sum(domain_id.encode())
            x, y = toy_rows([0, 1, 2] * 30, seed)
            task = TrainingTask(
                domain_task=TASK,
                architecture=architecture,
                x_L=x,
                y_L=(y + shift) % 3,
                x_U=x[:0],
                sources=(),
                config=CONFIG,
                seed=seed,
                hidden_y_U=y[:0],
            )
            made[key] = Source(
                model_id=f"{seed:064x}",
                domain_id=domain_id,
                architecture=architecture,
                network=fit_all_labels(task).network,
                mask_C=np.ones(3, np.bool_),
            )
        return made[key]

    return make


@pytest.fixture
def make_task() -> MakeTask:
    """Twelve labelled rows of the classes given and sixty unlabelled ones of all three."""

    def make(
        sources: Sequence[Source] = (), labels: Sequence[int] = (0, 1, 2) * 4, max_steps: int = 60
    ) -> TrainingTask:
        x_L, y_L = toy_rows(labels, seed=100)
        x_U, y_U = toy_rows([0, 1, 2] * 20, seed=101)
        return TrainingTask(
            domain_task=TASK,
            architecture="mlp",
            x_L=x_L,
            y_L=y_L,
            x_U=x_U,
            sources=tuple(sources),
            config=replace(CONFIG, training=replace(CONFIG.training, max_steps=max_steps)),
            seed=7,
            hidden_y_U=y_U,
            pooled=sources[0] if sources else None,
        )

    return make


def _accuracy(trained_model: TrainedModel) -> float:
    """On ninety fresh rows, thirty a class: chance is 1/3."""
    x, y = toy_rows([0, 1, 2] * 30, seed=102)
    logits_NC = predict_in_batches(trained_model.network, x)
    masked_NC = logits_NC.masked_fill(~torch.from_numpy(trained_model.mask_C), float("-inf"))
    return float((masked_NC.argmax(1) == y).double().mean())


@pytest.fixture
def accuracy() -> Callable[[TrainedModel], float]:
    return _accuracy
