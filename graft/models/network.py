"""A network and its parameters: an encoder, which gives one feature vector a sample, and a head.

Only an architecture's name and its tensors ever travel; code never does.

Legend: B samples a batch, C classes, F features.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graft.core.streams import Rows, Streams
from graft.models.backbones import Backbone
from graft.models.placement import PLAIN, Placement
from graft.models.registry import Architecture
from graft.models.trained import trained_tensors


class Features(Tensor):
    """Rows that a frozen encoder has read already: a network with that encoder skips it.

    What is indexed or joined from such rows is such rows too.
    """


class Network(nn.Module):
    """An encoder and a head.

    Parameters
    ----------
    encoder
        Gives features (B, F) of samples (B, *sample_shape).
    num_features
        F.
    num_classes
        C, the head's outputs.
    stream
        The one stream that the encoder reads, out of rows that may have several.
    head
        From F and C to the module that gives logits (B, C).

    Attributes
    ----------
    travelling : tuple of str
        The tensors that a payload holds.
    backbone : Backbone or None
        The public weights that the encoder starts from.
    is_delta : bool
        Whether a payload holds the encoder's difference from them.
    placement : Placement
        Where the encoder computes, and in which precision.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_features: int,
        num_classes: int,
        stream: str | None = None,
        head: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        self.stream = stream
        self.encoder = encoder
        self.head: Any = head(num_features, num_classes)
        self.num_features = num_features
        self.num_classes = num_classes
        self.backbone: Backbone | None = None
        self.is_delta = False
        self.placement: Placement = PLAIN
        self._resting: list[nn.Module] = []
        self._names: tuple[str, ...] | None = None

    def features(self, x: Rows) -> Tensor:
        """(B, *sample_shape), or streams of B rows -> (B, F)."""
        if isinstance(x, Features):
            return x.as_subclass(Tensor)
        if isinstance(x, Streams) and self.stream is not None:
            x = x[self.stream]
        if not self.placement.is_plain:
            return self.placement.features(self.encoder, x)
        features_BF: Tensor = self.encoder(x)
        return features_BF if features_BF.dtype == torch.float32 else features_BF.float()

    def forward(self, x: Rows) -> Tensor:
        """(B, *sample_shape), or streams of B rows -> logits (B, C)."""
        logits_BC: Tensor = self.head(self.features(x))
        return logits_BC

    @property
    def travelling(self) -> tuple[str, ...]:
        if self._names is None:
            return tuple(n for n in self.state_dict() if not n.endswith("num_batches_tracked"))
        return self._names

    @property
    def has_frozen_encoder(self) -> bool:
        """Whether nothing of the encoder is trained, so that its features never change."""
        return any(module is self.encoder for module in self._resting)

    def place(self, where: Placement) -> "Network":
        """The network itself, whose encoder computes there from now on."""
        if where.accelerator != "cpu" or self.placement.accelerator != "cpu":
            self.encoder.to(where.accelerator)
        self.placement = where
        return self

    def moving_norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        """The batch norms whose statistics are the model's own, not its backbone's."""
        travelling = set(self.travelling)
        return [
            module
            for name, module in self.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and (f"{name}.running_mean" in travelling or module.running_mean is None)
        ]

    def restrict(self, architecture: Architecture) -> None:
        """Train what the architecture says, and nothing else."""
        parts = architecture.trained_parts
        self.backbone, self.is_delta = architecture.backbone, False
        if "whole" in parts:
            self.is_delta = self.backbone is not None
            return
        trained = trained_tensors(self, parts)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trained)
        if self.backbone is not None:
            self._names = tuple(
                n for n in self.state_dict()
                if n in trained and not n.endswith("num_batches_tracked")
            )  # fmt: skip

        def rests(prefix: str, module: nn.Module) -> bool:
            return not any(name.startswith(prefix) for name in trained)

        # Batch norm and dropout of what is not trained stay as they are in evaluation.
        frozen = {
            module
            for name, module in self.encoder.named_modules(prefix="encoder")
            if rests(f"{name}.", module) and (module is self.encoder or any(module.state_dict()))
        }
        self._resting = list(frozen)

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        for module in self._resting:
            module.train(False)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        """A copy that shares a backbone's tensors, which nothing changes."""
        if self.backbone is not None and self._names is not None:
            travelling = set(self._names)
            for name, tensor in (*self.named_parameters(), *self.named_buffers()):
                if name not in travelling:
                    memo[id(tensor)] = tensor
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin
