"""Flower's processes on a machine: forks of one that has imported them, and share its memory.

    python -P -m graft.cli.deploy.flower_processes device FOLDER BUNDLE [flower-supernode's options]
    python -P -m graft.cli.deploy.flower_processes server FOLDER [flower-superlink's options]

``graft deploy device`` becomes the first, ``graft deploy server`` starts the second. Their children
are Flower's SuperNode or SuperLink, its SuperExec, and the apps of rounds. SuperExec asks here for
an app: it has threads, and a process with threads should not be forked.
"""

import contextlib
import json
import select
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from graft.cli.deploy.processes import SupervisedProcess, until_stopped
from graft.cli.deploy.superexec import run_superexec
from graft.core.ending import run_process
from graft.core.files import lock_file
from graft.core.forked import ForkedProcess

_LOOK_S = 0.5
_ORDER_BYTES = 65_536


class FlowerProcesses:
    """A SuperNode or SuperLink, its SuperExec, and the apps that this one asked for.

    Parameters
    ----------
    name, run_link
        The SuperNode's or SuperLink's name, and what it runs.
    address, authority
        Of the port at which SuperExec finds work; a file, or None without TLS.
    app, run_app
        The app's name, and what it runs, given its command's options.
    log_file
        Where all write.
    """

    def __init__(
        self,
        name: str,
        run_link: Callable[[], None],
        address: str,
        authority: Path | None,
        app: str,
        run_app: Callable[[Sequence[str]], None],
        log_file: Path,
    ) -> None:
        self._app, self._run_app, self._log_file = app, run_app, log_file
        self._orders, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = asking  # open here too: nothing breaks when SuperExec ends
        trust = ["--root-certificates", str(authority)] if authority else ["--insecure"]
        executing = [*trust, "--runtime-api-address", address]
        self._link = SupervisedProcess(name=name, log_file=log_file, body=run_link)
        self._superexec = SupervisedProcess(
            name="superexec",
            log_file=log_file,
            body=partial(run_superexec, executing, asking),
            keep=[asking.fileno()],
        )
        self._apps: list[ForkedProcess] = []

    def look(self) -> None:
        """Start what is not running, and what SuperExec asks for; waits half a second for it."""
        before = self._link.process
        self._link.keep_running()
        if before is not None and self._link.process is not before:
            self._end_apps()  # it has new tasks
        self._superexec.keep_running()
        self._apps = [app for app in self._apps if app.poll() is None]
        if select.select([self._orders], [], [], _LOOK_S)[0]:
            body = partial(self._run_app, json.loads(self._orders.recv(_ORDER_BYTES)))
            self._apps.append(ForkedProcess(f"graft-{self._app}", body, self._log_file))

    def end(self) -> None:
        """End all."""
        self._superexec.end()
        self._end_apps()
        self._link.end()

    def _end_apps(self) -> None:
        for app in self._apps:
            app.kill()
            app.wait()
        self._apps = []


def _of_device(folder: Path, bundle: str, *options: str) -> FlowerProcesses:
    from graft_client.supernode import run_clientapp, run_supernode

    return FlowerProcesses(
        "supernode",
        partial(run_supernode, bundle, options),
        f"127.0.0.1:{_option(options, '--port')}",
        None,
        "clientapp",
        run_clientapp,
        folder / "state" / "supernode.log",
    )


def _of_server(folder: Path, *options: str) -> FlowerProcesses:
    import graft_server.flower.deployed_app  # noqa: F401  (what a ServerApp would import)
    from graft_server.flower.superlink import run_serverapp, run_superlink

    return FlowerProcesses(
        "flower",
        partial(run_superlink, options),
        f"127.0.0.1:{_option(options, '--port')}",
        None if "--insecure" in options else folder / "ca.pem",
        "serverapp",
        run_serverapp,
        folder / "state" / "superlink.log",
    )


def _option(options: Sequence[str], name: str) -> str:
    return options[options.index(name) + 1]


def _run() -> None:
    role, folder, *options = sys.argv[1:]
    make: Callable[..., FlowerProcesses] = _of_device if role == "device" else _of_server
    lock = "device.lock" if role == "device" else "superlink.lock"
    with (
        lock_file(Path(folder) / "state" / lock, folder),
        until_stopped() as wait,
        contextlib.ExitStack() as stack,
    ):
        processes = make(Path(folder), *options)
        stack.callback(processes.end)
        while wait(0):
            processes.look()


if __name__ == "__main__":
    sys.exit(run_process(_run))
