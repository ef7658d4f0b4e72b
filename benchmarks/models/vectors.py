"""What is trained on a frozen backbone's features: architectures whose samples are vectors.

Every tensor of them travels, and none of the backbone's. A vector of F numbers is a window
(F / 32, 32).

Legend: F features.
"""

import math
from functools import partial

from torch import nn

from graft.models.registry import Architecture


def _norm(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """The features, normalised; the head is all that is trained besides."""
    size = math.prod(shape)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size)), size


def _narrow(shape: tuple[int, ...], width: int) -> tuple[nn.Module, int]:
    """The features, normalised, and a layer of ``width`` before the head."""
    size = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(),
        nn.BatchNorm1d(size),
        nn.Linear(size, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
    ), width


def _layer(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Each vector brought to mean 0 and deviation 1; the head alone is trained."""
    size = math.prod(shape)
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(size, elementwise_affine=False)), size


def _adapter(shape: tuple[int, ...], width: int) -> tuple[nn.Module, int]:
    """The same, and a layer of ``width`` before the head."""
    size = math.prod(shape)
    return nn.Sequential(
        nn.Flatten(),
        nn.LayerNorm(size, elementwise_affine=False),
        nn.Linear(size, width, bias=False),
        nn.LayerNorm(width),
        nn.ReLU(),
    ), width


LAYER = Architecture(name="layer-head", takes="windows", encoder=_layer)
ADAPTER = Architecture(name="layer-64", takes="windows", encoder=partial(_adapter, width=64))
NORM = Architecture(name="norm-head", takes="windows", encoder=_norm)
NARROW = Architecture(name="norm-32", takes="windows", encoder=partial(_narrow, width=32))
REFERENCES = ("vectors:NORM", "vectors:NARROW")
