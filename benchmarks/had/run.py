"""Does HAD keep old outputs better than its baselines when a model learns one after the other?

    python benchmarks/had/run.py --seeds 3
    python benchmarks/had/run.py --grid        # which strength suits each method, on another seed

Rendered rooms: segmentation by day, then depth in the evening, then surface normals in a hall.
A finished (seed, method) is kept under --work and not run again.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import torch
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reference import METRIC_SIGNS, learn_jointly, relative_gain, score_task
from scenes import STYLES, make_scene, render_scene
from solids import CLASSES
from summary import figure, write_summary

from graft.core.files import replace_file
from graft.lifelong.had import Distillation, HadConfig
from graft.lifelong.heads import HeadedNetwork, OutputTask, dense_network
from graft.lifelong.retention import (
    LIFELONG_TRAINING,
    ElasticWeights,
    LearningWithoutForgetting,
    Retention,
    Stage,
    learn_stage,
    predict_outputs,
)

matplotlib.use("Agg")
from matplotlib import pyplot  # the backend must be chosen first

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/had/run.py --seeds {seeds}"
TASKS = {
    "semantic": OutputTask(name="semantic", kind="classes", num_outputs=len(CLASSES)),
    "depth": OutputTask(name="depth", kind="amount", num_outputs=1),
    "normals": OutputTask(name="normals", kind="direction", num_outputs=3),
}
STYLE_OF = {"semantic": "day", "depth": "evening", "normals": "hall"}
HEIGHT, WIDTH = 32, 48
NUM_TRAIN, NUM_TEST = 200, 150
NETWORK_WIDTH = 16
TRAINING = replace(LIFELONG_TRAINING, epochs=24, batch_size=16, learning_rate=7e-4)
RETENTIONS: Mapping[str, Callable[[float], Retention]] = {
    "naive": lambda _: Retention(),
    "lwf": lambda strength: LearningWithoutForgetting(strength=strength),
    "lwf-hard": lambda strength: LearningWithoutForgetting(strength=strength, temperature=0.0),
    "ewc": lambda strength: ElasticWeights(strength=strength),
    "had-paper": lambda strength: Distillation(config=HadConfig(strength=strength)),
    "had-released": lambda strength: Distillation(
        config=HadConfig(strength=strength, variant="released")
    ),
}
# Each the best of its grid (results/grid.md) on a seed that is not reported.
STRENGTHS = {
    "naive": 0.0, "lwf": 0.3, "lwf-hard": 0.1, "ewc": 1000.0, "had-paper": 0.1, "had-released": 30.0
}  # fmt: skip
TRIED = (0.1, 0.3, 1.0, 3.0, 10.0)
GRID = {
    "lwf": TRIED,
    "lwf-hard": TRIED,
    "ewc": (100.0, 1000.0, 10_000.0, 100_000.0),
    "had-paper": TRIED,
    "had-released": (*TRIED, 30.0),
}
GRID_SEED = 100
JOINT = "joint"
TITLES = {
    "naive": "naive sequential",
    "lwf": "LwF",
    "lwf-hard": "LwF on hard labels",
    "ewc": "EWC",
    "had-paper": "HAD, paper",
    "had-released": "HAD, released code",
    JOINT: "joint (bound)",
}
console = Console(stderr=True)


def main(
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 3,
    work: Annotated[Path, typer.Option(help="Where finished rows are kept.")] = Path("runs/had"),
    grid: Annotated[bool, typer.Option(help="Try every strength on one more seed.")] = False,
) -> None:
    """Run every seed and method, then write results/: summary.json, a table and a picture."""
    torch.set_num_threads(1)
    if grid:
        try_strengths(work)
        return
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
    for seed in range(seeds):
        task = Sequence(seed)
        for name in TITLES:
            rows[name].append(run_once(work, task, name))
            console.print(f"seed {seed}, {TITLES[name]}: {_in_short(rows[name][-1])}")
    report(rows, seeds)
    draw(work)


def try_strengths(work: Path) -> None:
    """Write results/grid.md: Delta of every strength on ``GRID_SEED``."""
    task = Sequence(GRID_SEED)
    naive = run_once(work, task, "naive")["scores"][-1]
    lines = [f"# Delta by strength, seed {GRID_SEED}", ""]
    for name, strengths in GRID.items():
        for strength in strengths:
            final = run_once(work, task, name, strength)["scores"][-1]
            gain = 100 * relative_gain(TASKS, final, naive)
            lines.append(f"- {TITLES[name]}, {strength:g}: {gain:+.1f} %")
            console.print(lines[-1], highlight=False)
    replace_file(HERE / "results" / "grid.md", ("\n".join(lines) + "\n").encode())


class Sequence:
    """One seed's stages, and the network after the first, which is the same for all but joint."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @cached_property
    def stages(self) -> list[Stage]:
        return [make_stage(task, self.seed, "train", NUM_TRAIN) for task in TASKS]

    @cached_property
    def first(self) -> HeadedNetwork:
        start = dense_network(NETWORK_WIDTH, self.seed)
        return learn_stage(start, self.stages[0], Retention(), TRAINING, self.seed)

    def learn(self, name: str, strength: float) -> list[HeadedNetwork]:
        """The network after every stage; of joint training the one network."""
        if name == JOINT:
            start = dense_network(NETWORK_WIDTH, self.seed)
            return [learn_jointly(start, self.stages, TRAINING, self.seed)]
        retention, networks = RETENTIONS[name](strength), [self.first]
        retention.after_stage(self.first, self.stages[0])
        for stage in self.stages[1:]:
            networks.append(learn_stage(networks[-1], stage, retention, TRAINING, self.seed))
        return networks


