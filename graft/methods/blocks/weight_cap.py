"""No source has more than its share of what is fused (ours): bounds what one liar can do.

Legend: S sources, T teachers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def cap_weights(share_S: Tensor, cap: float) -> Tensor:
    """Shares (..., S) of which none passes ``cap``; what is cut goes to the others in proportion.

    The sum stays 1. A cap below 1/S counts as 1/S; shares within the cap are returned as they are.
    """
    cap = max(cap, 1 / share_S.shape[-1])
    full_S = torch.zeros_like(share_S, dtype=torch.bool)
    for _ in range(share_S.shape[-1]):
        above_S = (share_S > cap) & ~full_S
        if not bool(above_S.any()):
            break
        full_S = full_S | above_S
        left = 1 - cap * full_S.sum(-1, keepdim=True)
        open_S = share_S.masked_fill(full_S, 0)
        # Where the others have nothing, it is dealt to them evenly.
        open_S = torch.where(open_S.sum(-1, keepdim=True) > 0, open_S, (~full_S).to(share_S.dtype))
        scale = left / open_S.sum(-1, keepdim=True).clamp_min(1e-12)
        capped_S = torch.where(full_S, torch.full_like(share_S, cap), open_S * scale)
        share_S = torch.where(full_S.any(-1, keepdim=True), capped_S, share_S)
    return share_S


def cap_teachers(share_T: Tensor, source_T: Sequence[str], cap: float) -> Tensor:
    """Shares (T,) of teachers, several of one source, with each source's sum capped."""
    names = sorted(set(source_T))
    place_T = torch.tensor([names.index(name) for name in source_T])
    share_S = torch.zeros(len(names)).index_add(0, place_T, share_T)
    scale_S = cap_weights(share_S, cap) / share_S.clamp_min(1e-12)
    return share_T * scale_S[place_T]
