"""``graft deploy sample``: data to try a deployment with, where nobody has any of their own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from graft.cli.shared import Format, FormatOption


def sample(
    out: Annotated[Path, typer.Argument(help="The folder to write: OUT/<domain>/ each.")],
    domains: Annotated[int, typer.Option(min=2, help="How many people.")] = 5,
    windows: Annotated[int, typer.Option(min=20, help="Windows of each.")] = 160,
    seed: Annotated[int, typer.Option(help="Every person derives from it.")] = 0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write the embedded IMU world as each device would have it: a domain folder a person.

    The people are those of graft simulate with this seed. What is there already stays.
    """
    from graft.data.dataset_table import write_dataset
    from graft.data.folder import write_domain
    from graft.data.synthetic.imu import CHANNELS, RATE_HZ, ImuWorld

    world = ImuWorld(domains, windows, seed)
    for domain_id in world.domain_ids:
        folder = out / domain_id
        if not (folder / "dataset.toml").exists():
            write_domain(folder, world.load(domain_id))
            write_dataset(  # last: from here on the folder is whole
                folder,
                world.task,
                channels=list(CHANNELS),
                rate_hz=RATE_HZ,
                licence="made from a seed",
            )
    if output is Format.JSON:
        print(json.dumps({"folder": str(out), "domains": list(world.domain_ids)}))
        return
    for domain_id in world.domain_ids:
        print(f"{domain_id}  {out / domain_id}")
