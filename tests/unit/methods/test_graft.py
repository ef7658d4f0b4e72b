"""The project's own method: each step by hand, and the whole on the toy task."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from graft.core.config import GraftConfig
from graft.core.config_files import with_settings
from graft.core.payload import encode_payload
from graft.errors import TransportError
from graft.methods.graft import (
    Part,
    adapt_teachers,
    agreed_prediction,
    fit_graft,
    geometric_mean,
    grafted,
    start_teacher,
    train_heads,
)
from graft.models import network_from, parameters_of
from graft.training import (
    Source,
    TrainedModel,
    TrainingTask,
    features_in_batches,
    predict_in_batches,
)
from graft.wire.payload.parts import decode_base, split_payload

MakeTask = Callable[..., TrainingTask]
MakeSource = Callable[..., Source]
Accuracy = Callable[[TrainedModel], float]


def all_rows(task: TrainingTask) -> torch.Tensor:
    return torch.cat([task.x_L, task.x_U])


def test_it_learns_what_its_sources_teach_and_starts_from_its_kin(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    kin, other = make_source("right"), make_source("small", architecture="cnn-small")
    trained_model = fit_graft(make_task([other, kin]))
    assert accuracy(trained_model) > 0.9
    assert trained_model.used == (other, kin)
    assert trained_model.metrics["started_from_source"] == 1.0
    assert fit_graft(make_task([other])).metrics["started_from_source"] == 0.0


def test_a_misled_source_is_set_right_by_the_labels(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    task = make_task([make_source("misled", shift=1)])
    assert accuracy(fit_graft(task)) > 0.9
    assert accuracy(fit_graft(task, without=("heads",))) < 0.6


def test_it_needs_a_source(make_task: MakeTask) -> None:
    with pytest.raises(TransportError, match="at least one source"):
        fit_graft(make_task())


def test_without_unlabelled_rows_it_learns_from_the_labels(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    task = make_task([make_source("right")])
    trained_model = fit_graft(replace(task, x_U=task.x_U[:0], hidden_y_U=task.hidden_y_U[:0]))
    assert accuracy(trained_model) > 0.9


def test_every_source_teaches_as_it_came_and_renormalised(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    source = make_source("right")
    task = make_task([source])
    x = all_rows(task)
    teachers = adapt_teachers(task, x)
    as_it_came, renormalised = teachers.sources
    torch.testing.assert_close(teachers.features_TNF[0], features_in_batches(source.network, x))
    assert as_it_came.network is source.network
    assert not torch.allclose(teachers.features_TNF[0], teachers.features_TNF[1], atol=1e-3)
    assert renormalised.domain_id == source.domain_id
    assert len(adapt_teachers(task, x, without=("norms",)).sources) == 1


def test_the_start_is_the_kin_that_agrees_most_with_its_new_head(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    small, kin = make_source("small", architecture="cnn-small"), make_source("right")
    task = make_task([small, kin])
    x = all_rows(task)
    teachers = adapt_teachers(task, x)  # small, kin, small renormalised, kin renormalised
    for place, agreement in ((1, [0.9, 0.8, 0.9, 0.7]), (3, [0.9, 0.6, 0.9, 0.7])):
        assert start_teacher(task, teachers, torch.tensor(agreement)) == place
        start = grafted(teachers, place)
        weight_FC = teachers.weight_TFC[place, : start.num_features]
        wanted_NC = start.features(x) @ weight_FC + teachers.bias_TC[place]
        torch.testing.assert_close(predict_in_batches(start, x), wanted_NC)
        taught_NF = teachers.features_TNF[place, :, : start.num_features]
        torch.testing.assert_close(start.features(x), taught_NF, atol=1e-4, rtol=1e-4)


def test_a_poor_kin_leaves_the_start_to_a_better_source_that_the_device_can_train(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    small, kin = make_source("small", architecture="cnn-small"), make_source("right")
    task = make_task([small, kin])
    config = with_settings(task.config, {"graft.architecture_margin": 0.08})
    able = replace(task, trainable=("cnn-small", "mlp"), config=config)
    teachers = adapt_teachers(able, all_rows(able))
    wide, narrow = torch.tensor([0.7, 0.8, 0.9, 0.7]), torch.tensor([0.7, 0.83, 0.9, 0.7])
    assert start_teacher(able, teachers, wide) == 2
    assert start_teacher(able, teachers, narrow) == 1
    assert start_teacher(replace(able, trainable=("mlp",)), teachers, wide) == 1
    assert start_teacher(replace(able, config=task.config), teachers, wide) == 1
    assert start_teacher(replace(able, architecture="gru"), teachers, wide) is None


def test_the_model_has_the_architecture_of_its_start(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    misled, small = make_source("misled", shift=1), make_source("small", architecture="cnn-small")
    sources = [misled, small, make_source("other", architecture="cnn-small")]
    task = make_task(sources)
    config = with_settings(task.config, {"graft.architecture_margin": 0.08})
    task = replace(task, trainable=("cnn-small",), config=config)
    without_heads = fit_graft(task, without=("heads",))
    assert without_heads.architecture == "cnn-small"
    assert fit_graft(replace(task, trainable=()), without=("heads",)).architecture == "mlp"


def test_a_geometric_mean_by_hand() -> None:
    log_SNC = torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]]).log()
    equal = geometric_mean(log_SNC, torch.tensor([0.5, 0.5]))
    # sqrt(0.4) and sqrt(0.1) are as 2 to 1.
    torch.testing.assert_close(equal, torch.tensor([[2 / 3, 1 / 3]]))
    alone = geometric_mean(log_SNC, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(alone, torch.tensor([[0.8, 0.2]]))


def test_a_source_that_lacks_a_class_has_no_veto() -> None:
    log_SNC = torch.tensor([[[0.1, 0.9]], [[1.0, 0.0]]]).log()
    mean_NC = geometric_mean(log_SNC, torch.tensor([0.5, 0.5]))
    assert float(mean_NC[0, 1]) > 0


def test_what_is_agreed_keeps_the_true_labels_before_it_spreads(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    task = make_task([make_source("misled", shift=1)])
    teachers = adapt_teachers(task, all_rows(task), without=("heads",))
    agreed_NC, *_ = agreed_prediction(teachers, task, without=("propagation",))
    assert agreed_NC[: len(task.y_L)].argmax(1).tolist() == task.y_L.tolist()
    assert (agreed_NC[len(task.y_L) :].argmax(1) == task.hidden_y_U).double().mean() < 0.1


def test_the_odd_one_out_is_not_trusted(make_task: MakeTask, make_source: MakeSource) -> None:
    right, other, misled = (
        make_source("right"), make_source("other"), make_source("misled", shift=1),
    )  # fmt: skip
    task = make_task([right, other, misled])
    teachers = adapt_teachers(task, all_rows(task), without=("heads",))

    def sure(*without: Part) -> float:
        """Mean probability of the true class of U."""
        agreed_NC, *_ = agreed_prediction(teachers, task, without)
        agreed_UC = agreed_NC[len(task.y_L) :]
        return float(agreed_UC.gather(1, task.hidden_y_U[:, None]).mean())

    assert sure() > sure("agreement") + 0.01
    _, agreement_T, _ = agreed_prediction(teachers, task)
    # Each source twice: as it came, then renormalised.
    assert agreement_T.reshape(2, 3).argmin(1).tolist() == [2, 2]


def test_heads_descend_to_the_optimum_of_their_loss() -> None:
    # One source, one feature x = 1, two classes, label 0, weights (0, 0), pull 0.5:
    # with w = w_0 = -w_1 the loss is log(1 + e^-2(w + b)) + 0.5 * 2 w^2; its bias only grows.
    config = GraftConfig(head_steps=4000, head_learning_rate=1e-2, head_l2_sp=0.5)
    weight, bias = train_heads(
        torch.ones(1, 1, 1),
        torch.tensor([0]),
        torch.zeros(1, 1, 2),
        torch.zeros(1, 2),
        torch.ones(1, 2, dtype=torch.bool),
        config,
    )
    w, b = float(weight[0, 0, 0]), float(bias[0, 0])
    assert float(weight[0, 0, 1]) == pytest.approx(-w, abs=1e-4)
    # Stationary in w: 2 w = 2 sigmoid(-2 (w + b)), whatever the bias is by now.
    assert w == pytest.approx(1 / (1 + np.exp(2 * (w + b))), abs=2e-3)
    assert b > w


def test_the_pull_keeps_a_head_near_the_one_that_came(
    make_task: MakeTask, make_source: MakeSource
) -> None:
    task = make_task([make_source("misled", shift=1)])
    came = adapt_teachers(task, all_rows(task), without=("heads",)).weight_TFC

    def moved(pull: float) -> float:
        settings = replace(task.config.graft, head_l2_sp=pull)
        changed = replace(task, config=replace(task.config, graft=settings))
        return float((adapt_teachers(changed, all_rows(task)).weight_TFC - came).norm())

    assert moved(10.0) < 0.2 * moved(0.0)


def test_sources_teach_well_from_their_int8_bases(
    make_task: MakeTask, make_source: MakeSource, accuracy: Accuracy
) -> None:
    exact = make_source("small", architecture="cnn-small")
    payload = encode_payload(exact.architecture, parameters_of(exact.network))
    _, approximate = decode_base(split_payload(payload)[0])
    task = make_task().domain_task
    base = replace(exact, network=network_from(exact.architecture, task, approximate))
    assert accuracy(fit_graft(make_task([base]))) > 0.9
