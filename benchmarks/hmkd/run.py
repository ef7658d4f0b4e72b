"""What does a dense network gain from learning beside ResNetLSTMaN, on people it has not met?

    python benchmarks/hmkd/run.py --data hapt=FOLDER --seeds 3

FOLDER is what ``graft data prepare`` wrote. A finished (set, seed) is kept under --work and not
run again.

Legend: N rows, K channels, T samples of a window, P of them averaged.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
import typer
from rich.console import Console
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from by_seed import interval_text, measure_seeds, name_folders, score
from summary import figure, write_summary

from graft.core.config import TrainingConfig
from graft.core.files import replace_file
from graft.core.records import FloatArray, IntArray
from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.data.domain import World
from graft.methods.hmkd import (
    PUBLISHED_TRAINING,
    TARGET_EXCHANGE,
    Learner,
    MutualConfig,
    learn_mutually,
)
from graft.models import Network, build_network
from graft.training import minimise, parameter_group, predict_in_batches

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/hmkd/run.py --data {name}=FOLDER --seeds {seeds} --steps {steps}"
TEACHER, STUDENT = "resnetlstman", "mlp-500"
TRAIN_SHARE = 0.7  # 21 of HAPT's 30 people, as in the archive's own split
AVERAGED = 4  # P: 128 samples at 50 Hz become 32 at 12.5 Hz, for every network
LONGER = 4
FEW = 0.1  # the share of labelled windows of those who train, where labels are few
TITLES = {
    "mlp": "MLP alone",
    "hmkd": "MLP, HMKD",
    "hmkd-frozen": "MLP, HMKD with a frozen teacher",
    "mlp-longer": f"MLP alone, {LONGER} times the steps",
    "hmkd-frozen-longer": f"MLP, HMKD with a frozen teacher, {LONGER} times the steps",
    "teacher": "ResNetLSTMaN alone",
    "hmkd-teacher": "ResNetLSTMaN, HMKD",
    "crippled": "MLP that keeps a tenth to a third, alone",
    "hmkd-crippled": "MLP that keeps a tenth to a third, HMKD",
    "mlp-few": "few labels: MLP alone",
    "hmkd-few": "few labels: MLP, HMKD on all rows, r = 0.9",
    "hmkd-few-teacher": "few labels: ResNetLSTMaN, HMKD on all rows, r = 0.9",
    "mlp-few-longer": f"few labels: MLP alone, {LONGER} times the steps",
    "hmkd-few-longer": f"few labels: MLP, HMKD on all rows, r = 0.9, {LONGER} times the steps",
}
BASES = {
    "hmkd": "mlp",
    "hmkd-frozen": "mlp",
    "hmkd-frozen-longer": "mlp-longer",
    "hmkd-crippled": "crippled",
    "hmkd-few": "mlp-few",
    "hmkd-few-longer": "mlp-few-longer",
}
TARGETS = {"hmkd": ">= 9", "hmkd-few-longer": ">= 9"}
console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class People:
    """Standardised windows of those who train and of those who test."""

    task: Task
    x: Tensor
    y_N: Tensor
    x_test: Tensor
    y_test_N: Tensor
    x_U: Tensor | None = None


def main(
    data: Annotated[list[str], typer.Option(help="NAME=FOLDER of a prepared set; repeatable.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 3,
    steps: Annotated[int, typer.Option(help="Training steps of every network.")] = 500,
    work: Annotated[Path, typer.Option(help="Where finished seeds are kept.")] = Path("runs/hmkd"),
) -> None:
    """Run every set and seed, then write results/summary.json and a table a set."""
    torch.set_num_threads(1)
    folders = name_folders(data)
    rows = measure_seeds(folders, seeds, steps, work, len(TITLES), measure, console)
    for name in folders:
        report(name, seeds, steps, rows[name])


def measure(
    world: World, seed: int, steps: int, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row an arm; every student starts equal and sees equal batches of the same labels."""
    people = split_people(world, seed)
    training = replace(PUBLISHED_TRAINING, epochs=LONGER * steps, max_steps=steps)
    longer = replace(training, max_steps=LONGER * steps)
    rows = []

    def add(arm: str, network: Network) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the crippled network drops in testing too
            output_NC = predict_in_batches(network, people.x_test)
        rows.append({"seed": seed, "arm": arm, **score(output_NC, people.y_test_N)})
        progress(f"seed {seed}, {arm}")

    for arm, config in (("mlp", training), ("mlp-longer", longer)):
        add(arm, train_alone(student_of(people, seed), people, config, seed))
    trained = train_alone(teacher_of(people, seed), people, training, seed)
    add("teacher", trained)
    frozen = MutualConfig(freeze_teacher=True)
    for arm, config, mutual in (
        ("hmkd", training, MutualConfig()),
        ("hmkd-frozen", training, frozen),
        ("hmkd-frozen-longer", longer, frozen),
    ):
        teacher = trained if mutual.freeze_teacher else teacher_of(people, seed)
        student = student_of(people, seed)
        train_together(student, teacher, people, config, seed, mutual)
        add(arm, student)
        if arm == "hmkd":
            add("hmkd-teacher", teacher)
    add("crippled", train_alone(crippled(student_of(people, seed)), people, training, seed))
    student = crippled(student_of(people, seed))
    train_together(student, teacher_of(people, seed), people, training, seed, MutualConfig())
    add("hmkd-crippled", student)
    few, on_all = with_few_labels(people, seed), MutualConfig(exchange=TARGET_EXCHANGE)
    for suffix, config in (("", training), ("-longer", longer)):
        # As many steps as there are with all labels.
        add(f"mlp-few{suffix}", train_alone(student_of(people, seed), few, config, seed))
        student, teacher = student_of(people, seed), teacher_of(people, seed)
        train_together(student, teacher, few, config, seed, on_all)
        add(f"hmkd-few{suffix}", student)
        if not suffix:
            add("hmkd-few-teacher", teacher)
    return rows


