"""What a device learns from: its own rows and the source models it was sent.

Legend: L labelled, U unlabelled samples, C classes, F features, S sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig
from graft.core.records import BoolArray, FloatArray, FusionDiagnostics, Task
from graft.models import Network


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Source:
    """One source model on the device, exact, in eval mode, with the classes it knows."""

    model_id: str
    domain_id: str
    architecture: str
    network: Network
    mask_C: BoolArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prototypes:
    """One source's class centroids in its own feature space, without the model itself.

    A zero row of ``centroids_CF`` is a class that the source does not know or withholds.
    """

    model_id: str
    domain_id: str
    centroids_CF: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingTask:
    """Everything a method may use on one device; the test block is not in it.

    ``average`` is the average model of the initial domains that have this device's architecture,
    and ``prototypes`` are what a method of reach "centroids" learns from; None and empty where the
    method asks for neither, or the catalogue has none. ``hidden_y_U`` are labels that a real target
    domain does not have: only the all-labels oracle reads them. ``seed`` is the same for every
    method of a domain and round, so that methods are compared from equal starts on equal batches.
    """

    task: Task
    architecture: str
    x_L: Tensor
    y_L: Tensor
    x_U: Tensor
    sources: tuple[Source, ...]
    config: ExpansionConfig
    seed: int
    hidden_y_U: Tensor = field(repr=False)
    average: Source | None = None
    prototypes: tuple[Prototypes, ...] = ()

    @property
    def label_mask(self) -> BoolArray:
        """The classes that the domain has labels for, (C,)."""
        mask_C: BoolArray = np.bincount(self.y_L.numpy(), minlength=self.task.num_classes) > 0
        return mask_C


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainedModel:
    """What a method gives back: a network in eval mode, the classes it knows, figures of its own.

    ``figures`` may hold held_out_accuracy and knowledge_quality (0 to 1) and whatever else
    the method wants in the report. ``diagnostics`` has a row for each of ``used``.
    """

    architecture: str
    network: Network
    mask_C: BoolArray
    used: tuple[Source | Prototypes, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    diagnostics: FusionDiagnostics | None = None


def masked_probabilities(logits_BC: Tensor, mask_C: Tensor) -> Tensor:
    """softmax over the classes that a source knows; zero for the others."""
    return torch.softmax(logits_BC.masked_fill(~mask_C, float("-inf")), dim=-1)


def log_probabilities(logits_NC: Tensor, mask_C: Tensor) -> FloatArray:
    """log softmax over the classes that a source knows, at least log 1e-6: none has a veto."""
    log_NC: FloatArray = masked_probabilities(logits_NC, mask_C).clamp_min(1e-6).log().numpy()
    return log_NC


@torch.no_grad()
def predict_in_batches(network: Network, x: Tensor, batch_size: int = 256) -> Tensor:
    """Logits (N, C) of a network in eval mode."""
    network.eval()
    return torch.cat([network(x[i : i + batch_size]) for i in range(0, len(x), batch_size)])


@torch.no_grad()
def features_in_batches(network: Network, x: Tensor, batch_size: int = 256) -> Tensor:
    """Features (N, F) of a network in eval mode."""
    network.eval()
    parts = [network.features(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    return torch.cat(parts)


def features_of_parts(network: Network, parts: Sequence[Tensor]) -> list[Tensor]:
    """Features of each of several sets of rows, one or more."""
    return [features_in_batches(network, x) for x in parts]
