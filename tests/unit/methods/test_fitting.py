"""What each method makes of a toy training task with perfect, misled or no teachers."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from graft.core.config import ExpansionConfig
from graft.errors import ConfigError, TransportError
from graft.methods import INITIAL, find_method, methods_by_name
from graft.methods.baselines import (
    fit_all_labels,
    fit_best_source,
    fit_finetuned_source,
    fit_label_only,
)
from graft.methods.blocks.fusion import mixture_spread, thinned_epochs
from graft.methods.distillation import fit_average_kd
from graft.methods.hat.method import fit_hat
from graft.models import parameters_of
from graft.training import Source, TrainedModel, TrainingTask

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
Accuracy = Callable[[TrainedModel], float]
TWO_CLASSES = (0, 1) * 6  # the third is in U and in the test, never in L
ORACLES = (INITIAL, "all-labels")


def same(one: TrainedModel, other: TrainedModel) -> bool:
    first, second = parameters_of(one.network), parameters_of(other.network)
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_label_only_learns_a_separable_task(make_task: MakeTask, accuracy: Accuracy) -> None:
    trained_model = fit_label_only(make_task())
    assert accuracy(trained_model) > 0.9
    assert trained_model.used == ()


def test_label_only_knows_the_labelled_classes_and_the_oracle_all(
    make_task: MakeTask, accuracy: Accuracy
) -> None:
    task = make_task(labels=TWO_CLASSES)
    assert fit_label_only(task).mask_C.tolist() == [True, True, False]
    # A third of the test rows are of the class that it never saw.
    assert accuracy(fit_label_only(task)) <= 2 / 3
    oracle = fit_all_labels(task)
    assert oracle.mask_C.tolist() == [True, True, True]
    assert accuracy(oracle) > 0.9


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_best_source_is_the_one_that_is_right_on_the_labels(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy, order: Sequence[int]
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    trained_model = fit_best_source(make_task([(right, misled)[place] for place in order]))
    assert trained_model.used == (right,)
    assert trained_model.network is right.network
    assert accuracy(trained_model) > 0.9


def test_fine_tuning_starts_from_the_best_source_and_leaves_it_as_it_was(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    before = {name: array.copy() for name, array in parameters_of(right.network).items()}
    trained_model = fit_finetuned_source(make_task([misled, right]))
    assert trained_model.used == (right,)
    assert accuracy(trained_model) > 0.9
    assert all((parameters_of(right.network)[name] == before[name]).all() for name in before)
    tuned = parameters_of(trained_model.network)
    assert any((tuned[name] != before[name]).any() for name in before)


def test_fine_tuning_unlearns_what_misled_the_source(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    misled = make_source("misled", shift=1)
    assert accuracy(fit_best_source(make_task([misled]))) < 0.1
    assert accuracy(fit_finetuned_source(make_task([misled]))) > 1 / 3


def test_fine_tuning_without_a_source_is_learning_from_labels_alone(make_task: MakeTask) -> None:
    task = make_task()
    assert same(fit_finetuned_source(task), fit_label_only(task))


def test_plain_distillation_teaches_a_class_that_no_label_shows(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    task = make_task([make_source("right"), make_source("other")], labels=TWO_CLASSES)
    trained_model = fit_average_kd(task)
    assert trained_model.mask_C.all()
    assert trained_model.used == task.sources
    # Whoever never heard of the third class is right on 2/3 at most.
    assert accuracy(trained_model) > 2 / 3


def test_the_main_method_takes_a_class_without_a_label_for_absent(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    # A split labels every class that a domain has, so the heads may unlearn the others.
    task = make_task([make_source("right"), make_source("other")], labels=TWO_CLASSES)
    trained_model = fit_hat(task)
    assert trained_model.used == task.sources
    assert 0.6 < accuracy(trained_model) <= 2 / 3


def test_the_mixer_follows_the_labels_where_the_sources_disagree(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    sources = [make_source("right"), make_source("misled", shift=1)]
    assert accuracy(fit_hat(make_task(sources))) > 0.5  # chance is 1/3


@pytest.mark.parametrize("fit", [fit_hat, fit_average_kd, fit_best_source])
def test_what_needs_sources_says_so(
    make_task: MakeTask, fit: Callable[[TrainingTask], TrainedModel]
) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit(make_task())


def test_the_figures_of_the_main_method_are_shares(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    figures = fit_hat(make_task([make_source("right")])).metrics
    for name in ("held_out_accuracy", "knowledge_quality"):
        assert 0 <= figures[name] <= 1


@pytest.mark.parametrize("name", ["hat", "graft", "camkd", "decision"])
def test_the_weights_that_a_method_tells_are_those_of_its_sources(
    make_task: MakeTask, make_source: MakeSource, name: str
) -> None:
    sources = [make_source("misled", shift=1), make_source("right"), make_source("other")]
    diagnostics = find_method(name).fit(make_task(sources)).diagnostics
    assert diagnostics is not None
    mean_S, quantile_SQ = diagnostics.mixture_SQ[:, 0], diagnostics.mixture_SQ[:, 1:]
    assert diagnostics.mixture_SQ.shape == (3, 6)
    assert mean_S.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(quantile_SQ, axis=1) >= 0).all()
    # Two agree with each other. CA-MKD asks each source alone on U, where the misled one is sure too.
    assert name == "camkd" or mean_S.argmin() == 0
    assert (name in {"graft", "decision"}) == bool((quantile_SQ[:, 0] == quantile_SQ[:, -1]).all())


def test_the_dictionary_is_told_epoch_by_epoch(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    # 72 rows are three steps an epoch, so 60 steps are 20 epochs; the untrained start and the end.
    trained_model = fit_hat(make_task([make_source("right"), make_source("other")]))
    assert trained_model.diagnostics is not None
    table_E4 = trained_model.diagnostics.dictionary_E4
    assert table_E4 is not None
    assert table_E4[:, 0].tolist() == list(range(21))
    assert table_E4[0, 1:3].tolist() == [0, 0]
    assert (np.diff(table_E4[:, 1]) >= 0).all()
    figures = trained_model.metrics
    assert table_E4[-1, 1:].tolist() == pytest.approx(
        [figures["dictionary_share"], figures["knowledge_quality"], figures["held_out_accuracy"]]
    )


def test_long_training_is_told_in_25_epochs() -> None:
    table_E4 = thinned_epochs([(epoch, 0.0, 0.0, 0.0) for epoch in range(101)])
    assert (len(table_E4), table_E4[0, 0], table_E4[-1, 0]) == (25, 0, 100)
    assert set(np.diff(table_E4[:, 0])) == {4.0, 5.0}


def test_the_spread_of_a_weight_by_hand() -> None:
    spread_SQ = mixture_spread(torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4], [1.0, 0.9, 0.8, 0.7, 0.6]]))
    np.testing.assert_allclose(spread_SQ[0], [0.2, 0.02, 0.1, 0.2, 0.3, 0.38], atol=1e-6)
    np.testing.assert_allclose(spread_SQ[1], [0.8, 0.62, 0.7, 0.8, 0.9, 0.98], atol=1e-6)


@pytest.mark.parametrize("name", sorted(methods_by_name()))
def test_a_method_is_deterministic_reads_no_hidden_label_and_leaves_its_sources_alone(
    make_task: MakeTask, make_source: MakeSource, name: str
) -> None:
    sources = [make_source("right"), make_source("small", architecture="cnn-small")]
    before = [parameters_of(source.network) for source in sources]
    before = [{key: array.copy() for key, array in held.items()} for held in before]
    task = make_task(sources, max_steps=12)
    shuffled = replace(task, hidden_y_U=(task.hidden_y_U + 1) % 3)
    fit = find_method(name).fit
    first = fit(task)
    assert same(first, fit(task))
    assert same(first, fit(shuffled)) != (name in ORACLES)
    assert not first.network.training
    for source, held in zip(sources, before, strict=True):
        after = parameters_of(source.network)
        assert all((after[key] == held[key]).all() for key in held)


@pytest.mark.parametrize("name", sorted(methods_by_name()))
def test_a_method_does_not_touch_the_global_random_stream(
    make_task: MakeTask, make_source: MakeSource, name: str
) -> None:
    task = make_task([make_source("right")], max_steps=4)
    torch.manual_seed(11)
    first = find_method(name).fit(task)
    torch.manual_seed(12)
    assert same(first, find_method(name).fit(task))


def test_every_method_of_the_default_configuration_is_registered() -> None:
    assert set(ExpansionConfig().methods) <= set(methods_by_name())
    for name, method in methods_by_name().items():
        assert method.name == name
        assert find_method(name) is method
        assert method.title


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'magic'"):
        find_method("magic")


def test_a_source_that_knows_fewer_classes_never_predicts_the_others(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    partial = replace(make_source("right"), mask_C=np.array([True, True, False]))
    task = make_task([partial], labels=TWO_CLASSES)
    assert not fit_best_source(task).mask_C[2]
    assert not fit_hat(task).mask_C[2]
