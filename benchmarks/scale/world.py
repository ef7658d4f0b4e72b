"""A domain folder for the scale benchmark: every domain has exactly 256 training windows.

python benchmarks/scale/world.py --domains 1000

Legend: N rows, K channels, T length of a window.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain

TASK = Task(
    name="scale",
    modality="imu",
    sample_shape=(6, 128),
    classes=tuple(f"move-{c}" for c in "abcdefgh"),
)
# The default split tests the 14 latest of a class's 46 windows (a share of 0.3 is 13.8) and
# trains on 32; eight classes make 256.
ROWS_A_CLASS = 46
TARGETS = 1  # a run of graft has at least one round after the initial domains'


def write_world(folder: Path, initial_domains: int, seed: int) -> None:
    """Write ``initial_domains`` + 1 domains, unless the folder holds them already."""
    domains = initial_domains + TARGETS
    held = list((folder / "domains").glob("*.npz"))
    if (folder / "dataset.toml").exists() and len(held) == domains:
        return
    for path in held:
        path.unlink()
    console = Console(stderr=True)
    for index in track(range(domains), "writing domains", console=console, transient=True):
        # The peers hold their windows in memory; inflating them is no part of training.
        write_domain(folder, make_domain(f"d{index:05}", seed), compressed=False)
    write_dataset(  # last: a folder without it is written again
        folder,
        TASK,
        channels=[f"channel-{k}" for k in range(TASK.sample_shape[0])],
        rate_hz=50.0,
        licence="CC0 1.0",
    )


def make_domain(domain_id: str, seed: int) -> DomainData:
    """Classes are frequencies, domains differ in each channel's gain; the rest is noise."""
    rng = stream("scale", seed, domain_id)
    channels, length = TASK.sample_shape
    y_N = np.arange(ROWS_A_CLASS * TASK.num_classes) % TASK.num_classes
    phase_NK1 = rng.uniform(0, 2 * np.pi, (len(y_N), channels, 1))
    gain_K1 = rng.uniform(0.3, 1.0, (channels, 1))
    turns_N11 = (2 * (y_N + 1))[:, None, None]
    wave_NKT = np.sin(2 * np.pi * turns_N11 * np.arange(length) / length + phase_NK1)
    x = gain_K1 * wave_NKT + 0.3 * rng.standard_normal((len(y_N), channels, length))
    return DomainData(
        domain_id=domain_id,
        x=x.astype(np.float32),
        y_N=y_N,
        group_N=np.arange(len(y_N)),  # every window is a segment of its own
    )


def main(
    domains: Annotated[
        int, typer.Option(help="Initial domains; one target domain is added.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Every domain derives from it.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Default: runs/scale/world-<domains>.")
    ] = None,
) -> None:
    """Write the folder (about 1 MB a domain)."""
    folder = folder or Path(f"runs/scale/world-{domains}")
    write_world(folder, domains, seed)
    print(folder)


if __name__ == "__main__":
    typer.run(main)
