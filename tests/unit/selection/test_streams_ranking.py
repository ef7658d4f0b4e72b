"""Coarse selection where domains have unlike streams."""

from dataclasses import replace

import numpy as np
import pytest

from graft.core.config import PolicyConfig, SelectionConfig, SplitConfig
from graft.core.exchange import Failure, ProfileRequest
from graft.core.records import DomainProfile, ModelCard
from graft.core.streams import select
from graft.data.splits import split_rows
from graft.data.synthetic.wearables import TASK, WearablesWorld
from graft.errors import EdgeError
from graft.privacy import Cost, SeededReleases, SitePolicy, profile_domain
from graft.rounds.admissible import digest
from graft.selection import rank_catalogue
from graft.selection.coarse import stream_distances

WORLD = WearablesWorld(24, 40, seed=0)
SETTINGS = PolicyConfig(min_class_count=1)


def policy(settings: PolicyConfig = SETTINGS) -> SitePolicy:
    return SitePolicy(settings, SeededReleases(settings, keys=(1,), spent=Cost(epsilon=0, delta=0)))


def profile_of(domain_id: str, settings: PolicyConfig = SETTINGS) -> DomainProfile:
    data = WORLD.load(domain_id)
    rows = split_rows(data, SplitConfig(), seed=0).train_N
    x, y_N = select(data.x, rows), data.y_N[rows]
    return profile_domain(domain_id, TASK, x, y_N, policy(settings), data.inputs)


PROFILES = {domain_id: profile_of(domain_id) for domain_id in WORLD.domain_ids}
BOTH = [d for d in PROFILES if len(PROFILES[d].inputs) == 2]
MOTION = [d for d in PROFILES if PROFILES[d].inputs == ("motion",)]


def card(domain_id: str, architecture: str = "fused-small") -> ModelCard:
    profile = PROFILES[domain_id]
    if len(profile.inputs) == 1:
        architecture = f"cnn-small[{profile.inputs[0]}]"
    return ModelCard(
        model_id=domain_id.encode().hex().zfill(64),
        domain_id=domain_id,
        architecture=architecture,
        payload_bytes=1,
        base_bytes=1,
        residual_bytes=1,
        class_mask_C=np.ones(TASK.num_classes, np.bool_),
        round_index=0,
        profile=profile,
    )


CARDS = [card(domain_id) for domain_id in PROFILES]


def test_a_third_of_the_world_lacks_a_stream() -> None:
    many = WearablesWorld(600, 20, seed=0)
    lacking = sum(len(many.inputs(d)) == 1 for d in many.domain_ids)
    assert 150 < lacking < 250
    assert len(MOTION) >= 2
    assert len(BOTH) >= 8


def test_a_source_is_a_candidate_only_where_the_target_has_its_streams() -> None:
    near = rank_catalogue(
        [PROFILES[BOTH[0]], PROFILES[MOTION[0]]], CARDS, SelectionConfig(num_candidates=50)
    )
    assert {c.domain_id for c, _ in near[0]} == {*PROFILES} - {BOTH[0]}  # it may learn from fewer
    assert {c.domain_id for c, _ in near[1]} == {*MOTION} - {MOTION[0]}
    assert all(distance == sorted(d for _, d in near[0])[i] for i, (_, distance) in
               enumerate(near[0]))  # fmt: skip


def test_a_model_of_one_stream_is_compared_by_that_stream_alone() -> None:
    target, source = PROFILES[BOTH[0]], PROFILES[BOTH[1]]
    others = [PROFILES[d] for d in BOTH[1:]]
    by_motion = stream_distances([target], others, [("motion",)] * len(others))
    changed = replace(source, statistics_D=source.statistics_D.copy())
    changed.statistics_D[-1] += 1e3  # of the camera
    again = stream_distances([target], [changed, *others[1:]], [("motion",)] * len(others))
    np.testing.assert_array_equal(by_motion, again)
    by_both = stream_distances([target], others, [("motion", "camera")] * len(others))
    assert (by_motion != by_both).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": ("motion", "taste")}, "got the stream 'taste'"),
        ({"input_sizes": (96, 5)}, "got sizes"),
        ({"inputs": ("motion",), "input_sizes": (96,)}, "statistics, wanted 96"),
    ],
)
def test_a_profile_whose_streams_do_not_fit_is_its_domains_failure(
    change: dict[str, object], words: str
) -> None:
    profile = PROFILES[BOTH[0]]
    request = ProfileRequest(domain_id=profile.domain_id, round_index=0)
    assert digest(request, profile, TASK) is profile
    failure = digest(request, replace(profile, **change), TASK)  # type: ignore[arg-type]
    assert isinstance(failure, Failure)
    assert failure.error == EdgeError.__name__
    assert words in failure.message


def test_a_noisy_profile_has_the_layout_of_an_exact_one() -> None:
    noisy = profile_of(
        BOTH[0], PolicyConfig(epsilon=1e6, total_epsilon=1e7, delta=1e-5, value_bound=4.0)
    )
    exact = PROFILES[BOTH[0]]
    assert noisy.inputs == exact.inputs
    assert noisy.input_sizes == exact.input_sizes
    motion = exact.input_sizes[0]
    np.testing.assert_allclose(
        noisy.statistics_D[: motion // 2], exact.statistics_D[: motion // 2], atol=0.4
    )
