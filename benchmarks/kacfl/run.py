"""Does common feature learning add to soft targets, where no label is read?

    python benchmarks/kacfl/run.py --data hapt=FOLDER --data pendigits=FOLDER --seeds 5

FOLDER is what ``graft data prepare`` wrote. A finished (set, seed) is kept under --work and not
run again.

Legend: N rows, C classes, K channels.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
import typer
from rich.console import Console
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from by_seed import interval_text, measure_seeds, name_folders, score
from summary import figure, write_summary

from graft.core.config import SplitConfig, TrainingConfig
from graft.core.files import replace_file
from graft.core.records import BoolArray, FloatArray
from graft.core.seeding import derive_seed, stream
from graft.core.tasks import Task
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.methods.distillation import distil_soft_targets, soft_targets
from graft.methods.kacfl import PUBLISHED, VECTOR_FORM, distil_common_features
from graft.models import Network, build_network
from graft.training import Source, minimise, parameter_group, predict_in_batches

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/kacfl/run.py --data {name}=FOLDER --seeds {seeds} --steps {steps}"
TEACHERS = ("cnn-medium", "mlp")
STUDENT = "mlp"
TEACHER_TRAINING = TrainingConfig(epochs=1_000_000, max_steps=250, batch_size=64)
SPACES = ("disjoint", "shared")
BASE = "soft-kd"
FEATURE_WEIGHTS = {"kacfl": VECTOR_FORM, "kacfl-published": PUBLISHED}
# Networks with positions in their last stage, a student that another task trained, and few steps:
# what the paper's logs show is how fast a student learns.
MAP_TEACHERS = ("cnn-medium", "cnn-large")
MAP_STUDENT = "cnn-small"
BUDGETS = (25, 50, 100, 200, 500)
SPEED_ARMS = {
    BASE: "Soft targets alone",
    "kacfl": "KA-CFL, vectors, weight 1 (ours)",
    "kacfl-maps": "KA-CFL, feature maps, weight 10 (published)",
}
TITLES = {
    "teachers": "The teachers together",
    BASE: "Soft targets alone",
    "kacfl": f"KA-CFL, weight {VECTOR_FORM.feature_weight:g} (ours)",
    "kacfl-published": f"KA-CFL, weight {PUBLISHED.feature_weight:g} (published)",
}
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """Standardised windows, their labels, and the number of the person in each row."""

    x: Tensor
    y_N: Tensor
    person_N: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setting:
    """Rows of people who trained the teachers; a target's earlier rows, and the later ones."""

    task: Task
    known: Rows
    new: Rows
    test: Rows


