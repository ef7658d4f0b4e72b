"""HAD's losses on maps small enough to reckon by hand, its baselines, and a task that grows."""

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graft.core.config import ExpansionConfig, SplitConfig, TrainingConfig
from graft.data.splits import split_rows
from graft.data.synthetic.imu import TASK as IMU_TASK
from graft.data.synthetic.imu import ImuWorld
from graft.errors import ArchitectureError, ConfigError
from graft.lifelong.had import (
    Distillation,
    HadConfig,
    balanced_loss,
    grow_task,
    had_loss,
    pixel_groups,
    released_loss,
    salient_loss,
    salient_pixels,
)
from graft.lifelong.heads import HeadedNetwork, OutputKind, OutputTask, dense_network, headed
from graft.lifelong.retention import (
    ElasticWeights,
    LearningWithoutForgetting,
    Retention,
    Stage,
    diagonal_fisher,
    distillation_map,
    learn_stage,
    new_task_loss,
    predict_outputs,
)
from graft.methods.baselines import fit_all_labels
from graft.training import TrainingTask

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "had"))
from reference import learn_jointly, relative_gain, score_task

CLASSES = OutputTask(name="parts", kind="classes", num_outputs=2)
AMOUNT = OutputTask(name="depth", kind="amount", num_outputs=1)
DIRECTION = OutputTask(name="normals", kind="direction", num_outputs=3)
EPSILON = 1e-3
QUICK = TrainingConfig(
    epochs=1_000, max_steps=12, batch_size=4, learning_rate=3e-3, weight_decay=1e-5
)


def logits_of(probability_HW: list[list[float]]) -> Tensor:
    """Two-class logits (1, 2, H, W) whose softmax gives class 0 these probabilities."""
    p = torch.tensor(probability_HW, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()])[None]


# --- the loss of the new task -------------------------------------------------------------------


def test_ignored_pixels_have_no_part_in_the_cross_entropy() -> None:
    # Known: -ln 1/2 and, for class 1, -ln (1 - 3/4) = 2 ln 2; their mean is 1.5 ln 2.
    output = logits_of([[0.5, 0.75, 0.9]])
    loss = new_task_loss("classes", output, torch.tensor([[[0, 1, -1]]]))
    assert float(loss) == pytest.approx(1.5 * math.log(2))
    assert float(new_task_loss("classes", output, torch.full((1, 1, 3), -1))) == 0


def test_unknown_depths_have_no_part_in_the_l1_loss() -> None:
    output, target = torch.tensor([[[[3.0, 5.0, 9.0]]]]), torch.tensor([[[[2.0, 9.0, 0.0]]]])
    assert float(new_task_loss("amount", output, target)) == (1 + 4) / 2
    assert float(new_task_loss("amount", output, torch.zeros_like(target))) == 0


def test_the_loss_of_directions_is_one_less_the_mean_dot_product_of_known_pixels() -> None:
    # Pixel 0 agrees (1), pixel 1 is at a right angle (0), pixel 2 is unknown: 1 - 1/2.
    output = torch.eye(3).reshape(1, 3, 1, 3)
    target = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 0]]).reshape(1, 3, 1, 3)
    assert float(new_task_loss("direction", output, target)) == pytest.approx(0.5)


# --- the loss map and its groups ----------------------------------------------------------------


def test_the_loss_map_follows_the_kind() -> None:
    # The teacher's most likely class is 0, then 1; the student gives them 1/4 and 1 - 3/4.
    soft_targets, student = logits_of([[0.9, 0.2]]), logits_of([[0.25, 0.75]])
    expected = [[[2 * math.log(2), 2 * math.log(2)]]]
    torch.testing.assert_close(
        distillation_map("classes", student, soft_targets),
        torch.tensor(expected, dtype=torch.float64),
    )
    amounts = torch.tensor([[[[1.0, 4.0]]]]), torch.tensor([[[[3.0, 3.5]]]])
    torch.testing.assert_close(distillation_map("amount", *amounts), torch.tensor([[[2.0, 0.5]]]))
    slanted = torch.tensor([0.6, 0.8, 0.0]).reshape(1, 3, 1, 1)
    ahead = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(
        distillation_map("direction", slanted, ahead), torch.tensor([[[0.4]]])
    )


