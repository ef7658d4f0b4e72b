"""Jobs of a few rows, one for every architecture that has a stacked form."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.tasks import Task
from graft.models import Network, build_network
from graft.training import SupervisedTraining

WINDOWS = Task(name="windows", modality="imu", sample_shape=(3, 40), classes=tuple("abcde"))
# No length of a layer is a multiple of four here, so that pairs of outputs do not come out even.
ODD_WINDOWS = replace(WINDOWS, sample_shape=(3, 37))
IMAGES = Task(name="images", modality="image", sample_shape=(2, 9, 7), classes=tuple("abcde"))
STACKABLE = [
    *((WINDOWS, name) for name in ("cnn-small", "cnn-medium", "cnn-large", "mlp", "gru")),
    *((ODD_WINDOWS, name) for name in ("cnn-small", "cnn-large", "gru")),
    *((IMAGES, name) for name in ("mlp", "image-cnn-small", "image-cnn-large")),
]
# 24 rows by 8 are three steps; Adam's first steps are as long as the learning rate however
# small a gradient is, so rounding may move single parameters by a share of it.
CONFIG = TrainingConfig(epochs=1, max_steps=3, batch_size=8, learning_rate=1e-3)


def make_training(
    task: Task, architecture: str, num_labelled: int, seed: int, num_rows: int = 24
) -> SupervisedTraining:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_labelled, *task.sample_shape, generator=generator)
    y_N = torch.randint(0, task.num_classes, (num_labelled,), generator=generator)
    return SupervisedTraining(
        network=build_network(architecture, task, seed), x=x, y_N=y_N, num_rows=num_rows,
        config=CONFIG, seed=seed, architecture=architecture,
        mask_C=np.ones(task.num_classes, np.bool_),
    )  # fmt: skip


def tensors(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
