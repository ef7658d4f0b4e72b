"""Labels and amounts: a whole round of each, the scores of its tests, and what is refused."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several_outputs import write_waves
from sklearn.metrics import average_precision_score, f1_score, r2_score

import graft
from graft.core.config import ExpansionConfig
from graft.core.tasks import Task
from graft.errors import ConfigError
from graft.methods import for_output, require_output
from graft.models import build_network
from graft.rounds.model_test import amount_scores, label_scores
from graft.selection.scores import probe_scores
from graft.selection.scores.labels import amount_score, label_likelihood
from graft.training import Units

METHODS = ["label-only", "best-source", "finetuned-any", "average-kd-selected", "soft-kd"]
# The score, and what a model that learnt nothing does not reach.
SCORES = {"tags": ("macro_f1", 0.5), "pulse": ("r2", 0.3)}


def settings(output: str, **others: Any) -> dict[str, Any]:
    return {
        "world.output": output, "training.max_steps": 40, "devices.architectures": ["cnn-small"],
        "graft.steps_fraction": 1.0, **others,
    }  # fmt: skip


@pytest.mark.parametrize("output", ["tags", "pulse"])
def test_a_whole_round_learns_the_output_and_reports_its_scores(
    tmp_path: Path, output: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = write_waves(tmp_path / "world", people=4, rows=80)
    with caplog.at_level(logging.WARNING, logger="graft"):
        run = graft.simulate(
            world, comparisons=[*METHODS, "hat"], rounds=1, settings=settings(output),
            engine="block", workers=0, out=tmp_path / "run",
        )  # fmt: skip
    assert [record.message for record in caplog.records if record.name == "graft"] == [
        f"left out, because they learn no {'labels' if output == 'tags' else 'amount'}: hat"
    ]
    name, least = SCORES[output]
    rows = run.results.to_pylist()
    assert {row["method"] for row in rows} == {"initial", "graft", *METHODS}
    assert all(row["error"] is None for row in rows)
    summary = {each["method"]: each for each in run.summary()}
    own = [row[name] for row in rows if row["method"] == "graft"]
    assert summary["graft"]["accuracy_mean"] == pytest.approx(np.mean(own))
    assert np.mean(own) > least
    assert summary["graft"]["finished"] == summary["graft"]["wanted"] == 2


def test_scores_of_labels_and_amounts_are_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    probability_NC = rng.random((40, 4)).round(1)  # with ties
    y_NC = (rng.random((40, 4)) < 0.4).astype(np.float64)
    scores = label_scores(probability_NC, y_NC)
    predicted_NC = probability_NC > 0.5
    assert scores["macro_f1"] == pytest.approx(f1_score(y_NC, predicted_NC, average="macro"))
    assert scores["mean_average_precision"] == pytest.approx(
        average_precision_score(y_NC, probability_NC)
    )
    assert scores["accuracy"] == (predicted_NC == (y_NC > 0)).all(1).mean()
    amounts_NC = rng.normal(size=(40, 2))
    wanted_NC = amounts_NC + rng.normal(size=(40, 2))
    found = amount_scores(amounts_NC, wanted_NC)
    assert found["r2"] == pytest.approx(r2_score(wanted_NC, amounts_NC))
    assert found["mean_absolute_error"] == pytest.approx(np.abs(amounts_NC - wanted_NC).mean())


def test_a_score_that_no_row_can_have_is_still_a_number() -> None:
    none_NC = np.zeros((3, 2))
    assert label_scores(none_NC, none_NC)["mean_average_precision"] == 1.0
    assert amount_scores(none_NC + 1e9, none_NC)["r2"] == 0.0
    assert amount_scores(np.full((3, 1), 1e9), np.array([[0.0], [0.0], [1e-6]]))["r2"] == -1e6


def test_a_source_is_ranked_by_the_outputs_own_score() -> None:
    (labels,), (amount,) = probe_scores("joint", "labels"), probe_scores("joint", "amount")
    assert (labels.name, amount.name) == ("label-likelihood", "amount-error")
    with pytest.raises(ConfigError, match="leep"):
        probe_scores("leep", "labels")
    y_LC = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert label_likelihood(y_LC, y_LC) == 0.0
    assert label_likelihood(1 - y_LC, y_LC) == pytest.approx(np.log(0.01))
    assert amount_score(np.array([[2.0], [2.0], [2.0]]), np.array([[1.0], [2.0], [3.0]])) == -1.0


def test_amounts_keep_their_unit_when_a_network_trains_in_another(world_task: Task) -> None:
    network = build_network("cnn-small", world_task, 1).eval()
    x = torch.randn(4, 2, 32)
    units = Units.of(torch.tensor([[100.0, 5.0], [300.0, 5.0], [500.0, 5.0]]), "amount")
    units.begin(network)
    before = network(x).detach()
    with units.within(network) as own:
        assert torch.allclose(own.amounts(network(x)), before, rtol=1e-4)
        assert network(x).abs().max() < 10
    assert torch.allclose(network(x), before, rtol=1e-4)
    assert before[:, 0].mean() > 100


@pytest.fixture
def world_task(tmp_path: Path) -> Task:
    from graft.data.folder import FolderWorld

    return FolderWorld(write_waves(tmp_path / "w", people=2, rows=8), "pulse").task


def test_what_cannot_be_done_with_amounts_is_refused_by_name(world_task: Task) -> None:
    config = replace(ExpansionConfig(), comparisons=("label-only", "hat"))
    with pytest.raises(ConfigError, match="'pulse' of kind 'amount' for method 'hat'"):
        require_output(config, world_task)
    assert for_output(config, world_task).comparisons == ("label-only",)
    with pytest.raises(ConfigError, match="'hat'"):
        for_output(replace(config, method="hat", comparisons=()), world_task)
