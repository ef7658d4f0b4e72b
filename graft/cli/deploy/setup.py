"""``graft deploy init`` and ``enrol``: certificates, keys, the server's folder, each device's."""

import json
from pathlib import Path
from typing import Annotated

import typer

from graft.cli.shared import (
    Format,
    FormatOption,
    SettingOption,
    console,
    print_facts,
    read_settings,
)
from graft.core.config import ExpansionConfig, read_config, with_settings


def init(
    out: Annotated[Path, typer.Argument(help="The folder to set the deployment up in.")],
    host: Annotated[str, typer.Option(help="Name or address by which devices call the server.")],
    dataset: Annotated[Path, typer.Option(help="A folder with the task's dataset.toml.")],
    device: Annotated[
        list[str] | None, typer.Option(help="A domain whose device joins; repeatable.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="A TOML file of ExpansionConfig's keys.")
    ] = None,
    setting: SettingOption = None,
    flower_port: Annotated[int, typer.Option(help="The server's public port for Flower.")] = 9443,
    depot_port: Annotated[int, typer.Option(help="Its public port for models.")] = 9444,
    depot_host: Annotated[
        str, typer.Option(help="Where the depot runs on another machine than the server.")
    ] = "",
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Keep a deployment that is there; add who is new.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS, no authentication: for a closed net only.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Set a deployment up: its certificate authority, the server's folder, the first devices'.

    Only the main method runs on devices, unless the configuration names comparisons.
    """
    from graft_server.deployment.enrolment import create_deployment, enrol_device, enrolled

    from graft.core.deployment import read_server

    server = out / "server"
    if if_missing and (server / "server.toml").exists():
        new = [domain_id for domain_id in device or () if domain_id not in enrolled(server)]
        folders = [enrol_device(out, domain_id) for domain_id in new]
        _show(read_server(server).run, server, folders, output)
        return
    config = read_config(config_file) if config_file else ExpansionConfig(comparisons=())
    config = with_settings(config, read_settings(setting or ()))
    settings = create_deployment(
        out,
        host=host,
        dataset=dataset,
        config=config,
        flower_port=flower_port,
        depot_port=depot_port,
        insecure=insecure,
        depot_host=depot_host,
    )
    folders = [enrol_device(out, domain_id) for domain_id in device or ()]
    if insecure:
        console.print("[bold red]insecure[/]: anyone on the network can read, send and run")
    _show(settings.run, server, folders, output)


def enrol(
    out: Annotated[Path, typer.Argument(help="The deployment's folder.")],
    domains: Annotated[list[str], typer.Argument(help="The domains whose devices join.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Set up the folders of more devices; a running server admits them within seconds."""
    from graft_server.deployment.enrolment import enrol_device

    from graft.core.deployment import read_server

    folders = [enrol_device(out, domain_id) for domain_id in domains]
    _show(read_server(out / "server").run, out / "server", folders, output)


def revoke(
    domains: Annotated[list[str], typer.Argument(help="The domains whose devices are shut out.")],
    server: Annotated[Path, typer.Option(help="The server's folder.")] = Path("server"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Admit devices no more, such as one that was stolen; a running server obeys within seconds.

    What such a domain taught stays taught, and its models stay in the catalogue. Its name is never
    given again, because its certificate bears it.
    """
    from graft_server.deployment.enrolment import revoke_devices

    revoke_devices(server, domains)
    print_facts({"revoked": domains}, output)


def renew(
    out: Annotated[Path, typer.Argument(help="The deployment's folder, with its authority.")],
    domains: Annotated[
        list[str] | None, typer.Argument(help="Whose certificates; none: the server's.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give the server, or devices, new TLS certificates; the old ones hold until they expire.

    Carry a device's tls.pem and tls.key to its machine; who they are for reads them when it starts.
    """
    from graft_server.deployment.enrolment import renew_certificates

    print_facts({"renewed": [*map(str, renew_certificates(out, domains or ()))]}, output)


def _show(run: str, server: Path, devices: list[Path], output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps({"run": run, "server": str(server), "devices": [*map(str, devices)]}))
        return
    print(f"server  {server}  (stays on the server's machine; keep ../ca offline)")
    for folder in devices:
        print(f"device  {folder}  (carry it to the device's machine)")