def test_groups_are_the_teachers_classes_or_its_low_and_high_amounts() -> None:
    group_BHW, num_groups = pixel_groups("classes", logits_of([[0.9, 0.2, 0.6]]), 0.5)
    assert (group_BHW.tolist(), num_groups) == ([[[0, 1, 0]]], 2)
    # Scaled by each picture: 2, 3, 4, 6 -> 0, 1/4, 1/2, 1; a level picture is low throughout.
    depths = torch.tensor([[[[2.0, 3, 4, 6]]], [[[5.0, 5, 5, 5]]]])
    group_BHW, num_groups = pixel_groups("amount", depths, 0.5)
    assert (group_BHW.tolist(), num_groups) == ([[[0, 0, 1, 1]], [[0, 0, 0, 0]]], 2)
    # Directions by their channel mean: (1, 0, 0) -> 1/3, (0, 0, -1) -> -1/3.
    normals = torch.tensor([[1.0, 0, 0], [0, 0, -1]]).T.reshape(1, 3, 1, 2)
    assert pixel_groups("direction", normals, 0.5)[0].tolist() == [[[1, 0]]]


# --- L_db and L_sg of the paper -----------------------------------------------------------------


def test_the_balanced_loss_is_the_mean_of_the_groups_geometric_means() -> None:
    # Group 0 holds losses of 4, 4, 4 and group 1 of 1 and 16: both have the geometric mean 4.
    # The arithmetic mean of group 1 would be 8.5. Of three groups the last has no pixel.
    loss_BHW = torch.tensor([[[4.0, 4.0, 4.0, 1.0, 16.0]]]) - EPSILON
    group_BHW = torch.tensor([[[0, 0, 0, 1, 1]]])
    assert float(balanced_loss(loss_BHW, group_BHW, 3)) == pytest.approx(4)
    # A second picture of one group: (4 + 9) / 2.
    both = torch.cat([loss_BHW, torch.full((1, 1, 5), 9.0) - EPSILON])
    groups = torch.cat([group_BHW, torch.zeros_like(group_BHW)])
    assert float(balanced_loss(both, groups, 3)) == pytest.approx(6.5)


def test_a_rare_group_weighs_as_much_as_a_common_one() -> None:
    loss_BHW = torch.tensor([[[1.0] * 99 + [3.0]]]) - EPSILON
    group_BHW = torch.tensor([[[0] * 99 + [1]]])
    assert float(balanced_loss(loss_BHW, group_BHW, 2)) == pytest.approx(2)


def test_a_loss_of_zero_is_held_up_by_the_floor() -> None:
    zero_BHW = torch.zeros(1, 1, 2, requires_grad=True)
    loss = balanced_loss(zero_BHW, torch.zeros(1, 1, 2, dtype=torch.int64), 1)
    assert float(loss.detach()) == pytest.approx(EPSILON)
    (gradient_BHW,) = torch.autograd.grad(loss, zero_BHW)
    # d/dI of exp(mean log(I + e)) is GM / (n (I + e)) = e / (2 e).
    torch.testing.assert_close(gradient_BHW, torch.full((1, 1, 2), 0.5))


STEP_55 = [[0.0, 0, 0, 2, 2]] * 5


def test_the_salient_pixels_are_those_beside_an_edge_of_the_loss_map() -> None:
    # Across a step of 2 the Sobel kernel gives 4 * 2 on both sides of it, elsewhere 0; with
    # copied borders the picture's rim is no edge.
    loss_BHW = torch.tensor([STEP_55])
    salient = salient_pixels(loss_BHW, 0.9, pad_mode="replicate")[0]
    assert salient.tolist() == [[False, False, True, True, False]] * 5
    # Columns 2 and 3 hold 0 and 2: their mean is 1, where the mean of all is 0.8.
    assert float(salient_loss(loss_BHW, 0.9)) == 1


