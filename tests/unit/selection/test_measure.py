"""The benchmark's measurement on a small system: what is a truth, and what a score may see."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    PolicyConfig,
    TrainingConfig,
    WorldConfig,
)
from graft.data.worlds import open_world
from graft.selection.scores import SCORES
from graft.selection.scores.labels import leep_score
from graft.training import masked_probabilities, predict_in_batches

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "selection"
CONFIG = ExpansionConfig(
    world=WorldConfig(domains=5, windows_per_domain=60),
    training=TrainingConfig(max_steps=12),
    devices=DeviceConfig(architectures=("cnn-small", "mlp")),
    policy=PolicyConfig(min_class_count=1),
)


@pytest.fixture(scope="module")
def modules():
    """The benchmark's own modules, which stand beside their script and in no package."""
    places = [str(BENCHMARK), str(BENCHMARK.parent)]
    sys.path[:0] = places
    import measure
    import run
    import tables

    yield measure, run, tables
    for place in places:
        sys.path.remove(place)
    for module in (measure, run, tables):
        sys.modules.pop(module.__name__)


@pytest.fixture(scope="module")
def measured(modules):
    """Three initial domains offered to the fourth domain: (target domain, offers, rows)."""
    measure, run, _ = modules
    world = open_world(CONFIG.world, CONFIG.seed)
    offers = run.find_offers(world, CONFIG, world.domain_ids[:3])
    target = measure.open_target(world.domain_ids[3], world, CONFIG)
    rows, probing = measure.measure(target, offers, CONFIG)
    assert min(probing.values()) > 0
    return target, offers, rows


def values(rows, probe: str, score: str) -> list[float]:
    return [row.value for row in rows if (row.probe, row.score) == (probe, score)]


def test_every_score_meets_every_source_in_both_probes(measured) -> None:
    _, offers, rows = measured
    per_probe = sum("classes" in score.outputs for score in SCORES.values()) + 2
    cloud = 4
    assert len(rows) == len(offers) * (2 * per_probe + cloud)
    assert all(np.isfinite(row.value) and row.seconds >= 0 for row in rows)


def test_the_truth_as_is_is_the_accuracy_on_the_test_rows(measured) -> None:
    target, offers, rows = measured
    for offer in offers:
        logits = predict_in_batches(offer.source.network, target.x_T)
        mask = torch.from_numpy(offer.source.mask_C)
        predicted = logits.masked_fill(~mask, float("-inf")).argmax(1)
        expected = (predicted == target.y_T).double().mean().item()
        found = {row.truth_as_is for row in rows if row.source == offer.card.domain_id}
        assert found == {expected}


def test_a_score_is_its_function_of_what_the_source_says_of_the_labelled_rows(measured) -> None:
    target, offers, rows = measured
    x_L = target.x_N[: len(target.y_L)]
    for place, offer in enumerate(offers):
        logits = predict_in_batches(offer.source.network, x_L)
        theta = masked_probabilities(logits, torch.from_numpy(offer.source.mask_C))
        expected = leep_score(theta.numpy(), target.y_L.numpy())
        assert values(rows, "as-is", "leep")[place] == pytest.approx(expected, rel=1e-5)
        assert values(rows, "renormalised", "leep")[place] != values(rows, "as-is", "leep")[place]


def test_no_score_sees_the_test_rows(measured, modules) -> None:
    target, offers, rows = measured
    blind = replace(target, x_T=target.x_T[:1], y_T=(target.y_T[:1] + 1) % 8)
    others, _ = modules[0].measure(blind, offers, CONFIG)
    assert [row.value for row in others] == [row.value for row in rows]
    assert [row.truth_taught for row in others] != [row.truth_taught for row in rows]


def test_measuring_leaves_the_sources_as_they_were(measured, modules) -> None:
    target, offers, rows = measured
    again, _ = modules[0].measure(target, offers, CONFIG)
    assert [(row.value, row.truth_taught) for row in again] == [
        (row.value, row.truth_taught) for row in rows
    ]


def test_judged_rows_and_tables(modules) -> None:
    # Two sources of true accuracy 0.5 and 0.9; "good" ranks them rightly, "random" wrongly.
    tables = modules[2]
    scored = [
        {"set": "s", "seed": 0, "target": "n", "probe": "none", "score": score, "value": value,
         "seconds": 0.5, "truth_as_is": 0.1, "truth_taught": truth}
        for score, ranked in {"good": (1, 2), "random": (2, 1)}.items()
        for value, truth in zip(ranked, (0.5, 0.9), strict=True)
    ]  # fmt: skip
    judged = tables.judge_rows(scored)
    found = {row["score"]: row for row in judged if row["truth"] == "taught"}
    assert found["good"]["weighted_tau"] == pytest.approx(1)
    assert found["random"]["regret_1"] == pytest.approx(0.4)
    assert found["random"]["regret_3"] == found["ship-all"]["regret_1"] == 0
    assert all(row["regret_1"] == 0 for row in judged if row["truth"] == "as-is")
    assert tables.judged_table(judged).num_rows == 6
    text = tables.markdown(judged, "title", {"as-is": 0.002})
    assert text.count("| good | none |") == 3
    assert "<svg" in tables.figure_svg(judged, "title")
