"""Encoders of every kind of input, and architectures that read some of a world's streams."""

import pytest
import torch

from graft.core.streams import Streams
from graft.core.tasks import InputSpec, Task
from graft.data.stream_columns import text_bytes
from graft.devices.classes import assign_architecture, device_classes
from graft.errors import ArchitectureError
from graft.models import build_network, network_cost, network_from, parameters_of
from graft.models.building import example_rows
from graft.models.tokens import TokenEncoder, WordIds

TASK = Task(
    name="t",
    modality="mixed",
    classes=("a", "b", "c"),
    inputs=(
        InputSpec(name="acc", kind="window", shape=(3, 64)),
        InputSpec(name="camera", kind="image", shape=(3, 16, 16), dtype="uint8"),
        InputSpec(name="mic", kind="audio", shape=(1, 4000)),
        InputSpec(name="note", kind="tokens", shape=(24,), dtype="uint8"),
        InputSpec(name="ids", kind="tokens", shape=(12,), dtype="int64"),
        InputSpec(name="size", kind="vector", shape=(5,)),
    ),
)
DEVICE = device_classes()["gateway"]


@pytest.mark.parametrize(
    "name",
    [
        "fused-small", "fused-large", "fused-small[acc+note]", "fused-large[camera]",
        "cnn-small[acc]", "image-cnn-small[camera]", "audio-cnn-large[mic]",
        "tokens-mean[note]", "tokens-attention[ids]", "mlp[size]",
    ],
)  # fmt: skip
def test_an_architecture_reads_its_streams_out_of_all(name: str) -> None:
    network = build_network(name, TASK, seed=1)
    back = network_from(name, TASK, parameters_of(network))
    rows = example_rows("fused-small", TASK, 4)
    logits = back(rows)
    assert logits.shape == (4, 3)
    torch.testing.assert_close(logits, back(example_rows(name, TASK, 4)))
    assert network_cost(name, TASK).training_flops_per_sample > 0


def test_a_domain_that_lacks_streams_draws_architectures_of_those_it_has() -> None:
    def drawn(wanted: tuple[str, ...], *inputs: str) -> set[str]:
        return {assign_architecture(f"d{n}", 0, TASK, DEVICE, wanted, inputs) for n in range(20)}

    assert drawn((), *TASK.input_names) == {"fused-small", "fused-large"}
    assert drawn((), "acc", "ids") == {"fused-small[acc+ids]", "fused-large[acc+ids]"}
    assert "gru[acc]" in drawn((), "acc")
    assert drawn(("fused-small",), "acc") == {"fused-small[acc]"}
    assert drawn(("cnn-small[acc]",), *TASK.input_names) == {"cnn-small[acc]"}
    with pytest.raises(ArchitectureError, match=r"got the streams \['size'\]"):
        drawn(("cnn-small[acc]",), "size")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp[taste]", "got the stream 'taste', wanted some of"),
        ("mlp", "got 'mlp', wanted one of .*fused-small"),
        ("cnn-small[size]", "got 'cnn-small', wanted one of .*mlp"),
    ],
)
def test_what_no_stream_has_is_refused(name: str, words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        build_network(name, TASK, seed=0)


def test_words_are_the_same_wherever_they_stand_and_padding_is_none() -> None:
    texts = ["Hello, world hello", "", "world  HELLO's x", "grüße"]
    ids = WordIds(32, 1000)(torch.from_numpy(text_bytes("t", texts, 32)))
    hello, world = ids[0, :2].tolist()
    assert ids[0].tolist() == [hello, world, hello, 0]
    assert ids[2, :2].tolist() == [world, hello]
    assert ids[1].tolist() == [0, 0, 0, 0]
    assert (ids[3] > 0).sum() == 1
    assert len({hello, world, int(ids[2, 3]), int(ids[3, 0])}) == 4


@pytest.mark.parametrize("attention", [False, True])
def test_features_of_text_do_not_depend_on_the_padding_of_a_batch(attention: bool) -> None:
    torch.manual_seed(0)
    encoder = TokenEncoder(64, 8, 100, attention=attention)
    x = torch.from_numpy(text_bytes("t", ["one two", "three " * 9, ""], 64))
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]))
    ids = Streams({"a": torch.tensor([[5, 7, 0, 0]])})["a"]
    torch.testing.assert_close(encoder(ids), encoder(ids[:, :2]))