def test_weaker_edges_than_the_share_of_the_strongest_are_left_out() -> None:
    # Steps of 1 (columns 1|2) and of 3 (5|6): the magnitudes 4 and 12 scale to 1/3 and 1.
    loss_BHW = torch.tensor([[[0.0, 0, 1, 1, 1, 1, 4, 4]] * 3])
    columns = salient_pixels(loss_BHW, 0.9, pad_mode="replicate")[0, 1].nonzero().flatten()
    assert columns.tolist() == [5, 6]
    columns = salient_pixels(loss_BHW, 0.3, pad_mode="replicate")[0, 1].nonzero().flatten()
    assert columns.tolist() == [1, 2, 5, 6]
    assert float(salient_loss(loss_BHW, 0.9)) == (1 + 4) / 2


def test_a_level_loss_map_has_no_salient_pixels_and_no_salient_loss() -> None:
    level_BHW = torch.full((1, 4, 4), 3.0, requires_grad=True)
    loss = salient_loss(level_BHW, 0.9)
    assert float(loss.detach()) == 0
    both = torch.cat([level_BHW[:, :3, :3].expand(1, 3, 3), torch.tensor([STEP_55])[:, :3, 1:4]])
    assert float(salient_loss(both.detach(), 0.9)) == pytest.approx((0 + 1) / 2)  # mean over B


