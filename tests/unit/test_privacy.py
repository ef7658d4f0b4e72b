"""Noise by a stated epsilon: its size, what a row can move, and what the budget allows."""

import math

import numpy as np
import pytest
from fakes import site_policy
from scipy.stats import norm

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.config_files import with_settings
from graft.core.exchange import ProfileRequest, TrainRequest
from graft.core.tasks import Task
from graft.errors import ConfigError, PolicyError
from graft.privacy import (
    NOTHING,
    Cost,
    Mechanism,
    SeededReleases,
    class_centroids,
    composed_epsilon,
    gaussian_sigma,
    profile_domain,
    release_cost,
    require_budget,
    training_cost,
)
from graft.privacy.profiling import sample_statistics, statistic_ranges
from graft.rounds import configured_policy

TASK = Task(name="w", modality="imu", sample_shape=(2, 32), classes=("a", "b", "c"))
NOISY = {"epsilon": 1.0, "delta": 1e-5, "total_epsilon": 2.0}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2, 32)).astype(np.float32)
Y = np.arange(40) % 3


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (1.0, 1e-5), (8.0, 1e-6)])
def test_the_noise_is_the_least_that_keeps_epsilon_and_delta(epsilon: float, delta: float) -> None:
    def leaked(sigma: float) -> float:
        # P(outputs likelier than e^epsilon beside the neighbour), from two Gaussians 1 apart.
        near = norm.cdf(0.5 / sigma - epsilon * sigma)
        return float(near - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma))

    sigma = gaussian_sigma(Cost(epsilon=epsilon, delta=delta))
    assert leaked(sigma) <= delta * (1 + 1e-6)
    assert leaked(0.99 * sigma) > delta
    if epsilon <= 1:  # the textbook's formula asks for more
        assert sigma < math.sqrt(2 * math.log(1.25 / delta)) / epsilon


@pytest.mark.parametrize("shape", [(40, 2, 32), (40, 3, 8, 8)])
def test_no_sample_has_a_statistic_outside_its_range(shape: tuple[int, ...]) -> None:
    bound = 1.5
    low_P, high_P = statistic_ranges(shape[1:], bound)
    for spread in (0.1, 1.0, 100.0):
        x = np.clip(spread * RNG.normal(size=shape), -bound, bound).astype(np.float32)
        told_NP = sample_statistics(x)
        assert told_NP.shape[1] == len(low_P) == len(high_P)
        assert (told_NP >= low_P - 1e-6).all()
        assert (told_NP <= high_P + 1e-6).all()


def test_a_row_moves_first_and_second_moments_by_two_over_n_a_statistic() -> None:
    # (u - v)^2 + (u^2 - v^2)^2 over u, v in [-1, 1] is greatest at u = 1, v = -1: 4.
    u, v = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(-1, 1, 201))
    moved = (u - v) ** 2 + (u**2 - v**2) ** 2
    assert moved.max() == pytest.approx(4)


def test_noise_has_the_size_that_was_stated() -> None:
    # The first moment of u is 0 for x = 0 where a range is symmetric; half its range is 4.
    x = np.zeros((40, 2, 32), np.float32)
    told = []
    for number in range(300):
        policy = site_policy(**NOISY, withhold_class_counts=True)
        told.append(profile_domain(f"d{number}", TASK, x, Y, policy).statistics_D[0])
    sigma = gaussian_sigma(Cost(epsilon=1, delta=1e-5)) * 2 * math.sqrt(16) / 40
    assert np.std(told) == pytest.approx(4 * sigma, rel=0.15)
    assert abs(np.mean(told)) < 4 * 4 * sigma / math.sqrt(300)


def test_counts_and_statistics_share_one_release() -> None:
    alone = profile_domain("d", TASK, X, Y, site_policy(**NOISY, withhold_class_counts=True))
    both = profile_domain("d", TASK, X, Y, site_policy(**NOISY))
    assert alone.class_counts_C is None
    assert both.class_counts_C is not None
    counts_C = both.class_counts_C
    assert ((counts_C == 0) | (counts_C >= 10)).all()


