"""The target's side of several methods: its network, losses, the best source, augmented batches.

Legend: N, B samples, L labelled, U unlabelled, C classes, S sources, K channels, T steps of a
window, H and W sides of an image.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import GraftConfig
from graft.core.records import BoolArray
from graft.core.streams import Rows, Streams, concat
from graft.core.tasks import InputSpec, Modality, OutputKind
from graft.errors import TransportError
from graft.models import Features, Network, build_network
from graft.selection.scores.labels import OUTPUT_SCORES
from graft.training import (
    Augmentation,
    SoftRows,
    SoftTraining,
    Source,
    TrainedModel,
    TrainingTask,
    Units,
    minimise,
    minimise_privately,
    output_loss,
    parameter_group,
    predict_in_batches,
    predictions_of,
    train_soft,
)
from graft.training.loop import StepLoss


def fresh_target(task: TrainingTask) -> Network:
    """The target's own architecture, freshly initialised, in training mode; amounts begin about
    their mean on L."""
    network = build_network(task.architecture, task.domain_task, task.seed).train()
    Units.of(task.y_L, task.output).begin(network)
    return network


def train_target(
    network: Network,
    loss_of: StepLoss,
    task: TrainingTask,
    *others: dict[str, Any],
    before_epoch: Callable[[], None] | None = None,
) -> None:
    """Minimise a loss over a network at the target's learning rate, and over other Adam groups."""
    training = task.config.training
    groups = [parameter_group(network, training.learning_rate), *others]
    network.train()
    rows = len(task.x_L), len(task.x_U)
    minimise(loss_of, groups, *rows, training, task.seed, before_epoch)


def trained_target(
    task: TrainingTask, network: Network, mask_C: BoolArray | None = None, **fields: Any
) -> TrainedModel:
    """The model of a trained network.

    By default it has the target's architecture, knows ``known_classes`` and used all sources;
    ``fields`` are TrainedModel's.
    """
    return TrainedModel(
        network=network.eval(),
        mask_C=known_classes(task) if mask_C is None else mask_C,
        **{"architecture": task.architecture, "used": task.sources, **fields},
    )


def known_classes(task: TrainingTask) -> BoolArray:
    """The classes that L or any source knows, (C,)."""
    mask_C = task.label_mask
    for source in task.sources:
        mask_C = mask_C | source.mask_C
    return mask_C