def test_the_whole_loss_of_one_old_task() -> None:
    # Depths taught: low left (2) and high right (4); the student errs by 0 on the left three
    # columns and by 2 on the right two, as in STEP_55: L_sg = 1. All right pixels are one group
    # with the error 2, the left one with 0: L_db = (2 + e + e) / 2.
    error_HW = torch.tensor(STEP_55, dtype=torch.float64)
    soft_targets = (2 + error_HW)[None, None]
    loss = had_loss("amount", soft_targets + error_HW, soft_targets, HadConfig())
    assert float(loss) == pytest.approx(1 + (2 + 2 * EPSILON) / 2)


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [had_loss, released_loss])
@pytest.mark.parametrize(("kind", "channels"), [("classes", 4), ("amount", 1), ("direction", 3)])
@pytest.mark.parametrize("spatial", [(), (3, 4)])
def test_the_gradients_are_those_of_finite_differences(
    loss: Callable[..., Tensor], kind: OutputKind, channels: int, spatial: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (2, channels, *spatial)
    student = torch.rand(shape, dtype=torch.float64, generator=generator).requires_grad_()
    soft_targets = torch.rand(shape, dtype=torch.float64, generator=generator)
    if kind == "direction":
        soft_targets = nn.functional.normalize(soft_targets, dim=1)

    def loss_of(output: Tensor) -> Tensor:
        if kind == "direction":
            output = nn.functional.normalize(output, dim=1)
        return loss(kind, output, soft_targets, HadConfig())

    if loss is released_loss and kind == "classes":
        # Its softmax takes no gradient, so differences of the loss are not what autograd gives.
        (gradient,) = torch.autograd.grad(loss_of(student), student)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
        return
    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(loss_of, (student,), eps=1e-7, atol=1e-4)


# --- the released variant -----------------------------------------------------------------------


def test_the_released_balance_of_classes_favours_what_is_easy() -> None:
    # Two vectors a class: class 0 with losses of ln 2 twice, class 1 with 2 ln 2 and 4 ln 2,
    # geometric mean sqrt(8) ln 2. Weighed by softmax(-l), then divided by the two classes.
    soft_targets = logits_of([[0.9, 0.9, 0.1, 0.1]])[0, :, 0].T
    student = logits_of([[0.5, 0.5, 0.75, 1 - 2**-4]])[0, :, 0].T
    easy, hard = math.log(2), math.sqrt(8) * math.log(2)
    share = math.exp(-easy) / (math.exp(-easy) + math.exp(-hard))
    expected = (share * easy + (1 - share) * hard) / 2
    assert float(released_loss("classes", student, soft_targets, HadConfig())) == pytest.approx(
        expected
    )


def test_the_released_balance_counts_an_absent_class_as_a_loss_of_zero() -> None:
    # Only class 0 is taught, with the loss ln 2: softmax(-(ln 2, 0)) = (1/3, 2/3).
    soft_targets, student = logits_of([[0.9]])[0, :, 0].T, logits_of([[0.5]])[0, :, 0].T
    expected = (math.log(2) / 3 + 0) / 2
    assert float(released_loss("classes", student, soft_targets, HadConfig())) == pytest.approx(
        expected
    )


def test_the_released_balance_of_amounts_adds_arithmetic_means_by_the_students_own_level() -> None:
    # The student's 0.1 and 0.3 lie below 0.5, errors 1 and 2; its 0.9 above, error 5.
    student = torch.tensor([[0.1], [0.3], [0.9]], dtype=torch.float64)
    soft_targets = student + torch.tensor([[1.0], [2.0], [5.0]])
    assert float(released_loss("amount", student, soft_targets, HadConfig())) == pytest.approx(
        1.5 + 5
    )


def test_the_released_salience_of_classes_divides_by_all_pixels() -> None:
    # Student and teacher agree but for one pixel in the middle of 5 x 5; its loss map has edges
    # all round, and the pixels at the salient ones hold no loss or nearly none.
    probability = [[0.9] * 5 for _ in range(5)]
    soft_targets = logits_of(probability)
    probability[2] = [0.9, 0.9, 0.1, 0.9, 0.9]
    student = logits_of(probability)
    loss = distillation_map("classes", student, soft_targets)
    salient = salient_pixels(loss, 0.9, pad_mode="constant")
    balanced = released_loss(
        "classes", student.flatten(2)[0].T, soft_targets.flatten(2)[0].T, HadConfig()
    )
    whole = released_loss("classes", student, soft_targets, HadConfig())
    assert salient.sum() == 4  # above, below, left and right of it, where Sobel gives most
    assert float(whole - balanced) == pytest.approx(4 * -math.log(0.9) / 25)


def test_the_released_salience_of_directions_is_negative_where_the_paper_has_no_loss() -> None:
    # The student is right everywhere. The loss map is level, but zero padding makes an edge of
    # the rim's 4 * 47 pixels, and the products of all 48 * 48 are divided by three times those.
    soft_targets = torch.zeros(1, 3, 48, 48, dtype=torch.float64)
    soft_targets[:, 2] = 1
    salience = 1 - 48 * 48 / (3 * 4 * 47)
    # Every channel mean, 1/3, is below 0.5: one group with 1 - 1/3, and 1 for the empty one.
    assert float(
        released_loss("direction", soft_targets, soft_targets, HadConfig())
    ) == pytest.approx(5 / 3 + salience)
    assert 5 / 3 + salience < 0
    assert float(had_loss("direction", soft_targets, soft_targets, HadConfig())) == pytest.approx(
        EPSILON
    )


# --- retentions ---------------------------------------------------------------------------------


class Scale(nn.Module):
    """A trunk of one parameter: x times theta."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.theta


def scale_network(theta: float, *names: str) -> HeadedNetwork:
    """The output of every task is its one input times theta."""
    network = HeadedNetwork(Scale(theta), 1, dense=False)
    for name in names:
        network = network.with_head(replace(AMOUNT, name=name), seed=0)
        nn.init.ones_(network.heads[name].weight)
        nn.init.zeros_(network.heads[name].bias)
    return network


def penalty_of(retention: Retention, student: HeadedNetwork, teacher: HeadedNetwork) -> float:
    x = torch.tensor([[1.0], [1.0]])
    return float(retention.penalty(student, teacher, x, student.features(x)).detach())


@pytest.mark.parametrize(("variant", "divisor"), [("paper", 2 * 2), ("released", 2)])
def test_the_papers_distillation_is_divided_by_the_number_of_old_tasks(
    variant: Literal["paper", "released"], divisor: int
) -> None:
    # Teacher 1, student 0.25, two old tasks: each has the error 0.75 on both samples. In the
    # paper L_db is then 0.75 + e; released, 0.25 < 0.5 puts both into one group: 0.75.
    teacher, student = scale_network(1.0, "a", "b"), scale_network(0.25, "a", "b")
    one = 0.75 + EPSILON if variant == "paper" else 0.75
    had = Distillation(config=HadConfig(strength=3.0, variant=variant))
    got = penalty_of(had, student, teacher)
    assert got == pytest.approx(3 / divisor * (one + one))


def test_lwf_is_the_mean_over_tasks_of_the_plain_distillation() -> None:
    teacher, student = scale_network(1.0, "a", "b"), scale_network(0.25, "a", "b")
    assert penalty_of(LearningWithoutForgetting(strength=2.0), student, teacher) == 2 * 0.75
    assert penalty_of(Retention(), student, teacher) == 0


def test_lwf_softens_classes_by_its_temperature() -> None:
    def network(theta: float) -> HeadedNetwork:
        made = HeadedNetwork(Scale(theta), 1, dense=False).with_head(CLASSES, seed=0)
        made.heads["parts"].weight.data = torch.tensor([[1.0], [0.0]])
        nn.init.zeros_(made.heads["parts"].bias)
        return made

    # The teacher's logits are (4, 0), the student's (2, 0): softened by 2, (2, 0) and (1, 0).
    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    surprise = -sigmoid(2) * math.log(sigmoid(1)) - sigmoid(-2) * math.log(sigmoid(-1))
    soft = penalty_of(LearningWithoutForgetting(temperature=2.0), network(2.0), network(4.0))
    assert soft == pytest.approx(4 * surprise)
    hard = penalty_of(LearningWithoutForgetting(temperature=0.0), network(2.0), network(4.0))
    assert hard == pytest.approx(-math.log(sigmoid(2)))


def test_the_ewc_penalty_is_half_the_fisher_weighed_square_way() -> None:
    # Output theta x, loss |theta x - target|: its gradient for theta is +-x, so F = mean x^2.
    network = scale_network(1.0, "depth")
    stage = Stage(
        task=AMOUNT, x=torch.tensor([[1.0], [3.0], [9.0]]), target=torch.tensor([[5.0]] * 3)
    )
    assert float(diagonal_fisher(network, stage, 2)["theta"]) == (1 + 9) / 2
    retention = ElasticWeights(strength=4.0, num_samples=2)
    retention.after_stage(network, stage)
    # 4 / 2 * 5 * (1.5 - 1)^2; after a second stage at theta 2 with F = (1 + 9) / 2 again,
    # + 4 / 2 * 5 * (1.5 - 2)^2.
    student = scale_network(1.5, "depth")
    assert penalty_of(retention, student, network) == pytest.approx(4 / 2 * 5 * 0.25)
    retention.after_stage(scale_network(2.0, "depth"), stage)
    assert penalty_of(retention, student, network) == pytest.approx(2 * 4 / 2 * 5 * 0.25)


# --- networks and stages ------------------------------------------------------------------------


def small_stage(task: OutputTask, seed: int) -> Stage:
    """Six pictures of 8 x 16 pixels, bright on one side; each pixel's light is what it shows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6, 3, 8, 16, generator=generator) / 2
    x[::2, :, :, :8] += 0.5
    x[1::2, :, :, 8:] += 0.5
    targets = {
        "classes": (x.mean(1) > 0.5).long(),
        "amount": 1 + x.sum(1, keepdim=True),
        "direction": nn.functional.normalize(x, dim=1),
    }
    return Stage(task=task, x=x, target=targets[task.kind])


def tensors(network: HeadedNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_outputs_have_the_pictures_resolution_and_directions_length_one() -> None:
    network = dense_network(4, seed=0)
    for task in (CLASSES, AMOUNT, DIRECTION):
        network = network.with_head(task, seed=1)
    outputs = network(torch.rand(2, 3, 16, 24))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "parts": (2, 2, 16, 24), "depth": (2, 1, 16, 24), "normals": (2, 3, 16, 24)
    }  # fmt: skip
    torch.testing.assert_close(outputs["normals"].norm(dim=1), torch.ones(2, 16, 24))


def test_a_network_refuses_a_second_head_of_a_name_and_a_width_that_groups_cannot_share() -> None:
    network = dense_network(4, seed=0).with_head(CLASSES, seed=1)
    with pytest.raises(ConfigError, match="'parts'"):
        network.with_head(replace(AMOUNT, name="parts"), seed=1)
    with pytest.raises(ArchitectureError, match="width"):
        dense_network(6, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        Retention,
        LearningWithoutForgetting,
        lambda: ElasticWeights(strength=10.0, num_samples=2),
        Distillation,
        lambda: Distillation(config=HadConfig(variant="released")),
    ],
)
def test_a_sequence_is_deterministic_and_leaves_the_teacher_alone(
    make: Callable[[], Retention],
) -> None:
    def learn() -> HeadedNetwork:
        retention, network = make(), dense_network(4, seed=0)
        for place, task in enumerate((DIRECTION, CLASSES, AMOUNT)):
            stage, before = small_stage(task, place), copy.deepcopy(network)
            grown = learn_stage(network, stage, retention, replace(QUICK, max_steps=2), seed=5)
            assert all(
                torch.equal(tensor, network.state_dict()[name])
                for name, tensor in before.state_dict().items()
            )
            network = grown
        return network

    first = learn()
    torch.manual_seed(99)  # the global stream is nobody's
    again = learn()
    assert list(first.tasks) == ["normals", "parts", "depth"]
    assert not first.training
    for name, tensor in tensors(first).items():
        assert torch.equal(tensor, tensors(again)[name]), name


