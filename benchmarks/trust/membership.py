"""Does a model tell which rows it was trained on, with and without private training?

    python benchmarks/trust/membership.py --data hapt=FOLDER --data pendigits=FOLDER

FOLDER is what ``graft data prepare`` wrote. In each domain many models learn from a random half of
its rows each, as the system trains them: an initial domain's, and a target domain's by ``graft``
from the initial models of other people. Every model is attacked with the others as shadows (LiRA,
Carlini et al. 2022, online: a Gaussian of the logit-scaled confidence in and out, with one variance
for all rows), and by the threshold of its loss. "later" is that threshold with the test block in
place of the other half; it is of a later time, and what a model has of its time counts as well.
"later-control" tells how much that is: the half that no model saw against the same test block.
``--pool`` makes one domain of so many people. Private training is of all layers, or of the head
alone: over an encoder that another person trained and shipped, or over random features. A finished
(set, people, domain, kind, arm) is not run again.
"""

import copy
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from by_seed import name_folders
from summary import figure, write_summary

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.files import replace_file
from graft.core.seeding import derive_seed, stream
from graft.core.tasks import Task
from graft.data.domain import DomainData, World
from graft.data.folder import FolderWorld
from graft.data.splits import split_rows
from graft.methods import INITIAL, find_method
from graft.models import build_network
from graft.privacy import training_cost
from graft.training import (
    PrivateTraining,
    SoftRows,
    Source,
    TrainedModel,
    TrainingTask,
    minimise_privately,
    predict_in_batches,
)

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/trust/membership.py --data hapt=FOLDER --data pendigits=FOLDER"
ARCHITECTURE = "cnn-small"
CONFIG = ExpansionConfig(comparisons=())
METHODS = {"initial": INITIAL, "target": "graft"}
PLAIN, PRIVATE, HEAD, RANDOM = "plain", "epsilon-8", "epsilon-8-head", "epsilon-8-random-features"
# A target domain's encoder is always a source's.
ARMS = {PLAIN: METHODS, PRIVATE: METHODS, HEAD: METHODS, RANDOM: ("initial",)}
EPSILON, DELTA = 8.0, 1e-5
NUM_SOURCES = 3
ATTACKS = ("loss_auc", "lira_auc", "loss_tpr", "lira_tpr")
Floats = npt.NDArray[np.float64]
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that a domain may train on, and its test block."""

    x: torch.Tensor
    y_N: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


def main(
    data: Annotated[list[str], typer.Option(help="NAME=FOLDER of a prepared set; repeatable.")],
    models: Annotated[int, typer.Option(help="Models of a domain, method and arm.")] = 12,
    pool: Annotated[list[int] | None, typer.Option(help="People of a domain; repeatable.")] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Of people, halves and models; repeatable.")
    ] = None,
) -> None:
    """Attack every set, domain, method and arm; write results/: rows of each set, and figures."""
    torch.set_num_threads(1)
    rows = []
    for name, folder in name_folders(data).items():
        path = HERE / "results" / f"membership-{name}.jsonl"
        for people, each in product(pool or (1, 8), seed or (0,)):
            attack_set(name, FolderWorld(folder), models, people, each, path)
        rows += _rows(path)
    report(rows)


def attack_set(name: str, world: World, models: int, pool: int, seed: int, path: Path) -> None:
    """Append a row for each method and arm of one domain to its set's file."""
    people = list(map(str, stream("membership", seed).permutation(np.array(world.domain_ids))))
    source_ids, own_ids = people[:NUM_SOURCES], people[NUM_SOURCES:][:pool]
    rows = joined([rows_of(world.load(person), seed) for person in own_ids])
    for arm, kinds in ARMS.items():
        sources: tuple[Source, ...] = ()
        for kind in kinds:
            key = {
                "set": name, "people": pool, "domain": own_ids[0], "kind": kind, "arm": arm,
                "models": models, "seed": seed,
            }  # fmt: skip
            if any(key.items() <= row.items() for row in _rows(path)):
                continue
            used = kind == "target" or arm == HEAD
            if not sources and used:
                sources = tuple(
                    train_source(world.task, each, rows_of(world.load(each), seed), arm)
                    for each in source_ids
                )
            started_s = time.process_time()
            figures = attack_domain(
                world.task, rows, kind, sources if used else (), arm, models, seed
            )
            row = {**key, **figures, "cpu_s": round(time.process_time() - started_s, 1)}
            text = "".join(json.dumps(each) + "\n" for each in [*_rows(path), row])
            replace_file(path, text.encode())
            console.print(row, highlight=False)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several people as those of one domain."""
    names = ("x", "y_N", "test_x", "test_y")
    return Rows(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def rows_of(domain: DomainData, seed: int) -> Rows:
    split = split_rows(domain, CONFIG.split, seed)
    x, y_N = torch.from_numpy(domain.x), torch.from_numpy(domain.y_N)
    return Rows(x[split.train_N], y_N[split.train_N], x[split.test_N], y_N[split.test_N])


def train_source(task: Task, domain_id: str, rows: Rows, arm: str) -> Source:
    """An initial domain's model of all its rows; private where those of all domains are."""
    arm = PLAIN if arm == HEAD else arm
    model = train(task, rows, np.arange(len(rows.x)), "initial", (), arm, domain_id)
    return Source(
        model_id=domain_id,
        domain_id=domain_id,
        architecture=ARCHITECTURE,
        network=model.network,
        mask_C=model.mask_C,
    )