def split_people(world: World, seed: int) -> People:
    """Draw who trains and who tests; average P neighbouring samples, standardise each channel."""
    persons = sorted({world.person(domain_id) for domain_id in world.domain_ids})
    order = stream("hmkd-people", seed).permutation(len(persons))
    chosen = {persons[place] for place in order[: round(TRAIN_SHARE * len(persons))]}
    domains = {
        side: [d for d in world.domain_ids if (world.person(d) in chosen) == side]
        for side in (True, False)
    }
    (x, y_N), (x_test, y_test_N) = (pooled(world, domains[side]) for side in (True, False))
    mean_K1 = x.mean((0, 2))[:, None]
    deviation_K1 = x.std((0, 2))[:, None]
    return People(
        task=replace(world.task, sample_shape=(x.shape[1], x.shape[2])),
        x=torch.from_numpy((x - mean_K1) / deviation_K1),
        y_N=torch.from_numpy(y_N),
        x_test=torch.from_numpy((x_test - mean_K1) / deviation_K1),
        y_test_N=torch.from_numpy(y_test_N),
    )


def pooled(world: World, domain_ids: list[str]) -> tuple[FloatArray, IntArray]:
    """All rows of some domains: windows (N, K, T / P) and labels."""
    loaded = [world.load(domain_id) for domain_id in domain_ids]
    x_NKT = np.concatenate([domain.x for domain in loaded])
    x = x_NKT.reshape(*x_NKT.shape[:2], -1, AVERAGED).mean(3)
    return x, np.concatenate([domain.y_N for domain in loaded])


