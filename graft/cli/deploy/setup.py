"""Setting up a deployment: keys and certificates, folders, sample data, systemd's units."""

import re
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from graft.cli.shared import (
    ConfigOption,
    Format,
    FormatOption,
    ServerOption,
    SettingOption,
    announce,
    console,
    print_facts,
    print_json,
    read_configuration,
)
from graft.core.config import ExpansionConfig
from graft.core.deployment import installed_command
from graft.core.files import replace_file
from graft.errors import ConfigError

_UNQUOTED = re.compile(r"[^\w/.@%+-]", re.ASCII)  # what a word of a unit needs quotes for
_SERVICES = ("graft-server.service", "graft-depot.service", "graft-device@.service")


def init(
    out: Annotated[Path, Argument(help="Folder of the deployment.")],
    host: Annotated[str, Option(help="Name or address of the server, for the devices.")],
    dataset: Annotated[Path, Option(help="Folder with the task's dataset.toml.")],
    device: Annotated[
        list[str] | None, Option(help="Domain of a first device; repeatable.")
    ] = None,
    config_file: ConfigOption = None,
    setting: SettingOption = None,
    flower_port: Annotated[
        int, Option(min=1, max=65535, help="Public port of the server for Flower.")
    ] = 9443,
    depot_port: Annotated[
        int, Option(min=1, max=65535, help="Public port of the server for models.")
    ] = 9444,
    depot_host: Annotated[str, Option(help="Address of the depot on another machine.")] = "",
    if_missing: Annotated[
        bool, Option("--if-missing", help="Keep an existing deployment; add only new devices.")
    ] = False,
    insecure: Annotated[
        bool, Option("--insecure", help="No TLS and no authentication; for closed networks only.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Create a deployment: its certificate authority, the server's folder, the devices' folders.

    Devices run the main method only, unless the configuration names comparisons.
    """
    from graft_server.deployment.enrolment import create_deployment, enrol_device, enrolled

    from graft.core.deployment import read_server

    server = out / "server"
    if if_missing and (server / "server.toml").exists():
        new = [domain_id for domain_id in device or () if domain_id not in enrolled(server)]
        folders = [enrol_device(out, domain_id) for domain_id in new]
        _show(read_server(server).run, server, folders, output)
        return
    default = ExpansionConfig(comparisons=())
    settings = create_deployment(
        out,
        host=host,
        dataset=dataset,
        config=read_configuration(config_file, setting, default=default),
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
    out: Annotated[Path, Argument(help="Folder of the deployment.")],
    domains: Annotated[list[str], Argument(help="Domains of the devices that may join.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Create the folders of more devices; a running server admits them within seconds."""
    from graft_server.deployment.enrolment import enrol_device

    from graft.core.deployment import read_server

    folders = [enrol_device(out, domain_id) for domain_id in domains]
    _show(read_server(out / "server").run, out / "server", folders, output)


def revoke(
    domains: Annotated[list[str], Argument(help="Domains of the devices to exclude.")],
    server: ServerOption = Path("server"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Exclude devices, such as a stolen one; a running server applies it within seconds.

    The domain's models stay in the catalogue, and so does what others learned from them. The name
    cannot be given again, because the device's certificate carries it.
    """
    from graft_server.deployment.enrolment import revoke_devices

    revoke_devices(server, domains)
    print_facts({"revoked": domains}, output)


def renew(
    out: Annotated[Path, Argument(help="Folder of the deployment, with its authority.")],
    domains: Annotated[list[str] | None, Argument(help="Domains. Default: the server.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Issue new TLS certificates for the server or for devices; old ones stay valid until expiry.

    Copy a device's tls.pem and tls.key to its machine; they are read when the device starts.
    """
    from graft_server.deployment.enrolment import renew_certificates

    print_facts({"renewed": [*map(str, renew_certificates(out, domains or ()))]}, output)


def rotate_key(
    out: Annotated[Path, Argument(help="Folder of the deployment.")],
    authority: Annotated[
        Path | None, Option("--ca", help="Folder of the root key. Default: OUT/ca.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give the server a new signing key, signed by the deployment's root key.

    Each device accepts it with its next order, and no earlier key after that. The root key is
    needed for this command only. Run no round meanwhile.
    """
    from graft_server.deployment import order_trust
    from graft_server.serving.hold import serving_paused

    with serving_paused(out / "server", announce):
        version = order_trust.rotate_key(out / "server", authority or out / "ca")
    print_facts({"signing key": version}, output)


def sample(
    out: Annotated[Path, Argument(help="Folder to write: OUT/<domain>/ for each domain.")],
    domains: Annotated[int, Option(min=2, help="Number of domains.")] = 5,
    windows: Annotated[int, Option(min=20, help="Windows of each domain.")] = 160,
    seed: Annotated[int, Option(help="Seed of the data.")] = 0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write sample data for a trial deployment: the embedded IMU world, a domain folder each.

    The domains are those of graft simulate with the same seed. Existing folders are kept.
    """
    from graft.data.dataset_table import write_dataset
    from graft.data.folder import write_domain
    from graft.data.synthetic.imu import CHANNELS, RATE_HZ, ImuWorld

    world = ImuWorld(domains, windows, seed)
    for domain_id in world.domain_ids:
        folder = out / domain_id
        if not (folder / "dataset.toml").exists():
            write_domain(folder, world.load(domain_id))
            write_dataset(  # last: with it the folder is complete
                folder,
                world.task,
                channels=list(CHANNELS),
                rate_hz=RATE_HZ,
                licence="made from a seed",
            )
    if output is Format.JSON:
        print_json({"folder": str(out), "domains": list(world.domain_ids)})
    else:
        print("\n".join(f"{domain_id}  {out / domain_id}" for domain_id in world.domain_ids))


def units(
    folder: Annotated[Path, Argument(help="Folder to write, e.g. /etc/systemd/system.")],
    state: Annotated[
        Path, Option(help="Folder with server/, devices/<domain>/ and data/<domain>/.")
    ] = Path("/var/lib/graft"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write systemd units that run as the user graft, restart, and write only to their folder.

    They start the graft command that wrote them. Afterwards run: systemctl daemon-reload.
    """
    texts = unit_files(installed_command("graft-fl", "graft"), state)
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    written = [str(folder / name) for name in texts]
    print_facts({"units": written}, output)


def unit_files(graft: Path, state: Path) -> dict[str, str]:
    """The text of each unit by file name, for a ``graft`` command and a folder of state."""
    found = resources.files("graft.cli.deploy") / "systemd"
    hardening = (found / "hardening.conf").read_text("utf-8").rstrip()
    folders = {"@GRAFT@": _checked_path(graft), "@STATE@": _checked_path(state)}

    def word(match: re.Match[str]) -> str:
        """A word of the template with its path: % and, in an argument, $ stand twice."""
        before, name, after = match[1] or "", match[2], match[3]
        path = folders[name].replace("%", "%%")
        if name == "@STATE@" and not before:
            path = path.replace("$", "$$")
        path = path.replace("\\", "\\\\").replace('"', '\\"')
        return f'{before}"{path}{after}"' if _UNQUOTED.search(path) else before + path + after

    texts = {}
    for name in _SERVICES:
        text = (found / name).read_text("utf-8").replace("@HARDENING@", hardening)
        texts[name] = re.sub(r"(\S+=)?(@GRAFT@|@STATE@)(\S*)", word, text)
    return texts


def _checked_path(path: Path) -> str:
    """Raises ConfigError for a path that no unit can hold."""
    text = str(path.absolute())
    if not text.isprintable():
        raise ConfigError(f"path: got {text!r}, wanted one of printable characters")
    return text


def _show(run: str, server: Path, devices: Sequence[Path], output: Format) -> None:
    if output is Format.JSON:
        print_json({"run": run, "server": str(server), "devices": [*map(str, devices)]})
        return
    print(f"server  {server}  (stays on the server's machine; keep ../ca offline)")
    for folder in devices:
        print(f"device  {folder}  (copy it to the device's machine)")
    print(f"next    graft deploy server {shlex.quote(str(server))}")