def test_naive_training_leaves_old_heads_as_they_were_and_had_moves_them() -> None:
    first = learn_stage(
        dense_network(4, seed=0), small_stage(CLASSES, 0), Retention(), QUICK, seed=1
    )
    head = {name: tensor for name, tensor in tensors(first).items() if "heads.parts" in name}
    moved = {}
    for retention in (Retention(), Distillation()):
        after = tensors(learn_stage(first, small_stage(AMOUNT, 1), retention, QUICK, seed=1))
        moved[type(retention)] = not all(torch.equal(head[name], after[name]) for name in head)
    assert moved == {Retention: False, Distillation: True}


def test_joint_training_learns_every_task() -> None:
    stages = [small_stage(task, place) for place, task in enumerate((CLASSES, AMOUNT))]
    start = dense_network(4, seed=0)
    short, long = (
        learn_jointly(start, stages, replace(QUICK, max_steps=steps), seed=1) for steps in (1, 60)
    )
    for stage in stages:
        losses = [
            float(new_task_loss(stage.task.kind, output, stage.target))
            for output in (predict_outputs(net, stage.x)[stage.task.name] for net in (short, long))
        ]
        assert losses[1] < 0.8 * losses[0]


# --- a domain whose task grows ------------------------------------------------------------------

GROWTH = TrainingConfig(epochs=1_000, max_steps=120, batch_size=32, learning_rate=3e-3)
ACTIVITY = OutputTask(name="activity", kind="classes", num_outputs=IMU_TASK.num_classes)
GRAVITY = OutputTask(name="gravity", kind="direction", num_outputs=3)
TURNING = OutputTask(name="turning", kind="amount", num_outputs=1)


