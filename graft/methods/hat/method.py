"""HaT-style expansion on the device (A3-A6): mixer, dictionary and target learn together.

The structure is published (arXiv 2412.04060); the equations are ours:

    L_t = CE on L + alpha sum_i q_i KL(s(p~_i) || p_t(x_i)) / sum_i q_i,  s(p) ~ p^(1/T)
    total = L_t + L_mix + L_heads

Quality q weights samples against each other; alpha alone scales the injection. The sources'
encoders are frozen but for their batch-norm statistics; their heads learn with the mixer.

Legend: L labelled, U unlabelled samples, B a batch, R replicas, C classes, F features.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.records import FusionDiagnostics
from graft.methods.base import Method
from graft.methods.blocks.adaptation import renormalised_features, with_classes
from graft.methods.blocks.fusion import mixture_spread, thinned_epochs
from graft.methods.blocks.targets import fresh_target, require_sources, trained_target
from graft.methods.cost import hat_cost
from graft.methods.hat.dictionary import (
    KnowledgeDictionary,
    class_precision,
    injection_strength,
    prediction_quality,
)
from graft.methods.hat.mixer import Mixer, heads_loss, holdout_folds, mixer_loss
from graft.training import (
    TrainedModel,
    TrainingTask,
    features_in_batches,
    minimise,
    parameter_group,
)


@dataclass(slots=True)
class _Knowledge:
    """How good the fused predictor was on held-out rows at the start of this epoch."""

    precision_C: Tensor
    accuracy: float


def fit_hat(task: TrainingTask) -> TrainedModel:
    """Fuse the sources sample by sample and distil the verified predictions into the target."""
    require_sources(task.sources)
    settings, training = task.config.hat, task.config.training
    num_classes = task.domain_task.num_classes
    target = fresh_target(task)
    heldout_RL = torch.from_numpy(
        holdout_folds(task.y_L.numpy(), settings.holdout_fraction, task.seed)
    )
    x_N = torch.cat([task.x_L, task.x_U])
    sources = with_classes(task.sources, task.label_mask)
    mixer = Mixer(
        sources,
        target.num_features,
        len(heldout_RL),
        settings,
        task.seed,
        task.config.trust.max_source_weight,
    )
    dictionary = KnowledgeDictionary(len(task.x_U), num_classes, settings)
    knowledge = _Knowledge(precision_C=torch.zeros(num_classes), accuracy=0.0)
    # Source encoders are frozen and in eval mode, so their features are computed once.
    sources_SLF, sources_SUF = renormalised_features(sources, x_N, (task.x_L, task.x_U))
    epochs: list[tuple[float, ...]] = []

    @torch.no_grad()
    def check_knowledge() -> None:
        """Before each epoch: the fused predictor on the rows that a replica did not train on."""
        target_LF = features_in_batches(target, task.x_L)
        target.train()
        fused_RLC, _ = mixer(target_LF, sources_SLF)
        fused_HC, y_H = fused_RLC[heldout_RL], task.y_L.expand(len(heldout_RL), -1)[heldout_RL]
        correct = int((fused_HC.argmax(1) == y_H).sum())
        knowledge.precision_C = class_precision(fused_HC, y_H)
        # Smoothed, so that one unlucky row out of three does not stop the injection.
        knowledge.accuracy = (correct + 1) / (len(y_H) + 2)
        note_epoch()

    def note_epoch() -> None:
        quality = dictionary.mean_quality
        epochs.append((len(epochs), dictionary.filled_fraction, quality, knowledge.accuracy))

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        x = torch.cat([task.x_L[labelled_B], task.x_U[unlabelled_B]])
        features_BF = target.features(x)
        logits_BC = target.head(features_BF)
        split = len(labelled_B)
        sources_SBF = torch.cat([sources_SLF[:, labelled_B], sources_SUF[:, unlabelled_B]], dim=1)
        fused_RBC, _ = mixer(features_BF, sources_SBF)
        fused_BC = fused_RBC[:, split:].detach().mean(0)
        quality_B = prediction_quality(fused_BC, knowledge.precision_C)
        dictionary.update(unlabelled_B, fused_BC, quality_B)
        alpha = injection_strength(knowledge.accuracy, dictionary.filled_fraction, settings)
        injected = dictionary.injection_loss(unlabelled_B, logits_BC[split:])
        y_B, heldout_RB = task.y_L[labelled_B], heldout_RL[:, labelled_B]
        predictions_RSBC = mixer.predictions(sources_SLF[:, labelled_B])
        return (
            F.cross_entropy(logits_BC[:split], y_B)
            + alpha * injected
            + mixer_loss(fused_RBC[:, :split], y_B, heldout_RB)
            + heads_loss(predictions_RSBC, y_B, heldout_RB)
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
    return trained_target(
        task,
        target,
        metrics={
            "held_out_accuracy": knowledge.accuracy,
            "knowledge_quality": dictionary.mean_quality,
            "dictionary_share": dictionary.filled_fraction,
        },
        diagnostics=FusionDiagnostics(
            mixture_SQ=mixture_spread(mixture_RNS.mean(0).T), dictionary_E4=thinned_epochs(epochs)
        ),
    )


_hat = partial(Method, fit=fit_hat, sources_needed="selected", cost=hat_cost, reads=("hat",))
METHODS = (
    _hat(name="hat", title="HaT-style"),
    _hat(name="hat-initial", title="HaT-style, initial domains only", initial_only=True),
)
