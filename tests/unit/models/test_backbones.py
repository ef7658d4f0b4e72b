"""Public backbones: what travels, what is shared, and what is computed once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import own_networks
import pytest
import torch

import graft
from graft.core.payload import decode_payload, encode_payload, model_id
from graft.core.plugins import load_references
from graft.core.tasks import Task
from graft.errors import BackboneError, PayloadLimitError
from graft.models import (
    Network,
    add_architecture,
    build_network,
    network_cost,
    network_from,
    parameter_shapes,
    parameters_of,
)
from graft.models.backbones import _held, find_backbone
from graft.training import frozen, frozen_features, rows_digest
from graft.wire.payload.parts import decode_base, join_parts, split_payload

TASK = Task(name="w", modality="imu", sample_shape=(6, 64), classes=("a", "b", "c"))
KINDS = ["ON_PUBLIC", "NORMS_ON_PUBLIC", "LORA_ON_PUBLIC", "WHOLE_ON_PUBLIC"]


@pytest.fixture(autouse=True)
def _loaded() -> None:
    load_references([f"own_networks:{kind}" for kind in KINDS])


def built(kind: str, seed: int = 1) -> Network:
    return build_network(f"own_networks:{kind}", TASK, seed)


def stepped(kind: str) -> Network:
    """A network after two steps of training."""
    network = built(kind).train()
    x, y = torch.randn(16, 6, 64), torch.arange(16) % 3
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    return network.eval()


@pytest.mark.parametrize(
    ("kind", "travels"),
    [
        ("ON_PUBLIC", {"head.weight", "head.bias"}),
        ("NORMS_ON_PUBLIC", {"encoder.norm.running_mean", "encoder.norm.weight", "head.bias"}),
        pytest.param(
            "LORA_ON_PUBLIC",
            {"encoder.last.lora_A.default.weight", "head.bias"},
            marks=pytest.mark.slow,  # peft imports for ten seconds
        ),
        ("WHOLE_ON_PUBLIC", {"encoder.first.weight", "encoder.norm.running_var", "head.bias"}),
    ],
)
def test_trained_tensors_travel_alone_and_give_the_model_back(kind: str, travels: set[str]) -> None:
    name, network = f"own_networks:{kind}", stepped(kind)
    payload = encode_payload(name, parameters_of(network))
    shapes = parameter_shapes(name, TASK)
    assert travels <= shapes.keys()
    assert ("encoder.first.weight" in shapes) == (kind == "WHOLE_ON_PUBLIC")
    base, residual = split_payload(payload)
    assert join_parts(base, residual, shapes) == payload
    decode_base(base, shapes)
    rebuilt = network_from(name, TASK, decode_payload(payload, shapes, model_id(payload))[1])
    x = torch.randn(5, 6, 64)
    torch.testing.assert_close(rebuilt(x), network(x))
    again = network_from(name, TASK, parameters_of(rebuilt))
    assert encode_payload(name, parameters_of(again)) == payload or kind == "WHOLE_ON_PUBLIC"


def test_what_is_frozen_keeps_its_values_and_its_memory() -> None:
    one, other = stepped("ON_PUBLIC"), built("ON_PUBLIC", seed=2)
    weights = find_backbone(own_networks.PUBLIC)
    assert weights is not None
    for name, tensor in weights.items():
        assert torch.equal(one.state_dict()[f"encoder.{name}"], tensor)
    assert one.encoder.first.weight.data_ptr() == other.encoder.first.weight.data_ptr()
    norms = stepped("NORMS_ON_PUBLIC")
    assert not torch.equal(norms.encoder.norm.weight, weights["norm.weight"])
    assert torch.equal(weights["norm.weight"], torch.ones(8))


def test_other_tensors_than_the_trained_ones_are_refused() -> None:
    arrays = dict(parameters_of(built("ON_PUBLIC")))
    arrays["encoder.first.weight"] = np.zeros((8, 6, 5), np.float32)
    with pytest.raises(PayloadLimitError, match=r"encoder\.first\.weight"):
        network_from("own_networks:ON_PUBLIC", TASK, arrays)
    payload = encode_payload("own_networks:ON_PUBLIC", arrays)
    with pytest.raises(PayloadLimitError, match=r"encoder\.first\.weight"):
        decode_payload(payload, parameter_shapes("own_networks:ON_PUBLIC", TASK), None)


def test_weights_of_another_hash_or_of_nowhere_are_named() -> None:
    other = replace(own_networks.PUBLIC, sha256="0" * 64)
    add_architecture(replace(own_networks.ON_PUBLIC, name="forged", backbone=other))
    with pytest.raises(BackboneError, match="SHA-256"):
        build_network("forged", TASK, 0)
    absent = replace(own_networks.PUBLIC, sha256="1" * 64, weights=None)
    add_architecture(replace(own_networks.ON_PUBLIC, name="absent", backbone=absent))
    with pytest.raises(BackboneError, match="no weights on this machine"):
        build_network("absent", TASK, 0)


def test_memory_and_bytes_count_the_trained_part() -> None:
    head, whole = (network_cost(f"own_networks:{k}", TASK) for k in (KINDS[0], KINDS[3]))
    assert head.num_bytes == 4 * (24 * 3 + 3)
    assert whole.num_bytes > 3 * head.num_bytes
    assert head.training_memory_bytes < whole.training_memory_bytes


def test_features_of_a_frozen_backbone_are_computed_once_and_outlive_the_process(
    tmp_path: Path,
) -> None:
    x = np.random.default_rng(5).normal(size=(300, 6, 64)).astype(np.float32)
    digest, before = rows_digest(x), own_networks.Counted.rows_read
    for seed in range(10):  # ten candidates
        network = built("ON_PUBLIC", seed)
        features = frozen_features(network, "own_networks:ON_PUBLIC", x, digest, tmp_path)
        assert features is not None
        whole = network(torch.from_numpy(x[:8])) if seed == 0 else None
        if whole is not None:
            torch.testing.assert_close(network(features[:8]), whole)
            before += 8
    assert own_networks.Counted.rows_read - before == 300
    frozen._memory.clear()
    frozen_features(built("ON_PUBLIC"), "own_networks:ON_PUBLIC", x, digest, tmp_path)
    assert own_networks.Counted.rows_read - before == 300
    trained = frozen_features(built("NORMS_ON_PUBLIC"), "own_networks:NORMS_ON_PUBLIC", x, digest)
    assert trained is None


def simulate(out: Path, **settings: object) -> graft.Run:
    return graft.simulate(
        "imu", method="graft", comparisons=["label-only", "hat", "finetuned-any"], domains=6,
        rounds=1, engine="block", workers=0, out=out, architectures=["own_networks:ON_PUBLIC"],
        settings={"world.windows_per_domain": 40, "training.max_steps": 3, **settings},
    )  # fmt: skip


def test_a_run_ships_heads_and_each_device_its_backbone_once(tmp_path: Path) -> None:
    own_networks.Counted.rows_read = 0
    run = simulate(tmp_path / "run", **{"devices.backbone": "shipped"})
    ledger = run.ledger.to_pylist()
    sent = [row for row in ledger if row["phase"] == "backbone"]
    assert sorted(row["domain_id"] for row in sent) == sorted(
        {row["domain_id"] for row in run.results.to_pylist()}
    )
    size = len(encode_payload("backbone:counted", {
        name: tensor.numpy() for name, tensor in own_networks.public_weights().items()
    }))  # fmt: skip
    assert {row["payload_bytes"] for row in sent} == {size}
    models = [row for row in ledger if row["phase"] == "register"]
    assert max(row["payload_bytes"] for row in models) < 1024
    # Every domain's rows are read once, whatever is probed and however many methods train; one
    # sample more is for the simulated clock's FLOPs.
    assert own_networks.Counted.rows_read == 6 * 40 + 1
    again = simulate(tmp_path / "again")
    assert not [row for row in again.ledger.to_pylist() if row["phase"] == "backbone"]
    assert again.results["accuracy"].to_pylist() == run.results["accuracy"].to_pylist()


def test_a_device_without_the_package_receives_the_backbone_from_the_depot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graft_server.model_store import open_store

    store = open_store(tmp_path / "models", TASK)
    assert store.keep_backbone(own_networks.PUBLIC) == own_networks.PUBLIC.sha256
    assert own_networks.PUBLIC.sha256 is not None
    kept = store.part(own_networks.PUBLIC.sha256, "exact")
    assert model_id(kept) == own_networks.PUBLIC.sha256
    monkeypatch.delitem(_held, own_networks.PUBLIC.sha256)
    assert find_backbone(replace(own_networks.PUBLIC, weights=None)) is None
