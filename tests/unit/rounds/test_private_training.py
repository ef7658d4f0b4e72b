"""Private training on a device: it is paid for once, and nothing is trained beyond the budget."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import world_devices
from graft_client.policy import DiskReleases
from small_system import CONFIG, WORLD, Grown
from test_device import carry_out, train_request

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.exchange import Failure, TrainResult
from graft.data.splits import split_rows
from graft.privacy import SitePolicy, composed_epsilon, training_cost
from graft.privacy.accounting import Mechanism
from graft.rounds import handle_request
from graft.rounds.device import Device

POLICY = PolicyConfig(min_class_count=1, train_epsilon=8.0, total_epsilon=8.0)


def private(**changes: object) -> ExpansionConfig:
    return replace(CONFIG, policy=replace(POLICY, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["initial", "graft"])
def test_equal_seeds_give_equal_private_models_and_others_than_plain(
    grown: Grown, method: str
) -> None:
    request = train_request(grown, method)
    results = [
        carry_out(request, grown, config=config) for config in (private(), private(), CONFIG)
    ]
    ids = []
    for result in results:
        assert isinstance(result, TrainResult)
        assert result.card is not None
        ids.append(result.card.model_id)
    assert ids[0] == ids[1] != ids[2]
    assert results[0].diagnostics is None  # type: ignore[union-attr]


def test_a_training_beyond_the_budget_is_a_named_failure_and_so_is_a_method_that_mixes_rows(
    grown: Grown,
) -> None:
    spent = carry_out(train_request(grown, "graft"), grown, config=private(total_epsilon=7.9))
    assert isinstance(spent, Failure)
    assert (spent.error, "epsilon 7.9" in spent.message) == ("PolicyError", True)
    # Noise on the centroids costs as well, after the training.
    both = carry_out(train_request(grown, "graft"), grown, config=private(epsilon=0.1))
    assert isinstance(both, Failure)
    assert "epsilon 8 with" in both.message
    mixed = carry_out(train_request(grown, "hat"), grown, config=private())
    assert isinstance(mixed, Failure)
    assert mixed.error == "ConfigError"


def test_a_site_may_train_the_head_alone(grown: Grown) -> None:
    ids = set()
    for head_only in (False, True):
        config = private(train_head_only=head_only)
        result = carry_out(train_request(grown, "graft"), grown, config=config)
        assert isinstance(result, TrainResult)
        assert result.card is not None
        ids.add(result.card.model_id)
    assert len(ids) == 2


def test_no_label_decides_where_a_row_belongs(grown: Grown) -> None:
    request = train_request(grown, "graft")
    devices = world_devices(WORLD, private(), grown.system.store, lambda entry: None)
    with devices(request) as device:
        wanted = split_rows(device.data, CONFIG.split, CONFIG.seed, by_labels=False)
        np.testing.assert_array_equal(device.rows(request).labelled_N, wanted.labelled_N)


def test_a_site_pays_once_and_trains_the_same_again(grown: Grown, tmp_path: Path) -> None:
    releases = DiskReleases(tmp_path / "site.spent", POLICY)
    request = train_request(grown, "label-only")

    def trained(device: Device) -> TrainResult | Failure:
        result = handle_request(request, replace(device, policy=SitePolicy(POLICY, releases)))
        assert isinstance(result, TrainResult | Failure)
        return result

    devices = world_devices(WORLD, CONFIG, grown.system.store, lambda entry: None)
    with devices(request) as device:
        first, again = trained(device), trained(device)
    assert isinstance(first, TrainResult)
    assert isinstance(again, TrainResult)
    assert first.card is not None
    assert again.card is not None
    assert first.card.model_id == again.card.model_id
    assert releases.spent.epsilon == 8.0
    with devices(replace(request, round_index=2)) as device:
        other = handle_request(
            replace(request, round_index=2), replace(device, policy=SitePolicy(POLICY, releases))
        )
    assert isinstance(other, Failure)
    assert other.error == "PolicyError"
    assert releases.spent.epsilon == 8.0


@pytest.mark.parametrize(
    ("multiplier", "rate", "steps", "delta", "replaced"),
    [
        (1.36, 0.1, 300, 1e-5, 13.45656),
        (2.0, 0.05, 500, 1e-5, 4.9808),
        (4.0, 0.3, 100, 1e-5, 7.00223),
        (14.0, 0.44, 300, 1e-5, 4.82777),
        (0.7, 0.02, 3, 1e-8, 4.05333),
        (0.6, 0.001, 20_000, 1e-5, 3.67075),
    ],
)
def test_the_accountant_agrees_with_dp_accounting(
    multiplier: float, rate: float, steps: int, delta: float, replaced: float
) -> None:
    """Epsilon for a replaced row by dp-accounting 0.6.0 (``PLDAccountant``, REPLACE_ONE), which
    cannot be installed beside the newest attrs."""
    mechanism = Mechanism(noise_multiplier=multiplier, sample_rate=rate, steps=steps)
    assert composed_epsilon([mechanism], delta) == pytest.approx(replaced, rel=2e-3)
    many = [Mechanism(noise_multiplier=multiplier, sample_rate=rate, steps=steps // 3)] * 3
    assert composed_epsilon(many, delta) <= composed_epsilon([mechanism], delta) + 1e-9
    least, cost = training_cost(replaced, delta, sample_rate=rate, steps=steps)
    assert least == pytest.approx(multiplier, rel=1e-3)
    assert composed_epsilon(cost.mechanisms, delta) <= replaced
