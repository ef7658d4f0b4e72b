"""An accelerator for machines without one: tensors on "cpu:1" may not meet those on "cpu".

Torch computes both on the processor. What CUDA refuses is refused here too: an operation on tensors
of two places, and a NumPy array of a tensor that is not on the processor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME = "cpu:1"
# Their index may be on the processor; and copies cross.
_CROSSING = ("aten.copy_", "aten._to_copy", "aten.index.Tensor", "aten.index_put")


class _Places(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._there: dict[int, Any] = {}  # storages, kept so that no address is used again
        self.num_operations = 0

    def is_there(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._there

    def put(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._there[storage._cdata] = storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, str(func)
        groups = [args]
        if "_fused_adam" in name:  # torch groups them by device
            groups = list(zip(*args[:4], strict=True))
        places = set()
        for group in groups:
            tensors = [t for t in tree_leaves((group, kwargs)) if isinstance(t, Tensor)]
            wide = {self.is_there(t) for t in tensors if t.dim()}
            assert len(wide) < 2 or name.startswith(_CROSSING), f"{name} of tensors of two places"
            places |= {self.is_there(t) for t in tensors}
        device = kwargs.get("device")
        there = device.index == 1 if device is not None else True in places
        out = func(*args, **kwargs)
        if there and not name.startswith(("aten.copy_", "aten._fused")):
            self.num_operations += 1
            for tensor in tree_leaves(out):
                if isinstance(tensor, Tensor):
                    self.put(tensor)
        return out


class _Moves(TorchFunctionMode):
    """Torch sees no way from "cpu:1" to "cpu"."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.device.__get__ and self._places.is_there(args[0]):  # type: ignore[attr-defined]
            return torch.device(NAME)
        if func is Tensor.numpy:
            assert not self._places.is_there(args[0]), "a NumPy array of an accelerator's tensor"
        named = [a for a in (*args[1:], *kwargs.values()) if isinstance(a, str | torch.device)]
        wanted = torch.device(named[0]) if func is Tensor.to and named else None
        is_there = func in (Tensor.cpu, Tensor.to) and self._places.is_there(args[0])
        if is_there and wanted == torch.device(NAME):
            return args[0]
        if is_there and (func is Tensor.cpu or wanted == torch.device("cpu")):
            dtypes = [a for a in args[1:] if isinstance(a, torch.dtype)]
            return _Home.apply(args[0], dtypes[0] if dtypes else args[0].dtype, self._places)
        return func(*args, **kwargs)


class _Home(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, places: _Places) -> Tensor:
        ctx.dtype, ctx.places = x.dtype, places
        home = torch.empty(x.shape, dtype=dtype)
        home.copy_(x)
        return home

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        there = torch.empty(grad.shape, dtype=ctx.dtype, device=torch.device(NAME))
        there.copy_(grad)
        return there, None, None


@contextmanager
def pretended_accelerator() -> Iterator[_Places]:
    """Inside the block, "cpu:1" is an accelerator; gives what counts its operations."""
    places = _Places()
    with places, _Moves(places):
        yield places
