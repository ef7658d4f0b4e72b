"""FedAvg's part on a device: a founder's share of the steps, and a newcomer's fine-tuning."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft.core.seeding import derive_seed
from graft.methods import find_method
from graft.methods.baselines import fit_finetuned_source, fit_label_only
from graft.models.zoo import parameters_of
from graft.training import Learned, Lesson, Source

fit_fedavg, fit_fedavg_local = find_method("fedavg").fit, find_method("fedavg-local").fit
MakeLesson = Callable[..., Lesson]
MakeSource = Callable[..., Source]


def same(one: Learned, other: Learned) -> bool:
    first, second = parameters_of(one.network), parameters_of(other.network)
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.fixture
def group(make_source: MakeSource) -> Source:
    return replace(
        make_source("right"), domain_id="group.mlp", mask_C=np.array([False, True, True])
    )


def test_a_newcomer_fine_tunes_the_groups_model(make_lesson: MakeLesson, group: Source) -> None:
    lesson = replace(make_lesson(labels=(0, 1) * 6), group=group)
    learned = fit_fedavg(lesson)
    # The group's model as its only source, fine-tuned, is the same thing.
    assert same(learned, fit_finetuned_source(replace(lesson, sources=(group,))))
    assert learned.used == (group,)
    assert learned.mask_C.tolist() == [True, True, True]  # 0 and 1 from L, 1 and 2 from the group


def test_without_a_group_a_newcomer_learns_from_labels_alone(make_lesson: MakeLesson) -> None:
    learned = fit_fedavg(make_lesson())
    assert same(learned, fit_label_only(make_lesson()))
    assert learned.used == ()


@pytest.mark.parametrize(("group_rounds", "steps"), [(5, 12), (7, 9), (60, 1)])
def test_a_founder_shares_its_steps_out_over_the_rounds(
    make_lesson: MakeLesson, group: Source, group_rounds: int, steps: int
) -> None:
    # 60 steps in 5 rounds are 12 a round; in 7 rounds 8.6, so 9.
    lesson = replace(make_lesson(max_steps=60), group=group)
    training = replace(lesson.config.training, group_rounds=group_rounds)
    lesson = replace(lesson, config=replace(lesson.config, training=training))
    short = replace(lesson.config, training=replace(training, max_steps=steps))
    seed = derive_seed(lesson.seed, group.model_id)
    assert same(fit_fedavg_local(lesson), fit_fedavg(replace(lesson, config=short, seed=seed)))


def test_every_round_meets_other_batches(make_lesson: MakeLesson, group: Source) -> None:
    lesson = replace(make_lesson(labels=(0, 1, 2) * 20), group=group)
    renamed = replace(lesson, group=replace(group, model_id="f" * 64))
    assert same(fit_fedavg_local(lesson), fit_fedavg_local(lesson))
    assert not same(fit_fedavg_local(lesson), fit_fedavg_local(renamed))