def attack_domain(
    task: Task, rows: Rows, kind: str, sources: tuple[Source, ...], arm: str,
    models: int, seed: int,
) -> dict[str, float]:  # fmt: skip
    """Train models on random halves, each half beside its complement, and attack every one."""
    num_rows = len(rows.x)
    confidence_MN, loss_MN = np.zeros((models, num_rows)), np.zeros((models, num_rows))
    member_MN = np.zeros((models, num_rows), np.bool_)
    accuracy, later_auc, control_auc = [], [], []
    for index in range(models):
        order_N = stream("membership-half", seed, index // 2).permutation(num_rows)
        half = num_rows // 2
        chosen_N = order_N[:half] if index % 2 == 0 else order_N[half:]
        member_MN[index, chosen_N] = True
        model = train(task, rows, np.sort(chosen_N), kind, sources, arm, f"{seed}-{index}")
        loss_MN[index], confidence_MN[index] = scores(model, rows.x, rows.y_N)
        test_loss_N, _ = scores(model, rows.test_x, rows.test_y)
        predicted_N = predict_in_batches(model.network, rows.test_x).argmax(1)
        accuracy.append(float((predicted_N == rows.test_y).double().mean()))
        for is_of_N, areas in ((member_MN[index], later_auc), (~member_MN[index], control_auc)):
            both_N = np.concatenate([loss_MN[index][is_of_N], test_loss_N])[None]
            areas.append(area_under_curve(-both_N, np.arange(both_N.size)[None] < is_of_N.sum()))
    lira_MN = likelihood_ratios(confidence_MN, member_MN)
    return {
        "rows": num_rows // 2,
        "loss_auc": area_under_curve(-loss_MN, member_MN),
        "lira_auc": area_under_curve(lira_MN, member_MN),
        "loss_tpr": true_positives(-loss_MN, member_MN),
        "lira_tpr": true_positives(lira_MN, member_MN),
        "later_auc": float(np.mean(later_auc)),
        "later_control_auc": float(np.mean(control_auc)),
        "accuracy": 100 * float(np.mean(accuracy)),
    }


def train(
    task: Task, rows: Rows, chosen_N: npt.NDArray[np.int64], kind: str,
    sources: tuple[Source, ...], arm: str, name: str,
) -> TrainedModel:  # fmt: skip
    """A model of the chosen rows as the system trains it; of a target's, a fraction is labelled."""
    x, y_N, seed = rows.x[chosen_N], rows.y_N[chosen_N], derive_seed("membership", kind, name)
    if kind == "initial" and arm in (HEAD, RANDOM):
        return train_head(task, x, y_N, sources, seed)
    labelled_N = np.ones(len(x), np.bool_)
    if kind == "target":
        labelled_N[:] = False
        drawn = stream("membership-labels", seed).permutation(len(x))
        labelled_N[drawn[: max(2, round(CONFIG.split.gamma * len(x)))]] = True
    return find_method(METHODS[kind]).fit(
        TrainingTask(
            domain_task=task,
            architecture=ARCHITECTURE,
            x_L=x[labelled_N],
            y_L=y_N[labelled_N],
            x_U=x[~labelled_N],
            sources=tuple(replace(s, network=copy.deepcopy(s.network)) for s in sources),
            config=CONFIG,
            seed=seed,
            hidden_y_U=y_N[~labelled_N],
            private=None if arm == PLAIN else private_training(seed, arm),
        )
    )


def train_head(
    task: Task, x: torch.Tensor, y_N: torch.Tensor, sources: tuple[Source, ...], seed: int
) -> TrainedModel:
    """A new head, trained privately over the first source's encoder, or over a fresh one."""
    network = build_network(ARCHITECTURE, task, seed)
    if sources:
        shipped = sources[0].network.state_dict()
        own = {n: t for n, t in network.state_dict().items() if n.startswith("head.")}
        network.load_state_dict({**shipped, **own})
    target_NC = torch.nn.functional.one_hot(y_N, task.num_classes).float()
    rows = SoftRows(x=x, target_NC=target_NC, weight_N=torch.ones(len(x)))
    private = private_training(seed, HEAD)
    minimise_privately(network, rows, CONFIG.training, private, num_rows=len(x), seed=seed)
    mask_C = np.ones(task.num_classes, np.bool_)
    return TrainedModel(network=network, architecture=ARCHITECTURE, mask_C=mask_C)


def private_training(seed: int, arm: str) -> PrivateTraining:
    def pay(sample_rate: float, steps: int) -> tuple[float, np.random.Generator]:
        deviation, _ = training_cost(EPSILON, DELTA, sample_rate=sample_rate, steps=steps)
        return deviation * (2 if sample_rate >= 1 else 1), stream("membership-noise", seed)

    clip_norm, head_only = PolicyConfig().train_clip, arm in (HEAD, RANDOM)
    return PrivateTraining(clip_norm=clip_norm, pay=pay, head_only=head_only)


@torch.no_grad()
def scores(model: TrainedModel, x: torch.Tensor, y_N: torch.Tensor) -> tuple[Floats, Floats]:
    """Each row's loss, and log p / (1 - p) of its true class."""
    logits_NC = predict_in_batches(model.network, x).double()
    log_NC = torch.log_softmax(logits_NC, 1)
    own_N1 = y_N[:, None]
    log_own_N = log_NC.gather(1, own_N1)[:, 0]
    others_N = torch.logsumexp(log_NC.scatter(1, own_N1, float("-inf")), 1)
    return -log_own_N.numpy(), (log_own_N - others_N).numpy()


def likelihood_ratios(confidence_MN: Floats, member_MN: npt.NDArray[np.bool_]) -> Floats:
    """Each model's log ratio of two Gaussians a row, which all other models are fitted to."""
    ratio_MN = np.zeros_like(confidence_MN)
    for index in range(len(confidence_MN)):
        others = np.arange(len(confidence_MN)) != index
        terms = []
        for inside in (True, False):
            of_row = (member_MN[others] == inside).astype(float)
            confidence = confidence_MN[others]
            mean_N = (of_row * confidence).sum(0) / np.maximum(of_row.sum(0), 1)
            variance = (of_row * (confidence - mean_N) ** 2).sum() / of_row.sum() + 1e-9
            gap_N = confidence_MN[index] - mean_N
            terms.append(-(gap_N**2) / (2 * variance) - 0.5 * np.log(variance))
        ratio_MN[index] = terms[0] - terms[1]
    return ratio_MN


def area_under_curve(score_MN: Floats, member_MN: npt.NDArray[np.bool_]) -> float:
    """The mean over models of the chance that a member scores above a row that is none."""
    areas = []
    for score_N, member_N in zip(score_MN, member_MN, strict=True):
        inside, outside = score_N[member_N][:, None], score_N[~member_N]
        areas.append(float((inside > outside).mean() + 0.5 * (inside == outside).mean()))
    return float(np.mean(areas))


def true_positives(score_MN: Floats, member_MN: npt.NDArray[np.bool_], at: float = 0.01) -> float:
    """The fraction of members above the threshold that a fraction ``at`` of the others passes."""
    threshold = np.quantile(score_MN[~member_MN], 1 - at)
    return float((score_MN[member_MN] > threshold).mean())


def report(rows: list[dict[str, Any]]) -> None:
    """The mean over seeds of each set, number of people, kind and arm, and its standard error."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups["/".join((row["set"], f"{row['people']}-people", row["kind"], row["arm"]))] += [row]
    figures = {}
    for key, group in groups.items():
        seeds = [row["seed"] for row in group]
        for measure in (*ATTACKS, "later_auc", "later_control_auc", "accuracy"):
            if measure not in group[0]:  # a row of before there was a control
                continue
            value_S = [row[measure] for row in group]
            is_aim = measure in ATTACKS[:2] and group[0]["arm"] != PLAIN
            unit = "%" if measure == "accuracy" else "share"
            name = f"membership/{key}/{measure.replace('_', '-')}"
            figures[name] = figure(
                np.mean(value_S), unit, "<= 0.6" if is_aim else None, COMMAND, seeds
            )
            if len(seeds) > 1:
                error = np.std(value_S, ddof=1) / np.sqrt(len(seeds))
                figures[f"{name}-error"] = figure(error, unit, None, COMMAND, seeds)
    write_summary(HERE / "results", figures)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    typer.run(main)
