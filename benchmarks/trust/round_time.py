"""How long does a round of a deployment take, what takes it, and what does an idle device send?

    python benchmarks/trust/round_time.py --base FOLDER

A deployment on loopback with TLS: one initial domain, then one round of four target domains with as
many windows as a person of HAPT has. ``--base`` is a working copy of another commit, whose
deployment runs the same in turn, so that a ratio of both is of one machine at one time.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

WINDOWS = 350  # of a person of HAPT: 10,929 windows of 30 people
IDLE_S = 60.0
_SAMPLE_S = 0.2
_SETTLE_S = 45.0  # the first sign of life, after 24 s, makes a connection
_JOIN_S = 900.0


class Timeline:
    """Which processes of a field ran when, and how much processor time each took."""

    def __init__(self, field: Any) -> None:
        self._field = field
        self._stopped = threading.Event()
        self.seen: dict[int, dict[str, Any]] = {}
        self.most: dict[str, int] = defaultdict(int)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Timeline":
        self.began_s = time.time()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            now_s = time.time() - self.began_s
            for role, processes in self._field.processes().items():
                self.most[role] = max(self.most[role], len(processes))
                for process in processes:
                    try:
                        times = process.cpu_times()
                        row = self.seen.setdefault(
                            process.pid,
                            {
                                "role": role,
                                "began_s": process.create_time() - self.began_s,
                                "before_s": times.user + times.system,
                            },
                        )
                        row["ended_s"] = now_s
                        row["cpu_s"] = times.user + times.system
                    except psutil.Error:
                        continue

    def rows(self) -> list[dict[str, Any]]:
        """A row a role: processes started, the most at once, processor seconds."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.seen.values():
            role = found.setdefault(row["role"], {"role": row["role"], "started": 0, "cpu_s": 0.0})
            began = row["began_s"] > 0
            role["started"] += began
            role["cpu_s"] += row["cpu_s"] - (0.0 if began else row["before_s"])
        return [
            {**row, "cpu_s": round(row["cpu_s"], 1), "most": self.most[row["role"]]}
            for row in found.values()
        ]


def measure(work: Path, targets: int) -> dict[str, Any]:
    """One deployment of the packages that this process imports."""
    from field import Field, wait_until, write_world

    from graft.core.outputs import fresh_folder
    from graft.data.synthetic.imu import CHANNELS, ImuWorld
    from graft.wire.traffic_log import read_traffic_log

    fresh_folder(work)
    world = ImuWorld(targets + 1, WINDOWS, seed=0)
    write_world(world, world.domain_ids, work / "data", list(CHANNELS))
    initial_domain, *arriving_later = world.domain_ids
    found: dict[str, Any] = {}
    settings = {"selection.num_sources": 1}
    with Field(work / "field", work / "data", world.domain_ids, settings=settings) as field:
        began_s = time.monotonic()

        def joined() -> bool:
            logs = [field.folder / "devices" / d / "state" / "supernode.log" for d in field.devices]
            return all(p.exists() and "SuperNode ID" in p.read_text("utf-8") for p in logs)

        wait_until(joined, "every SuperNode", _JOIN_S)
        found["join_s"] = time.monotonic() - began_s
        time.sleep(_SETTLE_S)
        meter = field.server / "state" / "flower-meter.jsonl"
        since_s = time.time()
        time.sleep(IDLE_S)
        lines = [r for r in read_traffic_log(meter) if r.since_s >= since_s]
        carried = sum(r.carried.up_bytes + r.carried.down_bytes for r in lines)
        found["idle_bytes_per_s"] = carried / IDLE_S / (targets + 1)
        for name, arriving in (("initial", [initial_domain]), ("targets", arriving_later)):
            with Timeline(field) as timeline:
                began_s = time.monotonic()
                status = field.expand(arriving, initial_domains=name == "initial")
                took_s = time.monotonic() - began_s
            if status:
                raise RuntimeError(f"{name}: graft deploy expand ended with {status}")
            found[name] = {"seconds": took_s, "processes": timeline.rows()}
            found[name]["stages"] = [
                {
                    "stage": row["stage"],
                    "began_s": round(row["began_s"] - timeline.began_s, 1),
                    "ended_s": round(row["ended_s"] - timeline.began_s, 1),
                }
                for row in map(
                    json.loads, (field.server / "state" / "stages.jsonl").read_text().splitlines()
                )
                if row["began_s"] > timeline.began_s
            ]
    return found


def measured_of(tree: Path, work: Path, targets: int) -> dict[str, Any]:
    """What the packages of a working copy do, measured by this script in a process of theirs."""
    path = os.pathsep.join(str(tree / name) for name in ("", "server", "client", "simulation"))
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", "--work", str(work)]
    command += ["--targets", str(targets)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(
    base: Annotated[Path | None, typer.Option(help="A working copy to compare with.")] = None,
    targets: Annotated[int, typer.Option(min=1, help="Devices of the measured round.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Deployments of each.")] = 1,
    together: Annotated[
        bool, typer.Option(help="Both at once: on a machine whose other work changes.")
    ] = False,
    work: Annotated[Path, typer.Option(help="Where they go.")] = Path("runs/round-time"),
    measure_here: Annotated[bool, typer.Option("--measure", hidden=True)] = False,
) -> None:
    """Measure, and write results/summary.json and results/round_time.json."""
    if measure_here:
        print(json.dumps(measure(work.absolute(), targets)))
        return
    from summary import figure, write_summary

    from graft.core.files import replace_file

    trees = {"now": ROOT, **({"base": base.absolute()} if base else {})}
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(repeats):
        with ThreadPoolExecutor(len(trees) if together else 1) as pool:
            begun = {
                name: pool.submit(measured_of, tree, work.absolute() / f"{name}-{number}", targets)
                for name, tree in trees.items()
            }
        for name, measured in begun.items():
            runs[name].append(measured.result())
            print(f"{name}: {json.dumps(runs[name][-1])}", flush=True)
    replace_file(HERE / "results" / "round_time.json", (json.dumps(runs, indent=1) + "\n").encode())

    def median(name: str, what: str) -> float:
        if what == "cpu":
            return float(
                np.median([sum(p["cpu_s"] for p in r["targets"]["processes"]) for r in runs[name]])
            )
        if what == "idle":
            return float(np.median([run["idle_bytes_per_s"] for run in runs[name]]))
        return float(np.median([run[what]["seconds"] for run in runs[name]]))

    text = f"python benchmarks/trust/round_time.py --base FOLDER --targets {targets}"
    text += " --together" * together
    figures = {
        f"round-time/{name}/{what}": figure(median(name, what), unit, None, text, [0])
        for name in runs
        for what, unit in (
            ("targets", "s"),
            ("initial", "s"),
            ("idle", "bytes a second"),
            ("cpu", "s"),
        )
    }
    if base:
        for what in ("targets", "initial", "idle", "cpu"):
            share = median("now", what) / median("base", what)
            target = "<= 0.3333" if what in ("targets", "idle") else None
            figures[f"round-time/ratio/{what}"] = figure(share, "of the base's", target, text, [0])
    write_summary(HERE / "results", figures)


if __name__ == "__main__":
    typer.run(main)
