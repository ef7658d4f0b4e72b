"""``graft world``: the domains that a run would learn from."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from typer import Option

from graft.cli.shared import (
    ConfigOption,
    DataOption,
    Format,
    FormatOption,
    SettingOption,
    announce,
    file_progress,
    print_json,
    print_table,
    read_configuration,
)
from graft.core.files import replace_file

world_app = typer.Typer(help="Describe a world of domains.", no_args_is_help=True)


@world_app.callback()
def world() -> None:
    """Describe a world of domains."""


@world_app.command(epilog="Example: graft world describe --data my-folder --out world.svg")
def describe(
    data: DataOption = None,
    out: Annotated[Path, Option(help="SVG file to write.")] = Path("world.svg"),
    most: Annotated[int, Option(min=2, help="Largest number of domains; a sample of more.")] = 100,
    config_file: ConfigOption = None,
    setting: SettingOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the domains of a world, their class balance and the distances of their profiles.

    Profiles are those of coarse selection, over the training rows.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft.data.worlds import open_world
    from graft.report.figures.world import world_figure
    from graft.report.world import describe_world, world_facts

    changes = {"world.max_domains": most}
    config = read_configuration(config_file, setting, data=data, changes=changes)
    with file_progress() as progress:
        described = describe_world(open_world(config.world, config.seed), config, progress)
    replace_file(out, world_figure(described).encode())
    facts = world_facts(described)
    if output is Format.JSON:
        print_json(facts | {"picture": str(out)})
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
        print_table(table)
    for domain_id, reason in described.unusable:
        announce(f"left out: {domain_id}: {reason}")
    announce(f"picture {out}")