def test_equal_releases_are_equal_and_others_are_not() -> None:
    one, again = (profile_domain("d", TASK, X, Y, site_policy(**NOISY)) for _ in range(2))
    np.testing.assert_array_equal(one.statistics_D, again.statistics_D)
    changed = X.copy()
    changed[0] += 1
    other = profile_domain("d", TASK, changed, Y, site_policy(**NOISY))
    # Not the old noise on new numbers: their difference would be exact.
    exact = sample_statistics(X).mean(0) - sample_statistics(changed).mean(0)
    assert not np.allclose((one.statistics_D - other.statistics_D)[:16], exact, atol=1e-3)


def test_noisy_centroids_of_large_classes_are_near_the_exact_ones() -> None:
    features_NF = RNG.normal(size=(9_000, 4)).astype(np.float32) + np.arange(4, dtype=np.float32)
    y_N = np.arange(9_000) % 3
    policy = site_policy(**NOISY, feature_bound=20.0)
    noisy_CF = class_centroids("d", ("centroids", 1), features_NF, y_N, 4, policy)
    exact_CF = class_centroids("d", ("centroids", 1), features_NF, y_N, 4, site_policy())
    # Of sums: 2 x 3.73 x 20 = 149, over 3,000 rows 0.05.
    assert np.abs(noisy_CF - exact_CF)[:3].max() < 5 * 0.05
    assert not np.array_equal(noisy_CF, exact_CF)
    assert (noisy_CF[3] == 0).all()  # a class without rows has none


def test_a_policy_withholds_centroids_and_counts() -> None:
    policy = site_policy(min_class_count=1, withhold_centroids=True, withhold_class_counts=True)
    assert not class_centroids("d", (), X[:, :, 0], Y, 3, policy).any()
    assert profile_domain("d", TASK, X, Y, policy).class_counts_C is None


def test_a_budget_allows_what_fits_and_names_what_does_not() -> None:
    config = PolicyConfig(epsilon=0.1, total_epsilon=1.0, total_delta=5e-6)
    cost = Cost(epsilon=0.1, delta=1e-6)
    spent = Cost(epsilon=0.0, delta=0.0)
    for _ in range(5):
        require_budget("profile of ann", spent, cost, config)
        spent = spent + cost
    with pytest.raises(PolicyError, match=r"profile of ann: got .*delta 5e-06 .* wanted 1e-06"):
        require_budget("profile of ann", spent, cost, config)
    with pytest.raises(PolicyError, match=r"epsilon 1 with 0\.95"):
        require_budget("x", Cost(epsilon=0.95, delta=0), cost, config)


def test_gaussians_compose_to_one_of_their_summed_precision() -> None:
    sigma = gaussian_sigma(Cost(epsilon=1, delta=1e-5))
    one = Mechanism(noise_multiplier=sigma)
    assert composed_epsilon([one], 1e-5) == pytest.approx(1)
    four = composed_epsilon([one] * 4, 1e-5)
    assert four == pytest.approx(composed_epsilon([Mechanism(noise_multiplier=sigma / 2)], 1e-5))
    assert 2 < four < 4
    steps = Mechanism(noise_multiplier=sigma, steps=4)
    assert composed_epsilon([steps], 1e-5) == pytest.approx(four)


def test_one_sampled_step_leaks_what_its_densities_say() -> None:
    sigma, rate, delta = 1.3, 0.2, 1e-4
    x = np.linspace(-20, 20, 400_001)
    rest, moved, other = (norm.pdf(x, mean, sigma) for mean in (0, 1, -1))
    likely, unlikely = ((1 - rate) * rest + rate * each for each in (moved, other))
    epsilon = composed_epsilon([Mechanism(noise_multiplier=sigma, sample_rate=rate)], delta)
    exact = np.trapezoid((likely - math.exp(epsilon) * unlikely).clip(0), x)
    assert exact == pytest.approx(delta, rel=1e-3)
    assert exact <= delta


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.5])
def test_opposite_gradients_leak_most(epsilon: float) -> None:
    sigma, rate = 0.8, 0.3
    axis = np.linspace(-6, 6, 121)
    x, y = np.meshgrid(axis, axis)

    def density(length: float, angle: float) -> np.ndarray:
        of_x = norm.pdf(x, length * np.cos(angle), sigma)
        of_row = of_x * norm.pdf(y, length * np.sin(angle), sigma)
        return (1 - rate) * norm.pdf(x, 0, sigma) * norm.pdf(y, 0, sigma) + rate * of_row

    def leaked(length: float, angle: float) -> float:
        gap = density(1, 0) - math.exp(epsilon) * density(length, angle)
        return float(gap.clip(0).sum()) * (axis[1] - axis[0]) ** 2

    worst = leaked(1, np.pi)
    for length in (0.0, 0.5, 1.0):
        for angle in np.linspace(0, np.pi, 4):
            assert leaked(length, angle) <= worst * (1 + 1e-6)


