"""The device half: what it reads, what it answers, and how it fails."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import SIGNER, world_devices
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, WORLD, Grown

from graft.core.config import ExpansionConfig
from graft.core.exchange import (
    Failure,
    ProbeRequest,
    ProfileRequest,
    Request,
    Response,
    Selection,
    TrainRequest,
    TrainResult,
)
from graft.core.records import DomainProfile, LedgerEntry
from graft.core.tasks import Task
from graft.data.domain import DomainData
from graft.data.splits import split_rows
from graft.devices import DeviceClass
from graft.methods import INITIAL
from graft.models import network_cost
from graft.rounds import handle_request

TARGET = ARRIVING[0][0]


class TamperedWorld:
    """The world with other values in every domain's test rows."""

    @property
    def task(self) -> Task:
        return WORLD.task

    @property
    def domain_ids(self) -> Sequence[str]:
        return WORLD.domain_ids

    def person(self, domain_id: str) -> str:
        return domain_id

    def load(self, domain_id: str) -> DomainData:
        data = WORLD.load(domain_id)
        x = data.x.copy()
        x[split_rows(data, CONFIG.split, CONFIG.seed).test_N] = 77.0
        return replace(data, x=x)


def carry_out(
    request: Request,
    grown: Grown,
    world: object = WORLD,
    config: ExpansionConfig = CONFIG,
    device_class: DeviceClass | None = None,
    entries: list[LedgerEntry] | None = None,
) -> Response:
    record = entries.append if entries is not None else lambda entry: None
    devices = world_devices(world, config, grown.system.store, record)  # type: ignore[arg-type]
    with devices(request) as device:
        if device_class is not None:
            device = replace(device, device_class=device_class)
        return handle_request(request, device)


def profile_request(round_index: int = 1) -> ProfileRequest:
    return ProfileRequest(domain_id=TARGET, round_index=round_index)


def probe_request(grown: Grown) -> ProbeRequest:
    cards = grown.rounds[0].state.catalogue
    return ProbeRequest(
        domain_id=TARGET,
        round_index=1,
        method="hat",
        candidates=tuple(card.for_probe() for card in cards),
        coarse_distances=(0.25, 0.5, 0.75),
    )


def train_request(grown: Grown, method: str = "hat", register: bool = True) -> TrainRequest:
    cards = grown.rounds[0].state.catalogue[:2] if method != INITIAL else ()
    return TrainRequest(
        domain_id=TARGET,
        round_index=0 if method == INITIAL else 1,
        method=method,
        sources=tuple(card.for_fusion() for card in cards),
        register=register,
    )


def test_test_rows_enter_neither_profile_nor_choice_nor_model(grown: Grown) -> None:
    world = TamperedWorld()
    plain, tampered = (carry_out(profile_request(), grown, w) for w in (WORLD, world))
    assert isinstance(plain, DomainProfile)
    assert isinstance(tampered, DomainProfile)
    np.testing.assert_array_equal(plain.statistics_D, tampered.statistics_D)
    assert carry_out(probe_request(grown), grown, world) == carry_out(probe_request(grown), grown)
    for method in ("hat", INITIAL):
        request = train_request(grown, method)
        plain, tampered = carry_out(request, grown), carry_out(request, grown, world)
        assert isinstance(plain, TrainResult)
        assert isinstance(tampered, TrainResult)
        assert plain.card is not None
        assert tampered.card is not None
        assert plain.card.model_id == tampered.card.model_id
        np.testing.assert_array_equal(plain.card.centroids_CF, tampered.card.centroids_CF)


def test_a_initial_domain_is_fully_labelled_and_a_target_is_not(grown: Grown) -> None:
    split = split_rows(WORLD.load(TARGET), CONFIG.split, CONFIG.seed)
    initial_domain, target = (
        carry_out(train_request(grown, method), grown) for method in (INITIAL, "label-only")
    )
    assert isinstance(initial_domain, TrainResult)
    assert isinstance(target, TrainResult)
    rows = len(split.train_N), 0, len(split.test_N)
    names = ("num_labelled", "num_unlabelled", "num_test")
    assert tuple(initial_domain.metrics[name] for name in names) == rows
    labelled = len(split.labelled_N)
    assert tuple(target.metrics[name] for name in names) == (
        labelled, len(split.train_N) - labelled, len(split.test_N),
    )  # fmt: skip
    assert 0 < labelled < len(split.train_N)


def test_a_target_counts_only_its_labelled_rows_in_its_profile(grown: Grown) -> None:
    data = WORLD.load(TARGET)
    split = split_rows(data, CONFIG.split, CONFIG.seed)
    for round_index, rows_N in ((0, split.train_N), (1, split.labelled_N)):
        profile = carry_out(profile_request(round_index), grown)
        assert isinstance(profile, DomainProfile)
        assert profile.num_samples == len(split.train_N)
        assert profile.class_counts_C is not None
        expected_C = np.bincount(data.y_N[rows_N], minlength=WORLD.task.num_classes)
        np.testing.assert_array_equal(profile.class_counts_C, expected_C)


def test_a_probe_keeps_the_best_by_joint_score(grown: Grown) -> None:
    request = probe_request(grown)
    selection = carry_out(request, grown)
    assert isinstance(selection, Selection)
    assert [c.model_id for c in selection.candidates] == [c.model_id for c in request.candidates]
    assert [c.coarse_distance for c in selection.candidates] == [0.25, 0.5, 0.75]
    ranked = sorted(selection.candidates, key=lambda c: -(c.joint_score or 0.0))
    assert selection.chosen == tuple(c.model_id for c in ranked[:2])