def batch_logits(
    network: Network, task: TrainingTask, labelled_B: Tensor, unlabelled_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits of the labelled and of the unlabelled rows, in one pass: batch norm sees both."""
    logits_BC = network(concat([task.x_L[labelled_B], task.x_U[unlabelled_B]]))
    return logits_BC[: len(labelled_B)], logits_BC[len(labelled_B) :]


def kd_loss(logits_BC: Tensor, soft_targets_BC: Tensor) -> Tensor:
    """Mean over the rows of KL(soft targets || student) over classes; 0 for no rows."""
    student_log_BC = F.log_softmax(logits_BC, dim=1)
    total = F.kl_div(student_log_BC, soft_targets_BC, reduction="sum")
    return total / max(len(logits_BC), 1)


def soft_loss(logits_BC: Tensor, soft_targets_BC: Tensor, kind: OutputKind) -> Tensor:
    """The loss of soft targets of an output's kind; of classes it is ``kd_loss``."""
    if kind == "classes":
        return kd_loss(logits_BC, soft_targets_BC)
    return output_loss(logits_BC, soft_targets_BC, kind)


def distil(network: Network, soft_targets_UC: Tensor, task: TrainingTask) -> None:
    """Train a network on L by its labels and on U by soft targets (U, C).

    For private training, a soft target must depend on its own row alone.
    """
    config, seed = task.config.training, task.seed
    if task.private is not None:
        rows = soft_rows(task, soft_targets_UC)
        minimise_privately(network, rows, config, task.private, num_rows=len(rows.x), seed=seed)
        return
    soft = SoftTraining(
        network=network, x_L=task.x_L, y_L=task.y_L, x_U=task.x_U,
        soft_targets_UC=soft_targets_UC, config=config, seed=seed,
    )  # fmt: skip
    if task.compiled and task.output == "classes" and train_soft(soft):
        return
    with Units.of(task.y_L, task.output).within(network) as units:
        y_L, wanted_UC = units.own(task.y_L), units.own(soft_targets_UC)

        def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
            logits_LC, logits_UC = batch_logits(network, task, labelled_B, unlabelled_B)
            supervised = output_loss(logits_LC, y_L[labelled_B], task.output)
            return supervised + soft_loss(logits_UC, wanted_UC[unlabelled_B], task.output)

        train_target(network, loss_of, task)


def soft_rows(task: TrainingTask, soft_targets_UC: Tensor, weight: float = 1.0) -> SoftRows:
    """L with its labels, and U with soft targets that have ``weight`` in the loss."""
    y_LC = F.one_hot(task.y_L, task.domain_task.num_classes).float()
    return SoftRows(
        x=concat([task.x_L, task.x_U]),
        target_NC=torch.cat([y_LC, soft_targets_UC]),
        weight_N=torch.cat([torch.ones(len(y_LC)), torch.full((len(task.x_U),), weight)]),
    )


def source_prediction(
    source: Source, x: Rows, *, compiled: bool = False, kind: OutputKind = "classes"
) -> Tensor:
    """Probabilities (N, C) of a source, of the classes or labels that it knows; or amounts."""
    logits_NC = predict_in_batches(source.network, x, compiled=compiled)
    return predictions_of(logits_NC, torch.from_numpy(source.mask_C), kind)


def source_predictions(sources: Sequence[Source], x: Rows) -> Tensor:
    """Every source's probabilities (S, N, C). Raises TransportError without sources."""
    require_sources(sources)
    return torch.stack([source_prediction(source, x) for source in sources])


def mean_prediction(
    sources: Sequence[Source], x: Rows, *, compiled: bool = False, kind: OutputKind = "classes"
) -> Tensor:
    """Mean of the sources' predictions (N, C). Raises TransportError without sources."""
    require_sources(sources)
    # A running sum: with all sources of a large catalogue, (S, N, C) would not fit.
    total_NC = source_prediction(sources[0], x, compiled=compiled, kind=kind)
    for source in sources[1:]:
        total_NC += source_prediction(source, x, compiled=compiled, kind=kind)
    return total_NC / len(sources)


def best_source(task: TrainingTask) -> Source:
    """The source most accurate on L; ties fall to the likelier labels, then to the domain id.

    Of labels and amounts it is the one with the best score of ``OUTPUT_SCORES``.
    """
    require_sources(task.sources)

    def merit(source: Source) -> tuple[float, float, str]:
        probabilities_LC = source_prediction(
            source, task.x_L, compiled=task.compiled, kind=task.output
        )
        if task.output != "classes":
            score = OUTPUT_SCORES[task.output](probabilities_LC.numpy(), task.y_L.numpy())
            return -score, 0.0, source.domain_id
        accuracy = (probabilities_LC.argmax(1) == task.y_L).double().mean()
        likelihood = probabilities_LC.gather(1, task.y_L[:, None]).clamp_min(1e-6).log().mean()
        return -float(accuracy), -float(likelihood), source.domain_id

    return min(task.sources, key=merit)


def require_sources(sources: Sequence[Source]) -> None:
    """Raise TransportError where a method that needs sources was sent none."""
    if not sources:
        raise TransportError("sources: got none, wanted at least one source model")


def augment_rows(
    x: Rows, inputs: Sequence[InputSpec], config: GraftConfig, generator: torch.Generator
) -> Any:
    """A batch with each stream augmented as its kind allows; tokens and vectors stay."""

    def augmented(part: Any, spec: InputSpec) -> Any:
        if spec.kind in ("tokens", "vector"):
            return part
        return augment(part, spec.modality, config, generator)

    if not isinstance(x, Streams):
        return augmented(x, inputs[0])
    return Streams({spec.name: augmented(x[spec.name], spec) for spec in inputs})


def augment(
    x: Tensor, modality: Modality, config: GraftConfig, generator: torch.Generator
) -> Tensor:
    """A batch (B, K, T) or (B, K, H, W), shifted and rotated at random.

    Windows and images are shifted; inertial windows are also rotated, as a sensor sits a little
    differently on the body each day. Pen strokes are only rotated: a stroke is no window of a
    stream, so its start is fixed.
    """
    if isinstance(x, Features):  # what a frozen encoder has read can no longer be moved
        return x
    if modality == "pen":
        return rotated(x, 2, config.rotation_degrees, generator)
    if modality == "imu" and x.dim() == 3:
        x = rotated(x, 3, config.rotation_degrees, generator)
    return shifted(x, config.shift_fraction, generator)


def augmentation_draws(
    x: Tensor, num_steps: int, modality: Modality, config: GraftConfig, generator: torch.Generator
) -> Augmentation:
    """The random numbers that ``augment`` draws for so many batches of the size of x, in order."""
    axes = 2 if modality == "pen" else 3 if modality == "imu" and x.dim() == 3 else 0
    angles, shifts = [], []
    for _ in range(num_steps):
        if axes:
            angles.append(_draw_angles(len(x), axes, config.rotation_degrees, generator))
        offsets = [0, 0]
        for axis in range(2, x.dim()) if modality != "pen" else ():
            offsets[axis - x.dim()] = (
                _draw_offset(x.shape[axis], config.shift_fraction, generator) % x.shape[axis]
            )
        shifts.append(offsets)
    rotation = torch.empty(num_steps, len(x), 0, 0)
    if axes:
        rotation = _rotations(torch.cat(angles), axes).view(num_steps, len(x), axes, axes)
    return Augmentation(rotation_SBAA=rotation.contiguous(), shift_S2=torch.tensor(shifts))


def rotated(x: Tensor, axes: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Each sample (B, K, T) rotated at random, all its vectors together.

    A vector is ``axes`` neighbouring channels: 2 in a plane, 3 in space. ``degrees`` is the
    standard deviation of the angle in every coordinate plane. Channels past the last whole
    vector stay.
    """
    num_vectors = x.shape[1] // axes
    rotation = _rotations(_draw_angles(len(x), axes, degrees, generator), axes)
    vectors = x[:, : axes * num_vectors].reshape(len(x), num_vectors, axes, x.shape[2])
    moved = torch.einsum("bij,bmjt->bmit", rotation, vectors).flatten(1, 2)
    return torch.cat([moved, x[:, axes * num_vectors :]], dim=1)


def shifted(x: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """The batch rolled by one random offset along time, or along both sides of an image, up to
    ``fraction`` of the length either way."""
    for axis in range(2, x.dim()):
        x = torch.roll(x, _draw_offset(x.shape[axis], fraction, generator), axis)
    return x


def _draw_angles(count: int, axes: int, degrees: float, generator: torch.Generator) -> Tensor:
    """An angle in every coordinate plane of each sample, in radians."""
    planes = axes * (axes - 1) // 2
    return torch.randn(count, planes, generator=generator) * math.radians(degrees)


def _rotations(angle_BP: Tensor, axes: int) -> Tensor:
    """Rotation matrices (B, axes, axes)."""
    plane = torch.triu_indices(axes, axes, offset=1)
    skew = torch.zeros(len(angle_BP), axes, axes)
    skew[:, plane[0], plane[1]] = angle_BP
    return torch.matrix_exp(skew - skew.transpose(1, 2))


def _draw_offset(length: int, fraction: float, generator: torch.Generator) -> int:
    most = int(fraction * length)
    return int(torch.randint(-most, most + 1, (1,), generator=generator))
