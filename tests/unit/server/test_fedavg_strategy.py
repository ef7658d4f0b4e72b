"""Averaging by Flower's strategy: the weighted mean by hand, and the card of what it makes."""

from pathlib import Path

import numpy as np
import pytest
from graft_server.fedavg import FlowerAveraging, average_parameters
from graft_server.model_store import DirectoryStore, open_store

from graft.core.payload import decode_payload, encode_payload, model_id
from graft.core.records import BoolArray, ModelCard, Parameters
from graft.core.seeding import derive_seed
from graft.core.tasks import Task
from graft.errors import ModelMissingError
from graft.models import build_network, parameters_of

TASK = Task(name="t", modality="imu", sample_shape=(2, 16), classes=("a", "b", "c"))


def admit(card: ModelCard) -> ModelCard:
    return ModelCard(**{**{f: getattr(card, f) for f in card.__slots__}, "signature": b"signed"})


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return open_store(tmp_path / "models", TASK)


@pytest.fixture
def averaging(store: DirectoryStore) -> FlowerAveraging:
    return FlowerAveraging(store, admit, TASK, seed=3)


def pushed(store: DirectoryStore, seed: int, known: tuple[bool, bool, bool]) -> ModelCard:
    """What an initial domain has pushed: a network of that seed with other batch-norm statistics."""
    parameters = dict(parameters_of(build_network("cnn-small", TASK, seed)))
    for name, array in parameters.items():
        if "running" in name:
            parameters[name] = array + np.float32(seed)
    payload = encode_payload("cnn-small", parameters)
    mask_C: BoolArray = np.array(known)
    return ModelCard(
        model_id=store.put(payload, "cnn-small"),
        domain_id=f"d{seed}",
        architecture="cnn-small",
        payload_bytes=len(payload),
        base_bytes=0,
        residual_bytes=0,
        class_mask_C=mask_C,
        round_index=0,
    )


def held(store: DirectoryStore, card: ModelCard) -> Parameters:
    return decode_payload(store.part(card.model_id, "exact"), None, card.model_id)[1]


def test_the_mean_is_weighted_by_the_numbers_of_samples() -> None:
    # (1 * 1 + 3 * 5) / 4 = 4 and (1 * 2 + 3 * (-2)) / 4 = -1.
    one = {"w": np.array([1.0, 2.0], np.float32), "b": np.array([8.0], np.float32)}
    other = {"w": np.array([5.0, -2.0], np.float32), "b": np.array([0.0], np.float32)}
    mean = average_parameters([(one, 1), (other, 3)])
    np.testing.assert_array_equal(mean["w"], [4.0, -1.0])
    np.testing.assert_array_equal(mean["b"], [2.0])
    assert {array.dtype for array in mean.values()} == {np.dtype(np.float32)}


def test_the_mean_of_one_is_itself() -> None:
    only = {"w": np.array([0.1, 0.7], np.float32)}
    np.testing.assert_array_equal(average_parameters([(only, 7)])["w"], only["w"])


def test_all_of_a_payload_is_averaged_batch_norm_too(
    averaging: FlowerAveraging, store: DirectoryStore
) -> None:
    members = [(pushed(store, 1, (True, False, False)), 30),
               (pushed(store, 2, (False, True, False)), 10)]  # fmt: skip
    group = averaging.average("cnn-small", members)
    first, second = (held(store, card) for card, _ in members)
    mean = held(store, group)
    assert set(mean) == set(first)
    assert any("running_var" in name for name in mean)
    for name, array in mean.items():
        np.testing.assert_allclose(array, 0.75 * first[name] + 0.25 * second[name], atol=1e-6)
    assert group.class_mask_C.tolist() == [True, True, False]


def test_a_groups_card_says_what_its_payload_is_and_is_admitted(
    averaging: FlowerAveraging, store: DirectoryStore
) -> None:
    for card in (
        averaging.begin("mlp"),
        averaging.average("cnn-small", [(pushed(store, 1, (True, True, True)), 1)]),
    ):
        payload = store.part(card.model_id, "exact")
        assert card.model_id == model_id(payload)
        assert (card.payload_bytes, card.base_bytes, card.residual_bytes) == tuple(
            len(store.part(card.model_id, part)) for part in ("exact", "base", "residual")
        )
        assert card.domain_id == f"group.{card.architecture}"
        assert (card.profile, card.centroids_CF, card.parents) == (None, None, ())
        assert card.signature == b"signed"


def test_a_group_starts_from_one_initialisation_that_the_seed_decides(
    averaging: FlowerAveraging, store: DirectoryStore
) -> None:
    start = averaging.begin("cnn-small")
    assert start.model_id == averaging.begin("cnn-small").model_id
    assert start.model_id != FlowerAveraging(store, admit, TASK, seed=4).begin("cnn-small").model_id
    wanted = parameters_of(build_network("cnn-small", TASK, derive_seed("group", 3, "cnn-small")))
    assert all((held(store, start)[name] == wanted[name]).all() for name in wanted)
    assert not start.class_mask_C.any()  # it has seen no class


def test_a_member_whose_model_is_not_there_is_named(
    averaging: FlowerAveraging, store: DirectoryStore
) -> None:
    card = pushed(store, 1, (True, True, True))
    store.path(card.model_id, "exact").unlink()
    with pytest.raises(ModelMissingError, match=card.model_id[:20]):
        averaging.average("cnn-small", [(card, 1)])
