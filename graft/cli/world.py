"""``graft world``: what a run would learn from, before it does."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from graft.cli.shared import (
    Format,
    FormatOption,
    SettingOption,
    console,
    file_progress,
    print_facts,
    read_settings,
)
from graft.core.config import ExpansionConfig, read_config, with_settings
from graft.core.files import replace_file

world_app = typer.Typer(help="A world of domains: describe it.", no_args_is_help=True)


@world_app.callback()
def world() -> None:
    """A world of domains: describe it."""


@world_app.command(epilog="Example: graft world describe --data my-folder --out world.svg")
def describe(
    data: Annotated[
        Path | None, typer.Option(help="A domain folder; without it the embedded IMU world.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The picture to write, an SVG.")] = Path("world.svg"),
    most: Annotated[
        int, typer.Option(min=2, help="Domains at most; more are drawn by lot, by the seed.")
    ] = 100,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="A TOML file of ExpansionConfig's keys.")
    ] = None,
    setting: SettingOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a world's domains, their class balance and how far apart their profiles lie.

    Profiles are those that coarse selection ranks by, of the rows that train.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft.data.worlds import open_world
    from graft.report.figures.world import world_figure
    from graft.report.world import describe_world, world_facts

    changes = {"world.max_domains": most, **read_settings(setting or ())}
    if data is not None:
        changes |= {"world.kind": "folder", "world.path": str(data.absolute())}
    config = with_settings(read_config(config_file) if config_file else ExpansionConfig(), changes)
    with file_progress() as progress:
        described = describe_world(open_world(config.world, config.seed), config, progress)
    replace_file(out, world_figure(described).encode())
    facts = world_facts(described)
    if output is Format.JSON:
        print_facts(facts | {"picture": str(out)}, output)
    else:
        table = Table(title=f"{facts['name']}: {len(facts['domains'])} domains, "
                      f"{facts['persons']} persons, {facts['rows']} rows")  # fmt: skip
        for heading in ("Domain", "Rows", "Nearest", "Distance", *described.task.classes):
            table.add_column(
                heading, justify="left" if heading in ("Domain", "Nearest") else "right"
            )
        for each in facts["domains"]:
            numbers = [str(number) for number in each["classes"]]
            table.add_row(each["domain"], str(each["rows"]), each["nearest"],
                          f"{each['distance']:.2f}", *numbers)  # fmt: skip
        # A piped table keeps its columns instead of being cut at 80 characters.
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    for domain_id, reason in described.unusable:
        console.print(f"left out: {domain_id}: {reason}", markup=False, soft_wrap=True)
    console.print(f"picture {out}", highlight=False, soft_wrap=True)
