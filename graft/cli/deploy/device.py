"""``graft deploy device``: what runs on a device's machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from graft.cli.deploy.processes import Kept, until_stopped
from graft.cli.deploy.server import EXECUTOR, tell
from graft.core.deployment import DeviceSettings, read_device

_LOOK_S = 0.5


def device(
    folder: Annotated[Path, typer.Argument(help="The device's folder, from graft deploy init.")],
    data: Annotated[Path, typer.Option(help="A domain folder that holds this device's domain.")],
    port: Annotated[
        int, typer.Option(help="A free port of loopback for Flower's own processes.")
    ] = 9094,
) -> None:
    """Run a device: Flower's SuperNode with this device's key, data and policy.

    Until Ctrl-C or SIGTERM. It calls the server until it gets through, waits out Flower's refusal
    of a device that comes back too soon, and goes on where it was.
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
    rows = len(world.load(settings.domain).y_N)  # what is wrong with the data shows here, at once
    kept = Kept(
        name="supernode",
        command=_command(folder, data, port, settings),
        environment=flower_environment(folder / "state" / "flwr"),
        log_file=folder / "state" / "supernode.log",
        news=tell,
        helper=EXECUTOR,
    )
    tell(f"device {settings.domain}: {rows} rows; server {settings.superlink}")
    with until_stopped() as wait:
        try:
            while wait(_LOOK_S):
                kept.look()
        finally:
            kept.end()


def _command(folder: Path, data: Path, port: int, settings: DeviceSettings) -> list[str]:
    command = [sys.executable, "-m", "graft_client.supernode", settings.bundle]
    command += ["--superlink", settings.superlink, "--port", str(port)]
    command += ["--node-config", f'device-folder="{folder}" data-folder="{data}"']
    if settings.insecure:
        return [*command, "--insecure"]
    command += ["--root-certificates", str(folder / "ca.pem")]
    return [*command, "--auth-supernode-private-key", str(folder / "node.key")]
