"""How much faster do many networks train together than one after another?

python benchmarks/scale/stacked.py --models 32
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

from graft.core.config import TrainingConfig
from graft.core.tasks import Task
from graft.models import build_network
from graft.training import SupervisedTraining, train_supervised, train_supervised_many

HERE = Path(__file__).resolve().parent
TASK = Task(name="windows", modality="imu", sample_shape=(6, 128), classes=tuple("abcdef"))
TARGETS = {"cnn-small": 3, "cnn-medium": 3, "cnn-large": 3, "mlp": 13, "gru": 9}
EXAMPLE = "Example: python benchmarks/scale/stacked.py --models 32 --only cnn-large --only gru"


def main(
    models: Annotated[int, typer.Option(help="Networks of one architecture.")] = 32,
    windows: Annotated[int, typer.Option(help="Labelled windows a network.")] = 256,
    steps: Annotated[int, typer.Option(help="Training steps a network.")] = 40,
    repeats: Annotated[int, typer.Option(help="Alternating measurements.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Architectures; all if left out.")] = None,
    out: Annotated[
        Path, typer.Option(help="Where summary.json goes.", show_default="results beside it")
    ] = HERE / "results",
) -> None:
    """The plain loop beside train_supervised_many, one thread, one process, processor time."""
    torch.set_num_threads(1)
    command = (
        f"python benchmarks/scale/stacked.py --models {models} --windows {windows} "
        f"--steps {steps} --repeats {repeats}"
    )
    figures = {}
    for name in only or TARGETS:
        ratios, plain_ms, together_ms = [], [], []
        # The first repeat only warms caches up, the compiled library's among them.
        for repeat in range(-1, repeats):
            plain_s = _measure(make_jobs(name, models, windows, steps), together=False)
            together_s = _measure(make_jobs(name, models, windows, steps), together=True)
            if repeat >= 0:
                ratios.append(plain_s / together_s)
                plain_ms.append(1e3 * plain_s / models / steps)
                together_ms.append(1e3 * together_s / models / steps)
        values = [statistics.median(each) for each in (ratios, plain_ms, together_ms)]
        typer.echo("{}: {:.2f} times; {:.3f} against {:.3f} ms a step".format(name, *values))
        target = f"at least {TARGETS[name]}" if name in TARGETS else None
        figures |= {
            f"stacked/{name}/speedup": figure(values[0], "times", target, command, [0]),
            f"stacked/{name}/step": figure(values[2], "ms a model and step", None, command, [0]),
        }
    write_summary(out, figures)


def make_jobs(name: str, models: int, windows: int, steps: int) -> list[SupervisedTraining]:
    """Fresh networks of one architecture on noise: what is learnt takes no time of its own."""
    generator = torch.Generator().manual_seed(0)
    config = TrainingConfig(epochs=steps, max_steps=steps)
    return [
        SupervisedTraining(
            network=build_network(name, TASK, seed),
            x=torch.randn(windows, *TASK.sample_shape, generator=generator),
            y_N=torch.randint(0, TASK.num_classes, (windows,), generator=generator),
            num_rows=windows, config=config, seed=seed, architecture=name,
            mask_C=np.ones(TASK.num_classes, np.bool_),
        )
        for seed in range(models)
    ]  # fmt: skip


def _measure(jobs: list[SupervisedTraining], together: bool) -> float:
    started_s = time.process_time()
    if together:
        train_supervised_many(jobs)
    else:
        for job in jobs:
            train_supervised(job)
    return time.process_time() - started_s


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(epilog=EXAMPLE)(main)
    app()
