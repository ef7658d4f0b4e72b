"""HaT-style expansion on the device (A3-A6): mixer, dictionary and target learn together.

The structure is published (arXiv 2412.04060); the equations are ours:

    L_t = CE on L + alpha sum_i q_i KL(s(p~_i) || p_t(x_i)) / sum_i q_i,  s(p) ~ p^(1/T)
    total = L_t + L_mix + L_heads

Quality q weighs samples against each other, alpha alone says how much is injected. The sources'
encoders are frozen but for their batch-norm statistics; their heads learn with the mixer.

Legend: L labelled, U unlabelled samples, B a batch, R replicas, C classes, F features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.records import FusionDiagnostics
from graft.methods.base import Method
from graft.methods.blocks.adaptation import adapt_source
from graft.methods.blocks.diagnostics import mixture_spread, thinned_epochs
from graft.methods.blocks.targets import fresh_target, known_classes, require_sources
from graft.methods.cost import hat_cost
from graft.methods.hat.dictionary import (
    KnowledgeDictionary,
    class_precision,
    injection_strength,
    prediction_quality,
    sharpened,
)
from graft.methods.hat.mixer import Mixer, heads_loss, holdout_folds, mixer_loss, stack_features
from graft.training import (
    TrainedModel,
    TrainingTask,
    features_in_batches,
    minimise,
    parameter_group,
)


@dataclass(slots=True)
class _Knowledge:
    """What the last check on held-out rows said of the fused predictor."""

    precision_C: Tensor
    accuracy: float


def fit_hat(task: TrainingTask) -> TrainedModel:
    """Fuse the sources sample by sample and distil what proved good into the target."""
    require_sources(task.sources)
    settings, training = task.config.hat, task.config.training
    num_classes = task.task.num_classes
    target = fresh_target(task)
    held_RL = torch.from_numpy(
        holdout_folds(task.y_L.numpy(), settings.holdout_fraction, task.seed)
    )
    x_N = torch.cat([task.x_L, task.x_U])
    sources = [adapt_source(source, x_N, task.label_mask) for source in task.sources]
    mixer = Mixer(
        sources,
        target.num_features,
        len(held_RL),
        settings,
        task.seed,
        task.config.trust.max_source_weight,
    )
    dictionary = KnowledgeDictionary(len(task.x_U), num_classes, settings)
    knowledge = _Knowledge(precision_C=torch.zeros(num_classes), accuracy=0.0)
    # Source encoders are frozen and in eval mode, so their features are computed once.
    sources_SLF = stack_features(sources, task.x_L)
    sources_SUF = stack_features(sources, task.x_U)
    epochs: list[tuple[float, ...]] = []

    @torch.no_grad()
    def check_knowledge() -> None:
        target_LF = features_in_batches(target, task.x_L)
        target.train()
        fused_RLC, _ = mixer(target_LF, sources_SLF)
        fused_HC, y_H = fused_RLC[held_RL], task.y_L.expand(len(held_RL), -1)[held_RL]
        correct = int((fused_HC.argmax(1) == y_H).sum())
        knowledge.precision_C = class_precision(fused_HC, y_H)
        # Smoothed, so that one unlucky row out of three does not stop the injection.
        knowledge.accuracy = (correct + 1) / (len(y_H) + 2)
        note_epoch()

    def note_epoch() -> None:
        quality = dictionary.mean_quality
        epochs.append((len(epochs), dictionary.share, quality, knowledge.accuracy))

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        x = torch.cat([task.x_L[labelled_B], task.x_U[unlabelled_B]])
        features_BF = target.features(x)
        logits_BC = target.head(features_BF)
        split = len(labelled_B)
        sources_SBF = torch.cat([sources_SLF[:, labelled_B], sources_SUF[:, unlabelled_B]], dim=1)
        fused_RBC, _ = mixer(features_BF, sources_SBF)
        soft_targets_BC = fused_RBC[:, split:].detach().mean(0)
        quality_B = prediction_quality(soft_targets_BC, knowledge.precision_C)
        dictionary.update(unlabelled_B, soft_targets_BC, quality_B)
        y_B = task.y_L[labelled_B]
        alpha = injection_strength(knowledge.accuracy, dictionary.share, settings)
        divergence_B = F.kl_div(
            F.log_softmax(logits_BC[split:], dim=1),
            sharpened(dictionary.fused_UC[unlabelled_B], settings.knowledge_temperature),
            reduction="none",
        ).sum(1)
        held_quality_B = dictionary.quality_U[unlabelled_B]
        injected = (held_quality_B * divergence_B).sum() / held_quality_B.sum().clamp_min(1e-6)
        held_RB = held_RL[:, labelled_B]
        predictions_RSBC = mixer.predictions(sources_SLF[:, labelled_B])
        return (
            F.cross_entropy(logits_BC[:split], y_B)
            + alpha * injected
            + mixer_loss(fused_RBC[:, :split], y_B, held_RB)
            + heads_loss(predictions_RSBC, y_B, held_RB)
        )

    groups = [
        parameter_group(target, training.learning_rate),
        {"params": mixer.own_parameters(), "lr": training.learning_rate},
        {"params": mixer.head_parameters(), "lr": training.source_learning_rate},
    ]
    minimise(loss_of, groups, len(task.x_L), len(task.x_U), training, task.seed, check_knowledge)
    note_epoch()
    with torch.no_grad():
        sources_SNF = torch.cat([sources_SLF, sources_SUF], dim=1)
        _, mixture_RNS = mixer(features_in_batches(target, x_N), sources_SNF)
    return TrainedModel(
        architecture=task.architecture,
        network=target.eval(),
        mask_C=known_classes(task),
        used=task.sources,
        figures={
            "held_out_accuracy": knowledge.accuracy,
            "knowledge_quality": dictionary.mean_quality,
            "dictionary_share": dictionary.share,
        },
        diagnostics=FusionDiagnostics(
            mixture_SQ=mixture_spread(mixture_RNS.mean(0).T), dictionary_E4=thinned_epochs(epochs)
        ),
    )


METHODS = (
    Method(
        name="hat",
        title="HaT-style",
        fit=fit_hat,
        sources_needed="selected",
        cost=hat_cost,
        reads=("hat",),
    ),
    Method(
        name="hat-initial",
        title="HaT-style, initial domains only",
        fit=fit_hat,
        sources_needed="selected",
        cost=hat_cost,
        initial_only=True,
        reads=("hat",),
    ),
)
