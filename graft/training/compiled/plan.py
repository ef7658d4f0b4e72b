"""A network as the compiled trainer sees it: its blocks, and where each tensor lies."""

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.models import Network
from graft.models.encoders import MeanPool, Outline
from graft.training.stacked import ROWS_AT_ONCE, stages_of

_UNIT = 16  # floats: every width is padded to whole vectors
_MAX_BLOCKS = 8


class _Block(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "inputs", "outputs", "height", "width", "kernel_h", "kernel_w", "stride_h", "stride_w",
            "pad_h", "pad_w", "out_h", "out_w",
        )
    ]  # fmt: skip


class _Plan(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "batch", "dense", "num_blocks", "gru_width", "features", "classes", "class_lanes",
        )
    ] + [("blocks", _Block * _MAX_BLOCKS)]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """A tensor's place in a flat buffer: axes in ``order``, each padded with zeros to ``shape``."""

    name: str
    order: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KernelPlan:
    """What the compiled trainer must know of one architecture at one batch size."""

    plan: _Plan
    parameters: tuple[_Slot, ...]
    statistics: tuple[_Slot, ...]
    first: nn.Module

    def of_batch(self, batch: int) -> "KernelPlan":
        """The same network at another batch size."""
        plan = _Plan.from_buffer_copy(self.plan)
        plan.batch = batch
        if plan.dense:  # a line of ``batch`` positions
            for block in plan.blocks[: plan.num_blocks]:
                block.width = block.out_w = batch
        return replace(self, plan=plan)

    @property
    def layout(self) -> tuple[object, ...]:
        """Networks of one layout read the same ``rows``."""
        block = self.plan.blocks[0]
        return bool(self.plan.dense), type(self.first), block.pad_h, block.pad_w

    @property
    def pieces(self) -> int:
        """The outline's pieces, 0 where the network reads none."""
        return Outline.pieces if isinstance(self.first, Outline) else 0

    def rows(self, x: Tensor, *, augmented: bool = False) -> Tensor:
        """Samples as the first block reads them: dense rows, or padded and channels-last. Dense
        rows that are still to be augmented stay samples."""
        if self.plan.dense and augmented:
            return x.contiguous()
        if self.plan.dense:
            return torch.cat([self.first(part) for part in torch.split(x, ROWS_AT_ONCE)])
        block = self.plan.blocks[0]
        pads = [block.pad_w, block.pad_w, block.pad_h, block.pad_h]
        return F.pad(x, pads[: 2 * (x.ndim - 2)]).movedim(1, -1).contiguous()


def kernel_plan(network: Network, sample_shape: tuple[int, ...], batch: int) -> KernelPlan | None:
    """The plan of a network, or None where the compiled trainer has no form for it."""
    stages = stages_of(network)
    if stages is None or not network.placement.is_plain:
        return None
    modules = [module for _, module in stages]
    dense = isinstance(modules[0], nn.Flatten | Outline)
    blocks = stages[1:-1] if dense else stages[:-1]
    gru = modules[-2] if isinstance(modules[-2], nn.GRU) else None
    if not dense:
        if gru is None and not isinstance(modules[-2], MeanPool):
            return None
        blocks = blocks[:-1]
    triples = [blocks[i : i + 3] for i in range(0, len(blocks), 3)]
    if not 1 <= len(triples) <= _MAX_BLOCKS or not all(_is_block(t, dense) for t in triples):
        return None
    if gru is not None and (gru.hidden_size % _UNIT or len(sample_shape) != 2):
        return None
    parameters: list[_Slot] = []
    statistics: list[_Slot] = []
    found: list[_Block] = []
    shape = sample_shape
    for (name, module), (norm, _), _ in triples:
        block, slot = _block(name, module, shape, batch, found[-1].outputs if found else None)
        vector = (int(block.outputs),)
        parameters += [slot, *(_vector(f"{norm}.{part}", vector) for part in ("weight", "bias"))]
        statistics += [_vector(f"{norm}.running_{part}", vector) for part in ("mean", "var")]
        shape = (block.outputs, *((block.out_h, block.out_w)[3 - len(shape) :]))
        found.append(block)
    if math.prod(shape[1:]) * batch < 2:
        return None
    width = int(found[-1].outputs)
    if gru is not None:
        parameters += _gru_slots(stages[-2][0], width, gru.hidden_size)
        width = gru.hidden_size
    lanes = padded(network.num_classes)
    parameters += [
        _Slot(name="head.weight", order=(1, 0), shape=(width, lanes)),
        _vector("head.bias", (lanes,)),
    ]
    plan = _Plan(
        batch=batch, dense=dense, num_blocks=len(found),
        gru_width=0 if gru is None else gru.hidden_size, features=width,
        classes=network.num_classes, class_lanes=lanes,
        blocks=(_Block * _MAX_BLOCKS)(*found),
    )  # fmt: skip
    return KernelPlan(
        plan=plan, parameters=tuple(parameters), statistics=tuple(statistics), first=modules[0]
    )


