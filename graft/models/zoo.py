"""Architectures by name: how each is built, what it costs.

Only a name and its tensors ever travel; code never does. Every network is an encoder, which
gives one feature vector a sample, and a linear head.

Legend: B samples a batch, C classes, F features, K channels of the window, T its length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from graft.core.records import Parameters, Task
from graft.errors import ArchitectureError, ConfigError, PayloadLimitError
from graft.models.registry import Encoder, installed_architectures


class Network(nn.Module):
    """An encoder and a linear head."""

    def __init__(self, encoder: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(num_features, num_classes)
        self.num_features = num_features

    def features(self, x: Tensor) -> Tensor:
        """(B, *sample_shape) -> (B, F)."""
        features_BF: Tensor = self.encoder(x)
        return features_BF

    def forward(self, x: Tensor) -> Tensor:
        """(B, *sample_shape) -> logits (B, C)."""
        logits_BC: Tensor = self.head(self.features(x))
        return logits_BC


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
    )


def _conv2d(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class _MeanPool(nn.Module):
    """Mean over every position: (B, K, ...) -> (B, K). With few labels a maximum beside it
    costs points: it remembers single spikes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


class _Outline(nn.Module):
    """Mean and mean absolute deviation of each channel in sixteen pieces: (B, K, T) -> (B, 32K).

    What a dense layer can use of a window whose phase is random, as in raw EMG.
    """

    pieces = 16

    def forward(self, x: Tensor) -> Tensor:
        deviation_BKT = (x - x.mean(2, keepdim=True)).abs()
        pooled = [
            nn.functional.adaptive_avg_pool1d(each, self.pieces) for each in (x, deviation_BKT)
        ]
        return torch.cat(pooled, dim=1).flatten(1)


class _Residual(nn.Module):
    """Three convolutions of kernels 8, 5, 3 beside a 1x1 shortcut (HMKD's ResNet branch)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step, kernel in enumerate((8, 5, 3)):
            layers += [
                nn.ZeroPad1d(((kernel - 1) // 2, kernel // 2)),
                nn.Conv1d(inputs if step == 0 else outputs, outputs, kernel),
                nn.BatchNorm1d(outputs),
                nn.ReLU() if step < 2 else nn.Identity(),
            ]
        self.path = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.shortcut(x))


class _Attention(nn.Module):
    """Additive attention over time: (B, T, F) -> (B, T, F), each step scaled by its share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        share_BT1 = torch.softmax(self.score(torch.tanh(x)), dim=1)
        return x * share_BT1 * x.shape[1]


class _ResNetLstmAttention(nn.Module):
    """HMKD's teacher (ours, in the form of the authors' published code): two branches."""

    num_features = 256 + 128

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _Residual(channels, 128), _Residual(128, 256), _Residual(256, 256)
        )
        self.lstm_1 = nn.LSTM(channels, 128, batch_first=True)
        self.attention_1 = _Attention(128)
        self.lstm_2 = nn.LSTM(128, 128, batch_first=True)
        self.attention_2 = _Attention(128)

    def forward(self, x: Tensor) -> Tensor:
        steps_BTF = self.attention_1(self.lstm_1(x.transpose(1, 2))[0])
        steps_BTF = self.attention_2(self.lstm_2(steps_BTF)[0])
        return torch.cat([self.residual(x).mean(2), steps_BTF.mean(1)], dim=1)


class _Gru(nn.Module):
    """A strided convolution that shortens the window four times, then a GRU; mean over steps."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = _conv(channels, 32, 5, stride=4)
        self.gru = nn.GRU(32, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps_BTF: Tensor = self.gru(self.stem(x).transpose(1, 2))[0]
        return steps_BTF.mean(1)


def _cnn(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[nn.Module, int]:
    channels = (shape[0], *widths)
    blocks = [_conv(channels[i], channels[i + 1], 5, stride=2) for i in range(len(widths))]
    return nn.Sequential(*blocks, _MeanPool()), widths[-1]


def _mlp(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    if len(shape) == 2:
        layers: list[nn.Module] = [_Outline()]
        width = 2 * shape[0] * _Outline.pieces
    else:
        layers, width = [nn.Flatten()], int(np.prod(shape))
    for outputs in (128, 64):
        layers += [nn.Linear(width, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
        width = outputs
    return nn.Sequential(*layers), width


def _mlp_500(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """HMKD's student: three dense layers of 500 on the raw window, dropout before each layer."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(0.1)]
    width = int(np.prod(shape))
    for dropout in (0.2, 0.2, 0.3):
        layers += [nn.Linear(width, 500), nn.ReLU(), nn.Dropout(dropout)]
        width = 500
    return nn.Sequential(*layers), width


