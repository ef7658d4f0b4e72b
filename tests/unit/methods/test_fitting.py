"""What each method makes of a toy lesson with perfect, misled or no teachers."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from graft.config import ExpansionConfig
from graft.errors import ConfigError, TransportError
from graft.methods import FOUNDER, find_method, methods_by_name
from graft.methods.baselines import (
    fit_all_labels,
    fit_average_kd,
    fit_best_source,
    fit_finetuned_source,
    fit_label_only,
)
from graft.methods.hat import fit_hat
from graft.training import Learned, Lesson, Source
from graft.zoo import parameters_of

MakeLesson = Callable[..., Lesson]
MakeSource = Callable[..., Source]
Accuracy = Callable[[Learned], float]
TWO_CLASSES = (0, 1) * 6  # the third is in U and in the test, never in L
ORACLES = (FOUNDER, "all-labels")


def same(one: Learned, other: Learned) -> bool:
    first, second = parameters_of(one.network), parameters_of(other.network)
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_label_only_learns_a_separable_task(make_lesson: MakeLesson, accuracy: Accuracy) -> None:
    learned = fit_label_only(make_lesson())
    assert accuracy(learned) > 0.9
    assert learned.used == ()


def test_label_only_knows_the_labelled_classes_and_the_oracle_all(
    make_lesson: MakeLesson, accuracy: Accuracy
) -> None:
    lesson = make_lesson(labels=TWO_CLASSES)
    assert fit_label_only(lesson).mask_C.tolist() == [True, True, False]
    # A third of the test rows are of the class that it never saw.
    assert accuracy(fit_label_only(lesson)) <= 2 / 3
    oracle = fit_all_labels(lesson)
    assert oracle.mask_C.tolist() == [True, True, True]
    assert accuracy(oracle) > 0.9


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_best_source_is_the_one_that_is_right_on_the_labels(
    make_lesson: MakeLesson, make_source: MakeSource, accuracy: Accuracy, order: Sequence[int]
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    learned = fit_best_source(make_lesson([(right, misled)[place] for place in order]))
    assert learned.used == (right,)
    assert learned.network is right.network
    assert accuracy(learned) > 0.9


def test_fine_tuning_starts_from_the_best_source_and_leaves_it_as_it_was(
    make_lesson: MakeLesson, make_source: MakeSource, accuracy: Accuracy
) -> None:
    right, misled = make_source("right"), make_source("misled", shift=1)
    before = {name: array.copy() for name, array in parameters_of(right.network).items()}
    learned = fit_finetuned_source(make_lesson([misled, right]))
    assert learned.used == (right,)
    assert accuracy(learned) > 0.9
    assert all((parameters_of(right.network)[name] == before[name]).all() for name in before)
    tuned = parameters_of(learned.network)
    assert any((tuned[name] != before[name]).any() for name in before)


def test_fine_tuning_unlearns_what_misled_the_source(
    make_lesson: MakeLesson, make_source: MakeSource, accuracy: Accuracy
) -> None:
    misled = make_source("misled", shift=1)
    assert accuracy(fit_best_source(make_lesson([misled]))) < 0.1
    assert accuracy(fit_finetuned_source(make_lesson([misled]))) > 1 / 3


def test_fine_tuning_without_a_source_is_learning_from_labels_alone(
    make_lesson: MakeLesson,
) -> None:
    lesson = make_lesson()
    assert same(fit_finetuned_source(lesson), fit_label_only(lesson))


def test_plain_distillation_teaches_a_class_that_no_label_shows(
    make_lesson: MakeLesson, make_source: MakeSource, accuracy: Accuracy
) -> None:
    lesson = make_lesson([make_source("right"), make_source("other")], labels=TWO_CLASSES)
    learned = fit_average_kd(lesson)
    assert learned.mask_C.all()
    assert learned.used == lesson.sources
    # Whoever never heard of the third class is right on 2/3 at most.
    assert accuracy(learned) > 2 / 3


def test_the_main_method_takes_a_class_without_a_label_for_absent(
    make_lesson: MakeLesson, make_source: MakeSource, accuracy: Accuracy
) -> None:
    # A split labels every class that a domain has, so the heads may unlearn the others.
    lesson = make_lesson([make_source("right"), make_source("other")], labels=TWO_CLASSES)
    learned = fit_hat(lesson)
    assert learned.used == lesson.sources
    assert 0.6 < accuracy(learned) <= 2 / 3


def test_the_mixer_follows_the_labels_where_the_sources_disagree(
    make_lesson: MakeLesson, make_source: MakeSource, accuracy: Accuracy
) -> None:
    sources = [make_source("right"), make_source("misled", shift=1)]
    assert accuracy(fit_hat(make_lesson(sources))) > 0.5  # chance is 1/3


@pytest.mark.parametrize("fit", [fit_hat, fit_average_kd, fit_best_source])
def test_what_needs_sources_says_so(
    make_lesson: MakeLesson, fit: Callable[[Lesson], Learned]
) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit(make_lesson())


def test_the_figures_of_the_main_method_are_shares(
    make_lesson: MakeLesson, make_source: MakeSource
) -> None:
    figures = fit_hat(make_lesson([make_source("right")])).figures
    for name in ("held_out_accuracy", "knowledge_quality"):
        assert 0 <= figures[name] <= 1


@pytest.mark.parametrize("name", sorted(methods_by_name()))
def test_a_method_is_deterministic_reads_no_hidden_label_and_leaves_its_sources_alone(
    make_lesson: MakeLesson, make_source: MakeSource, name: str
) -> None:
    sources = [make_source("right"), make_source("small", architecture="cnn-small")]
    before = [parameters_of(source.network) for source in sources]
    before = [{key: array.copy() for key, array in held.items()} for held in before]
    lesson = make_lesson(sources, max_steps=12)
    shuffled = replace(lesson, hidden_y_U=(lesson.hidden_y_U + 1) % 3)
    fit = find_method(name).fit
    first = fit(lesson)
    assert same(first, fit(lesson))
    assert same(first, fit(shuffled)) != (name in ORACLES)
    assert not first.network.training
    for source, held in zip(sources, before, strict=True):
        after = parameters_of(source.network)
        assert all((after[key] == held[key]).all() for key in held)


@pytest.mark.parametrize("name", sorted(methods_by_name()))
def test_a_method_does_not_touch_the_global_random_stream(
    make_lesson: MakeLesson, make_source: MakeSource, name: str
) -> None:
    lesson = make_lesson([make_source("right")], max_steps=4)
    torch.manual_seed(11)
    first = find_method(name).fit(lesson)
    torch.manual_seed(12)
    assert same(first, find_method(name).fit(lesson))


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
    make_lesson: MakeLesson, make_source: MakeSource
) -> None:
    partial = replace(make_source("right"), mask_C=np.array([True, True, False]))
    lesson = make_lesson([partial], labels=TWO_CLASSES)
    assert not fit_best_source(lesson).mask_C[2]
    assert not fit_hat(lesson).mask_C[2]
