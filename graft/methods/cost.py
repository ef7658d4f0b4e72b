"""The compute cost of each method on a device, beside the networks that it trains and reads.

FLOPs follow from shapes; numbers of tensor operations were counted on this code (a test counts
both again). A method without a cost of its own counts as plain distillation.

Legend: L labelled, U unlabelled, N all rows, S sources, T teachers, F features, C classes.
"""

import math
from collections.abc import Sequence

from graft.training.cost import ComputeCost, Reading, Training, WorkloadShape

# A learnt product x W of constants x: forward, and backward for W alone.
_LEARNT = 2
# And where x learns as well.
_LEARNT_THROUGH = 3


def read_all(architectures: Sequence[str], rows: int, passes: int = 1) -> ComputeCost:
    """Each network so many times over so many rows."""
    read = tuple(Reading(architecture=name, rows=rows, passes=passes) for name in architectures)
    return ComputeCost(read=read, operations=2.0 * passes * len(read))


def supervised_cost(shape: WorkloadShape) -> ComputeCost:
    """Cross-entropy on L."""
    return _trained(shape, shape.trained_model, shape.batch(shape.num_labelled))


def all_labels_cost(shape: WorkloadShape) -> ComputeCost:
    """Cross-entropy on every row."""
    return _trained(shape, shape.trained_model, shape.batch(shape.num_rows))


def best_source_cost(shape: WorkloadShape) -> ComputeCost:
    """Every source predicts L."""
    return read_all(shape.sources, shape.num_labelled)


def finetuned_cost(shape: WorkloadShape) -> ComputeCost:
    """The best source learns L."""
    return best_source_cost(shape) + supervised_cost(shape)


def fedavg_local_cost(shape: WorkloadShape) -> ComputeCost:
    """An initial domain's part of one round of FedAvg."""
    steps = math.ceil(shape.steps / shape.config.training.fedavg_rounds)
    return _trained(shape, shape.trained_model, shape.batch(shape.num_labelled), steps)


def distilled_cost(shape: WorkloadShape) -> ComputeCost:
    """Every source predicts U; the target learns L and U."""
    return read_all(shape.sources, shape.num_unlabelled) + _both(shape, 22)


def camkd_cost(shape: WorkloadShape) -> ComputeCost:
    """As ``distilled_cost``, with the sources' predictions on L."""
    return read_all(shape.sources, shape.num_rows) + _both(shape, 28)


def aekd_cost(shape: WorkloadShape) -> ComputeCost:
    """As ``distilled_cost``, with a small quadratic programme a step."""
    products = (
        2 * len(shape.sources) ** 2 * shape.batch(shape.num_unlabelled) * shape.task.num_classes
    )
    extra = ComputeCost(flops=float(shape.steps * products))
    return read_all(shape.sources, shape.num_unlabelled) + _both(shape, 44) + extra


def soft_targets_cost(shape: WorkloadShape) -> ComputeCost:
    """Every source predicts all rows; the target learns from nothing else."""
    return read_all(shape.sources, shape.num_rows) + all_labels_cost(shape)


def common_features_cost(shape: WorkloadShape, width: int = 128) -> ComputeCost:
    """KA-CFL: soft targets, and a common space of adapters, extractor and decoders."""
    target = shape.cost(shape.architecture).num_features
    extractor = 3 * width * width
    common = _LEARNT_THROUGH * (target * 2 * width + extractor)
    for name in shape.sources:
        features = shape.cost(name).num_features
        decoder = width * features + features * features
        common += _LEARNT * features * 2 * width + _LEARNT_THROUGH * (extractor + decoder)
    batch = shape.batch(shape.num_rows)
    # Three kernel matrices a source.
    kernels = len(shape.sources) * 3 * _LEARNT_THROUGH * 2 * batch * batch * width
    each = 2 * batch * common + kernels
    return (
        read_all(shape.sources, shape.num_rows, passes=2)
        + all_labels_cost(shape)
        + ComputeCost(
            flops=float(shape.steps * each), operations=shape.steps * 247.0 * len(shape.sources)
        )
    )


def mutual_cost(shape: WorkloadShape) -> ComputeCost:
    """HMKD: the best source and a fresh target, both trained on L and U."""
    best = shape.used[:1]
    rows = shape.batch(shape.num_labelled) + shape.batch(shape.num_unlabelled)
    both = _trained(shape, shape.architecture, rows)
    for name in best:
        both += _trained(shape, name, rows)
    return best_source_cost(shape) + both + ComputeCost(operations=190.0 * shape.steps)


def prototypes_cost(shape: WorkloadShape) -> ComputeCost:
    """FedProto: L, and a learnt map into every source's features."""
    if not shape.prototypes:
        return supervised_cost(shape)
    rows = shape.batch(shape.num_labelled)
    widest = max(shape.cost(name).num_features for name in shape.used) if shape.used else 64
    target = shape.cost(shape.architecture).num_features
    mapped = 2 * shape.prototypes * rows * target * widest * _LEARNT_THROUGH
    extra = ComputeCost(flops=float(shape.steps * mapped), operations=53.0 * shape.steps)
    return supervised_cost(shape) + extra