def test_a_domain_that_grows_for_two_rounds_keeps_its_first_head() -> None:
    data = ImuWorld(4, 320, 0).load("user-000000")
    split = split_rows(data, SplitConfig(), 0)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y_N)
    # Round 0 has labelled activities; the later rounds have other windows of the same person,
    # labelled with nothing but the new output: where gravity points, how fast the sensor turns.
    first_rows, second_rows, third_rows = (split.train_N[place::3] for place in range(3))
    task = TrainingTask(
        domain_task=IMU_TASK,
        architecture="cnn-small",
        x_L=x[first_rows],
        y_L=y[first_rows],
        x_U=x[:0],
        sources=(),
        config=ExpansionConfig(training=GROWTH),
        seed=0,
        hidden_y_U=y[:0],
    )
    round_0 = headed(fit_all_labels(task).network, ACTIVITY)
    gravity = nn.functional.normalize(x[:, :3].mean(2), dim=1)
    turning = x[:, 3:].abs().mean((1, 2))[:, None]

    def grow(retention: Retention | None) -> HeadedNetwork:
        network = round_0
        for task, rows, target in ((GRAVITY, second_rows, gravity), (TURNING, third_rows, turning)):
            if retention is None:
                network = grow_task(network, task, x[rows], target[rows], seed=0, training=GROWTH)
            else:
                stage = Stage(task=task, x=x[rows], target=target[rows])
                network = learn_stage(network, stage, retention, GROWTH, seed=0)
        return network

    def scores(network: HeadedNetwork) -> dict[str, dict[str, float]]:
        outputs = predict_outputs(network, x[split.test_N])
        targets = {"activity": y, "gravity": gravity, "turning": turning}
        return {
            name: score_task(task, outputs[name], targets[name][split.test_N])
            for name, task in network.tasks.items()
        }

    before, grown, naive = scores(round_0), scores(grow(None)), scores(grow(Retention()))
    assert list(grown) == ["activity", "gravity", "turning"]
    accuracy = {
        name: rows["activity"]["pixel_accuracy"]
        for name, rows in {"before": before, "grown": grown, "naive": naive}.items()
    }
    assert accuracy["before"] > 0.8
    assert accuracy["grown"] > accuracy["before"] - 0.1
    assert accuracy["naive"] < accuracy["grown"] - 0.2
    assert grown["gravity"]["mean_angle"] < min(15, naive["gravity"]["mean_angle"])
    assert grown["turning"]["relative_error"] < 0.3