def padded(count: int) -> int:
    """The least whole number of units."""
    return math.ceil(count / _UNIT) * _UNIT


def _vector(name: str, shape: tuple[int, ...]) -> _Slot:
    return _Slot(name=name, order=(0,), shape=shape)


def _is_block(triple: list[tuple[str, nn.Module]], dense: bool) -> bool:
    if len(triple) != 3:
        return False
    (_, first), (_, norm), (_, last) = triple
    wanted = nn.Linear if dense else nn.Conv1d | nn.Conv2d
    return (
        isinstance(first, wanted)
        and first.bias is None
        and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        and (norm.eps, norm.momentum) == (1e-5, 0.1)
        and isinstance(last, nn.ReLU)
    )


def _block(
    name: str, module: nn.Module, shape: tuple[int, ...], batch: int, inputs: int | None
) -> tuple[_Block, _Slot]:
    """One block over samples of this shape; a dense one is a line of ``batch`` positions."""
    if isinstance(module, nn.Linear):
        wide, outputs = inputs or module.in_features, padded(module.out_features)
        block = _Block(wide, outputs, 1, batch, 1, 1, 1, 1, 0, 0, 1, batch)
        return block, _Slot(name=f"{name}.weight", order=(1, 0), shape=(wide, outputs))
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    wide, outputs = inputs or module.in_channels, padded(module.out_channels)
    ones, zeros = (1,) * (3 - len(shape)), (0,) * (3 - len(shape))
    size = ones + tuple(shape[1:])
    kernel, stride = ones + tuple(module.kernel_size), ones + tuple(module.stride)
    assert not isinstance(module.padding, str)
    pad = zeros + tuple(module.padding)
    out = [(size[i] + 2 * pad[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    block = _Block(wide, outputs, *size, *kernel, *stride, *pad, *out)
    order = (2, 1, 0) if len(shape) == 2 else (2, 3, 1, 0)
    slot = _Slot(name=f"{name}.weight", order=order, shape=(*module.kernel_size, wide, outputs))
    return block, slot


def _gru_slots(name: str, inputs: int, width: int) -> list[_Slot]:
    return [
        _Slot(name=f"{name}.weight_ih_l0", order=(1, 0), shape=(inputs, 3 * width)),
        _Slot(name=f"{name}.weight_hh_l0", order=(1, 0), shape=(width, 3 * width)),
        _vector(f"{name}.bias_ih_l0", (3 * width,)),
        _vector(f"{name}.bias_hh_l0", (3 * width,)),
    ]


def gather(slots: tuple[_Slot, ...], state: dict[str, Tensor]) -> Tensor:
    """The tensors of a network's state as one flat buffer."""
    flat = torch.zeros(sum(math.prod(slot.shape) for slot in slots))
    for slot, tensor in views(slots, flat, state):
        tensor.copy_(state[slot.name].detach())
    return flat


def views(
    slots: tuple[_Slot, ...], flat: Tensor, state: dict[str, Tensor]
) -> Iterator[tuple[_Slot, Tensor]]:
    """Each slot with its part of the buffer, seen in the tensor's own shape and axes."""
    at = 0
    for slot in slots:
        whole = flat[at : at + math.prod(slot.shape)].view(slot.shape)
        at += whole.numel()
        permuted = state[slot.name].permute(slot.order)
        inner = whole[tuple(slice(0, size) for size in permuted.shape)]
        back = sorted(range(len(slot.order)), key=slot.order.__getitem__)
        yield slot, inner.permute(back)
