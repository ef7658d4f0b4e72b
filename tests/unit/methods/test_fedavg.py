"""FedAvg's part on a device: an initial domain's share of the steps, and a target domain's fine-tuning."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft.core.seeding import derive_seed
from graft.methods import find_method
from graft.methods.baselines import fit_finetuned_source, fit_label_only
from graft.models import parameters_of
from graft.training import Source, TrainedModel, TrainingTask

fit_fedavg, fit_fedavg_local = find_method("fedavg").fit, find_method("fedavg-local").fit
MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]


def same(one: TrainedModel, other: TrainedModel) -> bool:
    first, second = parameters_of(one.network), parameters_of(other.network)
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.fixture
def group(make_source: MakeSource) -> Source:
    return replace(
        make_source("right"), domain_id="group.mlp", mask_C=np.array([False, True, True])
    )


def test_a_target_fine_tunes_the_groups_model(make_task: MakeTask, group: Source) -> None:
    task = replace(make_task(labels=(0, 1) * 6), average=group)
    trained_model = fit_fedavg(task)
    # The group's model as its only source, fine-tuned, is the same thing.
    assert same(trained_model, fit_finetuned_source(replace(task, sources=(group,))))
    assert trained_model.used == (group,)
    assert trained_model.mask_C.tolist() == [
        True,
        True,
        True,
    ]  # 0 and 1 from L, 1 and 2 from the group


def test_without_a_group_a_target_learns_from_labels_alone(make_task: MakeTask) -> None:
    trained_model = fit_fedavg(make_task())
    assert same(trained_model, fit_label_only(make_task()))
    assert trained_model.used == ()


@pytest.mark.parametrize(("fedavg_rounds", "steps"), [(5, 12), (7, 9), (60, 1)])
def test_a_initial_domain_shares_its_steps_out_over_the_rounds(
    make_task: MakeTask, group: Source, fedavg_rounds: int, steps: int
) -> None:
    # 60 steps in 5 rounds are 12 a round; in 7 rounds 8.6, so 9.
    task = replace(make_task(max_steps=60), average=group)
    training = replace(task.config.training, fedavg_rounds=fedavg_rounds)
    task = replace(task, config=replace(task.config, training=training))
    short = replace(task.config, training=replace(training, max_steps=steps))
    seed = derive_seed(task.seed, group.model_id)
    assert same(fit_fedavg_local(task), fit_fedavg(replace(task, config=short, seed=seed)))


def test_every_round_meets_other_batches(make_task: MakeTask, group: Source) -> None:
    task = replace(make_task(labels=(0, 1, 2) * 20), average=group)
    renamed = replace(task, average=replace(group, model_id="f" * 64))
    assert same(fit_fedavg_local(task), fit_fedavg_local(task))
    assert not same(fit_fedavg_local(task), fit_fedavg_local(renamed))
