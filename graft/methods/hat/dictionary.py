"""The quality-verified knowledge dictionary (A4) and the injection strength (A5), ours.

Legend: U unlabelled samples, B a batch of them, H held-out labelled rows, C classes.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import HatConfig
from graft.methods.blocks.fusion import sharpened


class KnowledgeDictionary:
    """Sample -> (fused prediction, quality), for the samples of sufficient quality."""

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
        wanted_BC = sharpened(self.fused_UC[rows_B], self.config.knowledge_temperature)
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
    """alpha = alpha_max (fused held-out accuracy) (|dictionary| / |U|)."""
    return config.max_injection * held_out_accuracy * filled_fraction
