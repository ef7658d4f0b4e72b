"""Training, probing and inference of every method on an accelerator, beside the processor.

python benchmarks/scale/gpu.py --accelerator cuda

Two small runs with every method, of the same seed: one on the processor, one on the accelerator,
then one in bfloat16; and the seconds of a ResNet-18's training step and forward pass. It takes less
than eight minutes. Without the accelerator it says so in one line.
"""

import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

import graft
from graft.core.outputs import fresh_folder
from graft.core.tasks import Task
from graft.errors import ConfigError
from graft.methods.base import methods_by_name
from graft.models import build_network
from graft.models.placement import Placement, check_accelerator, placed
from graft.training import features_in_batches

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.05  # mean difference of a method's accuracy, of a few test rows each
_IMAGES = Task(name="pictures", modality="image", sample_shape=(3, 64, 64), classes=("a", "b"))


def main(
    accelerator: Annotated[str, typer.Option(help="Torch device.")] = "cuda",
    domains: Annotated[int, typer.Option(help="Domains of the runs.")] = 12,
    runs: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs/gpu"),
) -> None:
    """Compare the accelerator with the processor, method by method."""
    try:
        check_accelerator(accelerator)
    except ConfigError as error:
        typer.echo(f"not run: {error}")
        return
    command = f"python benchmarks/scale/gpu.py --accelerator {accelerator} --domains {domains}"
    methods = [name for name in methods_by_name() if name not in ("graft", "initial")]
    figures, plain = {}, None
    for name, device, settings in (
        ("cpu", "cpu", {}),
        ("accelerator", accelerator, {}),
        ("bfloat16", accelerator, {"training.autocast": "bfloat16"}),
    ):
        out = runs / name
        fresh_folder(out)
        start_s = time.perf_counter()
        run = graft.simulate(
            "imu", comparisons=methods, domains=domains, rounds=1, engine="block", workers=0,
            out=out, accelerator=device,
            settings={"world.windows_per_domain": 60, "training.max_steps": 20, **settings},
        )  # fmt: skip
        seconds = time.perf_counter() - start_s
        figures[f"gpu/{name}/run"] = figure(seconds, "s", None, command, [0])
        rows = run.results.to_pandas().set_index(["domain_id", "method"]).accuracy
        plain = rows if plain is None else plain
        differences = (rows - plain).groupby("method").mean()
        for method, difference in differences.items() if name != "cpu" else ():
            value = 100 * float(difference)
            target = f"within {100 * TOLERANCE:.0f} of the processor's"
            figures[f"gpu/{name}/{method}"] = figure(value, "points", target, command, [0])
        worst = float(differences.abs().max())
        typer.echo(f"{name}: {seconds:.0f} s, at most {100 * worst:.1f} points from the processor")
    for name, where in (
        ("cpu", Placement()),
        ("accelerator", Placement(accelerator)),
        ("bfloat16", Placement(accelerator, "bfloat16")),
    ):
        step_s, pass_s = resnet_seconds(where)
        typer.echo(f"ResNet-18, {name}: a step {step_s:.4f} s, a forward pass {pass_s:.4f} s")
        figures[f"gpu/{name}/resnet-18 step of 32"] = figure(step_s, "s", None, command, [0])
        figures[f"gpu/{name}/resnet-18 pass of 256"] = figure(pass_s, "s", None, command, [0])
    write_summary(HERE / "results", figures)


def resnet_seconds(where: Placement) -> tuple[float, float]:
    """Seconds of a training step of 32 pictures and of a forward pass over 256."""
    sys.path.insert(0, str(HERE.parents[1] / "examples"))
    from graft.core.plugins import load_references

    load_references(["resnet_pictures:ResNet18"])
    x = torch.rand(256, 3, 64, 64)
    with placed(where):
        network = build_network("resnet_pictures:ResNet18", _IMAGES, 0)
        features_in_batches(network, x)
        start_s = time.perf_counter()
        features_in_batches(network, x)
        pass_s = time.perf_counter() - start_s
        network.train()
        start_s = time.perf_counter()
        for step in range(5):
            loss = network(x[32 * step : 32 * step + 32]).square().mean()
            loss.backward()
        return (time.perf_counter() - start_s) / 5, pass_s


if __name__ == "__main__":
    typer.run(main)
