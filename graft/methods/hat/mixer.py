"""The attention mixer (A3, ours): each sample weighs the sources by feature similarity.

Quality must be measured on labelled rows that the mixer did not train on (A4), so there are R
replicas of mixer and source heads, one a fold; replica r never trains on the rows of fold r.

Legend: R replicas, B samples, N rows, S sources, C classes, F features, W mixer width.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from graft.core.config import HatConfig
from graft.core.records import BoolArray, IntArray
from graft.core.seeding import stream
from graft.methods.blocks.adaptation import head_width, stack_heads, stack_padded
from graft.methods.blocks.fusion import cap_weights
from graft.training import Source, masked_probabilities


def holdout_folds(y_L: IntArray, fraction: float, seed: int) -> BoolArray:
    """Which labelled rows each replica keeps out of its training: (R, L).

    Every row is held out once, in 1/fraction folds with each class spread evenly over them:
    quality is measured on all of L, and the replicas' mean has learnt from all of it.
    """
    num_folds = min(len(y_L), round(1 / fraction))
    shuffled_L = stream("holdout", seed).permutation(len(y_L))
    by_class_L = shuffled_L[np.argsort(y_L[shuffled_L], kind="stable")]
    fold_L = np.empty(len(y_L), np.int64)
    fold_L[by_class_L] = np.arange(len(y_L)) % num_folds
    folds_RL: BoolArray = fold_L == np.arange(num_folds)[:, None]
    return folds_RL


class Mixer(nn.Module):
    """w_i = softmax_s(tau cos(q_i, k_is)); p_i[c] ~ sum_s w_is m_s[c] softmax(h_s(f_s(x_i)))[c].

    q_i = W_q sg(f_t(x_i)) and k_is = W_s f_s(x_i), both W wide; tau is learnable. The source
    heads h_s are trainable copies (partially frozen sources, A6).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        target_features: int,
        num_replicas: int,
        config: HatConfig,
        seed: int,
        max_source_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_source_weight = max_source_weight
        generator = torch.Generator().manual_seed(seed)

        def projection(num_features: int) -> Tensor:
            plain_FW = torch.empty(num_features, config.mixer_width)
            bound = 1 / math.sqrt(num_features)
            return plain_FW.uniform_(-bound, bound, generator=generator)

        def replicate(tensor: Tensor) -> nn.Parameter:
            return nn.Parameter(tensor.detach().repeat(num_replicas, *[1] * tensor.dim()))

        self.query_RFW = replicate(projection(target_features))
        key_SWF = stack_padded([projection(head_width(s.network)).T for s in sources])
        self.key_RSFW = replicate(key_SWF.transpose(1, 2).contiguous())
        self.tau_R11 = replicate(torch.full((1, 1), config.mixer_temperature))
        weight_SFC, bias_SC = stack_heads(sources)
        self.head_RSFC, self.bias_RSC = replicate(weight_SFC), replicate(bias_SC)
        self.mask_SC = torch.from_numpy(np.stack([s.mask_C for s in sources]))

    def own_parameters(self) -> list[nn.Parameter]:
        """What the mixer brings itself: projections and temperature."""
        return [self.query_RFW, self.key_RSFW, self.tau_R11]

    def head_parameters(self) -> list[nn.Parameter]:
        """The trainable copies of the source heads."""
        return [self.head_RSFC, self.bias_RSC]

    def forward(self, target_BF: Tensor, sources_SBF: Tensor) -> tuple[Tensor, Tensor]:
        """Fused probabilities (R, B, C) and the mixture (R, B, S); no gradient into f_t."""
        query_RBW = nn.functional.normalize(target_BF.detach() @ self.query_RFW, dim=-1)
        key_RSBW = nn.functional.normalize(sources_SBF @ self.key_RSFW, dim=-1)
        cosine_RBS = torch.einsum("rbw,rsbw->rbs", query_RBW, key_RSBW)
        mixture_RBS = torch.softmax(self.tau_R11 * cosine_RBS, dim=-1)
        if self.max_source_weight < 1:
            mixture_RBS = cap_weights(mixture_RBS, self.max_source_weight)
        predictions_RSBC = self.predictions(sources_SBF)
        return torch.einsum("rbs,rsbc->rbc", mixture_RBS, predictions_RSBC), mixture_RBS

    def predictions(self, sources_SBF: Tensor) -> Tensor:
        """Each source's own probabilities (R, S, B, C), by its trainable head."""
        logits_RSBC = sources_SBF @ self.head_RSFC + self.bias_RSC[:, :, None]
        return masked_probabilities(logits_RSBC, self.mask_SC[:, None])


def mixer_loss(fused_RBC: Tensor, y_B: Tensor, heldout_RB: Tensor) -> Tensor:
    """L_mix = -mean over the rows a replica trains on of log p_i[y_i]; summed over replicas."""
    picked_RB = fused_RBC.gather(2, y_B.expand(len(fused_RBC), -1)[..., None])[..., 0]
    loss_RB = -picked_RB.clamp_min(1e-6).log() * ~heldout_RB
    return (loss_RB.sum(1) / (~heldout_RB).sum(1).clamp_min(1)).sum()


def heads_loss(predictions_RSBC: Tensor, y_B: Tensor, heldout_RB: Tensor) -> Tensor:
    """L_heads: the mixer's loss of every source by itself, mean over the sources.

    Through the mixture alone, a head would learn only what the other sources do not explain.
    """
    num_sources = predictions_RSBC.shape[1]
    heldout_RSB = heldout_RB[:, None].expand(-1, num_sources, -1)
    return mixer_loss(predictions_RSBC.flatten(0, 1), y_B, heldout_RSB.flatten(0, 1)) / num_sources