def with_few_labels(people: People, seed: int) -> People:
    """The same people, of whose windows a share has labels, at least one of each class."""
    order = torch.from_numpy(stream("hmkd-labels", seed).permutation(len(people.y_N)))
    firsts = [int((people.y_N[order] == c).nonzero()[0]) for c in people.y_N.unique()]
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order[: round(FEW * len(order))]] = True
    chosen[order[firsts]] = True
    x, y_N = people.x[chosen], people.y_N[chosen]
    return replace(people, x=x, y_N=y_N, x_U=people.x[~chosen])


def student_of(people: People, seed: int) -> Network:
    """The student as every arm starts it."""
    return build_network(STUDENT, people.task, seed)


def teacher_of(people: People, seed: int) -> Network:
    """The teacher as every arm starts it."""
    return heavy_in_bfloat16(build_network(TEACHER, people.task, seed))


def crippled(network: Network) -> Network:
    """Drop what the paper's numbers say that is kept, in testing too."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.forward = partial(F.dropout, p=1 - module.p, training=True)  # type: ignore[method-assign]
    return network


def train_together(
    student: Network,
    teacher: Network,
    people: People,
    config: TrainingConfig,
    seed: int,
    mutual: MutualConfig,
) -> None:
    """HMKD, on rows without labels too where there are some."""
    pair = (
        Learner(student, STUDENT, people.x, mutual.width, seed),
        Learner(teacher, TEACHER, people.x, mutual.width, seed + 1),
    )
    learn_mutually(*pair, people.x, people.y_N, config, seed, mutual, people.x_U)


def train_alone(network: Network, people: People, config: TrainingConfig, seed: int) -> Network:
    """Cross-entropy alone, on the batches and dropout masks of every other arm."""
    network.train()

    def loss_of(rows_B: Tensor, _: Tensor) -> Tensor:
        return F.cross_entropy(network(people.x[rows_B]), people.y_N[rows_B])

    groups = [parameter_group(network, config.learning_rate)]
    minimise(loss_of, groups, len(people.x), 0, config, seed)
    return network.eval()


def heavy_in_bfloat16(network: Network) -> Network:
    """Compute the residual blocks, nine tenths of ResNetLSTMaN's work, in bfloat16."""
    for block in network.get_submodule("encoder.residual").children():
        block.forward = partial(_forward_in_bfloat16, block.forward)  # type: ignore[method-assign]
    return network


def _forward_in_bfloat16(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = forward(x)
    return output.float()


def report(name: str, seeds: int, steps: int, rows: list[dict[str, Any]]) -> None:
    """The set's table and figures; gains are paired over seeds."""
    scores = {
        metric: {
            arm: np.array([row[metric] for row in rows if row["arm"] == arm]) for arm in TITLES
        }
        for metric in ("accuracy", "macro_f1")
    }
    lines = [
        f"# {name}, {seeds} seeds, {steps} steps",
        "",
        "| network | macro-F1 | worst seed | gain, points | 95 % interval | accuracy |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    command = COMMAND.format(name=name, seeds=seeds, steps=steps)
    figures = {}
    for arm, title in TITLES.items():
        f1, accuracy = scores["macro_f1"][arm], scores["accuracy"][arm]
        figures[f"{name}/{arm}/macro_f1"] = figure(f1.mean(), "share", None, command, range(seeds))
        gain_text = "| "
        if arm in BASES:
            gains = 100 * (f1 - scores["macro_f1"][BASES[arm]])
            target = TARGETS.get(arm) if name == "hapt" else None
            figures[f"{name}/{arm}/gain"] = figure(
                gains.mean(), "points of macro-F1", target, command, range(seeds)
            )
            gain_text = f"{gains.mean():+.1f} | {interval_text(gains, 1)}"
        lines.append(
            f"| {title} | {f1.mean():.1%} | {f1.min():.1%} | {gain_text} | {accuracy.mean():.1%} |"
        )
    folder = HERE / "results"
    write_summary(folder, figures)
    replace_file(folder / f"{name}.md", ("\n".join(lines) + "\n").encode())
    console.print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    typer.run(main)
