"""HaT-style expansion on the device (A3-A6): mixer, dictionary and target learn together.

The structure is published (arXiv 2412.04060); the equations are ours:

    L_t = CE on L + alpha sum_i q_i KL(s(p~_i) || p_t(x_i)) / sum_i q_i,  s(p) ~ p^(1/T)
    total = L_t + L_mix + L_heads

Quality q weights samples against each other; alpha alone scales the injection. The sources'
encoders are frozen but for their batch-norm statistics; their heads learn with the mixer.

Legend: L labelled, U unlabelled samples, B a batch, H held-out labelled rows, R replicas,
C classes, F features.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import HatConfig
from graft.core.exchange import FusionDiagnostics
from graft.core.streams import concat
from graft.methods.base import each_compiled, selected
from graft.methods.blocks import adaptation, fusion, targets
from graft.methods.cost import hat_cost
from graft.methods.hat.mixer import Mixer, heads_loss, holdout_folds, mixer_loss
from graft.training import (
    CompiledTraining,
    Objective,
    TrainedModel,
    TrainingTask,
    compiled_plan,
    count_steps,
    features_in_batches,
    hat_beside,
    joint_batches,
)


class KnowledgeDictionary:
    """Sample -> (fused prediction, quality), for the samples of sufficient quality (A4)."""

    def __init__(self, num_unlabelled: int, num_classes: int, config: HatConfig) -> None:
        self.config = config
        self.fused_UC = torch.zeros(num_unlabelled, num_classes)
        self.quality_U = torch.zeros(num_unlabelled)

    @property
    def filled_fraction(self) -> float:
        """|dictionary| / |U|, 0 to 1."""
        return float((self.quality_U > 0).double().mean())

    @property
    def mean_quality(self) -> float:
        """Mean quality of the entries; 0 for an empty dictionary."""
        quality = self.quality_U[self.quality_U > 0]
        return float(quality.mean()) if len(quality) else 0.0

    def update(self, rows_B: Tensor, fused_BC: Tensor, quality_B: Tensor) -> None:
        """Insert at q >= 0.5; p~ <- 0.7 p~ + 0.3 p while q >= 0.9 q_old."""
        old_B = self.quality_U[rows_B]
        insert = (old_B == 0) & (quality_B >= self.config.insert_quality)
        renew = (old_B > 0) & (quality_B >= self.config.keep_quality * old_B)
        momentum = self.config.dictionary_momentum
        self.fused_UC[rows_B[insert]] = fused_BC[insert]
        self.fused_UC[rows_B[renew]] = (
            momentum * self.fused_UC[rows_B[renew]] + (1 - momentum) * fused_BC[renew]
        )
        changed = insert | renew
        self.quality_U[rows_B[changed]] = quality_B[changed]

    def injection_loss(self, rows_B: Tensor, logits_BC: Tensor) -> Tensor:
        """sum_i q_i KL(s(p~_i) || p_t(x_i)) / sum_i q_i over a batch; s(p) ~ p^(1/T)."""
        wanted_BC = fusion.sharpened(self.fused_UC[rows_B], self.config.knowledge_temperature)
        log_BC = F.log_softmax(logits_BC, dim=1)
        divergence_B = F.kl_div(log_BC, wanted_BC, reduction="none").sum(1)
        quality_B = self.quality_U[rows_B]
        return (quality_B * divergence_B).sum() / quality_B.sum().clamp_min(1e-6)


def class_precision(fused_HC: Tensor, y_H: Tensor) -> Tensor:
    """r_c: Laplace-smoothed precision (correct + 1) / (predicted + 2) of the fused predictor."""
    num_classes = fused_HC.shape[1]
    predicted_H = fused_HC.argmax(1)
    times_C = torch.bincount(predicted_H, minlength=num_classes)
    correct_C = torch.bincount(predicted_H[predicted_H == y_H], minlength=num_classes)
    return (correct_C + 1) / (times_C + 2)


def prediction_quality(fused_BC: Tensor, precision_C: Tensor) -> Tensor:
    """q_i = max_c p_i[c] times r of that class."""
    confidence_B, label_B = fused_BC.max(1)
    return confidence_B * precision_C[label_B]


def injection_strength(
    held_out_accuracy: float, filled_fraction: float, config: HatConfig
) -> float:
    """alpha = alpha_max (fused held-out accuracy) (|dictionary| / |U|) (A5)."""
    return config.max_injection * held_out_accuracy * filled_fraction


class _HatTraining:
    """Target, mixer and dictionary of one training, and what the mixer knew at this epoch's start:
    the fused predictor's ``precision_C`` and ``accuracy`` on held-out rows."""

    def __init__(self, task: TrainingTask) -> None:
        targets.require_sources(task.sources)
        settings, num_classes = task.config.hat, task.domain_task.num_classes
        self.task, self.settings = task, settings
        self.target = targets.fresh_target(task)
        folds_RL = holdout_folds(task.y_L.numpy(), settings.holdout_fraction, task.seed)
        self.heldout_RL = torch.from_numpy(folds_RL)
        sources = adaptation.with_classes(task.sources, task.label_mask)
        widths, cap = self.target.num_features, task.config.trust.max_source_weight
        self.mixer = Mixer(sources, widths, len(folds_RL), settings, task.seed, cap)
        self.dictionary = KnowledgeDictionary(len(task.x_U), num_classes, settings)
        self.precision_C, self.accuracy = torch.zeros(num_classes), 0.0
        self.x_N = concat([task.x_L, task.x_U])
        # Source encoders are frozen and in eval mode, so their features are computed once.
        self.sources_SLF, self.sources_SUF = adaptation.renormalised_features(
            sources, self.x_N, (task.x_L, task.x_U), compiled=task.compiled
        )
        self.epochs: list[tuple[float, ...]] = []

    def run(self) -> None:
        """Every step of the target, the mixer and the copies of the heads."""
        task, training = self.task, self.task.config.training
        if not (task.compiled and self._run_compiled()):
            targets.train_target(
                self.target,
                self._loss,
                task,
                {"params": self.mixer.own_parameters(), "lr": training.learning_rate},
                {"params": self.mixer.head_parameters(), "lr": training.source_learning_rate},
                before_epoch=self._check_knowledge,
            )
        self._note_epoch()

    def _run_compiled(self) -> bool:
        """What ``run`` does, up to float tolerance; False, with nothing done, where the compiled
        trainer has no form for it."""
        task, config, mixer = self.task, self.task.config.training, self.mixer
        num_rows, labelled = len(self.x_N), len(task.x_L)
        rows_SB, split = joint_batches(labelled, num_rows - labelled, config, task.seed)
        plan = compiled_plan(self.target, self.x_N, rows_SB.shape[1])
        has_form = plan is not None and plan.plan.features == self.target.num_features
        if plan is None or not has_form or mixer.max_source_weight < 1 or labelled == num_rows:
            return False
        per_epoch, num_steps = count_steps(num_rows, config)
        notes_E3 = torch.zeros(math.ceil(num_steps / per_epoch), 3)
        trains_RL = (~self.heldout_RL).float()
        known_SC = mixer.mask_SC.float()
        sources_SNF = torch.cat([self.sources_SLF, self.sources_SUF], dim=1)
        hat = hat_beside(
            settings=self.settings, training=config, sources_SNF=sources_SNF, y_L=task.y_L,
            known_SC=known_SC, trains_RL=trains_RL,
            mixer=(
                mixer.query_RFW, mixer.key_RSFW, mixer.tau_R11, mixer.head_RSFC, mixer.bias_RSC,
            ),
            fused_UC=self.dictionary.fused_UC, quality_U=self.dictionary.quality_U,
            notes_E3=notes_E3, batch=(rows_SB.shape[1], split), epoch=per_epoch,
        )  # fmt: skip
        y_LC = F.one_hot(task.y_L, task.domain_task.num_classes).float()
        objective = Objective(
            wanted_NC=torch.cat([y_LC, torch.zeros_like(self.dictionary.fused_UC)]),
            weight_B=torch.full((rows_SB.shape[1],), 1 / split), labelled=split, hat=hat,
        )  # fmt: skip
        training = CompiledTraining(plan, self.target, self.x_N)
        rates = [config.learning_rate] * num_steps
        training.run(rows_SB, objective, rates, config.weight_decay)
        training.write_back()
        self.accuracy = float(hat.accuracy)
        self.epochs += [(epoch, *note) for epoch, note in enumerate(notes_E3.tolist())]
        return True

    @torch.no_grad()
    def _check_knowledge(self) -> None:
        """Before each epoch: the fused predictor on the rows that a replica did not train on."""
        target_LF = features_in_batches(self.target, self.task.x_L)
        self.target.train()
        fused_RLC, _ = self.mixer(target_LF, self.sources_SLF)
        y_RL = self.task.y_L.expand(len(self.heldout_RL), -1)
        fused_HC, y_H = fused_RLC[self.heldout_RL], y_RL[self.heldout_RL]
        correct = int((fused_HC.argmax(1) == y_H).sum())
        self.precision_C = class_precision(fused_HC, y_H)
        # Smoothed, so that one unlucky row out of three does not stop the injection.
        self.accuracy = (correct + 1) / (len(y_H) + 2)
        self._note_epoch()

    def _note_epoch(self) -> None:
        filled, quality = self.dictionary.filled_fraction, self.dictionary.mean_quality
        self.epochs.append((len(self.epochs), filled, quality, self.accuracy))

    def _loss(self, labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        """L_t + L_mix + L_heads of one batch; the dictionary learns its fused predictions."""
        task, split = self.task, len(labelled_B)
        features_BF = self.target.features(concat([task.x_L[labelled_B], task.x_U[unlabelled_B]]))
        logits_BC = self.target.head(features_BF)
        sources_SLF = self.sources_SLF[:, labelled_B]
        sources_SBF = torch.cat([sources_SLF, self.sources_SUF[:, unlabelled_B]], dim=1)
        fused_RBC, _ = self.mixer(features_BF, sources_SBF)
        injected = self._injected(unlabelled_B, fused_RBC[:, split:], logits_BC[split:])
        y_B, heldout_RB = task.y_L[labelled_B], self.heldout_RL[:, labelled_B]
        return (
            F.cross_entropy(logits_BC[:split], y_B)
            + injected
            + mixer_loss(fused_RBC[:, :split], y_B, heldout_RB)
            + heads_loss(self.mixer.predictions(sources_SLF), y_B, heldout_RB)
        )

    def _injected(self, rows_B: Tensor, fused_RBC: Tensor, logits_BC: Tensor) -> Tensor:
        """alpha times the injection loss of unlabelled rows, after the dictionary's update."""
        fused_BC = fused_RBC.detach().mean(0)
        quality_B = prediction_quality(fused_BC, self.precision_C)
        self.dictionary.update(rows_B, fused_BC, quality_B)
        filled = self.dictionary.filled_fraction
        alpha = injection_strength(self.accuracy, filled, self.settings)
        return alpha * self.dictionary.injection_loss(rows_B, logits_BC)

    @torch.no_grad()
    def diagnostics(self) -> FusionDiagnostics:
        """The spread of each source's weight over all rows, and the dictionary over the epochs."""
        sources_SNF = torch.cat([self.sources_SLF, self.sources_SUF], dim=1)
        _, mixture_RNS = self.mixer(
            features_in_batches(self.target, self.x_N, compiled=self.task.compiled), sources_SNF
        )
        return FusionDiagnostics(
            mixture_SQ=fusion.mixture_spread(mixture_RNS.mean(0).T),
            dictionary_E4=fusion.thinned_epochs(self.epochs),
        )


def fit_hat(task: TrainingTask) -> TrainedModel:
    """Fuse the sources sample by sample and distil the verified predictions into the target."""
    training = _HatTraining(task)
    training.run()
    metrics = {
        "held_out_accuracy": training.accuracy,
        "knowledge_quality": training.dictionary.mean_quality,
        "dictionary_share": training.dictionary.filled_fraction,
    }
    diagnostics = training.diagnostics()
    return targets.trained_target(task, training.target, metrics=metrics, diagnostics=diagnostics)


_hat = partial(
    selected, fit=fit_hat, fit_many=each_compiled(fit_hat), cost=hat_cost, reads=("hat",)
)
METHODS = (
    _hat(name="hat", title="HaT-style"),
    _hat(name="hat-initial", title="HaT-style, initial domains only", initial_only=True),
)