# --- metrics ------------------------------------------------------------------------------------


def test_segmentation_is_scored_by_overlap_and_hits() -> None:
    # Class 0: 2 hits of 3 in the union; class 1: 1 of 2; class 2 is nowhere; one pixel ignored.
    task = OutputTask(name="s", kind="classes", num_outputs=3)
    label = torch.tensor([[[0, 0, 0, 1, 2]]])
    output = nn.functional.one_hot(label, 3).movedim(-1, 1).double()
    scores = score_task(task, output, torch.tensor([[[0, 0, 1, 1, -1]]]))
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 4)


def test_depth_is_scored_by_absolute_and_relative_error() -> None:
    output, target = torch.tensor([[[[3.0, 5.0, 7.0]]]]), torch.tensor([[[[2.0, 4.0, 0.0]]]])
    scores = score_task(AMOUNT, output, target)
    assert scores["absolute_error"] == pytest.approx(1)
    assert scores["relative_error"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_normals_are_scored_by_angles() -> None:
    angles = [0, 20, 25, 60, 90]
    radians = torch.tensor(np.radians([*angles, 45]))
    output = torch.stack([radians.cos(), radians.sin(), 0 * radians]).reshape(1, 3, 1, 6)
    target = torch.zeros_like(output)
    target[:, 0, :, :5] = 1  # the sixth pixel is unknown
    scores = score_task(DIRECTION, output, target)
    assert scores["mean_angle"] == pytest.approx(np.mean(angles))
    assert scores["median_angle"] == pytest.approx(25)
    shares = [scores[f"within_{limit}"] for limit in ("11.25", "22.5", "30")]
    assert shares == pytest.approx([1 / 5, 2 / 5, 3 / 5])


def test_the_gain_is_signed_by_metric_and_each_task_counts_once() -> None:
    tasks = {"parts": CLASSES, "depth": AMOUNT}
    naive = {
        "parts": {"miou": 0.2, "pixel_accuracy": 0.5},
        "depth": {"absolute_error": 1.0, "relative_error": 0.4},
    }
    scores = {
        "parts": {"miou": 0.3, "pixel_accuracy": 0.5},  # +50 %, 0: +25 %
        "depth": {"absolute_error": 0.9, "relative_error": 0.5},  # +10 %, -25 %: -7.5 %
    }
    assert relative_gain(tasks, scores, naive) == pytest.approx((0.25 - 0.075) / 2)
    assert relative_gain(tasks, naive, naive) == 0
