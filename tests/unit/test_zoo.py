"""Every architecture builds, travels and costs what its layers cost."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from graft.core.records import Task
from graft.errors import ArchitectureError, PayloadLimitError
from graft.models.zoo import (
    IMAGE_ENCODERS,
    WINDOW_ENCODERS,
    build_network,
    network_cost,
    network_from,
    offered_architectures,
    parameter_shapes,
    parameters_of,
)

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


# A multiply-add counts two. Windows of 6 x 64, 8 classes.
FLOPS: Mapping[str, int] = {
    # Kernel 5, stride 2: 6 -> 16 channels at 32 steps, 16 -> 32 at 16 steps; head 32 -> 8.
    "cnn-small": 2 * (5 * 6 * 16 * 32 + 5 * 16 * 32 * 16 + 32 * 8),
    # Mean and deviation of 6 channels in 16 pieces: 192 -> 128 -> 64; head 64 -> 8.
    "mlp": 2 * (192 * 128 + 128 * 64 + 64 * 8),
    # Kernel 5, stride 4: 6 -> 32 channels at 16 steps; three gates of 64 on 32 inputs and 64
    # states at each of the 16; head 64 -> 8.
    "gru": 2 * (5 * 6 * 32 * 16 + 3 * 64 * (32 + 64) * 16 + 64 * 8),
}


@pytest.mark.parametrize("name", FLOPS)
def test_flops_are_those_of_the_layers(name: str) -> None:
    assert network_cost(name, WINDOWS).flops_per_sample == FLOPS[name]


def test_image_flops_are_those_of_the_layers() -> None:
    # Kernel 3 x 3: 1 -> 16 channels at 16 x 16, 16 -> 32 with stride 2 at 8 x 8; head 32 -> 4.
    flops = 2 * (9 * 1 * 16 * 256 + 9 * 16 * 32 * 64 + 32 * 4)
    assert network_cost("image-cnn-small", IMAGES).flops_per_sample == flops


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
