"""Setting up a deployment: the server's folder, and a folder for each device that joins.

OUT/ca/ (keep it offline), OUT/server/, OUT/devices/<domain>/; see ``graft/core/deployment.py``.
"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import tomli_w
from flwr.cli.build import build_fab_from_disk

from graft.core.addresses import checked_host, join_address
from graft.core.config import ExpansionConfig
from graft.core.config_files import config_from_dict, config_toml, read_toml
from graft.core.deployment import (
    DeviceSettings,
    ServerSettings,
    read_server,
    write_device,
    write_server,
)
from graft.core.files import replace_file
from graft.core.outputs import check_output
from graft.data.dataset_table import read_dataset
from graft.errors import ConfigError, DataError, MessageError, RunError
from graft.wire.messages.checks import check_domain_id
from graft_server.deployment.authority import (
    MAX_COMMON_NAME,
    Authority,
    create_authority,
    node_keys,
    open_authority,
)
from graft_server.deployment.order_trust import open_root, sign_server_key

# What a certificate authority's folder holds.
_CA = ("ca.key", "ca.pem", "root.key", "root.pub")
# It has no code: a device runs its installed packages alone, and nothing that a server sends.
_BUNDLE = {
    "project": {"name": "graft-field", "version": "1.0.0", "description": "", "dependencies": []},
    "tool": {
        "flwr": {
            "app": {
                "publisher": "graft",
                "components": {
                    "serverapp": "graft_server.flower.deployed_app:app",
                    "clientapp": "graft_client.deployed_app:app",
                },
                "config": {
                    "expansion": "",
                    "join-timeout-s": 120.0,
                    "patience-s": 600.0,
                    "answer-s": 3600.0,
                },
            }
        }
    },
}
_POLICY = """\
# What may leave this site. The server cannot change it.
min_class_count = 10  # a class with fewer rows gives neither its centroid nor its count
"""


def create_deployment(
    out: Path,
    *,
    host: str,
    dataset: Path,
    config: ExpansionConfig,
    flower_port: int,
    depot_port: int,
    insecure: bool = False,
    depot_host: str = "",
) -> ServerSettings:
    """The authority and the server's folder under ``out``, without any device yet.

    ``dataset`` is a folder with a ``dataset.toml``: the task that every device works on. An
    interrupted call is completed with the authority that it had made. Raises RunError where
    ``out`` has a deployment, DatasetFormatError for another ``dataset``.
    """
    folder = out / "server"
    if (folder / "server.toml").exists():
        raise RunError(f"{out}: holds a deployment already; add devices with graft deploy enrol")
    read_dataset(dataset)
    _check_place(out, dataset)
    host, depot_host = checked_host(host), depot_host and checked_host(depot_host)
    if flower_port == depot_port and depot_host in ("", host):
        raise ConfigError(f"ports: got {flower_port} for both, wanted two")
    settings = ServerSettings(
        run=f"run-{secrets.token_hex(4)}",
        host=host,
        flower_port=flower_port,
        depot_port=depot_port,
        insecure=insecure,
        depot_host=depot_host,
    )
    made = (out / "ca" / "ca.pem").exists()
    authority = open_authority(out / "ca") if made else create_authority(out / "ca")
    authority.server_identity(_hosts(host, depot_host)).write(folder)
    replace_file(folder / "ca.pem", authority.certificate_pem)
    replace_file(folder / "dataset.toml", (dataset / "dataset.toml").read_bytes())
    replace_file(folder / "expansion.toml", config_toml(config).encode())
    replace_file(folder / "app" / "pyproject.toml", tomli_w.dumps(_BUNDLE).encode())
    keys = folder / "runs" / settings.run / "keys"
    sign_server_key(keys, settings.run, open_root(out / "ca"), now_s=time.time())
    write_server(folder, settings)  # last: from here on the deployment is there
    return settings


def _check_place(out: Path, dataset: Path) -> None:
    """Raise DataError where a new deployment would write among files that it did not make."""
    is_own = (out / "ca").is_dir() and any((out / "ca").iterdir())
    for name in ("ca", "server", "devices"):
        folder = check_output(out / name, [dataset / "dataset.toml", dataset / "domains"])
        others = [
            path
            for path in folder.glob("*")
            if name != "ca" or path.name not in _CA
            if not path.is_dir() or any(path.iterdir())  # a device's volume may be mounted already
        ]
        if others and (name == "ca" or not is_own):
            raise DataError(f"{folder}: got files of another kind, wanted an empty folder")


def enrol_device(out: Path, domain_id: str) -> Path:
    """A new device's folder, to be copied to its machine; the server admits it from now on.

    Raises MessageError for an unfit id, RunError where the domain is enrolled or was revoked.
    """
    check_domain_id(domain_id)
    if len(domain_id) > MAX_COMMON_NAME:
        raise MessageError(
            f"domain id {domain_id}: got {len(domain_id)} characters, "
            f"wanted at most {MAX_COMMON_NAME}"
        )
    server = out / "server"
    settings = read_server(server)
    folder = out / "devices" / domain_id
    if (server / "nodes" / f"{domain_id}.pub").exists():
        raise RunError(f"device {domain_id}: is enrolled already")
    if (server / "revoked" / f"{domain_id}.pub").exists():
        raise RunError(
            f"device {domain_id}: was revoked, and a certificate has that name; wanted another"
        )
    authority = open_authority(out / "ca")
    _issue_device(authority, folder, server)
    private, node_public = node_keys()
    replace_file(folder / "node.key", private, mode=0o600)
    replace_file(folder / "node.pub", node_public)
    replace_file(folder / "ca.pem", authority.certificate_pem)
    root = out / "ca" / "root.pub"
    public = server / "runs" / settings.run / "keys" / "server.pub"
    for path in (server / "dataset.toml", public, *([root] if root.exists() else ())):
        replace_file(folder / path.name, path.read_bytes())
    replace_file(folder / "policy.toml", _POLICY.encode())
    write_device(
        folder,
        DeviceSettings(
            domain=domain_id,
            run=settings.run,
            superlink=join_address(settings.host, settings.flower_port),
            depot=join_address(settings.depot_host or settings.host, settings.depot_port),
            bundle=hashlib.sha256(bundle_bytes(server)).hexdigest(),
            insecure=settings.insecure,
            plug_ins=config_from_dict(read_toml(server / "expansion.toml", "expansion")).plug_ins,
        ),
    )
    replace_file(server / "nodes" / f"{domain_id}.pub", node_public)  # last: from here on admitted
    return folder


def revoke_devices(server: Path, domain_ids: Sequence[str]) -> None:
    """Revoke devices: a running server's Flower and depot refuse them from its next look on.

    Raises RunError where one is not enrolled, and then revokes none.
    """
    _check_enrolled(server, domain_ids)
    for domain_id in dict.fromkeys(domain_ids):
        public = server / "nodes" / f"{domain_id}.pub"
        replace_file(server / "revoked" / public.name, public.read_bytes())
        public.unlink()
        public.with_suffix(".pem").unlink(missing_ok=True)


def renew_certificates(out: Path, domain_ids: Sequence[str]) -> list[Path]:
    """New TLS keys and certificates for the server, or for these devices; returns their folders.

    Earlier certificates are valid until they expire. Raises RunError where one is not enrolled or
    the authority is away.
    """
    server = out / "server"
    authority = open_authority(out / "ca")
    if not domain_ids:
        settings = read_server(server)
        authority.server_identity(_hosts(settings.host, settings.depot_host)).write(server)
        return [server]
    _check_enrolled(server, domain_ids)
    folders = [out / "devices" / domain_id for domain_id in domain_ids]
    for folder in folders:
        _issue_device(authority, folder, server)
    return folders


def _issue_device(authority: Authority, folder: Path, server: Path) -> None:
    """Write a device's identity; the server has its certificate to show when it ends."""
    identity = authority.device_identity(folder.name)
    identity.write(folder)
    replace_file(server / "nodes" / f"{folder.name}.pem", identity.certificate_pem)


def bundle_bytes(server: Path) -> bytes:
    """The app bundle that Flower makes of the server's ``app`` folder."""
    return build_fab_from_disk(server / "app")


def reported_bytes(server: Path) -> int:
    """The bytes that a node is sent once in each run: the bundle, and the configuration."""
    return len(bundle_bytes(server)) + (server / "expansion.toml").stat().st_size


def enrolled(server: Path) -> tuple[str, ...]:
    """The domains whose devices may join, sorted."""
    return tuple(sorted(path.stem for path in (server / "nodes").glob("*.pub")))


def _check_enrolled(server: Path, domain_ids: Sequence[str]) -> None:
    if unknown := sorted(set(domain_ids) - set(enrolled(server))):
        raise RunError(f"device {unknown[0]}: is not enrolled")


def _hosts(host: str, depot_host: str) -> list[str]:
    """The names in the server's certificate; its own commands connect by loopback."""
    return list(dict.fromkeys(filter(None, (host, depot_host, "localhost", "127.0.0.1"))))