def test_sampling_costs_less_than_all_rows_and_more_than_none() -> None:
    def epsilon(rate: float) -> float:
        mechanism = Mechanism(noise_multiplier=2.0, sample_rate=rate, steps=100)
        return composed_epsilon([mechanism], 1e-5)

    # Of all rows, a replaced one moves a sum of gradients by twice the length that they are cut to.
    whole = composed_epsilon([Mechanism(noise_multiplier=1.0, steps=100)], 1e-5)
    assert 0 < epsilon(0.01) < epsilon(0.1) < whole


def test_private_training_costs_what_was_asked_for() -> None:
    multiplier, cost = training_cost(4.0, 1e-5, sample_rate=0.1, steps=50)
    assert cost.mechanisms == (Mechanism(noise_multiplier=multiplier, sample_rate=0.1, steps=50),)
    assert composed_epsilon(cost.mechanisms, 1e-5) == pytest.approx(4.0)


def test_joint_composition_allows_more_releases_than_the_sum() -> None:
    joint = PolicyConfig(
        epsilon=0.5, delta=1e-6, total_epsilon=2.0, total_delta=1e-5, composition="joint"
    )
    spent, cost, releases = NOTHING, release_cost(joint), 0
    assert cost is not None
    while composed_epsilon((spent + cost).mechanisms, 1e-5) <= 2:
        require_budget("profile", spent, cost, joint)
        spent, releases = spent + cost, releases + 1
    assert releases > 4
    with pytest.raises(PolicyError, match="budget of epsilon 2 with 1"):
        require_budget("profile", spent, cost, joint)
    with pytest.raises(PolicyError, match="no mechanism"):
        require_budget("model", NOTHING, Cost(epsilon=0.1, delta=0), joint)
    with pytest.raises(ConfigError, match="total_delta"):
        PolicyConfig(epsilon=1.0, total_epsilon=1.0, composition="joint")


def test_training_is_paid_for_once_for_equal_rows_and_settings() -> None:
    _, cost = training_cost(1.0, 1e-5, sample_rate=1.0, steps=1)
    policy = site_policy(**{**NOISY, "total_epsilon": 4.0})

    def draw(epochs: int, rows: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(policy.spend("model of d", ("train", epochs), {"x": rows}, cost).normal())

    assert draw(3, X) == draw(3, X)
    assert len({draw(3, X), draw(4, X), draw(3, X[::-1]), draw(3, X.astype(np.float64))}) == 4


def test_nothing_is_drawn_once_the_budget_is_spent() -> None:
    config = PolicyConfig(epsilon=1.0, total_epsilon=1.0)
    releases = SeededReleases(config, (), Cost(epsilon=1.0, delta=0))
    with pytest.raises(PolicyError):
        releases.release("x", "key", Cost(epsilon=1, delta=1e-6), lambda rng: pytest.fail("drawn"))


def test_a_simulated_domain_tells_its_profile_first_and_its_centroids_last() -> None:
    config = with_settings(ExpansionConfig(), {"policy.epsilon": 1.0, "policy.total_epsilon": 1.5})
    profile = configured_policy(ProfileRequest(domain_id="d", round_index=1), config)
    profile.noisy("profile", (), {"a": (np.zeros(2), 1.0)})
    request = TrainRequest(domain_id="d", round_index=1, method="graft", sources=(), register=True)
    with pytest.raises(PolicyError):
        configured_policy(request, config).noisy("centroids", (), {"a": (np.zeros(2), 1.0)})


@pytest.mark.parametrize(
    "settings",
    [
        {"epsilon": 1.0},
        {"epsilon": 0.0, "total_epsilon": 1.0},
        {"delta": 0.0},
        {"value_bound": -1.0},
        {"total_delta": 0.0},
    ],
)
def test_a_policy_that_means_nothing_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="policy"):
        PolicyConfig(**settings)  # type: ignore[arg-type]
