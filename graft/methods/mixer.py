"""The attention mixer (A3, ours): each sample weighs the sources by feature similarity.

Quality must be measured on labelled rows that the mixer did not train on (A4), so there are R
replicas of mixer and source heads, one a fold; replica r never trains on the rows of fold r.

Legend: R replicas, B samples, S sources, C classes, F features, W mixer width.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from graft.config import FusionConfig
from graft.seeding import stream
from graft.training import Source, masked_probabilities
from graft.values import BoolArray, IntArray


def holdout_folds(y_L: IntArray, num_classes: int, share: float, seed: int) -> BoolArray:
    """Which labelled rows each replica keeps out of its training: (R, L).

    One fold of ``share`` of L, at least one row per class that has two, where n_L >= 2C;
    leave-one-out below that.
    """
    if len(y_L) < 2 * num_classes:
        return np.eye(len(y_L), dtype=np.bool_)
    held_L = np.zeros(len(y_L), np.bool_)
    random = stream("holdout", seed)
    for label in np.unique(y_L):
        rows = random.permutation(np.flatnonzero(y_L == label))
        wanted = max(1, round(share * len(rows)))
        held_L[rows[: min(wanted, len(rows) - 1)]] = True
    return held_L[None]


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
        config: FusionConfig,
        seed: int,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def projection(num_features: int) -> nn.Parameter:
            bound = 1 / math.sqrt(num_features)
            plain_FW = torch.empty(num_features, config.mixer_width)
            plain_FW.uniform_(-bound, bound, generator=generator)
            return nn.Parameter(plain_FW.repeat(num_replicas, 1, 1))

        def replicate(tensor: Tensor) -> nn.Parameter:
            return nn.Parameter(tensor.detach().repeat(num_replicas, *[1] * tensor.dim()))

        self.query = projection(target_features)
        self.keys = nn.ParameterList([projection(s.network.num_features) for s in sources])
        self.tau = nn.Parameter(torch.full((num_replicas, 1, 1), config.mixer_temperature))
        self.head_maps = nn.ParameterList([replicate(s.network.head.weight.T) for s in sources])
        self.head_biases = nn.ParameterList([replicate(s.network.head.bias) for s in sources])
        self.masks = [torch.from_numpy(s.mask_C) for s in sources]

    def own_parameters(self) -> list[nn.Parameter]:
        """What the mixer brings itself: projections and temperature."""
        return [self.query, *self.keys, self.tau]

    def head_parameters(self) -> list[nn.Parameter]:
        """The trainable copies of the source heads."""
        return [*self.head_maps, *self.head_biases]

    def forward(self, target_BF: Tensor, sources_SBF: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Fused probabilities (R, B, C) and the mixture (R, B, S); no gradient into f_t."""
        query_RBW = nn.functional.normalize(target_BF.detach() @ self.query, dim=-1)
        keys = [
            nn.functional.normalize(features_BF @ key, dim=-1)
            for features_BF, key in zip(sources_SBF, self.keys, strict=True)
        ]
        cosine_RBS = torch.stack([(query_RBW * key_RBW).sum(-1) for key_RBW in keys], dim=-1)
        mixture_RBS = torch.softmax(self.tau * cosine_RBS, dim=-1)
        predictions_RBSC = torch.stack(
            [
                masked_probabilities(features_BF @ head + bias[:, None], mask_C)
                for features_BF, head, bias, mask_C in zip(
                    sources_SBF, self.head_maps, self.head_biases, self.masks, strict=True
                )
            ],
            dim=2,
        )
        fused_RBC = torch.einsum("rbs,rbsc->rbc", mixture_RBS, predictions_RBSC)
        return fused_RBC, mixture_RBS


def mixer_loss(fused_RBC: Tensor, y_B: Tensor, held_RB: Tensor) -> Tensor:
    """L_mix = -mean over the rows a replica trains on of log p_i[y_i]; summed over replicas."""
    picked_RB = fused_RBC.gather(2, y_B.expand(len(fused_RBC), -1)[..., None])[..., 0]
    loss_RB = -picked_RB.clamp_min(1e-6).log() * ~held_RB
    return (loss_RB.sum(1) / (~held_RB).sum(1).clamp_min(1)).sum()