def main(
    data: Annotated[list[str], typer.Option(help="NAME=FOLDER of a prepared set; repeatable.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 5,
    steps: Annotated[int, typer.Option(help="Training steps of a student.")] = 500,
    work: Annotated[Path, typer.Option(help="Where finished seeds are kept.")] = Path("runs/kacfl"),
) -> None:
    """Run every set and seed, then write results/summary.json and a table a set."""
    torch.set_num_threads(1)
    folders = name_folders(data)
    rows = measure_seeds(folders, seeds, steps, work, len(SPACES) * len(TITLES), measure, console)
    each = len(SPACES) * len(BUDGETS) * len(SPEED_ARMS)
    fast = measure_seeds(folders, seeds, max(BUDGETS), work / "speed", each, measure_speed, console)
    for name in folders:
        figures = report(name, seeds, steps, rows[name])
        figures |= report_speed(name, seeds, fast[name])
        write_summary(HERE / "results", figures)


def measure(
    world: World, seed: int, steps: int, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row a label space and method; every student starts equal and sees equal batches."""
    setting = open_setting(world, seed)
    training = TrainingConfig(epochs=1_000_000, max_steps=steps)
    rows = []
    for space in SPACES:
        teachers = train_teachers(setting, space, seed)
        for arm in TITLES:
            if arm == "teachers":
                logits_SNC = torch.stack(
                    [predict_in_batches(teacher.network, setting.test.x) for teacher in teachers]
                )
                mask_SC = torch.from_numpy(np.stack([teacher.mask_C for teacher in teachers]))
                output_NC = soft_targets(logits_SNC, mask_SC)
            else:
                student = build_network(STUDENT, setting.task, seed)
                if arm == BASE:
                    distil_soft_targets(student, teachers, setting.new.x, training, seed)
                else:
                    config = FEATURE_WEIGHTS[arm]
                    distil_common_features(student, teachers, setting.new.x, training, seed, config)
                output_NC = predict_in_batches(student, setting.test.x)
            rows.append(
                {"seed": seed, "space": space, "arm": arm, **score(output_NC, setting.test.y_N)}
            )
            progress(f"{setting.task.name}, seed {seed}, {space}, {arm}")
    return rows


def measure_speed(
    world: World, seed: int, steps: int, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row a label space, number of steps and method, from one pretrained student a seed."""
    setting = open_setting(world, seed)
    pretrained = pretrained_student(setting, seed)
    rows = []
    for space in SPACES:
        teachers = train_teachers(setting, space, seed, MAP_TEACHERS)
        for budget, arm in product(BUDGETS, SPEED_ARMS):
            student = build_network(MAP_STUDENT, setting.task, seed)
            student.encoder.load_state_dict(pretrained.encoder.state_dict())
            training = TrainingConfig(epochs=1_000_000, max_steps=budget)
            given = (student, teachers, setting.new.x, training, seed)
            if arm == BASE:
                distil_soft_targets(*given)
            elif arm == "kacfl":
                distil_common_features(*given, VECTOR_FORM)
            else:
                distil_common_features(*given, PUBLISHED, maps_of=MAP_STUDENT)
            result = score(predict_in_batches(student, setting.test.x), setting.test.y_N)
            rows.append({"seed": seed, "space": space, "steps": budget, "arm": arm, **result})
            progress(f"{setting.task.name}, seed {seed}, {space}, {budget} steps, {arm}")
    return rows


def pretrained_student(setting: Setting, seed: int) -> Network:
    """The student's architecture after it learnt to tell apart the people who train teachers."""
    people, person_N = torch.unique(setting.known.person_N, return_inverse=True)
    task = replace(setting.task, classes=tuple(f"person {int(person)}" for person in people))
    everyone = np.ones(len(people), np.bool_)
    source = train_teacher(MAP_STUDENT, task, setting.known.x, person_N, everyone, seed)
    return source.network


def open_setting(world: World, seed: int) -> Setting:
    """Half of the people train teachers; of the others the latest rows of each class test."""
    persons = sorted({world.person(domain_id) for domain_id in world.domain_ids})
    order = stream("kacfl-people", seed).permutation(len(persons))
    number = {persons[place]: index for index, place in enumerate(order)}
    parts: dict[str, list[tuple[FloatArray, ...]]] = {"known": [], "new": [], "test": []}
    for domain_id in world.domain_ids:
        domain = world.load(domain_id)
        person = number[world.person(domain_id)]
        person_N = np.full(len(domain.y_N), person)
        if person < len(persons) // 2:
            parts["known"].append((domain.x, domain.y_N, person_N))
            continue
        split = split_rows(domain, SplitConfig(), seed)
        for name, chosen in (("new", split.train_N), ("test", split.test_N)):
            parts[name].append((domain.x[chosen], domain.y_N[chosen], person_N[chosen]))
    joined = {
        name: [np.concatenate(arrays) for arrays in zip(*part, strict=True)]
        for name, part in parts.items()
    }
    mean_K1 = joined["known"][0].mean((0, 2))[:, None]
    deviation_K1 = joined["known"][0].std((0, 2))[:, None]
    rows = {
        name: Rows(
            x=torch.from_numpy(((x - mean_K1) / deviation_K1).astype(np.float32)),
            y_N=torch.from_numpy(y_N),
            person_N=torch.from_numpy(person_N),
        )
        for name, (x, y_N, person_N) in joined.items()
    }
    return Setting(task=world.task, known=rows["known"], new=rows["new"], test=rows["test"])


def train_teachers(
    setting: Setting, space: str, seed: int, architectures: tuple[str, ...] = TEACHERS
) -> list[Source]:
    """Disjoint: each learns half of the classes. Shared: all classes, from half of the people."""
    rng = stream("kacfl-teachers", seed, space)
    num_classes = setting.task.num_classes
    teachers = []
    if space == "disjoint":
        first_C = np.isin(np.arange(num_classes), rng.permutation(num_classes)[: num_classes // 2])
        masks = [first_C, ~first_C]
        rows = [torch.from_numpy(mask_C)[setting.known.y_N] for mask_C in masks]
    else:
        masks = [np.ones(num_classes, np.bool_)] * 2
        persons = setting.known.person_N.unique()
        half = persons[rng.permutation(len(persons))[: len(persons) // 2]]
        first_N = torch.isin(setting.known.person_N, half)
        rows = [first_N, ~first_N]
    for architecture, mask_C, rows_N in zip(architectures, masks, rows, strict=True):
        chosen = (setting.known.x[rows_N], setting.known.y_N[rows_N])
        teachers.append(train_teacher(architecture, setting.task, *chosen, mask_C, seed))
    return teachers


def train_teacher(
    architecture: str, task: Task, x: Tensor, y_N: Tensor, mask_C: BoolArray, seed: int
) -> Source:
    """Cross-entropy over the classes that the teacher knows."""
    network = build_network(architecture, task, derive_seed(seed, architecture)).train()
    unknown_C = torch.from_numpy(~mask_C)

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        logits_BC = network(x[rows_B]).masked_fill(unknown_C, float("-inf"))
        return F.cross_entropy(logits_BC, y_N[rows_B])

    groups = [parameter_group(network, TEACHER_TRAINING.learning_rate)]
    minimise(loss_of, groups, len(x), 0, TEACHER_TRAINING, seed)
    return Source(
        model_id=architecture,
        domain_id=architecture,
        architecture=architecture,
        network=network.eval(),
        mask_C=mask_C,
    )


def report(name: str, seeds: int, steps: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the set's table and return its figures; gains are paired over seeds."""
    lines = [
        f"# {name}, {seeds} seeds, {steps} steps, student {STUDENT}",
        "",
        "| label spaces | method | accuracy | worst | gain, points | 95 % interval | macro-F1 |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    command = COMMAND.format(name=name, seeds=seeds, steps=steps)
    figures = {}
    for space, (arm, title) in product(SPACES, TITLES.items()):
        accuracy, macro_f1 = (
            np.array([r[metric] for r in rows if (r["space"], r["arm"]) == (space, arm)])
            for metric in ("accuracy", "macro_f1")
        )
        base = np.array([r["accuracy"] for r in rows if (r["space"], r["arm"]) == (space, BASE)])
        label = f"{name}/{space}/{arm}"
        figures[f"{label}/accuracy"] = figure(accuracy.mean(), "share", None, command, range(seeds))
        gain, interval = "", ""
        if arm in FEATURE_WEIGHTS:
            gains = 100 * (accuracy - base)
            target = "> 0" if arm == "kacfl" else None
            figures[f"{label}/gain"] = figure(gains.mean(), "points", target, command, range(seeds))
            gain, interval = f"{gains.mean():+.2f}", interval_text(gains, 2)
        lines.append(
            f"| {space} | {title} | {accuracy.mean():.1%} | {accuracy.min():.1%} "
            f"| {gain} | {interval} | {macro_f1.mean():.1%} |"
        )
    write_table(f"{name}.md", lines)
    return figures


def report_speed(name: str, seeds: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the table by steps and return its figures; gains are paired over seeds."""
    lines = [
        f"# {name}, {seeds} seeds, student {MAP_STUDENT} pretrained, by steps",
        "",
        "| label spaces | steps | method | accuracy | gain, points | 95 % interval |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    command = COMMAND.format(name=name, seeds=seeds, steps=max(BUDGETS))
    figures = {}
    for space, budget in product(SPACES, BUDGETS):
        accuracy = {
            arm: np.array(
                [
                    row["accuracy"]
                    for row in rows
                    if (row["space"], row["steps"], row["arm"]) == (space, budget, arm)
                ]
            )
            for arm in SPEED_ARMS
        }
        for arm, title in SPEED_ARMS.items():
            label = f"{name}/{space}/{budget} steps/{arm}"
            mean = float(accuracy[arm].mean())
            figures[f"{label}/accuracy"] = figure(mean, "share", None, command, range(seeds))
            gain, interval = "", ""
            if arm != BASE:
                gains = 100 * (accuracy[arm] - accuracy[BASE])
                target = "> 0" if arm == "kacfl-maps" and budget <= 100 else None
                figures[f"{label}/gain"] = figure(
                    float(gains.mean()), "points", target, command, range(seeds)
                )
                gain, interval = f"{gains.mean():+.2f}", interval_text(gains, 2)
            lines.append(f"| {space} | {budget} | {title} | {mean:.1%} | {gain} | {interval} |")
    write_table(f"{name}-by-steps.md", lines)
    return figures


def write_table(name: str, lines: list[str]) -> None:
    """Write a table under results and print it."""
    replace_file(HERE / "results" / name, ("\n".join(lines) + "\n").encode())
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
