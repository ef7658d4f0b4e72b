"""Coarse selection: distances by hand, and what must not decide."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import SelectionConfig
from graft.core.records import DomainProfile, ModelCard
from graft.errors import EdgeError
from graft.selection import ProfileRanking, RankedCards, profile_distances, rank_catalogue


def profile(domain_id: str, *statistics: float) -> DomainProfile:
    return DomainProfile(
        domain_id=domain_id,
        task="t",
        num_samples=1,
        statistics_D=np.array(statistics, np.float32),
        class_counts_C=None,
    )


def card(domain_id: str, *statistics: float) -> ModelCard:
    return ModelCard(
        model_id=domain_id.encode().hex().zfill(64),
        domain_id=domain_id,
        architecture="mlp",
        payload_bytes=1,
        base_bytes=1,
        residual_bytes=1,
        class_mask_C=np.ones(2, np.bool_),
        round_index=0,
        profile=profile(domain_id, *statistics) if statistics else None,
    )


def nearest(
    one: DomainProfile, catalogue: Sequence[ModelCard], config: SelectionConfig
) -> RankedCards:
    return rank_catalogue([one], catalogue, config)[0]


def ids(ranked: list[tuple[ModelCard, float]]) -> list[str]:
    return [each.domain_id for each, _ in ranked]


def test_distances_are_in_deviations_across_the_sources() -> None:
    # The sources (0, 0) and (2, 4) deviate by 1 and 2: from (0, 0) the second is 2 deviations
    # off in both of D = 2 statistics, sqrt(4 + 4) / sqrt(2) = 2.
    np.testing.assert_allclose(profile_distances([0, 0], [[0, 0], [2, 4]]), [0, 2])


def test_a_statistic_equal_at_every_source_has_no_say() -> None:
    sources = np.array([[0.0, 0, 7], [2, 4, 7]])
    near, far = (profile_distances([0, 0, own], sources) for own in (7, 1e6))
    np.testing.assert_array_equal(near, far)
    rounding = sources + np.array([[0, 0, 1e-9], [0, 0, 0]])
    np.testing.assert_allclose(profile_distances([0, 0, 1e6], rounding), near)


def test_sources_that_all_agree_are_all_equally_near() -> None:
    np.testing.assert_array_equal(profile_distances([5.0], [[1.0], [1.0]]), [0, 0])


@given(
    st.lists(
        st.lists(st.integers(-1_000, 1_000), min_size=3, max_size=3),
        min_size=2, max_size=6, unique_by=tuple,
    ),
    st.floats(0.1, 100),
    st.integers(-50, 50),
)  # fmt: skip
def test_units_do_not_matter_and_the_nearest_is_oneself(
    rows: list[list[int]], scale: float, shift: int
) -> None:
    sources_SD = np.array(rows, np.float64)
    for place, own_D in enumerate(sources_SD):
        distance_S = profile_distances(own_D, sources_SD)
        assert distance_S[place] == 0
        assert (np.delete(distance_S, place) > 0).all()
        rescaled = profile_distances(own_D * scale + shift, sources_SD * scale + shift)
        np.testing.assert_allclose(rescaled, distance_S, rtol=1e-6, atol=1e-9)


def test_candidates_come_nearest_first_with_their_distances() -> None:
    catalogue = [card("far", 4.0), card("near", 1.0), card("middle", 2.0)]
    ranked = nearest(profile("me", 0.0), catalogue, SelectionConfig())
    assert ids(ranked) == ["near", "middle", "far"]
    # The sources deviate by sqrt(14 / 9) about their mean 7 / 3.
    np.testing.assert_allclose([d for _, d in ranked], np.array([1, 2, 4]) / np.sqrt(14 / 9))


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (SelectionConfig(num_sources=3), 8),
        (SelectionConfig(num_sources=5), 10),
        (SelectionConfig(num_sources=5, num_candidates=6), 6),
        (SelectionConfig(num_sources=20), 12),  # all there are
    ],
)
def test_as_many_candidates_as_the_configuration_wants(
    config: SelectionConfig, wanted: int
) -> None:
    catalogue = [card(f"d{place:02d}", float(place)) for place in range(12)]
    ranked = nearest(profile("me", 0.0), catalogue, config)
    assert ids(ranked) == [f"d{place:02d}" for place in range(wanted)]


def test_ties_fall_to_the_lower_domain_id_in_any_catalogue() -> None:
    catalogue = [card("c", 1.0), card("a", 1.0), card("b", -1.0), card("d", 9.0)]
    for order in (catalogue, catalogue[::-1]):
        ranked = nearest(profile("me", 0.0), order, SelectionConfig())
        assert ids(ranked) == ["a", "b", "c", "d"]


def test_a_domain_is_no_candidate_of_its_own() -> None:
    catalogue = [card("me", 0.0), card("other", 5.0)]
    assert ids(nearest(profile("me", 0.0), catalogue, SelectionConfig())) == ["other"]
    assert nearest(profile("me", 0.0), catalogue[:1], SelectionConfig()) == []


def test_a_card_without_a_profile_cannot_be_ranked() -> None:
    with pytest.raises(EdgeError, match="mute"):
        nearest(profile("me", 0.0), [card("mute")], SelectionConfig())


def test_a_profile_of_another_length_is_not_compared() -> None:
    catalogue = [card("long", 0.0, 0.0), card("fits", 5.0)]
    assert ids(nearest(profile("me", 0.0), catalogue, SelectionConfig())) == ["fits"]
    assert nearest(profile("me", 0.0, 1.0, 2.0), catalogue, SelectionConfig()) == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_one_product_ranks_as_measuring_each_distance_does(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # Values on a coarse grid, so that many sources are level; one statistic tells nothing.
    sources_SD = rng.integers(-2, 3, (40, 6)).astype(np.float32)
    sources_SD[:, 3] = 7.0
    own_ND = rng.integers(-2, 3, (70, 6)).astype(np.float32)
    ranking = ProfileRanking(sources_SD)
    for own_D, found in zip(own_ND, ranking.nearest(own_ND, count), strict=True):
        distance_S = ranking.distances(own_D)
        brute = sorted((distance, place) for place, distance in enumerate(distance_S.tolist()))
        assert sorted((distance, place) for place, distance in found)[:count] == brute[:count]


@pytest.mark.parametrize("liar", [3e38, 1e9, -1e9, 1e3])
def test_one_false_profile_does_not_rerank_the_others(liar: float) -> None:
    honest_SD = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    false_SD = np.concatenate([honest_SD, np.full((1, 6), liar, np.float32)])
    target_D = np.zeros(6, np.float32)
    before, after = (profile_distances(target_D, each_SD) for each_SD in (honest_SD, false_SD))
    assert np.isfinite(after).all()
    np.testing.assert_array_equal(np.argsort(after[:12]), np.argsort(before))
    np.testing.assert_allclose(after[:12], before)
    assert after[-1] > after[:12].max()


def test_honest_profiles_are_never_cut() -> None:
    for seed in range(20):
        z_SD = np.random.default_rng(seed).normal(size=(5 + seed, 96))
        distances = profile_distances(z_SD[0], z_SD)
        sigma_D = z_SD.std(0)
        wanted = np.sqrt((((z_SD - z_SD[0]) / sigma_D) ** 2).sum(1) / 96)
        np.testing.assert_allclose(distances, wanted, rtol=1e-12)
