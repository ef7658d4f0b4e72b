"""What one replaced row moves, its label too, is within what the noise of a release is made for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    PolicyConfig,
    SelectionConfig,
    SplitConfig,
)
from graft.core.exchange import Failure, ProbeRequest, ProfileRequest, Request
from graft.core.ports import WeightTransport
from graft.core.records import ModelCard
from graft.core.tasks import Task
from graft.data import DomainData
from graft.data.splits import split_rows
from graft.devices import assign_device
from graft.errors import PolicyError
from graft.models import build_network, parameters_of
from graft.privacy import Cost, Draw, Noisy, SitePolicy, class_centroids, gaussian_sigma
from graft.rounds import Device, handle_request
from graft.rounds.model_test import noisy_scores, scores_of_test
from graft.rounds.probe import probe

TASK = Task(name="w", modality="imu", sample_shape=(2, 16), classes=("a", "b", "c"))
POLICY = PolicyConfig(epsilon=1.0, delta=1e-5, total_epsilon=100.0, min_class_count=1)
COST = Cost(epsilon=1.0, delta=1e-5)
CONFIG = ExpansionConfig(
    policy=POLICY,
    split=SplitConfig(gamma=0.3),
    selection=SelectionConfig(score_mix=1.0, num_sources=3),
)
NUM_ROWS = 24


@dataclass
class Exact:
    """A generator without noise that notes how large the noise would be; and its releases."""

    scales: list[float] = field(default_factory=list)
    noisy: list[tuple[np.ndarray, float]] = field(default_factory=list)  # type: ignore[type-arg]

    def normal(self, middle: float, scale: float, shape: tuple[int, ...]) -> Any:
        self.scales.append(scale)
        return np.full(shape, middle)

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        drawn = draw(cast(np.random.Generator, self))
        self.noisy += list(zip(drawn.values(), self.scales, strict=True))
        self.scales.clear()
        return drawn

    def spend(self, name: str, key: str, cost: Cost) -> np.random.Generator:
        raise NotImplementedError

    def admit(self, name: str, key: str, group: str, limit: int) -> None:
        pass


class Models:
    """Random models of the architecture that a card names."""

    def fetch(self, card: ModelCard, precision: str) -> Mapping[str, Any]:
        network = build_network(card.architecture, TASK, seed=int(card.model_id, 16))
        return parameters_of(network)


def device_of(
    data: DomainData, releases: Any, policy: PolicyConfig = POLICY, config: ExpansionConfig = CONFIG
) -> Device:
    return Device(
        task=TASK,
        data=data,
        device_class=assign_device(data.domain_id, 0, DeviceConfig()),
        architecture="mlp",
        config=config,
        transport=cast(WeightTransport, Models()),
        clock=lambda: 0.0,
        policy=SitePolicy(policy, releases),
    )


def card(number: int, mask: tuple[bool, ...] = (True, True, True)) -> ModelCard:
    centroids_CF = np.random.default_rng(number).normal(size=(3, 64)).astype(np.float32)
    return ModelCard(
        model_id=f"{number:064x}", domain_id=f"s{number}", architecture="mlp", payload_bytes=9,
        base_bytes=4, residual_bytes=5, class_mask_C=np.array(mask), round_index=0, parents=(),
        centroids_CF=centroids_CF,
    )  # fmt: skip


PROBE = ProbeRequest(
    domain_id="d", round_index=1, method="hat", coarse_distances=(1.0, 2.0, 3.0),
    candidates=(card(1), card(2), card(3, (True, False, False))),
)  # fmt: skip
INITIAL = ProfileRequest(domain_id="d", round_index=0)
TARGET = ProfileRequest(domain_id="d", round_index=1)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[DomainData, DomainData]:
    """Two data sets of which one row has other values and another label."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = st.lists(st.integers(0, 2), min_size=NUM_ROWS, max_size=NUM_ROWS)
    group_N = np.arange(NUM_ROWS) // draw(st.sampled_from([1, 3, 8]))
    x = (draw(st.sampled_from([0.1, 1.0, 50.0])) * rng.normal(size=(NUM_ROWS, 2, 16))).astype("f4")
    one = DomainData(domain_id="d", x=x, y_N=np.array(draw(labels)), group_N=group_N)
    row = draw(st.integers(0, NUM_ROWS - 1))
    other_x, other_y = x.copy(), one.y_N.copy()
    other_x[row] = draw(st.sampled_from([-1e6, -1.0, 0.0, 3.0, 1e6])) * rng.normal(size=(2, 16))
    other_y[row] = draw(st.integers(0, 2))
    return one, replace(one, x=other_x, y_N=other_y)


def moved(one: Exact, other: Exact) -> float:
    """How far the releases are apart, in deviations of their noise."""
    squares = [
        float((((a - b) / scale) ** 2).sum())
        for (a, scale), (b, same) in zip(one.noisy, other.noisy, strict=True)
        if scale == same
    ]
    assert len(squares) == len(one.noisy) > 0
    return float(np.sqrt(sum(squares)))


@settings(max_examples=60, deadline=None)
@given(pair=neighbours(), request=st.sampled_from([INITIAL, TARGET, PROBE]))
def test_a_replaced_row_moves_a_release_by_no_more_than_its_noise_is_made_for(
    pair: tuple[DomainData, DomainData], request: Request
) -> None:
    found = (Exact(), Exact())
    for data, releases in zip(pair, found, strict=True):
        device = device_of(data, releases)
        if isinstance(request, ProbeRequest):
            assert not probe(request, device).rejected
        else:
            assert not isinstance(handle_request(request, device), Failure)
    assert moved(*found) <= 1 / gaussian_sigma(COST) * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(pair=neighbours(), scale=st.sampled_from([0.1, 10.0]))
