"""What does a device cost, and does an ARM one learn the same? Size, memory, time to first answer.

    python benchmarks/deployment/devices.py --x86 FOLDER [--arm64 FOLDER]

A deployment over TLS with two initial domains and a target domain for each measured device, which
have the same data: the x86 device, the one in an ARM64 userland (``--arm64``: a Debian root folder
with an environment at /opt/graft; qemu's binfmt runs its programs), and the small one (one core and
512 MB of memory, a control group). All learn by ``graft``.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "trust"), str(HERE.parent)]

from field import Field, wait_until
from summary import figure, write_summary

import graft
from graft.core.files import replace_file
from graft.core.outputs import fresh_folder
from graft.core.tables import read_ledger, read_results
from graft.data.dataset_table import write_dataset
from graft.data.folder import write_domain
from graft.data.synthetic.imu import CHANNELS, ImuWorld

SETTINGS = {"training.max_steps": 60, "selection.num_sources": 2}
INITIAL = ("ann", "bob")
_LOOK_S = 0.2
_MEGABYTE = 1e6
_LIMIT_S = 3600.0
# The work folder has the same path inside the root folder.
_INSIDE = """
mkdir -p "$1$2" && mount --bind "$2" "$1$2" && mount -t proc proc "$1/proc" &&
mount --bind /dev "$1/dev" && root=$1 && shift 2 && exec chroot "$root" "$@"
"""


@dataclass
class Machine:
    """One kind of device: how its processes start, and where its environment is."""

    name: str
    environment: Path  # of its own, so that nothing else shares its pages
    root: Path | None = None
    work: Path | None = None
    cores: float | None = None
    memory_mb: int | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def spawn(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a device's command here; the first word is this machine's ``graft``."""
        python = [str(self.environment / "bin" / "python"), "-P", "-m", "graft_origin"]
        words = [*python, *command[1:]]
        environment = {
            name: value for name, value in options.pop("env").items() if name != "PYTHONPATH"
        }
        if self.root is not None:
            words = [
                "unshare",
                "--mount",
                "sh",
                "-c",
                _INSIDE,
                "sh",
                *map(str, (self.root, self.work)),
                *words,
            ]
        if self.memory_mb is not None:
            options["preexec_fn"] = partial(_enter, self._group())
        return subprocess.Popen(words, env=environment, **options)

    def _group(self) -> list[Path]:
        """The control groups (version 1) of its cores and memory."""
        groups = []
        for controller, name, value in (
            ("memory", "memory.limit_in_bytes", (self.memory_mb or 0) * 1024 * 1024),
            ("cpu", "cpu.cfs_quota_us", int(100_000 * (self.cores or 1))),
        ):
            group = Path("/sys/fs/cgroup") / controller / f"graft-{self.name}"
            if group.parent.exists():
                group.mkdir(exist_ok=True)
                (group / name).write_text(str(value))
                groups.append(group)
        return groups

    def installed_mb(self) -> float:
        """The environment's size, after use: what is imported has been compiled."""
        files = self.environment_here().rglob("*")
        return sum(f.lstat().st_size for f in files if not f.is_dir()) / _MEGABYTE

    def environment_here(self) -> Path:
        """The environment's folder as this machine sees it."""
        return self.root / self.environment.relative_to("/") if self.root else self.environment


