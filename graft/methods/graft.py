"""The project's own method (ours): adapted sources agree on U, and a grafted target learns it.

1. Each selected source is a teacher twice, as it came and with batch-norm statistics of the new
   domain; both heads learn L and are held near the source's:  CE(L) + head_l2_sp ||W - W_s||^2.
2. The teachers' geometric mean on L and U, with the true labels on L, is propagated over a graph
   of neighbours in their features. A teacher's weight then becomes proportional to
   exp(agreement_weight x its agreement with the propagated prediction), and mean and propagation
   are computed again, for ``agreement_iterations`` passes.
3. The target starts as the teacher of its own architecture that agrees most, where one was
   sent; where one of another architecture that the device can train agrees by more than
   ``architecture_margin`` more, the target takes that architecture. It learns
   CE(L) + distillation_weight CE(sharpened propagated prediction, U)  on augmented batches, for
   ``steps_fraction`` of the steps that other methods take, at a rate that falls to zero by a half
   cosine.

It needs no more than the int8 bases that the device probed: nothing else is shipped.

Legend: L labelled, U unlabelled, N all rows, B a batch, T teachers, F features, C classes.
"""

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.config import GraftConfig
from graft.core.exchange import FusionDiagnostics
from graft.core.seeding import derive_seed
from graft.core.streams import Rows, concat
from graft.methods.base import OUTPUTS, Method, each_compiled, selected
from graft.methods.blocks import adaptation, fusion, targets
from graft.methods.cost import graft_cost
from graft.methods.graft_means import fit_means
from graft.models import Network
from graft.training import (
    Adam,
    Augmentation,
    SoftTraining,
    Source,
    TrainedModel,
    TrainingTask,
    compiled_heads,
    count_steps,
    kernels_built,
    minimise,
    minimise_privately,
    parameter_group,
    train_soft,
)

Part = Literal["heads", "norms", "agreement", "propagation", "sharpening", "start", "augmentation"]
# What makes a row's soft target depend on other rows, so that private training leaves it out: there
# the sources' plain mean is distilled.
_MIXING_ROWS: tuple[Part, ...] = ("norms", "heads", "propagation", "agreement")
_UNKNOWN = -30.0  # the logit of a class that a source does not know


@dataclass(frozen=True, slots=True, eq=False)
class _Teachers:
    """The teachers' features of all rows and their heads on the new domain.

    ``statistics`` are the batch-norm statistics of each, empty where they are its source's own:
    with them, two teachers of one source share its weights.
    """

    sources: tuple[Source, ...]
    statistics: tuple[Mapping[str, Tensor], ...]
    features_TNF: Tensor
    weight_TFC: Tensor
    bias_TC: Tensor
    mask_TC: Tensor


def fit_graft(task: TrainingTask, without: Collection[Part] = ()) -> TrainedModel:
    """Train the target. ``without`` leaves parts out, for the ablation."""
    targets.require_sources(task.sources)
    settings, private = task.config.graft, task.private is not None
    if private:
        without = {*without, *_MIXING_ROWS}
    x_N = concat([task.x_L, task.x_U])
    if task.output != "classes":
        return fit_means(task, adapt_teachers(task, x_N, {*without, "heads"}), x_N, without)
    teachers = adapt_teachers(task, x_N, without)
    prediction_NC, agreement_T, weight_T = agreed_prediction(teachers, task, without)
    temperature = 1.0 if "sharpening" in without else settings.knowledge_temperature
    soft_targets_UC = fusion.sharpened(prediction_NC[len(task.x_L) :], temperature)
    if private:
        agreement_T = torch.zeros_like(agreement_T)
    start = None if "start" in without else start_teacher(task, teachers, agreement_T)
    if start is None:
        target, architecture = targets.fresh_target(task), task.architecture
    else:
        target, architecture = grafted(teachers, start), teachers.sources[start].architecture
    _train(target, soft_targets_UC, task, augmented="augmentation" not in without)
    if not private:
        adaptation.renormalise(target, x_N, compiled=task.compiled)
    mixture_SQ = fusion.teacher_spread(weight_T, teachers.sources, task.sources)
    return targets.trained_target(
        task,
        target,
        architecture=architecture,
        metrics={"started_from_source": float(start is not None)},
        diagnostics=FusionDiagnostics(mixture_SQ=mixture_SQ),
    )


