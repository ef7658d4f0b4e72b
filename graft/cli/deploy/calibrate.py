"""``graft deploy calibrate``: measure a machine into a device class."""

import platform
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
from rich.table import Table
from typer import Option

from graft.cli.shared import (
    ConfigOption,
    DataOption,
    Format,
    FormatOption,
    SettingOption,
    add_texts,
    announce,
    print_json,
    print_table,
    read_configuration,
    split_names,
)
from graft.core.files import replace_file


def calibrate(
    out: Annotated[Path, Option(help="TOML file of device classes to write.")] = Path(
        "devices.toml"
    ),
    name: Annotated[str, Option(help="Name of the device class.")] = "this-machine",
    architectures: Annotated[
        str, Option(help="Architectures, comma-separated. Default: all that fit the task.")
    ] = "",
    config_file: ConfigOption = None,
    data: DataOption = None,
    setting: SettingOption = None,
    repeats: Annotated[int, Option(min=1, help="Measurements; their median is the result.")] = 7,
    steps: Annotated[int, Option(min=1, help="Training steps per measurement.")] = 60,
    output: FormatOption = Format.TABLE,
) -> None:
    """Measure the speed of this machine for each architecture and write it as a device class.

    CPU time of one thread; less than a minute. The simulated clock can then use the class.
    """
    # Torch takes seconds to import; --help and a mistyped option need none of it.
    from graft_simulation.clock.calibrate import Effort, class_table
    from graft_simulation.clock.calibrate import calibrate as measure

    from graft.data.worlds import open_world
    from graft.models import offered_architectures

    config = read_configuration(config_file, setting, data=data)
    task = open_world(config.world, config.seed).task
    today = datetime.now().date().isoformat()
    device = measure(
        task,
        offered_architectures(task, split_names(architectures) or config.devices.architectures),
        name=name,
        source=f"measured by graft deploy calibrate on {today}, {_processor()}, "
        f"one thread, samples of {task.sample_shape}",
        memory_bytes=psutil.virtual_memory().total,
        clock=time.thread_time,
        effort=Effort(repeats=repeats, steps=steps),
        progress=lambda stage, done, wanted: announce(f"{stage}: {done} of {wanted}"),
    )
    table = class_table(device)
    replace_file(out, tomli_w.dumps(table).encode())
    _show(table, out, output)


def _show(table: dict[str, Any], out: Path, output: Format) -> None:
    if output is Format.JSON:
        print_json({"file": str(out), "classes": table})
        return
    for name, row in table.items():
        shown = Table(title=f"{name}: at most {row['flops_per_s'] / 1e9:.1f} GFLOP/s (measured)")
        shown.add_column("Architecture")
        for heading in ("Training, of that", "Inference, of that", "Overhead per step"):
            shown.add_column(heading, justify="right")
        for architecture, pace in row["architectures"].items():
            add_texts(
                shown,
                architecture,
                f"{pace['training']:.1%}",
                f"{pace['inference']:.1%}",
                f"{pace['step_s'] * 1e3:.2f} ms",
            )
        print_table(shown)
    announce(f"device class {out}")


def _processor() -> str:
    """The processor's name, as the system states it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
