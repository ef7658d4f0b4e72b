"""The method graft of outputs without classes: labels and amounts are averaged as they are (ours).

As ``graft.methods.graft`` does it, but: the heads learn L by the output's own loss; the teachers'
prediction is a weighted mean of probabilities or of amounts in units of L, with the true labels on
L; an agreement is 1 less the mean absolute difference. Labels are sharpened each by itself, and
amounts are not. Propagation divides by what it does to ones, since rows do not sum to 1.

Legend: L labelled, U unlabelled, N all rows, T teachers, F features, C labels or amounts.
"""

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graft.core.exchange import FusionDiagnostics
from graft.core.seeding import derive_seed
from graft.core.streams import Rows, concat
from graft.methods.blocks import adaptation, fusion, targets
from graft.models import Network
from graft.training import (
    Adam,
    TrainedModel,
    TrainingTask,
    Units,
    count_steps,
    minimise,
    output_loss,
    parameter_group,
    predictions_of,
)

if TYPE_CHECKING:
    from graft.methods.graft import _Teachers


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """The teachers' heads on the new domain, which give amounts in units of L."""

    weight_TFC: Tensor
    bias_TC: Tensor

    def predictions(self, teachers: "_Teachers", task: TrainingTask) -> Tensor:
        """Each teacher's prediction of all rows, (T, N, C)."""
        logits_TNC = teachers.features_TNF @ self.weight_TFC + self.bias_TC[:, None]
        return predictions_of(logits_TNC, teachers.mask_TC[:, None], task.output)


def fit_means(
    task: TrainingTask, teachers: "_Teachers", x_N: Rows, without: Collection[str] = ()
) -> TrainedModel:
    """Train the target from teachers whose heads have not learnt L; see ``fit_graft``."""
    settings, units = task.config.graft, Units.of(task.y_L, task.output)
    heads = _learn_heads(teachers, task, units, steps=0 if "heads" in without else None)
    predictions_TNC = heads.predictions(teachers, task)
    agreed_NC, agreement_T, weight_T = _agreed(predictions_TNC, teachers, task, units, without)
    wanted_UC = agreed_NC[len(task.x_L) :]
    if task.output == "labels" and "sharpening" not in without:
        both_2UC = torch.stack([wanted_UC, 1 - wanted_UC]) ** (1 / settings.knowledge_temperature)
        wanted_UC = both_2UC[0] / both_2UC.sum(0)
    same = [t for t, s in enumerate(teachers.sources) if s.architecture == task.architecture]
    if "start" in without or not same:
        target, started = targets.fresh_target(task), False
    else:
        best = max(same, key=lambda t: float(agreement_T[t]))
        target, started = _start(teachers, heads, units, best), True
    _train(target, wanted_UC, task, units, augmented="augmentation" not in without)
    adaptation.renormalise(target, x_N, compiled=task.compiled)
    mixture_SQ = fusion.teacher_spread(weight_T, teachers.sources, task.sources)
    return targets.trained_target(
        task,
        target,
        metrics={"started_from_source": float(started)},
        diagnostics=FusionDiagnostics(mixture_SQ=mixture_SQ),
    )


def _learn_heads(
    teachers: "_Teachers", task: TrainingTask, units: Units, steps: int | None
) -> _Heads:
    """loss(L) + head_l2_sp ||W - W_s||^2 for each teacher."""
    settings = task.config.graft
    scale_C = torch.ones(1) if units.scale_C is None else units.scale_C
    start_TFC, bias_TC = teachers.weight_TFC / scale_C, units.own(teachers.bias_TC)
    weight, bias = start_TFC.clone().requires_grad_(), bias_TC.clone().requires_grad_()
    optimiser = Adam([{"params": [weight, bias], "lr": settings.head_learning_rate}])
    features_TLF, y_LC = teachers.features_TNF[:, : len(task.x_L)], units.own(task.y_L)
    y_TLC = y_LC.expand(len(features_TLF), -1, -1)
    for _ in range(settings.head_steps if steps is None else steps):
        optimiser.zero_grad()
        logits_TLC = features_TLF @ weight + bias[:, None]
        loss = len(y_TLC) * output_loss(logits_TLC, y_TLC, task.output)
        penalty = settings.head_l2_sp * ((weight - start_TFC) ** 2).sum()
        (loss + penalty).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return _Heads(weight.detach(), bias.detach())


