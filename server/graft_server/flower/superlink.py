"""Flower's SuperLink as a deployment runs it: SQLite, TLS, authenticated nodes, on loopback only.

Its control interface, which starts runs, answers on the same port as the devices' interface and
asks for no key: the reverse proxy in front of it forwards the devices' interface alone, and the
port itself serves no other user of the machine.

    python -P -m graft_server.flower.superlink [flower-superlink's options]
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from graft.core.addresses import direct_environment, split_host, without_proxies
from graft.core.deployment import (
    SERVER_FOLDER,
    SERVES_ENV,
    ServerSettings,
    installed_command,
    read_server,
)
from graft.core.ending import prepare_flower, run_process
from graft.core.files import replace_file
from graft.errors import EdgeError
from graft.wire.own_user import serve_own_user_alone
from graft_server.round_schedule import forget_node, read_nodes, write_node

_COMMAND_LIMIT_S = 120.0
_PORT_FILE = "state/superlink.port"
# Nothing is sent to Flower's makers, and a run never installs packages.
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def new_superlink(folder: Path, *, serves: bool = False) -> "SuperLink":
    """The SuperLink of a server's folder at a free port; configures Flower's commands for it.

    ``serves``: its ServerApp serves domains as they come.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        superlink = SuperLink(
            folder=folder, settings=read_server(folder), port=free.getsockname()[1], serves=serves
        )
    superlink.configure()
    replace_file(folder / _PORT_FILE, str(superlink.port).encode())
    return superlink


def open_superlink(folder: Path) -> "SuperLink":
    """The SuperLink that ``graft deploy server`` started last; raises EdgeError where none was."""
    try:
        port = int((folder / _PORT_FILE).read_text("utf-8"))
    except FileNotFoundError as error:
        raise EdgeError(f"{folder}: no server was started; graft deploy server") from error
    return SuperLink(folder=folder, settings=read_server(folder), port=port)


