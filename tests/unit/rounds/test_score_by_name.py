"""``selection.score``: every score ranks a probe, by name, by reference and under noise."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sensitivity import (
    CONFIG,
    COST,
    NUM_ROWS,
    POLICY,
    PROBE,
    Exact,
    device_of,
    moved,
    neighbours,
)

from graft.core import plugins
from graft.core.config import SelectionConfig
from graft.core.config_files import with_settings
from graft.core.exchange import Failure, Selection
from graft.data import DomainData
from graft.errors import ConfigError, DomainValueError
from graft.privacy import gaussian_sigma
from graft.rounds import handle_request
from graft.rounds.probe import probe
from graft.selection import scores
from graft.selection.scores import SCORES, Score, SourceOutputs, probe_scores

OF_CLASSES = {name: score for name, score in SCORES.items() if "classes" in score.outputs}
RANKING = sorted(name for name, score in OF_CLASSES.items() if not score.compares_rows)
STATED = sorted(name for name, score in OF_CLASSES.items() if score.sensitivity)
OPEN = replace(POLICY, epsilon=None, total_epsilon=None)
MODULE = """
from graft.selection.scores import Score
FIRST = Score(name="any", of=lambda outputs: float(outputs.mask_C.sum()))
"""


def data() -> DomainData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_ROWS, 2, 16)).astype(np.float32)
    y_N = np.arange(NUM_ROWS) % 3
    return DomainData(domain_id="d", x=x, y_N=y_N, group_N=np.arange(NUM_ROWS))


def by(score: str) -> Selection | Failure:
    config = replace(CONFIG, selection=SelectionConfig(score=score, num_sources=3))
    answer = handle_request(PROBE, device_of(data(), Exact(), OPEN, config))
    assert isinstance(answer, Selection | Failure)
    return answer


@pytest.mark.parametrize("name", RANKING)
def test_each_score_ranks_the_candidates_and_zero_is_one_like_the_others(name: str) -> None:
    selection = by(name)
    assert isinstance(selection, Selection)
    joint = {each.model_id: each.joint_score or 0.0 for each in selection.candidates}
    assert abs(sum(joint.values())) < 1e-6
    assert list(selection.chosen) == sorted(joint, key=lambda name: (-joint[name], name))


def test_the_order_is_that_of_the_score_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def of(outputs: SourceOutputs) -> float:
        seen.append(float(outputs.features_NF.sum()))
        return seen[-1]

    monkeypatch.setattr(plugins, "_loaded", {"m:SUM": Score(name="m:SUM", of=of)})
    selection = by("m:SUM")
    assert isinstance(selection, Selection)
    offered = [card.model_id for card in PROBE.candidates]
    assert list(selection.chosen) == [offered[k] for k in np.argsort(seen)[::-1]]


def test_a_score_by_reference_and_one_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_scores_of_a_test.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", {})
    name = "own_scores_of_a_test:FIRST"
    config = with_settings(CONFIG, {"selection.score": name})
    assert config.plug_ins == (name,)
    assert isinstance(by(name), Selection)
    entry = SimpleNamespace(load=lambda: Score(name="packed", of=lambda _: 1.0), value="p:S")
    monkeypatch.setattr(scores, "entry_points", lambda group: [entry])
    scores._installed.cache_clear()
    try:
        assert [each.name for each in probe_scores("packed")] == ["packed"]
    finally:
        scores._installed.cache_clear()


@pytest.mark.parametrize("name", ["mmd", "frechet", "no-such"])
def test_a_score_that_no_probe_can_compute_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"selection.score: got '{name}'"):
        probe_scores(name)


def test_a_score_that_is_not_finite_is_a_named_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    score = Score(name="m:NAN", of=lambda _: float("nan"))
    monkeypatch.setattr(plugins, "_loaded", {"m:NAN": score})
    failure = by("m:NAN")
    assert isinstance(failure, Failure)
    assert failure.error == DomainValueError.__name__


def test_noise_refuses_a_score_without_a_sensitivity() -> None:
    config = replace(CONFIG, selection=SelectionConfig(score="logme"))
    failure = handle_request(PROBE, device_of(data(), Exact(), POLICY, config))
    assert isinstance(failure, Failure)
    assert failure.error == "PolicyError"
    assert "'logme' without a sensitivity" in failure.message


@settings(max_examples=40, deadline=None)
@given(pair=neighbours(), name=st.sampled_from(STATED))
def test_a_replaced_row_moves_a_score_by_no_more_than_its_noise_is_made_for(
    pair: tuple[DomainData, DomainData], name: str
) -> None:
    config = replace(CONFIG, selection=SelectionConfig(score=name, num_sources=3))
    found = (Exact(), Exact())
    for each, releases in zip(pair, found, strict=True):
        probe(PROBE, device_of(each, releases, POLICY, config))
    assert moved(*found) <= 1 / gaussian_sigma(COST) * (1 + 1e-6)