def adapt_teachers(task: TrainingTask, x_N: Rows, without: Collection[Part] = ()) -> _Teachers:
    """Step 1: every source as it came, then every source renormalised; no encoder learns."""
    compiled = task.compiled
    teachers, features, statistics = adaptation.teacher_inputs(
        adaptation.with_classes(task.sources, task.label_mask), x_N,
        renormalise="norms" not in without, compiled=compiled,
    )  # fmt: skip
    features_TNF = adaptation.stack_padded(features)
    weight_TFC, bias_TC = adaptation.stack_heads(teachers)
    mask_TC = torch.stack([torch.from_numpy(teacher.mask_C) for teacher in teachers])
    if "heads" not in without:
        labelled_TLF = features_TNF[:, : len(task.x_L)]
        weight_TFC, bias_TC = train_heads(
            labelled_TLF, task.y_L, weight_TFC, bias_TC, mask_TC, task.config.graft,
            compiled=compiled,
        )  # fmt: skip
    return _Teachers(tuple(teachers), tuple(statistics), features_TNF, weight_TFC, bias_TC, mask_TC)


def train_heads(
    features_TLF: Tensor,
    y_L: Tensor,
    weight_TFC: Tensor,
    bias_TC: Tensor,
    mask_TC: Tensor,
    settings: GraftConfig,
    *,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """All heads at once, on cached features: CE(L) + head_l2_sp ||W - W_s||^2, summed over T."""
    if compiled and kernels_built():
        return compiled_heads(
            features_TLF, y_L, weight_TFC, bias_TC, mask_TC,
            steps=settings.head_steps, learning_rate=settings.head_learning_rate,
            pull=settings.head_l2_sp,
        )  # fmt: skip
    weight, bias = weight_TFC.clone().requires_grad_(), bias_TC.clone().requires_grad_()
    optimiser = Adam([{"params": [weight, bias], "lr": settings.head_learning_rate}])
    y_TL = y_L.expand(len(features_TLF), -1)
    for _ in range(settings.head_steps):
        optimiser.zero_grad()
        logits_TLC = _logits(features_TLF, weight, bias, mask_TC)
        loss = F.cross_entropy(logits_TLC.flatten(0, 1), y_TL.flatten(), reduction="sum")
        penalty = settings.head_l2_sp * ((weight - weight_TFC) ** 2).sum()
        (loss / len(y_L) + penalty).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return weight.detach(), bias.detach()


def agreed_prediction(
    teachers: _Teachers, task: TrainingTask, without: Collection[Part] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """Step 2: the agreed prediction on L and U (N, C), each teacher's agreement with it (T,), and
    each teacher's weight in it (T,).

    A dozen labels do not say which teacher is right on the domain; all rows together say more.
    """
    settings, max_weight = task.config.graft, task.config.trust.max_source_weight
    log_TNC = torch.log_softmax(
        _logits(teachers.features_TNF, teachers.weight_TFC, teachers.bias_TC, teachers.mask_TC),
        dim=-1,
    )
    y_LC = F.one_hot(task.y_L, task.domain_task.num_classes).float()
    graph = None
    if "propagation" not in without:
        joint_NF = fusion.joint_features(teachers.features_TNF)
        graph = fusion.neighbour_graph(joint_NF, settings.num_neighbours)
    next_weight_T = torch.full((len(log_TNC),), 1 / len(log_TNC))
    source_T = [source.model_id for source in teachers.sources]
    iterations = 0 if "agreement" in without else settings.agreement_iterations
    for _ in range(iterations + 1):
        weight_T = next_weight_T
        agreed_NC = geometric_mean(log_TNC, weight_T)
        agreed_NC[: len(y_LC)] = y_LC
        if graph is not None:
            agreed_NC = fusion.propagate(agreed_NC, graph, settings.propagation_alpha)
        agreement_T = (log_TNC.argmax(2) == agreed_NC.argmax(1)).float().mean(1)
        next_weight_T = torch.softmax(settings.agreement_weight * agreement_T, dim=0)
        if max_weight < 1:
            next_weight_T = fusion.cap_teachers(next_weight_T, source_T, max_weight)
    return agreed_NC, agreement_T, weight_T


def geometric_mean(log_TNC: Tensor, weight_T: Tensor) -> Tensor:
    """softmax over classes of sum_t weight_t log p_t, from log probabilities: (N, C).

    A teacher that is sure that a class is wrong counts more than in a plain mean. None has a
    veto: a probability counts as e^-14 at least.
    """
    return torch.softmax((weight_T[:, None, None] * log_TNC.clamp_min(-14.0)).sum(0), dim=-1)


def start_teacher(task: TrainingTask, teachers: _Teachers, agreement_T: Tensor) -> int | None:
    """Step 3's start: the place of the teacher that the target starts as; None where none has the
    target's own architecture.

    Such a teacher may agree poorly, and its architecture be what limits the target.
    """
    agreement = agreement_T.tolist()
    architectures = [source.architecture for source in teachers.sources]
    own = [t for t, name in enumerate(architectures) if name == task.architecture]
    if not own:
        return None
    best = max(own, key=agreement.__getitem__)
    least = agreement[best] + task.config.graft.architecture_margin
    better = [
        t for t, name in enumerate(architectures) if name in task.trainable and agreement[t] > least
    ]
    return max(better, key=agreement.__getitem__, default=best)


def grafted(teachers: _Teachers, place: int) -> Network:
    """A copy of a teacher's network, with its statistics and its new head."""
    network = copy.deepcopy(teachers.sources[place].network)
    network.load_state_dict(dict(teachers.statistics[place]), strict=False)
    if isinstance(network.head, nn.Linear):  # another head starts as its source's
        with torch.no_grad():
            weight_FC = teachers.weight_TFC[place, : network.num_features]
            network.head.weight.copy_(weight_FC.T)
            if network.head.bias is not None:
                network.head.bias.copy_(teachers.bias_TC[place])
    return network


def _train(
    target: Network, soft_targets_UC: Tensor, task: TrainingTask, *, augmented: bool
) -> None:
    """Step 3's training on augmented batches."""
    settings, training = task.config.graft, task.config.training
    num_labelled, num_unlabelled = len(task.x_L), len(task.x_U)
    _, usual_steps = count_steps(num_labelled + num_unlabelled, training)
    steps = math.ceil(settings.steps_fraction * usual_steps)
    generator = torch.Generator().manual_seed(derive_seed("augment", task.seed))
    augment = partial(
        targets.augment_rows, inputs=task.domain_task.inputs, config=settings, generator=generator
    )
    target.train()

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        x = concat([task.x_L[labelled_B], task.x_U[unlabelled_B]])
        if augmented:
            x = augment(x)
        logits_BC = target(x)
        split = len(labelled_B)
        supervised = F.cross_entropy(logits_BC[:split], task.y_L[labelled_B])
        if split == len(x):
            return supervised
        distillation = F.cross_entropy(logits_BC[split:], soft_targets_UC[unlabelled_B])
        return supervised + settings.distillation_weight * distillation

    def rate(step: int) -> float:
        """Up over the first tenth of the steps, then down to zero along a cosine."""
        return min(1.0, 10 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))

    def draw(size: int, steps: int) -> Augmentation:
        batch = task.x_L[:1].expand(size, *task.domain_task.sample_shape)
        return targets.augmentation_draws(
            batch, steps, task.domain_task.modality, settings, generator
        )

    shorter = replace(training, max_steps=steps)
    if task.private is not None:
        minimise_privately(
            target,
            targets.soft_rows(task, soft_targets_UC, settings.distillation_weight),
            replace(shorter, learning_rate=settings.learning_rate),
            task.private,
            num_rows=num_labelled + num_unlabelled,
            seed=task.seed,
            rate=rate,
            augment=augment if augmented else None,
        )
        return
    soft = SoftTraining(
        network=target, x_L=task.x_L, y_L=task.y_L, x_U=task.x_U, soft_targets_UC=soft_targets_UC,
        config=replace(shorter, learning_rate=settings.learning_rate), seed=task.seed,
        weight=settings.distillation_weight, rate=rate, augment=draw if augmented else None,
    )  # fmt: skip
    if task.compiled and train_soft(soft):
        return
    groups = [parameter_group(target, settings.learning_rate)]
    minimise(loss_of, groups, num_labelled, num_unlabelled, shorter, task.seed, rate=rate)


def _logits(features_TNF: Tensor, weight_TFC: Tensor, bias_TC: Tensor, mask_TC: Tensor) -> Tensor:
    logits_TNC = features_TNF @ weight_TFC + bias_TC[:, None]
    return logits_TNC.masked_fill(~mask_TC[:, None], _UNKNOWN)


_PARTS: dict[Part, str] = {
    "start": "start from a source",
    "augmentation": "augmentation",
    "propagation": "spreading over neighbours",
    "agreement": "trust by agreement",
    "sharpening": "sharpening",
    "heads": "heads that learn L",
    "norms": "batch-norm statistics",
}
# Each of them makes up in part for the others.
_CONSENSUS: tuple[Part, ...] = ("norms", "propagation", "agreement")


def _graft(fit: Callable[[TrainingTask], TrainedModel] = fit_graft, **fields: Any) -> Method:
    same: dict[str, Any] = {"precision": "base", "warm_start": True, "reads": ("graft",)}
    same["outputs"] = OUTPUTS
    return selected(fit=fit, fit_many=each_compiled(fit), cost=graft_cost, **same, **fields)


METHODS = (
    _graft(name="graft", title="graft", trains_privately=True),
    _graft(
        name="graft-initial",
        title="graft, initial domains only",
        initial_only=True,
        trains_privately=True,
    ),
    *(
        _graft(
            name=f"graft-no-{part}",
            title=f"graft without {words}",
            fit=partial(fit_graft, without=(part,)),
        )
        for part, words in _PARTS.items()
    ),
    _graft(
        name="graft-no-consensus",
        title="graft without statistics, spreading and trust",
        fit=partial(fit_graft, without=_CONSENSUS),
    ),
)
