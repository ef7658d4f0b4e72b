"""Which tensors of a network are trained, and adapters in an encoder."""

import re
from fnmatch import fnmatchcase

from torch import nn

from graft.errors import ArchitectureError

_LORA = re.compile(r"lora(\d*)")
_NORMS = (
    nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.LayerNorm,
    nn.GroupNorm, nn.RMSNorm,
)  # fmt: skip


def add_adapters(encoder: nn.Module, parts: tuple[str, ...]) -> None:
    """Put the adapters that ``parts`` name into an encoder.

    Raises ArchitectureError where `peft` is not installed, or there is nothing to adapt.
    """
    rank = next((int(m[1] or 8) for part in parts if (m := _LORA.fullmatch(part))), None)
    if rank is None:
        return
    try:
        import peft
    except ImportError as error:
        raise ArchitectureError(
            "trained: got lora without peft, wanted pip install 'graft-fl[backbones]'"
        ) from error
    linear = [name for name, m in encoder.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ArchitectureError("trained: got lora, wanted an encoder with linear layers")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linear)
    peft.inject_adapter_in_model(config, encoder)


def backbone_name(name: str) -> str:
    """What a backbone calls an encoder's tensor, which an adapter may have wrapped."""
    return name.removeprefix("encoder.").replace(".base_layer.", ".")


def trained_tensors(network: nn.Module, parts: tuple[str, ...]) -> set[str]:
    """Names of the parameters that are trained, and of the buffers that move with them.

    Raises ArchitectureError for a part that is none, or a pattern that no tensor has.
    """
    names = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    trained = {name for name in names if name.startswith("head.")}
    for part in parts:
        if part == "head":
            continue
        if part == "whole":
            return names
        found = _part_tensors(network, part, names)
        if not found:
            raise ArchitectureError(f"trained: got {part!r}, which no tensor is")
        trained |= found
    return trained


def _part_tensors(network: nn.Module, part: str, names: set[str]) -> set[str]:
    if part == "norms":
        norms = [name for name, m in network.named_modules() if isinstance(m, _NORMS)]
        return {name for name in names if name.rpartition(".")[0] in norms}
    if part == "biases":
        return {name for name in names if name.rpartition(".")[2] == "bias"}
    if _LORA.fullmatch(part):
        return {name for name in names if ".lora_" in name}
    return {name for name in names if fnmatchcase(name, part)}
