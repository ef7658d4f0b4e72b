"""Backbones: public weights that an encoder starts from, the same for all, and never trained.

A backbone is named by the SHA-256 of its tensors' payload (``graft.core.payload``). A machine that
has it, by an installed package, a local file or its cache, is sent nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.core.payload import decode_payload, write_payload
from graft.core.records import BFLOAT16, Parameters
from graft.errors import BackboneError

PREFIX = "backbone:"
Weights = Mapping[str, Tensor]
_held: dict[str, Weights] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """What a backbone wants of an image: its size in pixels, and each channel's mean and deviation
    (of values 0 to 1)."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """Images (B, 1 or 3, H, W), uint8 or floats 0 to 1, as a backbone wants them."""

    takes_bytes = True

    def __init__(self, wanted: Preprocessing) -> None:
        super().__init__()
        self.wanted = wanted

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        wanted = self.wanted
        if x.shape[1] == 1:
            x = x.expand(-1, len(wanted.mean), -1, -1)
        if wanted.size is not None and tuple(x.shape[2:]) != wanted.size:
            x = F.interpolate(x, wanted.size, mode="bilinear", antialias=x.device.type != "meta")
        mean = torch.tensor(wanted.mean, device=x.device)[:, None, None]
        return (x - mean) / torch.tensor(wanted.std, device=x.device)[:, None, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """Public weights under a name.

    Parameters
    ----------
    name : str
        What people call them.
    licence : str
        Under which they may be used.
    sha256 : str, optional
        Of the tensors' payload (``backbone_hash``). Without it a machine trusts the weights that
        it has, and cannot be sent them.
    preprocessing : Preprocessing or str, optional
        What the encoder does to its input before the weights, for people to read.
    weights : callable, optional
        Gives the encoder's ``state_dict`` from an installed package or a local file; FileNotFound
        or ImportError where this machine has neither.
    """

    name: str
    licence: str
    sha256: str | None = None
    preprocessing: Preprocessing | str = ""
    weights: Callable[[], Weights] | None = None


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)

    def flush(self) -> None:
        pass


def backbone_hash(name: str, weights: Weights) -> str:
    """The SHA-256 that names a backbone."""
    sink: Any = _Nowhere()
    return write_payload(PREFIX + name, arrays_of(weights), sink).model_id


def find_backbone(backbone: Backbone, folder: Path | None = None) -> Weights | None:
    """A backbone's tensors, where this machine has them; None where it does not.

    ``folder``: a device's cache. Raises BackboneError where the weights have another hash.
    """
    key = backbone.sha256 or f"{PREFIX}{backbone.name}"
    if key not in _held:
        weights = _local_weights(backbone, folder)
        if weights is None:
            return None
        hold_backbone(backbone, weights)
    return _held[key]


def hold_backbone(backbone: Backbone, weights: Weights) -> None:
    """Keep a backbone in this process; raises BackboneError for another hash than it says."""
    if backbone.sha256 is not None:
        got = backbone_hash(backbone.name, weights)
        if got != backbone.sha256:
            raise BackboneError(
                f"backbone {backbone.name}: got weights of SHA-256 {got}, wanted {backbone.sha256}"
            )
    _held[backbone.sha256 or f"{PREFIX}{backbone.name}"] = dict(weights)


def require_backbone(backbone: Backbone, device: str = "cpu") -> Weights:
    """A backbone's tensors on a torch device, once for all networks; raises BackboneError where
    this machine does not have them."""
    weights = find_backbone(backbone)
    if weights is None:
        raise BackboneError(
            f"backbone {backbone.name}: got no weights on this machine, wanted its package, its "
            "file or a depot that has it"
        )
    if device == "cpu":
        return weights
    key = f"{device} {backbone.sha256 or PREFIX + backbone.name}"
    if key not in _held:
        _held[key] = {name: tensor.to(device) for name, tensor in weights.items()}
    return _held[key]


def backbone_key(backbone: Backbone) -> str:
    """The hash that features and caches are kept under."""
    if backbone.sha256 is not None:
        return backbone.sha256
    return backbone_hash(backbone.name, require_backbone(backbone))


def _local_weights(backbone: Backbone, folder: Path | None) -> Weights | None:
    if backbone.weights is not None:
        try:
            return {name: tensor.detach() for name, tensor in backbone.weights().items()}
        except (FileNotFoundError, ImportError):
            pass  # not on this machine
    path = None if folder is None else folder / f"{backbone.sha256}.safetensors"
    if path is None or not path.exists():
        return None
    return tensors_of(decode_payload(path.read_bytes(), None, backbone.sha256)[1])


def arrays_of(tensors: Weights) -> dict[str, Any]:
    """Tensors as the arrays of a payload, float64 as float32; no copy of what is on the CPU."""
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _array(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(BFLOAT16)
    return (tensor.float() if tensor.dtype == torch.float64 else tensor).numpy()


def tensors_of(parameters: Parameters) -> dict[str, Tensor]:
    """The tensors of a payload's arrays, which share their memory."""

    def tensor(array: Any) -> Tensor:
        array = array if array.flags.writeable else array.copy()
        if array.dtype == BFLOAT16:
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    return {name: tensor(np.asarray(array)) for name, array in parameters.items()}