def _agreed(
    predictions_TNC: Tensor,
    teachers: "_Teachers",
    task: TrainingTask,
    units: Units,
    without: Collection[str],
) -> tuple[Tensor, Tensor, Tensor]:
    """The agreed prediction (N, C), each teacher's agreement with it and its weight in it (T,)."""
    settings, max_weight = task.config.graft, task.config.trust.max_source_weight
    source_T = [source.model_id for source in teachers.sources]
    graph, ones_N1 = None, torch.ones(predictions_TNC.shape[1], 1)
    if "propagation" not in without:
        joint_NF = fusion.joint_features(teachers.features_TNF)
        graph = fusion.neighbour_graph(joint_NF, settings.num_neighbours)
    next_weight_T = torch.full((len(predictions_TNC),), 1 / len(predictions_TNC))
    for _ in range(1 + (0 if "agreement" in without else settings.agreement_iterations)):
        weight_T = next_weight_T
        agreed_NC = (weight_T[:, None, None] * predictions_TNC).sum(0)
        agreed_NC[: len(task.y_L)] = units.own(task.y_L)
        if graph is not None:
            both = torch.cat([agreed_NC, ones_N1], dim=1)
            spread = fusion.spread(both, graph, settings.propagation_alpha)
            agreed_NC = spread[:, :-1] / spread[:, -1:]
        agreement_T = 1 - (predictions_TNC - agreed_NC).abs().mean((1, 2))
        next_weight_T = torch.softmax(settings.agreement_weight * agreement_T, dim=0)
        if max_weight < 1:
            next_weight_T = fusion.cap_teachers(next_weight_T, source_T, max_weight)
    return agreed_NC, agreement_T, weight_T


def _start(teachers: "_Teachers", heads: _Heads, units: Units, place: int) -> Network:
    """A copy of a teacher's network, with its statistics and its new head."""
    network = copy.deepcopy(teachers.sources[place].network)
    network.load_state_dict(dict(teachers.statistics[place]), strict=False)
    if isinstance(network.head, nn.Linear):  # another head starts as its source's
        with torch.no_grad(), units.within(network):
            network.head.weight.copy_(heads.weight_TFC[place, : network.num_features].T)
            if network.head.bias is not None:
                network.head.bias.copy_(heads.bias_TC[place])
    return network


def _train(
    target: Network, wanted_UC: Tensor, task: TrainingTask, units: Units, *, augmented: bool
) -> None:
    """loss(L) + distillation_weight loss(wanted, U) on augmented batches; ``wanted_UC`` are in
    units of L."""
    settings, training = task.config.graft, task.config.training
    _, usual_steps = count_steps(len(task.x_L) + len(task.x_U), training)
    steps = math.ceil(settings.steps_fraction * usual_steps)
    generator = torch.Generator().manual_seed(derive_seed("augment", task.seed))
    augment = partial(
        targets.augment_rows, inputs=task.domain_task.inputs, config=settings, generator=generator
    )

    def rate(step: int) -> float:
        """Up over the first tenth of the steps, then down to zero along a cosine."""
        return min(1.0, 10 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))

    with units.within(target.train()) as own:
        y_LC, soft_UC = own.own(task.y_L), own.own(units.amounts(wanted_UC))

        def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
            x = concat([task.x_L[labelled_B], task.x_U[unlabelled_B]])
            logits_BC = target(augment(x) if augmented else x)
            split = len(labelled_B)
            supervised = output_loss(logits_BC[:split], y_LC[labelled_B], task.output)
            soft = output_loss(logits_BC[split:], soft_UC[unlabelled_B], task.output)
            return supervised + settings.distillation_weight * soft

        minimise(
            loss_of,
            [parameter_group(target, settings.learning_rate)],
            len(task.x_L),
            len(task.x_U),
            replace(training, max_steps=steps),
            task.seed,
            rate=rate,
        )