def run_once(
    work: Path, sequence: Sequence, name: str, strength: float | None = None
) -> dict[str, Any]:
    """One seed's row of a method, from an earlier run where there is one of the same settings."""
    tried = "" if strength is None else f"-{strength:g}"
    strength = STRENGTHS.get(name, 0.0) if strength is None else strength
    path = work / f"seed{sequence.seed}-{name}{tried}.json"
    settings = _settings(name, strength)
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if kept["settings"] == settings:
            return kept
    started_s = time.process_time()
    networks = sequence.learn(name, strength)
    row = {
        "settings": settings,
        "cpu_s": time.process_time() - started_s,
        "scores": [score(network, sequence.seed) for network in networks],
    }
    work.mkdir(parents=True, exist_ok=True)
    torch.save([network.state_dict() for network in networks], path.with_suffix(".pt"))
    replace_file(path, json.dumps(row).encode())
    return row


def make_stage(task: str, seed: int, part: str, count: int) -> Stage:
    """Pictures in the task's style, no scene in two stages or parts, with the task's target."""
    style = STYLE_OF[task]
    samples = [
        render_scene(make_scene(STYLES[style], seed, style, part, place), HEIGHT, WIDTH)
        for place in range(count)
    ]
    targets = {
        "semantic": [sample.label_HW for sample in samples],
        "depth": [sample.depth_HW[None] for sample in samples],
        "normals": [sample.normal_3HW for sample in samples],
    }
    return Stage(
        task=TASKS[task],
        x=torch.from_numpy(np.stack([sample.image_3HW for sample in samples])),
        target=torch.from_numpy(np.stack(targets[task])),
    )


def score(network: HeadedNetwork, seed: int) -> dict[str, dict[str, float]]:
    """Each learnt task's metrics on test scenes of its own style."""
    scores = {}
    for name, task in network.tasks.items():
        test = make_stage(name, seed, "test", NUM_TEST)
        scores[name] = score_task(task, predict_outputs(network, test.x)[name], test.target)
    return scores


