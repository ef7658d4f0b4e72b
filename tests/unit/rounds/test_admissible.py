"""What decodes but fits neither the task nor the tables is the failure of its domain alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from small_system import CONFIG, INITIAL_DOMAINS, WORLD, System

from graft.core.exchange import Failure, ProfileRequest, Request, Response, TrainResult
from graft.core.records import DomainProfile, ModelCard
from graft.methods.federated import FEDAVG_LOCAL
from graft.rounds import AdmittingEdge, average_by_architecture, digest, train_initial_domains

CULPRIT = INITIAL_DOMAINS[1]
Spoil = Callable[[DomainProfile], DomainProfile]


def spoiled(spoil: Spoil) -> System:
    def change(request: Request, response: Response) -> Response:
        is_one = isinstance(response, DomainProfile) and response.domain_id == CULPRIT
        return spoil(response) if is_one else response  # type: ignore[arg-type]

    return System(config=replace(CONFIG, comparisons=()), change=change)


def only(statistics: float) -> Spoil:
    return lambda profile: replace(
        profile, statistics_D=np.full_like(profile.statistics_D, statistics)
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (only(3e38), "no imu sample has"),
        (only(-1.0), "no imu sample has"),  # deviations
        (lambda p: replace(p, statistics_D=p.statistics_D[:-1]), "95 statistics, wanted 96"),
        (lambda p: replace(p, class_counts_C=np.ones(99, np.int64)), "99 class counts"),
        (lambda p: replace(p, task="other"), "task 'other'"),
        (lambda p: replace(p, statistics_D=None), "AttributeError"),
    ],
)
def test_a_profile_that_no_data_can_have_is_its_domains_failure(spoil: Spoil, message: str) -> None:
    system = spoiled(spoil)
    edge = AdmittingEdge(system.edge(), WORLD.task)
    done = train_initial_domains(INITIAL_DOMAINS, edge, system.admit)
    (failure,) = done.failures
    assert (failure.domain_id, failure.error) == (CULPRIT, "EdgeError")
    assert message in failure.message
    assert {card.domain_id for card in done.state.catalogue} == {*INITIAL_DOMAINS} - {CULPRIT}


def test_any_error_in_the_admission_of_one_model_is_its_domains_failure() -> None:
    system = System(config=replace(CONFIG, comparisons=()))

    def admit(card: ModelCard) -> ModelCard:
        if card.domain_id == CULPRIT:
            raise OverflowError("int too large to convert")
        return system.admit(card)

    done = train_initial_domains(INITIAL_DOMAINS, system.edge(), admit)
    (failure,) = done.failures
    assert (failure.domain_id, failure.error) == (CULPRIT, "EdgeError")
    assert "OverflowError: int too large to convert" in failure.message
    assert len(done.state.catalogue) == 2


def test_the_servers_own_disk_is_no_domains_failure() -> None:
    system = System(config=replace(CONFIG, comparisons=()))

    def full(card: ModelCard) -> ModelCard:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        train_initial_domains(INITIAL_DOMAINS, system.edge(), full)


def test_a_result_without_a_row_is_a_failure() -> None:
    report = TrainResult(
        domain_id="d",
        round_index=0,
        method="m",
        architecture="a",
        device_class="c",
        source_domains=(),
        metrics={"accuracy": 1.0},
        compute_s=0.0,
        peak_memory_bytes=0,
    )
    request = ProfileRequest(domain_id="d", round_index=0)
    failure = digest(request, report, WORLD.task)
    assert isinstance(failure, Failure)
    assert "got no macro_f1, num_test" in failure.message


class Weights:
    """An ``Averaging`` that notes the weights."""

    def __init__(self, system: System) -> None:
        self.system, self.weights = system, list[dict[str, int]]()

    def begin(self, architecture: str) -> ModelCard:
        return next(c for c in self.cards if c.architecture == architecture)

    def average(self, architecture: str, members: list[tuple[ModelCard, int]]) -> ModelCard:
        self.weights.append({card.domain_id: count for card, count in members})
        return members[0][0]


@pytest.mark.parametrize("claimed", [2.0**40, 1e300])
def test_a_false_number_of_samples_does_not_decide_an_average(claimed: float) -> None:
    def change(request: Request, response: Response) -> Response:
        is_one = isinstance(response, TrainResult) and response.domain_id == CULPRIT
        if is_one and response.method == FEDAVG_LOCAL:
            return replace(response, metrics={**response.metrics, "num_labelled": claimed})
        return response

    config = replace(CONFIG, method="fedavg", comparisons=())
    config = replace(config, devices=replace(config.devices, architectures=("mlp",)))
    system = System(config=config, change=change)
    done = train_initial_domains(INITIAL_DOMAINS, system.edge(), system.admit)
    averaging = Weights(system)
    averaging.cards = done.state.catalogue  # type: ignore[attr-defined]
    average_by_architecture(done, system.edge(), system.admit, averaging, config)  # type: ignore[arg-type]
    profiled = {profile.domain_id: profile.num_samples for profile in done.profiles}
    assert averaging.weights
    for weights in averaging.weights:
        assert weights[CULPRIT] == profiled[CULPRIT]


def test_a_false_profile_does_not_decide_an_average_either() -> None:
    from graft.rounds.architecture_averages import _capped

    cards = list(range(5))
    counts = [count for _, count in _capped(list(zip(cards, [10, 12, 9, 11, 2**40], strict=True)))]  # type: ignore[arg-type, list-item]
    assert counts == [10, 12, 9, 11, 1100]
