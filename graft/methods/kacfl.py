"""Common feature learning without a label (KA-CFL, IJCAI 2019, arXiv 1906.10546).

One student learns the union of the teachers' classes from their soft targets and from features
that it shares with them in a learnt common space:

    L = L_soft + w sum_i (MMD_i + beta MSE(decoded_i, f_i))

Losses, kernel widths and weights are published; the networks are the published ones in vector
form (ours), as a sequence's feature has no spatial axes left. There w = 1 (ours) gave better
students than the published 10. No label is read and no cross-entropy on L is added, in the
expansion either.

Legend: S teachers, N, B samples, C classes, F features, H common features, K kernel widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.config import TrainingConfig
from graft.core.streams import Rows, concat
from graft.methods.base import selected
from graft.methods.blocks import targets
from graft.methods.cost import common_features_cost
from graft.methods.distillation import soft_cross_entropy, teachers_soft_targets
from graft.models import Network
from graft.training import (
    Source,
    TrainedModel,
    TrainingTask,
    features_in_batches,
    minimise,
    parameter_group,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CommonFeatureConfig:
    """Width h of the common space, weights w and beta, RBF widths of the MMD; as published."""

    width: int = 128
    feature_weight: float = 10.0
    decoding_weight: float = 1.0
    kernel_widths: tuple[float, ...] = (0.001, 0.01, 0.05, 0.1, 0.2, 1.0, 2.0)


PUBLISHED = CommonFeatureConfig()
# A feature vector's rows come much closer in the common space than feature maps do. There the
# narrow kernels act, and at w = 10 their slopes drown what the soft targets say.
VECTOR_FORM = replace(PUBLISHED, feature_weight=1.0)


class CommonSpace(nn.Module):
    """Adapters (student, each teacher) to 2h, one shared extractor to h, a decoder a teacher."""

    def __init__(
        self, student_features: int, teacher_features: Sequence[int], width: int, seed: int
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.student_adapter = _adapter(student_features, width)
            self.teacher_adapters = nn.ModuleList(_adapter(f, width) for f in teacher_features)
            self.extractor = _two_layers(2 * width, width, width)
            self.decoders = nn.ModuleList(_two_layers(width, f, f) for f in teacher_features)

    def common_loss(
        self, student_BF: Tensor, teachers: Sequence[Tensor], config: CommonFeatureConfig
    ) -> Tensor:
        """sum_i (MMD_i + beta MSE(decoded_i, f_i)); ``teachers`` are f_i (B, F_i), no gradient."""
        student_BH = self.extractor(self.student_adapter(student_BF))
        loss = student_BF.new_zeros(())
        for adapter, decoder, teacher_BF in zip(
            self.teacher_adapters, self.decoders, teachers, strict=True
        ):
            teacher_BH = self.extractor(adapter(teacher_BF))
            discrepancy = mean_discrepancy(student_BH, teacher_BH, config.kernel_widths)
            decoding = F.mse_loss(decoder(teacher_BH), teacher_BF)
            loss = loss + discrepancy + config.decoding_weight * decoding
        return loss


def mean_discrepancy(x_BH: Tensor, y_BH: Tensor, kernel_widths: Sequence[float]) -> Tensor:
    """MMD^2 of L2-normalised rows: mean k(x,x') + mean k(y,y') - 2 mean k(x,y), 0 or above.

    k is the sum of exp(-d^2 / 2 w^2) over the widths w. A width that is narrow beside the
    distances between rows adds 2/B and no gradient: losses compare at one batch size only.
    """
    dtype = x_BH.dtype
    # Doubles: a width of 0.001 would see what float32 rounds off 2 - 2 cos.
    x_BH, y_BH = F.normalize(x_BH.double(), dim=1), F.normalize(y_BH.double(), dim=1)
    within_x, within_y, across = (
        _mean_kernel(a_BH, b_BH, kernel_widths)
        for a_BH, b_BH in ((x_BH, x_BH), (y_BH, y_BH), (x_BH, y_BH))
    )
    return (within_x + within_y - 2 * across).to(dtype)


def _mean_kernel(a_BH: Tensor, b_BH: Tensor, kernel_widths: Sequence[float]) -> Tensor:
    squared_BB = 2 - 2 * a_BH @ b_BH.T
    rates_K11 = 1 / (2 * torch.tensor(kernel_widths, dtype=torch.double) ** 2)[:, None, None]
    return torch.exp(-rates_K11 * squared_BB).sum(0).mean()


def distil_common_features(
    student: Network,
    teachers: Sequence[Source],
    x_N: Rows,
    training: TrainingConfig,
    seed: int,
    config: CommonFeatureConfig = VECTOR_FORM,
) -> None:
    """Train the student on the whole loss; x_N needs no label, every batch has one size.

    The student and the common space learn at ``training.learning_rate`` (ours). Teachers are
    read once and stay as they are. Raises TransportError without teachers.
    """
    target_NC = teachers_soft_targets(teachers, x_N)
    features = [features_in_batches(teacher.network, x_N) for teacher in teachers]
    widths = [features_NF.shape[1] for features_NF in features]
    space = CommonSpace(student.num_features, widths, config.width, seed)
    student.train()

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        student_BF = student.features(x_N[rows_B])
        soft = soft_cross_entropy(student.head(student_BF), target_NC[rows_B])
        teachers_BF = [features_NF[rows_B] for features_NF in features]
        return soft + config.feature_weight * space.common_loss(student_BF, teachers_BF, config)

    groups = [parameter_group(part, training.learning_rate) for part in (student, space)]
    minimise(loss_of, groups, len(x_N), 0, training, seed)
    student.eval()


def fit_kacfl(task: TrainingTask) -> TrainedModel:
    """KA-CFL from the selected sources on all of the domain's windows; its labels stay unread."""
    student = targets.fresh_target(task)
    x_N = concat([task.x_L, task.x_U])
    distil_common_features(student, task.sources, x_N, task.config.training, task.seed)
    mask_C = np.any([source.mask_C for source in task.sources], axis=0)
    return targets.trained_target(task, student, mask_C)


def _adapter(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.ReLU())


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


METHODS = (selected(name="kacfl", title="KA-CFL-style", fit=fit_kacfl, cost=common_features_cost),)