def report(rows: dict[str, list[dict[str, Any]]], seeds: int) -> None:
    """The table and the figures: means over the seeds, Delta paired with naive of its seed."""
    metrics = [(task, metric) for task in TASKS for metric in METRIC_SIGNS[TASKS[task].kind]]
    lines = [
        f"# HAD beside its baselines, {seeds} seeds",
        "",
        "Mean over the seeds; errors in metres, angles in degrees, all else shares.",
        "",
        "| method | Delta | each seed | " + " | ".join(map(" ".join, metrics)) + " | CPU s |",
        "| --- | ---: | --- |" + " ---: |" * (len(metrics) + 1),
    ]  # fmt: skip
    figures = {}
    command = COMMAND.format(seeds=seeds)
    finals = {name: [row["scores"][-1] for row in rows[name]] for name in TITLES}
    gains = {
        name: [
            100 * relative_gain(TASKS, final, naive)
            for final, naive in zip(finals[name], finals["naive"], strict=True)
        ]
        for name in TITLES
    }
    for name, title in TITLES.items():
        means = {
            (task, metric): float(np.mean([final[task][metric] for final in finals[name]]))
            for task, metric in metrics
        }
        cells = [f"{mean:.3f}" if mean < 10 else f"{mean:.1f}" for mean in means.values()]
        each = ", ".join(f"{gain:+.1f}" for gain in gains[name])
        cpu_s = np.mean([row["cpu_s"] for row in rows[name]])
        lines.append(
            f"| {title} | {np.mean(gains[name]):+.1f} % | {each} | "
            + " | ".join(cells) + f" | {cpu_s:.0f} |"
        )  # fmt: skip
        target = "above LwF and EWC" if name.startswith("had") else None
        figures[f"rendered/{name}/delta"] = figure(
            float(np.mean(gains[name])), "% over naive sequential", target, command, range(seeds)
        )
        for (task, metric), mean in means.items():
            figures[f"rendered/{name}/{task}/{metric}"] = figure(
                mean, _unit(metric), None, command, range(seeds)
            )
    write_summary(HERE / "results", figures)
    (HERE / "results" / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
    console.print("\n".join(lines), highlight=False)


def draw(work: Path) -> None:
    """One test scene of seed 0: the truth, each output after its own stage, and at the end."""
    task_names = list(TASKS)
    test = make_stage("semantic", 0, "test", NUM_TEST)
    # The scene that shows most classes tells most.
    place = int(np.argmax([len(torch.unique(target)) for target in test.target]))
    style = STYLES[STYLE_OF["semantic"]]
    sample = render_scene(make_scene(style, 0, STYLE_OF["semantic"], "test", place), HEIGHT, WIDTH)
    x = torch.from_numpy(sample.image_3HW)[None]
    paper, naive = (load_networks(work / f"seed0-{name}.pt") for name in ("had-paper", "naive"))
    lines: dict[str, dict[str, Any]] = {
        "truth": {
            "semantic": sample.label_HW, "depth": sample.depth_HW, "normals": sample.normal_3HW
        },
        "after its own stage": {
            name: _drawable(network, x, name)
            for name, network in zip(task_names, paper, strict=True)
        },
        "at the end, HAD": {name: _drawable(paper[-1], x, name) for name in task_names},
        "at the end, naive": {name: _drawable(naive[-1], x, name) for name in task_names},
    }  # fmt: skip
    chart, axes = pyplot.subplots(len(lines), 4, figsize=(8.4, 6.4), layout="constrained")
    for line, (title, maps) in enumerate(lines.items()):
        axes[line, 0].imshow(sample.image_3HW.transpose(1, 2, 0))
        axes[line, 1].imshow(maps["semantic"], cmap="tab10", vmin=-1, vmax=8, interpolation="none")
        axes[line, 2].imshow(maps["depth"], vmin=0, vmax=float(sample.depth_HW.max()))
        axes[line, 3].imshow(maps["normals"].transpose(1, 2, 0).clip(-1, 1) / 2 + 0.5)
        axes[line, 0].set_ylabel(title)
        for place, name in enumerate(("picture", "segmentation", "depth", "normals")):
            axes[line, place].set(xticks=[], yticks=[], title=name if line == 0 else "")
    chart.savefig(HERE / "results" / "scene.png", dpi=90, metadata={"Software": None})
    pyplot.close(chart)


def load_networks(path: Path) -> list[HeadedNetwork]:
    """The networks that a run left, one a stage."""
    networks = []
    for state in torch.load(path, weights_only=True):
        network = dense_network(NETWORK_WIDTH, 0)
        for name, task in TASKS.items():
            if any(key.startswith(f"heads.{name}.") for key in state):
                network = network.with_head(task, 0)
        network.load_state_dict(state)
        networks.append(network.eval())
    return networks


def _drawable(network: HeadedNetwork, x: torch.Tensor, name: str) -> Any:
    output = predict_outputs(network, x)[name][0]
    shown = {"classes": output.argmax(0), "amount": output[0], "direction": output}
    return shown[TASKS[name].kind].numpy()


def _settings(name: str, strength: float) -> dict[str, Any]:
    """Everything that decides a row but the code itself, as JSON gives it back."""
    retention: Any = None
    if name != JOINT:
        made = RETENTIONS[name](strength)
        retention = {
            key: str(getattr(made, key, None)) for key in ("strength", "temperature", "config")
        }
    return {
        "training": asdict(TRAINING),
        "retention": retention,
        "styles": STYLE_OF,
        "sizes": [HEIGHT, WIDTH, NUM_TRAIN, NUM_TEST, NETWORK_WIDTH],
    }


def _in_short(row: dict[str, Any]) -> str:
    final = row["scores"][-1]
    return (
        f"mIoU {final['semantic']['miou']:.3f}, depth {final['depth']['absolute_error']:.3f} m, "
        f"normals {final['normals']['mean_angle']:.1f} degrees, {row['cpu_s']:.0f} s CPU"
    )


def _unit(metric: str) -> str:
    units = {"absolute_error": "m", "mean_angle": "degrees", "median_angle": "degrees"}
    return units.get(metric, "share")


if __name__ == "__main__":
    typer.run(main)