def flower_environment(home: Path, superlink: str | None = None) -> dict[str, str]:
    """The environment of Flower's own processes; their files lie in ``home``.

    ``superlink``: the address that a device calls, through the site's proxy where it has one and
    the address is another machine's. Without one the processes call this machine only.
    """
    scripts = str(installed_command("flwr", "flwr").parent)
    path = os.pathsep.join((scripts, os.environ.get("PATH", "")))
    own: Mapping[str, str] = os.environ
    if superlink is None:
        own = without_proxies(own)
    else:
        own = direct_environment(own, split_host(superlink))
    return {**own, **_QUIET, "FLWR_HOME": str(home), "PATH": path}


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperLink:
    """The SuperLink of a server's folder, at a loopback port."""

    folder: Path
    settings: ServerSettings
    port: int
    serves: bool = False

    @property
    def home(self) -> Path:
        return self.folder / "state" / "flwr"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes; the ServerApp's is among them."""
        own = {SERVER_FOLDER: str(self.folder), **({SERVES_ENV: "1"} if self.serves else {})}
        return {**flower_environment(self.home), **own}

    @property
    def command(self) -> list[str]:
        """What starts it."""
        database = self.folder / "state" / "superlink.db"
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--database", str(database)]
        command = [sys.executable, "-P", "-m", "graft.cli.deploy.flower_processes", "server"]
        command += [str(self.folder), *address, "--isolation", "process"]
        command += ["--disable-runtime-dependency-installation"]
        if self.settings.insecure:
            return [*command, "--insecure"]
        files = {"ca-certfile": "ca.pem", "certfile": "tls.pem", "keyfile": "tls.key"}
        for option, name in files.items():
            command += [f"--ssl-{option}", str(self.folder / name)]
        return [*command, "--enable-supernode-auth"]

    def configure(self) -> None:
        """Configure Flower's commands with the SuperLink's address."""
        connection: dict[str, Any] = {"address": f"127.0.0.1:{self.port}"}
        if self.settings.insecure:
            connection["insecure"] = True
        else:
            connection["root-certificates"] = str(self.folder / "ca.pem")
        table = {"superlink": {"default": "graft", "graft": connection}}
        replace_file(self.home / "config.toml", tomli_w.dumps(table).encode())

    def register_nodes(self) -> list[str]:
        """Register every enrolled key that Flower does not know yet; returns their domains."""
        new = []
        for path in sorted((self.folder / "nodes").glob("*.pub")):
            if not (self.folder / "state" / "nodes" / f"{path.stem}.json").exists():
                write_node(self.folder, path.stem, {"node_id": self._register(path)})
                new.append(path.stem)
        return new

    def _register(self, public: Path) -> int:
        """The node id of a key.

        A crash between Flower's reply and our record of it leaves an unrecorded id. Flower takes no
        key twice: where it refuses this one for that, a single unrecorded id is this key's.
        """
        try:
            reply = self.flwr("supernode", "register", str(public), "graft", "--name", public.stem)
            return int(reply["node-id"])
        except EdgeError as error:
            if "already in use" not in str(error):
                raise  # the unrecorded id may be another device's
            unknown = set(self._statuses()) - set(read_nodes(self.folder).values())
            if len(unknown) != 1:
                raise
            return unknown.pop()

    def unregister_nodes(self) -> list[str]:
        """Unregister every key that is not enrolled any more; returns their domains."""
        gone = []
        for domain_id, node_id in read_nodes(self.folder).items():
            if not (self.folder / "nodes" / f"{domain_id}.pub").exists():
                if node_id in self._statuses():
                    self.flwr("supernode", "unregister", str(node_id), "graft")
                forget_node(self.folder, domain_id)
                gone.append(domain_id)
        return gone

    def start_run(
        self,
        expansion: str,
        join_timeout_s: float,
        patience_s: float,
        answer_s: float | None = None,
    ) -> str:
        """Start the ServerApp on the planned rounds; returns Flower's run id.

        It waits ``join_timeout_s`` for devices to join, ``patience_s`` for devices that it lost,
        and ``answer_s`` for each answer.
        """
        path = self.folder / "state" / "run-config.toml"
        config = {
            "expansion": expansion,
            "join-timeout-s": float(join_timeout_s),
            "patience-s": float(patience_s),
        }
        if answer_s is not None:  # bundles of earlier deployments have no such key
            config["answer-s"] = float(answer_s)
        replace_file(path, tomli_w.dumps(config).encode())
        app = str(self.folder / "app")
        return str(self.flwr("run", app, "graft", "--run-config", str(path))["run-id"])

    def run_status(self, run_id: str) -> str:
        """Flower's status of a run, e.g. "running" or "finished:completed"."""
        reply = self.flwr("list", "graft", "--run-id", run_id)
        return str(reply["runs"][0]["status"])

    def nodes(self) -> dict[str, str]:
        """Flower's status of each domain's node: "online", "offline" or "registered"."""
        status = self._statuses()
        return {d: status.get(n, "unknown") for d, n in read_nodes(self.folder).items()}

    def _statuses(self) -> dict[int, str]:
        """Flower's status of every node id that is registered."""
        nodes = self.flwr("supernode", "list", "graft")["nodes"]
        status = {int(node["node-id"]): str(node["status"]) for node in nodes}
        return {node_id: word for node_id, word in status.items() if word != "unregistered"}

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """The reply of Flower's own command; raises EdgeError where it fails."""
        command = [str(installed_command("flwr", "flwr")), *arguments, "--format", "json"]
        try:
            done = subprocess.run(  # noqa: S603
                command,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=_COMMAND_LIMIT_S,
                check=False,
            )
            reply: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise EdgeError(f"SuperLink: flwr {' '.join(arguments[:2])}: {error}") from error
        if not reply.get("success", False):
            message = str(reply.get("error-message", reply)).strip()
            raise EdgeError(f"SuperLink: {message.splitlines()[-1]}")  # lines of advice precede it
        return reply


def run_superlink(options: Sequence[str]) -> None:
    """Be Flower's SuperLink, for the connections of this process's own user."""
    from flwr.superlink.cli import flower_superlink  # seconds

    sys.argv = ["flower-superlink", *options]
    prepare_flower()
    serve_own_user_alone("SuperLink")
    flower_superlink()


def run_serverapp(options: Sequence[str]) -> None:
    """Be Flower's ServerApp."""
    from flwr.superlink.cli import flwr_serverapp

    sys.argv = ["flwr-serverapp", *options]
    flwr_serverapp()


if __name__ == "__main__":
    sys.exit(run_process(lambda: run_superlink(sys.argv[1:])))