def shot_cost(shape: WorkloadShape) -> ComputeCost:
    """The best source moves on L and U; each epoch it labels U anew."""
    rows = shape.batch(shape.num_labelled) + shape.batch(shape.num_unlabelled)
    return (
        best_source_cost(shape)
        + _trained(shape, shape.trained_model, rows)
        + read_all((shape.trained_model,), shape.num_unlabelled, passes=shape.epochs)
        + ComputeCost(operations=55.0 * shape.steps + 70.0 * shape.epochs)
    )


def moved_sources_cost(shape: WorkloadShape) -> ComputeCost:
    """DECISION: sources in their new form, a learnt map behind each, the target beside them."""
    features, classes, sources = shape.widest(), shape.task.num_classes, len(shape.sources)
    rows = shape.batch(shape.num_labelled) + shape.batch(shape.num_unlabelled)
    moved = 2 * sources * rows * features * (_LEARNT * features + 2 * classes)
    # Each epoch: move U, ask the heads, and four products with the centroids.
    labelled = 2 * sources * shape.num_unlabelled * features * (features + 5 * classes)
    return (
        read_all(shape.sources, shape.num_rows, passes=2)
        + _both(shape, 150)
        + ComputeCost(
            flops=float(shape.steps * moved + shape.epochs * labelled),
            operations=80.0 * shape.epochs + 100.0 * sources,
        )
    )


def hat_cost(shape: WorkloadShape) -> ComputeCost:
    """Sources in their new form; target, mixer and the heads' replicas learn together."""
    hat = shape.config.hat
    replicas = min(shape.num_labelled, round(1 / hat.holdout_fraction))
    labelled, unlabelled = shape.batch(shape.num_labelled), shape.batch(shape.num_unlabelled)
    rows, sources, width = labelled + unlabelled, len(shape.sources), hat.mixer_width
    features, classes = shape.widest(), shape.task.num_classes
    target = shape.cost(shape.architecture).num_features
    keyed = target * width + sources * (features * width + width + features * classes + classes)
    mixed = replicas * 2 * keyed
    own_loss = labelled * replicas * 2 * sources * features * classes
    step = _LEARNT * (rows * mixed + own_loss)
    # The check on L after each epoch, and every row once at the end, for the diagnostics.
    alone = (shape.epochs * shape.num_labelled + shape.num_rows) * mixed
    return (
        read_all(shape.sources, shape.num_rows, passes=2)
        + _both(shape, 345)
        + read_all((shape.architecture,), shape.num_labelled, passes=shape.epochs)
        + read_all((shape.architecture,), shape.num_rows)
        + ComputeCost(
            flops=float(shape.steps * step + alone),
            operations=60.0 * shape.epochs + 100.0 * sources,
        )
    )


def graft_cost(shape: WorkloadShape) -> ComputeCost:
    """Each source in two forms, heads that learn L, a graph, a third of the steps."""
    settings = shape.config.graft
    steps = math.ceil(settings.steps_fraction * shape.steps)
    teachers, features, classes = 2 * len(shape.sources), shape.widest(), shape.task.num_classes
    head = 2 * teachers * features * classes
    heads = settings.head_steps * shape.num_labelled * head * _LEARNT
    graph = 2 * shape.num_rows**2 * teachers * features
    rotated = 2 * (shape.batch(shape.num_labelled) + shape.batch(shape.num_unlabelled)) * 3
    rotated *= sum(math.prod(s.shape) for s in shape.task.inputs if s.modality == "imu")
    return (
        read_all(shape.sources, shape.num_rows, passes=3)
        + _both(shape, 58, steps, shape.trained_model)
        + read_all((shape.trained_model,), shape.num_rows)
        + ComputeCost(
            flops=float(heads + shape.num_rows * head + graph + steps * rotated),
            operations=45.0 * settings.head_steps + 100.0 * teachers,
        )
    )


def growth_cost(shape: WorkloadShape) -> ComputeCost:
    """Task growth: the former model predicts each batch of U, and the grown one learns L and U."""
    seen = shape.steps * shape.batch(shape.num_unlabelled)
    return read_all(shape.sources, seen) + _both(shape, 30)


def consistency_cost(shape: WorkloadShape) -> ComputeCost:
    """L beside U, which is read in two forms."""
    rows = shape.batch(shape.num_labelled) + 2 * shape.batch(shape.num_unlabelled)
    return _trained(shape, shape.architecture, rows) + ComputeCost(operations=60.0 * shape.steps)


def _trained(
    shape: WorkloadShape, architecture: str, rows: int, steps: int | None = None
) -> ComputeCost:
    steps = shape.steps if steps is None else steps
    return ComputeCost(trained=(Training(architecture=architecture, steps=steps, rows=rows),))


def _both(
    shape: WorkloadShape, operations: float, steps: int | None = None, trained: str = ""
) -> ComputeCost:
    """Steps of the target's architecture, or of another, on a labelled and an unlabelled batch,
    with so many operations a step beside its own."""
    steps = shape.steps if steps is None else steps
    rows = shape.batch(shape.num_labelled) + shape.batch(shape.num_unlabelled)
    return _trained(shape, trained or shape.architecture, rows, steps) + ComputeCost(
        operations=operations * steps
    )
