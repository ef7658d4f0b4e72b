"""A deployment whose every process is started, and started again, as its owner would."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from graft.core.outputs import fresh_folder
from graft.data.dataset_table import write_dataset
from graft.data.domain import World
from graft.data.folder import write_domain

GRAFT = Path(sys.executable).with_name("graft")
Spawn = Callable[..., "subprocess.Popen[Any]"]
_TEND_S = 0.5
_EXPAND_LIMIT_S = 3600.0
_END_LIMIT_S = 15.0
# Forks have names, the others are found by their command line, here and in earlier releases: the
# first that fits.
_FORKS = {
    "graft-flower": "superlink",
    "graft-superexec": "superexec",
    "graft-serverapp": "serverapp",
    "graft-supernode": "supernode",
    "graft-clientapp": "clientapp",
}
_ROLES = {
    "flower_processes server": "flower",
    "flower_processes device": "device",
    "graft_server.flower.superlink": "superlink",
    "flwr-serverapp": "serverapp",
    "flwr-clientapp": "clientapp",
    "flower-superexec": "superexec",
    "graft_client.supernode": "supernode",
    "deploy depot": "depot",
    "deploy server": "server",
    "deploy device": "device",
    "deploy expand": "expand",
}


def write_world(world: World, domain_ids: Sequence[str], folder: Path, channels: list[str]) -> None:
    """A world as each device has it: ``folder``/<domain>/ is a domain folder of that one."""
    for domain_id in domain_ids:
        write_dataset(
            folder / domain_id,
            world.task,
            channels=channels,
            rate_hz=None,
            licence="made from a seed",
        )
        write_domain(folder / domain_id, world.load(domain_id))


class Field:
    """``with Field(...) as field``: server and devices run until the block is left.

    ``data`` holds a domain folder for each device by its name. ``spawn_server`` and
    ``spawn_device(domain)`` start a process on that machine (as ``subprocess.Popen``), on this one
    by default; ``host`` is how devices call the server. ``settings`` are those of ``graft deploy
    init --set``.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        devices: Sequence[str],
        *,
        host: str = "127.0.0.1",
        spawn_server: Spawn = subprocess.Popen,
        spawn_device: Callable[[str], Spawn] = lambda domain: subprocess.Popen,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.server = folder / "server"
        self.devices = tuple(devices)
        self._data = data
        self._spawn_server = spawn_server
        self._spawn_device = spawn_device
        self._running: dict[str, subprocess.Popen[Any]] = {}
        self._closing = threading.Event()
        self._tender = threading.Thread(target=self._tend, daemon=True)
        if not (self.server / "server.toml").exists():
            self._set_up(host, settings or {})
        self._ports = {domain: _free_port() for domain in self.devices}

    def __enter__(self) -> "Field":
        self._tender.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._tender.join()
        for process in self._running.values():
            _end(process, signal.SIGTERM)
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_LIMIT_S)
            _end(process, signal.SIGKILL)
            process.wait()

    def expand(
        self, domains: Sequence[str], *, initial_domains: bool = False, **options: Any
    ) -> int:
        """Run ``graft deploy expand`` until it ends of itself; its exit status.

        One that was killed is run again, without domains, as its user would.
        """
        words = [*domains, *(["--initial"] if initial_domains else [])]
        while True:
            done = self.start_expand(words, **options)
            status = done.wait(_EXPAND_LIMIT_S)
            if status >= 0:
                return status
            if list(domains) in self.rounds():  # it had come as far as planning the round
                words = []

    def start_expand(self, words: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start ``graft deploy expand`` on the server's machine."""
        command = [str(GRAFT), "deploy", "expand", *words, "--server", str(self.server)]
        process = self._spawn_server(command, env=_environment(), **options)
        self._running["expand"] = process
        return process

    def is_at(self, phase: str) -> bool:
        """Whether the round under way has come to a phase, or the expansion has ended."""
        path = self.server / "state" / "progress.json"
        told = json.loads(path.read_text("utf-8")) if path.exists() else {}
        here = told.get("phase") == phase and told["round"] == len(self.rounds()) - 1
        return here or self._running["expand"].poll() is not None

    def rounds(self) -> list[list[str]]:
        """The domains of each round so far."""
        path = self.server / "rounds.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else []

    def finished_rounds(self) -> int:
        """How many rounds are over."""
        from graft_server.flower.deployed_app import run_folder

        return run_folder(self.server).count_rounds()

    def processes(self) -> dict[str, list[psutil.Process]]:
        """All that runs now, by role."""
        found: dict[str, list[psutil.Process]] = {}
        for service in list(self._running.values()):
            try:
                top = psutil.Process(service.pid)
                family = [top, *top.children(recursive=True)]
            except psutil.Error:
                continue
            for process in family:
                if (role := _role(process)) is not None:
                    found.setdefault(role, []).append(process)
        return found

    def service(self, name: str) -> "subprocess.Popen[Any]":
        """The process of a device by its domain's name, or of "server"."""
        return self._running[name]

    def run_folder(self) -> Path:
        """The run folder of the deployment."""
        return next((self.server / "runs").iterdir())

    def _set_up(self, host: str, settings: Mapping[str, object]) -> None:
        fresh_folder(self.folder)
        words = [word for domain in self.devices for word in ("--device", domain)]
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        flower, depot = (str(_free_port()) for _ in range(2))
        subprocess.run(
            [
                str(GRAFT), "deploy", "init", str(self.folder), "--host", host,
                "--dataset", str(self._data / self.devices[0]),
                "--flower-port", flower, "--depot-port", depot, *words,
            ],
            check=True, capture_output=True, env=_environment(),
        )  # fmt: skip

    def _tend(self) -> None:
        """Start whatever is not running, until the field closes."""
        while not self._closing.wait(_TEND_S):
            self._keep("server", self._spawn_server, ["deploy", "server", str(self.server)])
            for domain in self.devices:
                words = ["deploy", "device", str(self.folder / "devices" / domain)]
                words += ["--data", str(self._data / domain), "--port", str(self._ports[domain])]
                self._keep(domain, self._spawn_device(domain), words)

    def _keep(self, name: str, spawn: Spawn, words: list[str]) -> None:
        process = self._running.get(name)
        if process is None or process.poll() is not None:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [str(GRAFT), *words]
                self._running[name] = spawn(command, env=_environment(), stdout=log, stderr=log)


def _end(process: "subprocess.Popen[Any]", number: int) -> None:
    """Signal a service; in a laboratory ``process`` only stands for it, as its parent."""
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(process.pid)
        for each in (*top.children(recursive=number == signal.SIGKILL), top):
            with contextlib.suppress(psutil.Error):
                each.send_signal(number)


def _role(process: psutil.Process) -> str | None:
    try:
        name, words = process.name(), " ".join(process.cmdline())
    except psutil.Error:
        return None
    if name in _FORKS:
        return _FORKS[name]
    return next((role for mark, role in _ROLES.items() if mark in words), None)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, limit_s: float) -> None:
    """Wait, bounded; raises TimeoutError naming ``what``."""
    until_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until_s:
            raise TimeoutError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(0.2)
