"""``graft deploy calibrate``: measure a machine into a device class."""

import json
import platform
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
import typer
from rich.console import Console
from rich.table import Table

from graft.cli.shared import Format, FormatOption, SettingOption, console, read_settings
from graft.core.config import ExpansionConfig, read_config, with_settings
from graft.core.files import replace_file


def calibrate(
    out: Annotated[Path, typer.Option(help="The TOML file of device classes to write.")] = Path(
        "devices.toml"
    ),
    name: Annotated[str, typer.Option(help="What the class is called.")] = "this-machine",
    architectures: Annotated[
        str, typer.Option(help="Architectures, comma-separated; by default all on offer.")
    ] = "",
    config_file: Annotated[
        Path | None, typer.Option("--config", help="A TOML file of ExpansionConfig's keys.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A domain folder; its samples' shape is measured.")
    ] = None,
    setting: SettingOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements that a median is of.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Training steps a measurement.")] = 60,
    output: FormatOption = Format.TABLE,
) -> None:
    """Measure how fast this machine trains each architecture, as a device class.

    CPU time of one thread; less than a minute. The simulated clock then knows such a machine.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft_simulation.clock.calibrate import Effort, class_table
    from graft_simulation.clock.calibrate import calibrate as measure

    from graft.data.worlds import open_world
    from graft.models.zoo import offered_architectures

    changes = read_settings(setting or ())
    if data is not None:
        changes |= {"world.kind": "folder", "world.path": str(data.absolute())}
    config = with_settings(read_config(config_file) if config_file else ExpansionConfig(), changes)
    task = open_world(config.world, config.seed).task
    asked = tuple(part.strip() for part in architectures.split(",") if part.strip())
    today = datetime.now().date().isoformat()
    device = measure(
        task,
        offered_architectures(task, asked or config.devices.architectures),
        name=name,
        source=f"measured by graft deploy calibrate on {today}, {_processor()}, "
        f"one thread, samples of {task.sample_shape}",
        memory_bytes=psutil.virtual_memory().total,
        clock=time.thread_time,
        effort=Effort(repeats=repeats, steps=steps),
        progress=lambda stage, done, wanted: console.print(
            f"{stage}: {done} of {wanted}", highlight=False
        ),
    )
    table = class_table(device)
    replace_file(out, tomli_w.dumps(table).encode())
    _show(table, out, output)


def _show(table: dict[str, Any], out: Path, output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps({"file": str(out), "classes": table}, indent=2))
        return
    for name, row in table.items():
        shown = Table(title=f"{name}: {row['flops_per_s'] / 1e9:.1f} GFLOP/s at most (measured)")
        shown.add_column("Architecture")
        for heading in ("Training, of that", "Inference, of that", "Beside, a step"):
            shown.add_column(heading, justify="right")
        for architecture, pace in row["architectures"].items():
            shown.add_row(
                architecture,
                f"{pace['training']:.1%}",
                f"{pace['inference']:.1%}",
                f"{pace['step_s'] * 1e3:.2f} ms",
            )
        Console().print(shown)
    console.print(f"device class {out}", highlight=False)


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
