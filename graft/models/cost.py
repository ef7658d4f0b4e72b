"""What a network costs a device: bytes, memory and FLOPs.

FLOPs are counted by ``torch.utils.flop_counter`` over one forward and one backward pass of one
sample. Formulas are given for what that counter does not know or gets wrong on a CPU.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    conv_flop_count,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from graft.core.tasks import Task
from graft.core.tensor_types import data_bytes, tensor_bytes
from graft.errors import ArchitectureError
from graft.models.building import (
    empty_network,
    example_rows,
    named_errors,
    parameter_shapes,
    shape_of_tensor,
)
from graft.models.network import Network

_Shape = list[int]
_SMALL_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """What a network costs a device.

    Parameters
    ----------
    architecture, task
        What it was measured for.
    num_parameters
        Trained numbers.
    num_bytes
        Size of the tensors that travel, in float32.
    training_memory_bytes
        Parameters, gradients, Adam's two moments and the activations that one training step
        keeps, at the batch size asked for.
    num_features
        F, the width of the head's input.
    """

    architecture: str
    task: Task
    num_parameters: int
    num_bytes: int
    training_memory_bytes: int
    num_features: int

    @property
    def flops_per_sample(self) -> int:
        """FLOPs of one forward pass; a multiply-add counts two."""
        return _count_flops(self.architecture, self.task)[0]

    @property
    def training_flops_per_sample(self) -> int:
        """FLOPs of a forward and a backward pass, in which no gradient goes to the input."""
        return _count_flops(self.architecture, self.task)[1]


@lru_cache(maxsize=256)
def network_cost(architecture: str, task: Task, batch_size: int = 64) -> NetworkCost:
    """Measure the cost of an architecture for a task on a network that is built for it.

    Parameters
    ----------
    architecture, task
        As ``build_network`` takes them, and raises.
    batch_size
        Samples of the training step whose activations are counted.
    """
    network, device = _runnable(architecture, task)
    state = network.state_dict()
    own_bytes = sum(tensor_bytes(shape_of_tensor(t)) for n, t in state.items() if n in _kept(state))
    if device == "meta":
        activations = _activation_bytes(architecture, task, batch_size)
    else:  # two small passes: what is kept grows with the samples
        few, more = (_activation_bytes(architecture, task, size) for size in (2, 4))
        activations = few + (more - few) * (batch_size - 2) // 2
    num_parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return NetworkCost(
        architecture=architecture,
        task=task,
        num_parameters=num_parameters,
        num_bytes=data_bytes(parameter_shapes(architecture, task)),
        training_memory_bytes=activations + own_bytes + 3 * 4 * num_parameters,
        num_features=network.num_features,
    )


def _kept(state: Iterable[str]) -> set[str]:
    return {name for name in state if not name.endswith("num_batches_tracked")}


@lru_cache(maxsize=256)
def _runnable(architecture: str, task: Task) -> tuple[Network, str]:
    """A network without values that runs on torch's meta device, which computes nothing, or where
    it does not, on the CPU; and the device.

    A recurrent layer's kernel on a CPU keeps other tensors than the meta device's.

    Raises ArchitectureError where its features or logits have other shapes than it says.
    """
    network, device = empty_network(architecture, task), "cpu"
    if not any(isinstance(module, nn.RNNBase) for module in network.modules()):
        try:
            network.to("meta")
            _check_outputs(architecture, task, network, "meta")
            return network, "meta"
        except ArchitectureError as error:
            if error.__cause__ is None:
                raise
        network = empty_network(architecture, task)
    _check_outputs(architecture, task, network, device)
    return network, device


def _check_outputs(architecture: str, task: Task, network: Network, device: str) -> None:
    with torch.no_grad(), named_errors(architecture, "could not be run"):
        features = network.eval().features(example_rows(architecture, task, 2, device))
        wanted = {"features": (2, network.num_features), "logits": (2, task.num_classes)}
        got = {"features": tuple(features.shape)}
        if got["features"] == wanted["features"]:
            got["logits"] = tuple(network.head(features).shape)
    for what, shape in got.items():
        if shape != wanted[what]:
            raise ArchitectureError(
                f"architecture {architecture}: got {what} of shape {shape} of two samples, "
                f"wanted {wanted[what]}"
            )


def _activation_bytes(architecture: str, task: Task, batch_size: int) -> int:
    """What a training step's forward pass keeps for the backward pass, without parameters."""
    network, device = _runnable(architecture, task)
    # By storage, which is kept so that no other takes its place.
    saved: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes(), storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        network.train()(example_rows(architecture, task, batch_size, device)).sum()
    own = {t.untyped_storage()._cdata for t in network.parameters()}
    return sum(size for at, (size, _) in saved.items() if at not in own)


@lru_cache(maxsize=256)
def _count_flops(architecture: str, task: Task) -> tuple[int, int]:
    """FLOPs of a sample's forward pass, and of forward and backward.

    The counter imports torch's compiler, which takes seconds: only what reads FLOPs counts them.
    """
    network, device = _runnable(architecture, task)
    if device == "meta" and network_cost(architecture, task).num_bytes < _SMALL_BYTES:
        # What runs is counted: a CPU's fused attention computes a product again that meta keeps.
        network, device = empty_network(architecture, task), "cpu"
    network.eval()  # batch norm has no statistics of a single sample
    # With gradients PyTorch takes no fused inference path, which no counter sees into.
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        logits = network(example_rows(architecture, task, 1, device))
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward, counter.get_total_flops()


def _conv_backward_flops(grad: _Shape, x: _Shape, weight: _Shape, *rest: Any, **_: Any) -> int:
    # rest: bias, stride, padding, dilation, transposed, output padding, groups, and which
    # gradients are wanted. The counter's own formula takes a grouped convolution for a full one.
    transposed, wanted = rest[4], rest[7]
    return int(sum(wanted[:2])) * conv_flop_count(x, weight, grad, transposed)


def _lstm_flops(x: _Shape, weight_input: _Shape, weight_state: _Shape, *_: Any, **__: Any) -> int:
    """oneDNN's LSTM layer; ``x`` is steps, batch, inputs in either order of the first two."""
    return 2 * x[0] * x[1] * (prod(weight_input) + prod(weight_state))


def _attention_flops(query: _Shape, key: _Shape, value: _Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward_flops(grad: _Shape, *qkv: Any, **_: Any) -> int:
    return int(sdpa_backward_flop_count(grad, *qkv[:3]))  # type: ignore[no-untyped-call]


_aten = torch.ops.aten
_FORMULAS = {
    _aten.convolution_backward: _conv_backward_flops,
    _aten.mkldnn_rnn_layer: _lstm_flops,
    # The gradients of weights and of inputs are both computed, whether wanted or not.
    _aten.mkldnn_rnn_layer_backward: lambda *args, **_: 2 * _lstm_flops(*args),
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
