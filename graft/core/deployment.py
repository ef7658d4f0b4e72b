"""What the folders of a deployment say: one of the server, one of each device.

server/   server.toml, expansion.toml, dataset.toml, tls.{key,pem}, ca.pem, nodes/<domain>.pub,
          app/ (the bundle that Flower carries), rounds.json, runs/<run>/ (a run folder)
device/   device.toml, dataset.toml, policy.toml, tls.{key,pem}, ca.pem, node.{key,pub}, server.pub
"""

import os
import sys
import tomllib
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import tomli_w

from graft.core.files import replace_file
from graft.core.records import DOMAIN_ID, NAME_RULE
from graft.core.settings import Kind, Names, build_settings, settings
from graft.errors import ConfigError

# The variable in which the SuperLink's process passes its server folder to the ServerApp.
SERVER_FOLDER: Final = "GRAFT_SERVER_FOLDER"
SERVES_ENV: Final = "GRAFT_SERVES"  # set where it serves domains as they come


@settings()
class ServerSettings:
    """What a server is: its run, the address that devices call, and its public ports.

    ``depot_host``: where the depot runs on a machine of its own; "" is the server's. Metrics:
    the server's are at ``metrics_port``, the depot's one higher. ``insecure``: without TLS and
    node authentication, as somebody asked for by name.
    """

    run: str
    host: str
    flower_port: int = 9443
    depot_port: int = 9444
    metrics_port: int = 9464
    insecure: bool = False
    depot_host: str = ""

    def __post_init__(self) -> None:
        _check_name("run", self.run)


@settings()
class DeviceSettings:
    """What a device must know: its domain, its server, and the one app bundle that it runs.

    ``bundle`` is the SHA-256 (hex) of the bundle; ``superlink`` and ``depot`` are host:port.
    ``threads``: of training; with one, a device's model is the simulator's to the last bit.
    ``accelerator``: the torch device that networks compute on.
    ``plug_ins``: methods and architectures, "package.module:attribute", that the device imports
    if its server names them; it imports no others.
    """

    domain: str
    run: str
    superlink: str
    depot: str
    bundle: str
    insecure: bool = False
    cache_bytes: int = 1_000_000_000
    threads: int = 1
    accelerator: str = "cpu"
    plug_ins: Names = ()

    def __post_init__(self) -> None:
        _check_name("domain", self.domain)
        _check_name("run", self.run)


def _check_name(key: str, name: str) -> None:
    if DOMAIN_ID.fullmatch(name) is None:
        raise ConfigError(f"{key}: got {name!r}, wanted {NAME_RULE}")


def read_server(folder: Path) -> ServerSettings:
    """The settings in a server's folder; raises ConfigError for anything else."""
    return _read(ServerSettings, folder / "server.toml")


def read_device(folder: Path) -> DeviceSettings:
    """The settings in a device's folder; raises ConfigError for anything else."""
    return _read(DeviceSettings, folder / "device.toml")


def write_server(folder: Path, values: ServerSettings) -> None:
    """Write ``server.toml``."""
    replace_file(folder / "server.toml", tomli_w.dumps(asdict(values)).encode())


def write_device(folder: Path, values: DeviceSettings) -> None:
    """Write ``device.toml``."""
    replace_file(folder / "device.toml", tomli_w.dumps(asdict(values)).encode())


def _read(cls: type[Kind], path: Path) -> Kind:
    try:
        return build_settings(cls, tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: got no such file, wanted what graft deploy wrote") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: got {error}, wanted TOML") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def installed_command(package: str, name: str) -> Path:
    """The path of a command of an installed package.

    It need not lie beside the interpreter: pip puts it elsewhere for a system's own Python.
    """
    beside = Path(sys.executable).with_name(name)
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return beside
    paths = [Path(str(file.locate())) for file in files if file.stem == name]
    found = [path.resolve() for path in paths if path.suffix != ".py" and os.access(path, os.X_OK)]
    return found[0] if found else beside
