"""``graft deploy device``: the process on a device's machine."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from graft.cli.deploy.processes import EXECUTOR, SupervisedProcess, supervised
from graft.cli.shared import announce
from graft.core.deployment import DeviceSettings, read_device


def device(
    folder: Annotated[Path, Argument(help="The device's folder, from graft deploy init.")],
    data: Annotated[Path, Option(help="Domain folder that holds the device's domain.")],
    port: Annotated[int, Option(help="Free loopback port for Flower's own processes.")] = 9094,
) -> None:
    """Run a device: Flower's SuperNode with this device's key, data and policy.

    Runs until Ctrl-C or SIGTERM. The device calls the server until it answers, waits while Flower
    refuses a device that returns too soon, and continues an interrupted task.
    """
    from graft_server.flower.superlink import flower_environment

    from graft.data.dataset_table import read_dataset
    from graft.data.folder import FolderWorld
    from graft.errors import DatasetFormatError

    folder, data = folder.absolute(), data.absolute()
    settings = read_device(folder)
    world = FolderWorld(data)
    if world.task != read_dataset(folder).task:
        raise DatasetFormatError(f"{data}: got another task than {folder / 'dataset.toml'} states")
    rows = len(world.load(settings.domain).y_N)  # a fault in the data is reported at the start
    supernode = SupervisedProcess(
        name="supernode",
        command=_command(folder, data, port, settings),
        environment=flower_environment(folder / "state" / "flwr"),
        log_file=folder / "state" / "supernode.log",
        helper=EXECUTOR,
    )
    announce(f"device {settings.domain}: {rows} rows; server {settings.superlink}")
    with supervised(supernode) as is_running:
        while is_running():
            pass


def _command(folder: Path, data: Path, port: int, settings: DeviceSettings) -> list[str]:
    # -P: a module of the working directory must not be taken for one of an installed package.
    command = [sys.executable, "-P", "-m", "graft_client.supernode", settings.bundle]
    command += ["--superlink", settings.superlink, "--port", str(port)]
    command += ["--node-config", f'device-folder="{folder}" data-folder="{data}"']
    if settings.insecure:
        return [*command, "--insecure"]
    command += ["--root-certificates", str(folder / "ca.pem")]
    return [*command, "--auth-supernode-private-key", str(folder / "node.key")]