def test_the_order_of_the_candidates_does_not_choose(grown: Grown) -> None:
    request = probe_request(grown)
    back = replace(
        request,
        candidates=request.candidates[::-1],
        coarse_distances=request.coarse_distances[::-1],
    )
    forth, turned = carry_out(request, grown), carry_out(back, grown)
    assert isinstance(forth, Selection)
    assert isinstance(turned, Selection)
    assert forth.chosen == turned.chosen


def test_a_probe_of_nothing_chooses_nothing(grown: Grown, recwarn: pytest.WarningsRecorder) -> None:
    request = replace(probe_request(grown), candidates=(), coarse_distances=())
    assert carry_out(request, grown) == Selection(domain_id=TARGET, candidates=(), chosen=())
    assert [str(w.message) for w in recwarn] == []


def test_a_device_without_memory_for_a_source_fails_by_name(grown: Grown) -> None:
    tiny = DeviceClass(name="tiny", memory_bytes=1, flops_per_s=1.0, source="test")
    failure = carry_out(probe_request(grown), grown, device_class=tiny)
    assert isinstance(failure, Failure)
    assert (failure.error, failure.method) == ("ArchitectureError", "hat")
    assert "memory of tiny" in failure.message


def test_peak_memory_is_the_training_and_the_sources_beside_it(grown: Grown) -> None:
    request = train_request(grown)
    report = carry_out(request, grown)
    assert isinstance(report, TrainResult)
    training = network_cost(report.architecture, WORLD.task).training_memory_bytes
    sources = sum(card.payload_bytes for card in request.sources)
    assert report.peak_memory_bytes == training + sources
    assert report.compute_s > 0


def test_only_an_order_to_register_sends_a_model_up(grown: Grown) -> None:
    for register in (False, True):
        entries: list[LedgerEntry] = []
        report = carry_out(train_request(grown, register=register), grown, entries=entries)
        assert isinstance(report, TrainResult)
        assert (report.card is not None) == register
        assert any(entry.phase == "register" for entry in entries) == register


def test_a_card_says_what_its_payload_is(grown: Grown) -> None:
    report = carry_out(train_request(grown), grown)
    assert isinstance(report, TrainResult)
    card, store = report.card, grown.system.store
    assert card is not None
    assert (card.payload_bytes, card.base_bytes, card.residual_bytes) == tuple(
        len(store.part(card.model_id, part)) for part in ("exact", "base", "residual")
    )
    assert card.architecture == report.architecture
    assert card.centroids_CF is not None
    assert len(card.centroids_CF) == len(card.class_mask_C) == WORLD.task.num_classes
    assert card.profile is None  # the server adds the one it was told


def test_own_architecture_means_own_architecture(grown: Grown) -> None:
    cards = grown.rounds[-1].state.catalogue
    request = replace(
        train_request(grown, "finetuned-same", register=False),
        sources=tuple(card.for_fusion() for card in cards if card.domain_id != TARGET),
    )
    entries: list[LedgerEntry] = []
    own = carry_out(train_request(grown, "label-only", register=False), grown)
    report = carry_out(request, grown, entries=entries)
    assert isinstance(own, TrainResult)
    assert isinstance(report, TrainResult)
    assert report.architecture == own.architecture
    alike = [card for card in request.sources if card.architecture == own.architecture]
    assert 0 < len(alike) < len(request.sources)
    fetched = sum(entry.payload_bytes for entry in entries)
    assert fetched == sum(min(card.shipped_bytes, card.payload_bytes) for card in alike)


@pytest.mark.parametrize(("method", "error"), [("magic", "ConfigError"), ("hat", "TransportError")])
def test_what_goes_wrong_comes_back_by_name(grown: Grown, method: str, error: str) -> None:
    request = replace(train_request(grown, method), sources=())
    failure = carry_out(request, grown)
    assert isinstance(failure, Failure)
    assert (failure.domain_id, failure.round_index) == (TARGET, 1)
    assert (failure.method, failure.error) == (method, error)


def test_a_source_that_the_store_does_not_hold_is_a_named_failure(grown: Grown) -> None:
    request = train_request(grown)
    lost = SIGNER.sign(replace(request.sources[0], model_id="0" * 64))
    failure = carry_out(replace(request, sources=(lost,)), grown)
    assert isinstance(failure, Failure)
    assert failure.error == "ModelMissingError"


def test_a_card_changed_on_its_way_fails_by_name_before_a_byte_is_fetched(grown: Grown) -> None:
    request = probe_request(grown)
    first, *others = request.candidates
    swapped = replace(first, model_id=others[0].model_id)
    entries: list[LedgerEntry] = []
    failure = carry_out(replace(request, candidates=(swapped, *others)), grown, entries=entries)
    assert isinstance(failure, Failure)
    assert (failure.error, failure.method) == ("PayloadChangedError", "hat")
    assert first.domain_id in failure.message
    assert entries == []


def test_methods_of_one_domain_start_from_one_seed_and_domains_do_not(grown: Grown) -> None:
    def model(domain_id: str) -> str:
        request = replace(train_request(grown, "label-only"), domain_id=domain_id)
        report = carry_out(request, grown)
        assert isinstance(report, TrainResult)
        assert report.card is not None
        return report.card.model_id

    assert model(TARGET) == model(TARGET)
    assert len({model(domain_id) for domain_id in INITIAL_DOMAINS}) == len(INITIAL_DOMAINS)
