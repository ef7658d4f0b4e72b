"""Every architecture builds, travels and costs what its layers cost."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from graft.core.tasks import Task
from graft.errors import ArchitectureError, PayloadLimitError
from graft.models import (
    build_network,
    network_cost,
    network_from,
    offered_architectures,
    parameter_shapes,
    parameters_of,
)
from graft.models.encoders import IMAGE_ENCODERS, WINDOW_ENCODERS

WINDOWS = Task(name="w", modality="imu", sample_shape=(6, 64), classes=tuple("abcdefgh"))
IMAGES = Task(name="i", modality="image", sample_shape=(1, 16, 16), classes=tuple("abcd"))
EVERY = [
    *((name, WINDOWS) for name in offered_architectures(WINDOWS)),
    *((name, IMAGES) for name in IMAGE_ENCODERS),
]


@pytest.mark.parametrize(("name", "task"), [*EVERY, ("resnetlstman", WINDOWS)])
def test_an_architecture_maps_samples_to_features_and_logits(name: str, task: Task) -> None:
    network = build_network(name, task, seed=1).eval()
    x = torch.randn(2, *task.sample_shape)
    with torch.no_grad():
        assert network.features(x).shape == (2, network.num_features)
        assert network(x).shape == (2, task.num_classes)
        torch.testing.assert_close(network(x), network.head(network.features(x)))


@pytest.mark.parametrize("length", [1, 5, 16, 400])
def test_windows_of_any_length_have_a_network(length: int) -> None:
    task = Task(name="w", modality="emg", sample_shape=(2, length), classes=("a", "b"))
    for name in offered_architectures(task):
        network = build_network(name, task, seed=0).eval()
        assert network(torch.randn(2, 2, length)).shape == (2, 2)


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_equal_seeds_give_equal_parameters_whatever_was_drawn_before(name: str, task: Task) -> None:
    torch.manual_seed(0)
    first = parameters_of(build_network(name, task, seed=5))
    torch.manual_seed(1)
    after = torch.random.get_rng_state()
    again = parameters_of(build_network(name, task, seed=5))
    assert torch.equal(torch.random.get_rng_state(), after)
    other = parameters_of(build_network(name, task, seed=6))
    assert first.keys() == again.keys() == other.keys()
    assert all((first[key] == again[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_a_network_goes_through_its_parameters_unchanged(name: str, task: Task) -> None:
    network = build_network(name, task, seed=2).train()
    x = torch.randn(8, *task.sample_shape)
    network(x)  # moves the running statistics, which must travel too
    parameters = parameters_of(network)
    assert {array.dtype for array in parameters.values()} == {np.dtype(np.float32)}
    assert {key: array.shape for key, array in parameters.items()} == parameter_shapes(name, task)
    rebuilt = network_from(name, task, parameters)
    assert not rebuilt.training
    with torch.no_grad():
        assert torch.equal(rebuilt(x), network.eval()(x))


def test_a_rebuilt_network_does_not_share_memory_with_what_it_came_from() -> None:
    parameters = parameters_of(build_network("mlp", WINDOWS, seed=0))
    network = network_from("mlp", WINDOWS, parameters)
    with torch.no_grad():
        network.head.weight.zero_()
    assert (parameters["head.weight"] != 0).any()


def spoiled(change: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    parameters = dict(parameters_of(build_network("cnn-small", WINDOWS, seed=0)))
    if change == "missing":
        del parameters["head.bias"]
    elif change == "more":
        parameters["extra"] = np.zeros(3, np.float32)
    else:
        parameters["head.weight"] = parameters["head.weight"].T
    return parameters


@pytest.mark.parametrize(
    ("change", "named"),
    [("missing", r"head\.bias"), ("more", "extra"), ("turned", r"head\.weight")],
)
def test_tensors_of_other_names_or_shapes_are_refused(change: str, named: str) -> None:
    with pytest.raises(PayloadLimitError, match=named):
        network_from("cnn-small", WINDOWS, spoiled(change))


def test_a_model_of_another_task_is_refused() -> None:
    parameters = parameters_of(build_network("cnn-small", WINDOWS, seed=0))
    fewer = Task(name="w", modality="imu", sample_shape=(6, 64), classes=("a", "b"))
    with pytest.raises(PayloadLimitError, match="head"):
        network_from("cnn-small", fewer, parameters)


@pytest.mark.parametrize(
    ("name", "task"), [("cnn-huge", WINDOWS), ("gru", IMAGES), ("image-cnn-small", WINDOWS)]
)
def test_an_architecture_that_the_kind_of_input_lacks_is_refused(name: str, task: Task) -> None:
    with pytest.raises(ArchitectureError, match=name):
        build_network(name, task, seed=0)
    with pytest.raises(ArchitectureError, match=name):
        offered_architectures(task, (name,))


def test_the_very_large_one_is_offered_only_where_it_is_asked_for() -> None:
    assert "resnetlstman" not in offered_architectures(WINDOWS)
    assert offered_architectures(WINDOWS, ("resnetlstman",)) == ("resnetlstman",)


# Multiply-adds of each trained layer, of windows of 6 x 64 with 8 classes and of images of
# 1 x 16 x 16 with 4; the first layer's come first, for its input wants no gradient.
MULTIPLY_ADDS: Mapping[str, list[int]] = {
    # Kernel 5, stride 2: 6 -> 16 channels at 32 steps, 16 -> 32 at 16 steps; head 32 -> 8.
    "cnn-small": [5 * 6 * 16 * 32, 5 * 16 * 32 * 16, 32 * 8],
    # Mean and deviation of 6 channels in 16 pieces: 192 -> 128 -> 64; head 64 -> 8.
    "mlp": [192 * 128, 128 * 64, 64 * 8],
    "cnn-medium": [5 * 6 * 32 * 32, 5 * 32 * 64 * 16, 5 * 64 * 64 * 8, 64 * 8],
    "cnn-large": [5 * 6 * 48 * 32, 5 * 48 * 96 * 16, 5 * 96 * 128 * 8, 128 * 8],
    "mlp-500": [384 * 500, 500 * 500, 500 * 500, 500 * 8],
    # Kernel 3 x 3: 1 -> 16 channels at 16 x 16, 16 -> 32 with stride 2 at 8 x 8; head 32 -> 4.
    "image-cnn-small": [9 * 1 * 16 * 256, 9 * 16 * 32 * 64, 32 * 4],
    "image-cnn-large": [9 * 1 * 32 * 256, 9 * 32 * 64 * 64, 9 * 64 * 64 * 64, 64 * 4],
}


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_flops_are_those_of_the_layers_forwards_and_backwards(name: str) -> None:
    first, *rest = MULTIPLY_ADDS[name]
    cost = network_cost(name, IMAGES if name.startswith("image") else WINDOWS)
    assert cost.flops_per_sample == 2 * (first + sum(rest))
    # Backwards as much again for the parameters, and for the input of all but the first layer.
    assert cost.training_flops_per_sample == 2 * (2 * first + 3 * sum(rest))


def test_flops_of_a_gru_are_those_of_its_gates_at_each_step() -> None:
    # Kernel 5, stride 4: 6 -> 32 channels at 16 steps; three gates of 64 on 32 inputs and 64
    # states at each of the 16; head 64 -> 8. The state before the first step wants no gradient.
    stem, gates, head = 5 * 6 * 32 * 16, 3 * 64 * (32 + 64) * 16, 64 * 8
    cost = network_cost("gru", WINDOWS)
    assert cost.flops_per_sample == 2 * (stem + gates + head)
    wanted = 2 * (2 * stem + 3 * (gates + head) - 3 * 64 * 64)
    assert cost.training_flops_per_sample == wanted


def test_flops_of_an_lstm_are_those_of_its_gates_at_each_step() -> None:
    # Kernels 8, 5, 3 and a shortcut of 1, three times, at 64 steps.
    blocks = [
        64 * outputs * (8 * inputs + (5 + 3) * outputs + inputs)
        for inputs, outputs in ((6, 128), (128, 256), (256, 256))
    ]
    # Four gates of 128 on 6 or 128 inputs and 128 states; the score of each step; head.
    gates = [64 * 4 * 128 * (inputs + 128) for inputs in (6, 128)]
    rest = 2 * 64 * 128 + (256 + 128) * 8
    cost = network_cost("resnetlstman", WINDOWS)
    assert cost.flops_per_sample == 2 * (sum(blocks) + sum(gates) + rest)
    # oneDNN computes the gradient of the first LSTM's input too; a library without it does not.
    spared = 64 * 128 * (8 * 6 + 6)
    wanted = 2 * (3 * (sum(blocks) + sum(gates) + rest) - spared)
    assert cost.training_flops_per_sample == pytest.approx(wanted, rel=0.01)


class Attention(nn.Module):
    """A transformer's layer over the steps of a window: 64 wide, 4 heads, 128 between."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps_BTF: torch.Tensor = self.layer(self.project(x.transpose(1, 2)))
        return steps_BTF.mean(1)