def _image_cnn(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[nn.Module, int]:
    channels = (shape[0], *widths)
    blocks = [
        _conv2d(channels[i], channels[i + 1], stride=2 if i == 1 else 1) for i in range(len(widths))
    ]
    return nn.Sequential(*blocks, _MeanPool()), widths[-1]


# Ordered from the smallest to the largest within a kind of input.
WINDOW_ENCODERS: Mapping[str, Encoder] = {
    "cnn-small": lambda shape: _cnn(shape, (16, 32)),
    "mlp": _mlp,
    "gru": lambda shape: (_Gru(shape[0], 64), 64),
    "cnn-medium": lambda shape: _cnn(shape, (32, 64, 64)),
    "cnn-large": lambda shape: _cnn(shape, (48, 96, 128)),
    "mlp-500": _mlp_500,
    "resnetlstman": lambda shape: (
        _ResNetLstmAttention(shape[0]),
        _ResNetLstmAttention.num_features,
    ),
}
IMAGE_ENCODERS: Mapping[str, Encoder] = {
    "mlp": _mlp,
    "image-cnn-small": lambda shape: _image_cnn(shape, (16, 32)),
    "image-cnn-large": lambda shape: _image_cnn(shape, (32, 64, 64)),
}
# HMKD's pair is offered only where it is asked for: one ResNetLSTMaN costs as much as forty of
# the others, and the dense student needs windows whose phase is not random. So are installed
# architectures: what else is on a machine must not change which ones its domains draw.
_ON_REQUEST = ("mlp-500", "resnetlstman")


def _own_encoders(task: Task) -> Mapping[str, Encoder]:
    return WINDOW_ENCODERS if len(task.sample_shape) == 2 else IMAGE_ENCODERS


def _encoders(task: Task) -> Mapping[str, Encoder]:
    """Every encoder for a task; raises ConfigError where an installed one takes a name of ours."""
    own = _own_encoders(task)
    takes = "windows" if own is WINDOW_ENCODERS else "images"
    others = installed_architectures()
    installed = {each.name: each.encoder for each in others if each.takes == takes}
    taken = sorted(own.keys() & installed.keys())
    if taken:
        raise ConfigError(f"architecture {taken[0]!r}: got two, wanted one of each name")
    return {**own, **installed}


def offered_architectures(task: Task, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The architectures for a task: those ``wanted``, or the zoo's own but for the very large.

    Raises ArchitectureError for a name that the zoo does not have for this kind of input.
    """
    known = _encoders(task)
    for name in wanted:
        if name not in known:
            raise ArchitectureError(f"architecture: got {name!r}, wanted one of {list(known)}")
    return wanted or tuple(name for name in _own_encoders(task) if name not in _ON_REQUEST)


def build_network(architecture: str, task: Task, seed: int) -> Network:
    """A freshly initialised network; equal seeds give equal parameters.

    Raises ArchitectureError for an unknown name.
    """
    offered_architectures(task, (architecture,))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder, num_features = _encoders(task)[architecture](task.sample_shape)
        return Network(encoder, num_features, task.num_classes)


def parameters_of(network: Network) -> Parameters:
    """Every float tensor of the network (batch-norm statistics too) as float32 arrays."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def network_from(architecture: str, task: Task, parameters: Parameters) -> Network:
    """The named network with these parameters, in eval mode.

    Raises PayloadLimitError where names or shapes are not the architecture's.
    """
    network = build_network(architecture, task, seed=0)
    wanted = {name: array.shape for name, array in parameters_of(network).items()}
    got = {name: tuple(array.shape) for name, array in parameters.items()}
    if got != wanted:
        odd = sorted(set(got.items()) ^ set(wanted.items()))[0]
        raise PayloadLimitError(f"tensors of {architecture}: {odd[0]!r} {odd[1]} does not fit")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in parameters.items()}
    network.load_state_dict(tensors, strict=False)
    return network.eval()


@lru_cache(maxsize=256)
def parameter_shapes(architecture: str, task: Task) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor that a payload of this architecture must hold."""
    parameters = parameters_of(build_network(architecture, task, seed=0))
    return {name: tuple(array.shape) for name, array in parameters.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """What a network costs a device.

    ``flops_per_sample``: one forward pass, a multiply-add counted as two;
    ``training_flops_per_sample``: with the backward pass, in which no gradient goes to the input.
    ``training_memory_bytes``: parameters, gradients, Adam's two moments and the activations
    that one training step keeps, at the batch size asked for.
    """

    num_parameters: int
    num_bytes: int
    flops_per_sample: int
    training_flops_per_sample: int
    training_memory_bytes: int
    num_features: int


@lru_cache(maxsize=256)
def network_cost(architecture: str, task: Task, batch_size: int = 64) -> NetworkCost:
    """Measured on a built network: FLOPs by hooks, activations as autograd saves them."""
    network = build_network(architecture, task, seed=0)
    num_parameters = sum(p.numel() for p in network.parameters())
    num_bytes = sum(array.nbytes for array in parameters_of(network).values())
    flops = training_flops = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops, training_flops
        own = _module_flops(module, inputs[0], output)
        flops += own
        # Backward: as much for the parameters, and again for the input where a layer wants it.
        training_flops += 3 * own if inputs[0].requires_grad else 2 * own

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | nn.GRU | nn.LSTM)
    ]
    network.eval()(torch.zeros(1, *task.sample_shape))
    for hook in hooks:
        hook.remove()

    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.zeros(batch_size, *task.sample_shape)).sum()
    parameter_storage = {p.untyped_storage().data_ptr() for p in network.parameters()}
    activations = sum(size for place, size in saved.items() if place not in parameter_storage)
    return NetworkCost(
        num_parameters=num_parameters,
        num_bytes=num_bytes,
        flops_per_sample=flops,
        training_flops_per_sample=training_flops,
        training_memory_bytes=activations + num_bytes + 3 * 4 * num_parameters,
        num_features=network.num_features,
    )


def _module_flops(module: nn.Module, x: Tensor, output: Tensor) -> int:
    if isinstance(module, nn.GRU | nn.LSTM):
        gates = 3 if isinstance(module, nn.GRU) else 4
        steps = x.shape[0] * x.shape[1]
        width = module.hidden_size
        return 2 * gates * width * (module.input_size + width) * steps
    if isinstance(module, nn.Linear):
        return 2 * module.in_features * output.numel()
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    taps = int(np.prod(module.kernel_size)) * module.in_channels // module.groups
    return 2 * taps * output.numel()
