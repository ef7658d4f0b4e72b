"""Models of other libraries as architectures: "timm:NAME", "torchvision:NAME", and
"transformers:FOLDER", whose folder is local. Nothing is ever downloaded.

Behind a "+" stands what is trained beside the head: "transformers:my-vit+lora". Weights that lie
in a transformers folder are its backbone; without them the whole model is trained.
"""

import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graft.errors import ArchitectureError
from graft.models.backbones import Backbone, Preprocess, Preprocessing

_WEIGHTS = "model.safetensors"


def library_architecture(name: str) -> dict[str, Any]:
    """What ``Architecture`` needs for a library's model; raises ArchitectureError."""
    library, _, rest = name.partition(":")
    model, *parts = rest.split("+")
    found = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}[library](
        model
    )
    return {**found, "trained": tuple(parts)} if parts else found


def _library(name: str, wanted_by: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision beside another torch
        told = str(error).splitlines()[0]
        raise ArchitectureError(
            f"architecture {name}:{wanted_by}: got {type(error).__name__}: {told}, "
            f"wanted {name} installed beside this torch"
        ) from error


def _timm(model: str) -> dict[str, Any]:
    timm = _library("timm", model)

    def encoder(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        network = timm.create_model(model, pretrained=False, num_classes=0, in_chans=shape[0])
        return network, network.num_features

    return {"takes": "image", "encoder": encoder}


def _torchvision(model: str) -> dict[str, Any]:
    torchvision = _library("torchvision", model)

    def encoder(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        network = torchvision.models.get_model(model, weights=None)
        name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
        network.set_submodule(name, nn.Identity())
        grey = Preprocess(Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3))
        return nn.Sequential(grey, network), last.in_features

    return {"takes": "image", "encoder": encoder}


class Pretrained(nn.Module):
    """A transformers model as an encoder of images, token ids or text."""

    takes_bytes = True

    def __init__(self, model: Any, folder: Path, preprocess: nn.Module, *, is_text: bool) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess
        self._folder, self._is_text = folder, is_text
        self._tokenizer: Any = None

    def forward(self, x: Tensor) -> Any:
        if not self._is_text:
            out = self.model(pixel_values=self.preprocess(x))
            pooled = getattr(out, "pooler_output", None)
            if pooled is not None and pooled.ndim == 4:
                return pooled.flatten(1)
            return out.last_hidden_state[:, 0]
        ids, mask = self._tokens(x)
        hidden_BTF = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight_BT1 = mask[..., None].to(hidden_BTF.dtype)
        return (hidden_BTF * weight_BT1).sum(1) / weight_BT1.sum(1).clamp_min(1)

    def _tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids and mask; text is UTF-8 bytes with zeros behind."""
        if x.dtype != torch.uint8 or x.device.type == "meta":
            return x.long(), (x != 0).long()
        if self._tokenizer is None:
            auto = _library("transformers", str(self._folder)).AutoTokenizer
            self._tokenizer = auto.from_pretrained(self._folder, local_files_only=True)
        texts = [bytes(row).rstrip(b"\0").decode("utf-8", "replace") for row in x.cpu().numpy()]
        longest = min(getattr(self.model.config, "max_position_embeddings", 512), 256)
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        return tokens["input_ids"].to(x.device), tokens["attention_mask"].to(x.device)


def _transformers(folder_name: str) -> dict[str, Any]:
    transformers = _library("transformers", folder_name)
    folder = _find_folder(folder_name)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        told = str(error).splitlines()[0]
        raise ArchitectureError(f"transformers folder {folder_name}: {told:.200}") from error
    is_text = hasattr(config, "vocab_size")
    wanted = _preprocessing(folder)

    def encoder(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        model = transformers.AutoModel.from_config(config)
        if getattr(model, "pooler", None) is not None and any(model.pooler.parameters()):
            model.pooler = None  # many folders have no weights of it
        width = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
        return Pretrained(model, folder, Preprocess(wanted), is_text=is_text), width

    if not (folder / _WEIGHTS).exists():
        return {"takes": "tokens" if is_text else "image", "encoder": encoder}

    def weights() -> Mapping[str, Tensor]:
        module, _ = encoder(())
        return _renamed(_read_weights(folder), module)

    backbone = Backbone(
        name=Path(folder_name).name, licence=_licence(folder), preprocessing=wanted,
        weights=weights,
    )  # fmt: skip
    kind = "tokens" if is_text else "image"
    return {"takes": kind, "encoder": encoder, "backbone": backbone}


def _find_folder(name: str) -> Path:
    """A folder found as a module is: beside the script or on PYTHONPATH, or as a path."""
    for place in ("", *sys.path):
        folder = Path(place) / name
        if (folder / "config.json").exists():
            return folder.absolute()
    raise ArchitectureError(
        f"architecture transformers:{name}: got no folder of that name with a config.json, wanted "
        "one that is a path, beside the script or on PYTHONPATH"
    )


def _preprocessing(folder: Path) -> Preprocessing:
    try:
        text = (folder / "preprocessor_config.json").read_text("utf-8")
    except FileNotFoundError:
        return Preprocessing()
    table = json.loads(text)
    size = table.get("size", 224)
    if isinstance(size, dict):
        size = (
            size.get("height", size.get("shortest_edge")),
            size.get("width", size.get("shortest_edge")),
        )
    size = (size, size) if isinstance(size, int) else tuple(size)
    mean, std = (tuple(table.get(f"image_{key}", ())) for key in ("mean", "std"))
    return Preprocessing(size=size, mean=mean or (0.5,) * 3, std=std or (0.5,) * 3)


def _read_weights(folder: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file  # transformers needs it

    return load_file(folder / _WEIGHTS)


def _renamed(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The file's tensors by the encoder's names: a task's model calls its encoder by a prefix."""
    wanted = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
    prefixes = ("", *{f"{name.partition('.')[0]}." for name in weights})
    found: dict[str, Tensor] = {}
    for name in wanted:
        own = name.removeprefix("model.")
        match = next((prefix + own for prefix in prefixes if prefix + own in weights), None)
        if match is None:
            raise ArchitectureError(f"transformers folder: got no tensor {own!r} in its weights")
        found[name] = weights[match]
    return found


def _licence(folder: Path) -> str:
    """What the folder's README says in its front matter."""
    try:
        text = (folder / "README.md").read_text("utf-8", "replace")
    except FileNotFoundError:
        return "unknown"
    match = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
    return match[1] if match else "unknown"