@pytest.mark.parametrize("gradients", [True, False])
def test_flops_of_attention_are_its_projections_and_its_products(
    gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"attention-{gradients}"  # costs are remembered by name
    monkeypatch.setitem(WINDOW_ENCODERS, name, lambda shape: (Attention(), 64))  # type: ignore[arg-type]
    with torch.set_grad_enabled(gradients):
        cost = network_cost(name, WINDOWS)
    # 64 steps: 6 -> 64; query, key, value and output; two dense layers; the two products of
    # every step with every other; head.
    layers = 64 * (6 * 64 + 4 * 64 * 64 + 2 * 64 * 128) + 64 * 8
    products = 2 * 64 * 64 * 64
    assert cost.flops_per_sample == 2 * (layers + products)
    # Fused attention computes the first product again: five backwards for two forwards.
    assert cost.training_flops_per_sample == 2 * (3 * layers - 64 * 6 * 64 + 7 * products // 2)


def test_flops_of_a_grouped_convolution_are_those_of_its_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def separable(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        depthwise = nn.Conv1d(6, 6, 5, stride=2, padding=2, groups=6, bias=False)
        return nn.Sequential(depthwise, nn.Conv1d(6, 24, 1, bias=False), nn.Flatten()), 24 * 32

    monkeypatch.setitem(WINDOW_ENCODERS, "separable-for-this-test", separable)  # type: ignore[arg-type]
    cost = network_cost("separable-for-this-test", WINDOWS)
    depthwise, rest = 6 * 5 * 32, 6 * 24 * 32 + 24 * 32 * 8
    assert cost.flops_per_sample == 2 * (depthwise + rest)
    assert cost.training_flops_per_sample == 2 * (2 * depthwise + 3 * rest)


def test_parameters_and_bytes_are_those_of_the_layers() -> None:
    # Two convolutions without bias, scale and shift of 16 and 32 channels, and the head;
    # the running mean and variance of 48 channels travel beside them.
    parameters = 5 * 6 * 16 + 2 * 16 + 5 * 16 * 32 + 2 * 32 + (32 * 8 + 8)
    cost = network_cost("cnn-small", WINDOWS)
    assert cost.num_parameters == parameters
    assert cost.num_bytes == 4 * (parameters + 2 * 48)


def test_training_memory_is_model_gradient_moments_and_what_the_step_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        WINDOW_ENCODERS,  # type: ignore[arg-type]
        "linear-for-this-test",
        lambda shape: (nn.Flatten(), shape[0] * shape[1]),
    )
    cost = network_cost("linear-for-this-test", WINDOWS, 10)
    parameters = 6 * 64 * 8 + 8
    # Parameters, gradients and two moments: 16 bytes each. The linear layer's gradient needs
    # its input, 10 samples of 384 floats, and nothing else.
    assert cost.training_memory_bytes == 16 * parameters + 4 * 10 * 384
    assert cost.flops_per_sample == 2 * 384 * 8


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (("cnn-small", "cnn-medium", "cnn-large"), WINDOWS),
        (("image-cnn-small", "image-cnn-large"), IMAGES),
    ],
)
def test_cost_grows_with_the_name(names: tuple[str, ...], task: Task) -> None:
    costs = [network_cost(name, task) for name in names]
    for small, large in itertools.pairwise(costs):
        assert small.num_parameters < large.num_parameters
        assert small.num_bytes < large.num_bytes
        assert small.flops_per_sample < large.flops_per_sample
        assert small.training_memory_bytes < large.training_memory_bytes


def test_larger_batches_need_more_memory_and_no_more_parameters() -> None:
    small, large = (network_cost("cnn-small", WINDOWS, size) for size in (8, 64))
    assert small.training_memory_bytes < large.training_memory_bytes
    assert small.num_bytes == large.num_bytes