def test_a_replaced_row_moves_centroids_by_no_more_than_their_noise_is_made_for(
    pair: tuple[DomainData, DomainData], scale: float
) -> None:
    found = (Exact(), Exact())
    for data, releases in zip(pair, found, strict=True):
        features_NF = scale * data.x.reshape(NUM_ROWS, -1)
        policy = SitePolicy(POLICY, releases)
        class_centroids("d", (), features_NF, data.y_N, 3, policy)
    assert moved(*found) <= 1 / gaussian_sigma(COST) * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(pair=neighbours())
def test_a_replaced_test_row_moves_scores_by_no_more_than_their_noise_is_made_for(
    pair: tuple[DomainData, DomainData],
) -> None:
    found, mask_C = (Exact(), Exact()), np.array([True, True, False])
    network = build_network("mlp", TASK, 0).eval()
    for data, releases in zip(pair, found, strict=True):
        release = partial(SitePolicy(POLICY, releases).noisy, "scores of d", ())
        tested = (network, mask_C, network.features(torch.from_numpy(data.x)), data.y_N)
        noiseless = noisy_scores(*tested, release=release)
        assert noiseless == pytest.approx(scores_of_test(*tested, "classes"))
    assert moved(*found) <= 1 / gaussian_sigma(COST) * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(pair=neighbours())
def test_no_label_moves_another_row(pair: tuple[DomainData, DomainData]) -> None:
    one, other = (split_rows(data, SplitConfig(), 0, by_labels=False) for data in pair)
    for side in ("train_N", "test_N", "labelled_N"):
        np.testing.assert_array_equal(getattr(one, side), getattr(other, side))
    assert set(one.labelled_N) <= set(one.train_N)
    assert len(one.labelled_N) >= 2
    assert sorted([*one.train_N, *one.test_N]) == list(range(NUM_ROWS))
    groups = pair[0].group_N
    assert groups[one.train_N].max() < groups[one.test_N].min()


def test_the_split_by_labels_lets_one_label_move_many_rows() -> None:
    # Why the other one is needed: a label decides how many blocks of its class test.
    y_N = np.zeros(64, np.int64)
    data = DomainData(
        domain_id="d", x=np.zeros((64, 2, 16), np.float32), y_N=y_N, group_N=np.arange(64) // 16
    )
    changed = replace(data, y_N=np.where(np.arange(64) == 48, 1, y_N))
    one, other = (set(split_rows(each, SplitConfig(), 0).train_N) for each in (data, changed))
    assert len(one ^ other) == 32


def test_constant_models_read_no_class_counts_from_a_noisy_probe() -> None:
    """Without noise the scores of models that always say one class are its exact frequency."""
    rng = np.random.default_rng(0)
    data = DomainData(
        domain_id="d",
        x=rng.normal(size=(400, 2, 16)).astype(np.float32),
        y_N=rng.choice(3, 400, p=[0.6, 0.3, 0.1]),
        group_N=np.arange(400),
    )
    single = tuple(card(c + 1, tuple(c == each for each in range(3))) for c in range(3))
    request = replace(PROBE, candidates=single)

    def scores(policy: PolicyConfig, seed: int = 0) -> list[float]:
        releases = Seeded(seed)
        selection = probe(request, device_of(data, releases, policy))
        assert len(selection.chosen) == 3
        return [float(each.joint_score or 0) for each in selection.candidates]

    open_policy = replace(POLICY, epsilon=None, total_epsilon=None)
    exact = scores(open_policy, 0)
    assert exact == scores(open_policy, 1)
    assert list(np.argsort(exact)) == [2, 1, 0]
    weak = replace(POLICY, epsilon=0.05)
    drawn = {tuple(np.argsort(scores(weak, seed))) for seed in range(12)}
    assert len(drawn) > 1  # the order follows the noise


class Seeded(Exact):
    """Noise of a seed, and a bound on answers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)
        self.answers: dict[str, set[str]] = {}

    def release(self, name: str, key: str, cost: Cost, draw: Draw) -> Noisy:
        return draw(self._rng)

    def admit(self, name: str, key: str, group: str, limit: int) -> None:
        given = self.answers.setdefault(group, set())
        if key not in given and len(given) >= limit:
            raise PolicyError(f"{name}: got {limit} others before it, wanted at most {limit}")
        given.add(key)


def test_a_device_answers_so_many_probes_of_a_round_and_names_what_it_refuses() -> None:
    data = DomainData(
        domain_id="d", x=np.zeros((40, 2, 16), np.float32), y_N=np.arange(40) % 3,
        group_N=np.arange(40),
    )  # fmt: skip
    device = device_of(data, Seeded(0), replace(POLICY, probes_per_round=2))
    offers = [replace(PROBE, candidates=(card(n), card(n + 1), card(n + 2))) for n in range(1, 4)]
    for offer in (offers[0], offers[1], offers[0]):
        probe(offer, device)
    with pytest.raises(PolicyError, match="probe of d: got 2 others"):
        probe(offers[2], device)
    refused = handle_request(offers[2], device)
    assert getattr(refused, "error", None) == "PolicyError"
    probe(replace(offers[2], round_index=2), device)
