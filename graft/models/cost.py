"""What a network costs a device: bytes, memory and FLOPs.

FLOPs are counted by ``torch.utils.flop_counter`` over one forward and one backward pass of one
sample. Formulas are given for what that counter does not know or gets wrong on a CPU.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import (
    FlopCounterMode,
    conv_flop_count,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from graft.core.records import Task
from graft.models.network import build_network, example_rows, parameters_of

_Shape = list[int]


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
    network = build_network(architecture, task, seed=0)
    num_parameters = sum(p.numel() for p in network.parameters())
    num_bytes = sum(array.nbytes for array in parameters_of(network).values())
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        network.train()(example_rows(architecture, task, batch_size)).sum()
    parameter_storage = {p.untyped_storage().data_ptr() for p in network.parameters()}
    activations = sum(size for at, size in saved.items() if at not in parameter_storage)
    return NetworkCost(
        architecture=architecture,
        task=task,
        num_parameters=num_parameters,
        num_bytes=num_bytes,
        training_memory_bytes=activations + num_bytes + 3 * 4 * num_parameters,
        num_features=network.num_features,
    )


@lru_cache(maxsize=256)
def _count_flops(architecture: str, task: Task) -> tuple[int, int]:
    """FLOPs of a sample's forward pass, and of forward and backward.

    The counter imports torch's compiler, which takes seconds: only what reads FLOPs counts them.
    """
    network = build_network(architecture, task, seed=0)
    network.eval()  # batch norm has no statistics of a single sample
    # With gradients PyTorch takes no fused inference path, which no counter sees into.
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        logits = network(example_rows(architecture, task, 1))
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