def _enter(groups: Sequence[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


class Memory:
    """The proportional set size (PSS) of a device's processes, sampled."""

    def __init__(self, process: "subprocess.Popen[Any]") -> None:
        self._process = process
        self.peak_mb, self.most = 0.0, dict[str, float]()
        self._stopped = threading.Event()

    def __enter__(self) -> "Memory":
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()

    def now(self) -> dict[str, float]:
        """Megabytes by process."""
        found: dict[str, float] = {}
        try:
            top = psutil.Process(self._process.pid)
            for process in (top, *top.children(recursive=True)):
                name = f"{process.name()} {process.pid}"
                found[name] = process.memory_full_info().pss / _MEGABYTE
        except psutil.Error:
            pass
        return found

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_S):
            now = self.now()
            if sum(now.values()) > self.peak_mb:
                self.peak_mb, self.most = sum(now.values()), now


def main(
    x86: Annotated[Path, typer.Option(help="An environment with the base dependencies.")],
    arm64: Annotated[Path | None, typer.Option(help="A Debian root folder for ARM64.")] = None,
    small: Annotated[bool, typer.Option(help="A device of one core and 512 MB, too.")] = True,
    work: Annotated[Path, typer.Option(help="Where it goes.")] = Path("runs/devices"),
) -> None:
    """Measure, and write results/devices.json and results/summary.json."""
    work = work.absolute()
    machines = [Machine("x86", x86.absolute())]
    if small:
        machines.append(Machine("small", x86.absolute(), cores=1, memory_mb=512))
    if arm64 is not None:
        root = arm64.absolute()
        machines.append(Machine("arm64", Path("/opt/graft"), root=root, work=work))
    fresh_folder(work)
    measure(work, machines)
    names = {machine.name: machine.figures for machine in machines}
    replace_file(HERE / "results" / "devices.json", (json.dumps(names, indent=1) + "\n").encode())
    targets = {"installed": "at most 950", "idle": "at most 150", "peak": "at most 450"}
    units = {"installed": "MB", "idle": "MB", "peak": "MB", "first_answer": "s", "join": "s",
             "agreement": "% of predictions as the x86 device's", "accuracy": "%"}  # fmt: skip
    text = "python benchmarks/deployment/devices.py --x86 FOLDER --arm64 FOLDER"
    figures = {
        f"devices/{machine.name}/{what}": figure(value, units[what], targets.get(what), text, [0])
        for machine in machines
        for what, value in machine.figures.items()
        if what in units
    }
    write_summary(HERE / "results", figures)
    print(json.dumps(names, indent=1))


def measure(work: Path, machines: Sequence[Machine]) -> None:
    """One deployment: initial domains on this machine, then each measured device by itself."""
    world = ImuWorld(3, 120, seed=0)
    people = dict(zip((*INITIAL, "same"), world.domain_ids, strict=True))
    by_domain = {f"on-{machine.name}": machine for machine in machines}
    domains = [*INITIAL, *by_domain]
    for domain_id in domains:
        folder = work / "data" / domain_id
        write_dataset(
            folder, world.task, channels=list(CHANNELS), rate_hz=None, licence="made from a seed"
        )
        person = people.get(domain_id, people["same"])
        write_domain(folder, replace_id(world.load(person), domain_id))
    spawns = dict.fromkeys(INITIAL, subprocess.Popen)
    spawns |= {domain_id: machine.spawn for domain_id, machine in by_domain.items()}
    with Field(
        work / "field", work / "data", domains, settings=SETTINGS, spawn_device=spawns.__getitem__
    ) as here:
        began_s = time.monotonic()
        for domain_id in domains:
            log = here.folder / "devices" / domain_id / "state" / "supernode.log"
            wait_until(
                lambda log=log: log.exists() and "SuperNode ID" in log.read_text("utf-8"),
                f"the SuperNode of {domain_id}", _LIMIT_S,
            )  # fmt: skip
            if domain_id in by_domain:
                by_domain[domain_id].figures["join"] = time.monotonic() - began_s
        time.sleep(10)
        for domain_id, machine in by_domain.items():
            idle = Memory(here.service(domain_id)).now()
            machine.figures |= {"idle": sum(idle.values()), "idle_processes": len(idle)}
        options = {"stdout": sys.stderr}
        if here.expand(INITIAL, initial_domains=True, **options):
            raise RuntimeError("the initial domains were not served")
        # All in one round: they learn from the same catalogue.
        with contextlib.ExitStack() as stack:
            memory = {d: stack.enter_context(Memory(here.service(d))) for d in by_domain}
            status = here.expand(list(by_domain), **options)
        for domain_id, machine in by_domain.items():
            machine.figures |= {"peak": memory[domain_id].peak_mb, "status": status}
            machine.figures |= {"installed": machine.installed_mb()}
            print(machine.name, memory[domain_id].most, file=sys.stderr)
        compare(here, by_domain)


def replace_id(data: Any, domain_id: str) -> Any:
    """A person's data under another domain's name."""
    return replace(data, domain_id=domain_id)


def compare(here: Field, by_domain: dict[str, Machine]) -> None:
    """How far the finished models agree on the windows of a person that none has seen."""
    run = graft.open_run(here.run_folder())
    rows = {r.domain_id: r for r in read_results(here.run_folder() / "results.parquet")}
    ledger = read_ledger(here.run_folder() / "ledger.parquet")
    unseen = ImuWorld(4, 400, seed=1)
    x = torch.from_numpy(np.asarray(unseen.load(unseen.domain_ids[3]).x))
    answers: dict[str, Any] = {}
    for domain_id, machine in by_domain.items():
        row = rows.get(domain_id)
        if row is None or row.model_id is None:
            continue
        own = (e for e in ledger if e.domain_id == domain_id and e.phase == "profile")
        entry = next(e for e in own if e.sender == domain_id)
        machine.figures["first_answer"] = float(entry.measured_s or 0)
        machine.figures["accuracy"] = 100 * float(row.score or 0)
        with torch.no_grad():
            answers[machine.name] = run.model(domain_id).network()(x).numpy().argmax(1)
    for machine in by_domain.values():
        if machine.name in answers and "x86" in answers:
            same = answers[machine.name] == answers["x86"]
            machine.figures["agreement"] = 100 * float(np.mean(same))


if __name__ == "__main__":
    typer.run(main)
