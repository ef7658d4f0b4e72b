"""What the kind of an output makes of a network's logits: predictions, losses, classes known.

- classes: a softmax, cross-entropy.
- labels: a sigmoid for each, the mean of their binary cross-entropies.
- amount: the logits themselves, the mean squared error.

Legend: N rows, C classes, labels or amounts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.records import BoolArray
from graft.core.tasks import OutputKind
from graft.models import Network


def masked_probabilities(logits_BC: Tensor, mask_C: Tensor) -> Tensor:
    """softmax over the classes that a source knows; zero for the others."""
    return torch.softmax(logits_BC.masked_fill(~mask_C, float("-inf")), dim=-1)


def predictions_of(logits_NC: Tensor, mask_C: Tensor, kind: OutputKind) -> Tensor:
    """Probabilities of classes or of labels, zero where a source knows none; or amounts."""
    if kind == "classes":
        return masked_probabilities(logits_NC, mask_C)
    return torch.sigmoid(logits_NC) * mask_C if kind == "labels" else logits_NC


def output_loss(logits_BC: Tensor, target: Tensor, kind: OutputKind) -> Tensor:
    """The mean loss of rows by their labels, or by soft targets (B, C); 0 for no rows.

    A soft target of classes is a distribution over them.
    """
    if kind == "classes":
        return F.cross_entropy(logits_BC, target)
    if not len(target):
        return 0 * logits_BC.sum()
    if kind == "labels":
        return F.binary_cross_entropy_with_logits(logits_BC, target)
    return F.mse_loss(logits_BC, target)


def known_outputs(y_N: Tensor, num_classes: int, kind: OutputKind) -> BoolArray:
    """The classes that any row has, the labels that any row bears, or every amount, (C,)."""
    if kind == "amount":
        return np.ones(num_classes, np.bool_)
    if kind == "labels":
        some_C: BoolArray = (y_N > 0).any(0).numpy()
        return some_C
    mask_C: BoolArray = np.bincount(y_N.numpy(), minlength=num_classes) > 0
    return mask_C


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Amounts (N, C) in units of the labelled rows: mean 0, deviation 1 (ours).

    A learning rate suits numbers about 1. Without a scale, as for classes and labels, nothing is
    changed.
    """

    mean_C: Tensor | None = None
    scale_C: Tensor | None = None

    @classmethod
    def of(cls, y_L: Tensor, kind: OutputKind) -> "Units":
        """Those of an output's labelled rows."""
        if kind != "amount":
            return cls()
        deviation_C = y_L.std(0, correction=0)
        return cls(y_L.mean(0), torch.where(deviation_C > 0, deviation_C, 1.0))

    def own(self, values_NC: Tensor) -> Tensor:
        """Amounts in these units."""
        if self.mean_C is None or self.scale_C is None:
            return values_NC
        return (values_NC - self.mean_C) / self.scale_C

    def amounts(self, own_NC: Tensor) -> Tensor:
        """What ``own`` was given."""
        if self.mean_C is None or self.scale_C is None:
            return own_NC
        return own_NC * self.scale_C + self.mean_C

    @contextmanager
    def within(self, network: Network) -> Iterator["Units"]:
        """The network gives amounts in these units inside the block, and amounts after it.

        A head that does not end in a linear layer gives amounts throughout: then the block gets
        units that change nothing.
        """
        last = list(network.head.modules())[-1]
        if self.scale_C is None:
            yield self
        elif not isinstance(last, nn.Linear) or last.bias is None:
            yield Units()
        else:
            with torch.no_grad():
                last.bias.copy_(self.own(last.bias))
                last.weight.div_(self.scale_C[:, None])
            try:
                yield self
            finally:
                self.begin(network)

    @torch.no_grad()
    def begin(self, network: Network) -> None:
        """Let a network that gives amounts in these units give amounts."""
        last = list(network.head.modules())[-1]
        if self.scale_C is not None and isinstance(last, nn.Linear) and last.bias is not None:
            last.bias.copy_(self.amounts(last.bias))
            last.weight.mul_(self.scale_C[:, None])
