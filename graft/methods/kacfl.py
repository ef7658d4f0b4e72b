"""Common feature learning without a label (KA-CFL, IJCAI 2019, arXiv 1906.10546).

One student learns the union of the teachers' classes from their soft targets and from features
that it shares with them in a learnt common space:

    L = L_soft + w sum_i (MMD_i + beta MSE(decoded_i, f_i))

Losses, kernel widths and weights are published. Feature maps are compared with their positions, as
published, by 1 x 1 convolutions and an extractor of three residual blocks; where a network has no
positions left, vectors are, by dense layers (ours). There w = 1 (ours) gave better students than
the published 10. No label is read and no cross-entropy on L is added, in the
expansion either.

Legend: S teachers, N, B samples, C classes, F features, P positions, H common features,
K kernel widths.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.config import TrainingConfig
from graft.core.streams import Rows, concat, in_batches
from graft.methods.base import selected
from graft.methods.blocks import targets
from graft.methods.blocks.stages import over_positions, read_stages
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
_BATCH_SIZE = 256


class CommonSpace(nn.Module):
    """Adapters (student, each teacher) to 2h, one shared extractor to h, a decoder a teacher.

    ``positions`` is the number of a feature's axes behind its channels: 0 vectors (B, F), 1 or 2
    feature maps (B, F, *P) of one size.
    """

    def __init__(
        self,
        student_features: int,
        teacher_features: Sequence[int],
        width: int,
        seed: int,
        positions: int = 0,
    ) -> None:
        super().__init__()

        def adapter(features: int) -> nn.Sequential:
            return nn.Sequential(_layer(features, 2 * width, positions), nn.ReLU())

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.student_adapter = adapter(student_features)
            self.teacher_adapters = nn.ModuleList(adapter(f) for f in teacher_features)
            self.extractor = _extractor(width, positions)
            self.decoders = nn.ModuleList(
                _two_layers(width, f, f, positions) for f in teacher_features
            )

    def common_loss(
        self, student_BF: Tensor, teachers: Sequence[Tensor], config: CommonFeatureConfig
    ) -> Tensor:
        """sum_i (MMD_i + beta MSE(decoded_i, f_i)); ``teachers`` are f_i, without a gradient."""
        student_BH = self.extractor(self.student_adapter(student_BF))
        loss = student_BF.new_zeros(())
        for adapter, decoder, teacher_BF in zip(
            self.teacher_adapters, self.decoders, teachers, strict=True
        ):
            teacher_BH = self.extractor(adapter(teacher_BF))
            discrepancy = mean_discrepancy(
                student_BH.flatten(1), teacher_BH.flatten(1), config.kernel_widths
            )
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
    maps_of: str | None = None,
) -> None:
    """Train the student on the whole loss; x_N needs no label, every batch has one size.

    The student and the common space learn at ``training.learning_rate`` (ours). Teachers are
    read once and stay as they are. ``maps_of`` is the student's architecture where the last stages'
    feature maps are compared, at the least number of positions; a network without positions makes
    them vectors. Raises TransportError without teachers.
    """
    target_NC = teachers_soft_targets(teachers, x_N)
    pooled: Callable[[Tensor], Tensor] = lambda feature: feature  # noqa: E731
    if maps_of is None:
        features = [features_in_batches(teacher.network, x_N) for teacher in teachers]
    else:
        features = [_last_maps(teacher.network, teacher.architecture, x_N) for teacher in teachers]
        own = _last_maps(copy.deepcopy(student).eval(), maps_of, x_N[:1])
        pooled = _to_least_positions([own, *features])
        features = [pooled(each) for each in features]
    widths = [feature.shape[1] for feature in features]
    positions = features[0].dim() - 2
    own_width = student.num_features if maps_of is None else own.shape[1]
    space = CommonSpace(own_width, widths, config.width, seed, positions)
    student.train()

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        if maps_of is None:
            student_BF = student.features(x_N[rows_B])
            logits_BC = student.head(student_BF)
        else:
            stages, logits_BC = read_stages(student, maps_of, x_N[rows_B])
            student_BF = pooled(stages[-1])
        soft = soft_cross_entropy(logits_BC, target_NC[rows_B])
        of_teachers = [feature[rows_B] for feature in features]
        return soft + config.feature_weight * space.common_loss(student_BF, of_teachers, config)

    groups = [parameter_group(part, training.learning_rate) for part in (student, space)]
    minimise(loss_of, groups, len(x_N), 0, training, seed)
    student.eval()


@torch.no_grad()
def _last_maps(network: Network, architecture: str, x_N: Rows) -> Tensor:
    """The last stage's output of all rows, (N, F, *P) or (N, F)."""
    return torch.cat(
        [read_stages(network, architecture, x_B)[0][-1] for x_B in in_batches(x_N, _BATCH_SIZE)]
    )


def _to_least_positions(maps: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """What makes maps of one size: the least along each axis, or none where one map has none."""
    axes = min(feature.dim() - 2 for feature in maps)
    if axes == 0:
        return over_positions
    size = tuple(min(feature.shape[2 + axis] for feature in maps) for axis in range(axes))
    return nn.AdaptiveAvgPool1d(size[0]) if axes == 1 else nn.AdaptiveAvgPool2d(size)


def fit_kacfl(task: TrainingTask) -> TrainedModel:
    """KA-CFL from the selected sources on all of the domain's windows; its labels stay unread."""
    student = targets.fresh_target(task)
    x_N = concat([task.x_L, task.x_U])
    distil_common_features(student, task.sources, x_N, task.config.training, task.seed)
    mask_C = np.any([source.mask_C for source in task.sources], axis=0)
    return targets.trained_target(task, student, mask_C)


def _layer(inputs: int, outputs: int, positions: int, kernel: int = 1) -> nn.Module:
    if positions == 0:
        return nn.Linear(inputs, outputs)
    convolution = nn.Conv1d if positions == 1 else nn.Conv2d
    return convolution(inputs, outputs, kernel, padding=kernel // 2)


def _two_layers(inputs: int, hidden: int, outputs: int, positions: int = 0) -> nn.Sequential:
    first, second = _layer(inputs, hidden, positions), _layer(hidden, outputs, positions)
    return nn.Sequential(first, nn.ReLU(), second)


def _extractor(width: int, positions: int) -> nn.Module:
    """From 2h to h: two dense layers, or three residual blocks of two convolutions each."""
    if positions == 0:
        return _two_layers(2 * width, width, width)
    blocks = [_Residual(inputs, width, positions) for inputs in (2 * width, width, width)]
    return nn.Sequential(*blocks)


class _Residual(nn.Module):
    """Two convolutions of kernel 3 beside a 1 x 1 shortcut."""

    def __init__(self, inputs: int, outputs: int, positions: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            _layer(inputs, outputs, positions, kernel=3),
            nn.ReLU(),
            _layer(outputs, outputs, positions, kernel=3),
        )
        self.shortcut = _layer(inputs, outputs, positions)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


METHODS = (selected(name="kacfl", title="KA-CFL-style", fit=fit_kacfl, cost=common_features_cost),)
