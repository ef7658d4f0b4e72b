"""The fault grid: does every bad network end in a finished run or a named failure, in time?

    python benchmarks/trust/faults.py

    python benchmarks/trust/faults.py --what deployment --deadline 300

Delay, loss, rate and dropout, each cell an expansion of its own in the network laboratory. What
is run in a cell is an argument: a depot behind its TCP proxy, from which each device fetches a
model and to which it pushes one, over gRPC and TLS; or a whole deployment, two initial domains and
then two target domains.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from field import Field, wait_until, write_world
from lab import Lab, LinkShape, unavailable
from lab.certificates import write_certificates
from lab.node import stop
from summary import figure, machine, write_summary

from graft.core.files import LineFile, read_lines
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.wire.traffic_log import read_traffic_log

DELAYS_S = (0.0, 0.1, 1.0, 5.0)
LOSSES = (0.0, 0.05, 0.2, 0.5)
RATES = (None, 1e6, 64e3)
DROPOUTS = (0.0, 0.5, 0.9)
DEVICES = 4
# A device that has dropped out: nothing passes.
_CUT = LinkShape(loss=1 - 1e-6)
# How long after the deadline a cell's processes may take to say how they ended.
GRACE_S = 2.0
# Devices give up that long before it, so that they are heard.
SAYING_S = 8.0
# An expansion asks Flower by a command of its own now and then, which is slow on a busy machine.
_EXPAND_SAYING_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One bad network: every device's link, and the share of devices that drop out."""

    delay_s: float = 0.0
    loss: float = 0.0
    rate_bits_per_s: float | None = None
    dropout: float = 0.0

    @property
    def shape(self) -> LinkShape:
        return LinkShape(delay_s=self.delay_s, loss=self.loss, rate_bits_per_s=self.rate_bits_per_s)

    @property
    def name(self) -> str:
        rate = "full" if self.rate_bits_per_s is None else f"{self.rate_bits_per_s:g}"
        return (
            f"delay {self.delay_s:g} s, loss {self.loss:g}, rate {rate}, dropout {self.dropout:g}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a cell ended: "finished", or "failed" with the names of the errors, each once.

    "hung" is what may not be: it neither ended nor said why within its deadline.
    """

    outcome: Literal["finished", "failed", "hung"]
    errors: tuple[str, ...] = ()


# Runs one expansion in a laboratory whose links are already as bad as the cell says; must return
# by the deadline (of time.monotonic).
Expand = Callable[[Lab, Cell, float], Ending]


def grid() -> list[Cell]:
    """Every pair of faults beside each other, each fault by itself, and the worst of all."""
    axes = {"delay_s": DELAYS_S, "loss": LOSSES, "rate_bits_per_s": RATES, "dropout": DROPOUTS}
    cells = {Cell(): None}
    for one, two in itertools.combinations(axes, 2):
        for first, second in itertools.product(axes[one], axes[two]):
            cells[Cell(**{one: first, two: second})] = None
    cells[Cell(**{name: values[-1] for name, values in axes.items()})] = None
    return list(cells)


def run_grid(
    cells: Iterable[Cell],
    expand: Expand,
    out: Path,
    *,
    devices: int = DEVICES,
    deadline_s: float,
    seed: int = 0,
) -> list[dict[str, object]]:
    """Run each cell in a laboratory of its own; a line a cell in ``out``, which are returned.

    A cell that ``out`` already has is not run again. Whatever ``expand`` raises is a failure by
    that name; one that returns after its deadline has hung.
    """
    file = LineFile(out)
    done = {row["cell"]: row for row in read_lines(out, dict)}
    for cell in cells:
        if cell.name in done:
            continue
        with Lab(devices, shaped=True, seed=seed) as lab:
            for number in range(devices):
                lab.shape(number, cell.shape)
            began_s = time.monotonic()
            try:
                ending = expand(lab, cell, began_s + deadline_s)
            except Exception as error:
                ending = Ending(outcome="failed", errors=(type(error).__name__,))
            took_s = time.monotonic() - began_s
            if took_s > deadline_s + GRACE_S:
                ending = Ending(outcome="hung", errors=ending.errors)
            row = {
                "cell": cell.name, **asdict(cell), "outcome": ending.outcome,
                "errors": list(ending.errors), "seconds": round(took_s, 1),
                "deadline_s": deadline_s, "shaper": lab.shaper, "seed": seed, "devices": devices,
            }  # fmt: skip
        done[cell.name] = row
        file.append(row)
        print(f"{cell.name}: {ending.outcome} {' '.join(ending.errors)} {took_s:.0f} s", flush=True)
    file.close()
    return list(done.values())


def dropped(cell: Cell, devices: int, seed: int) -> frozenset[int]:
    """Which devices drop out of a cell, at least one where any should."""
    count = min(devices, -(-int(1000 * cell.dropout * devices) // 1000))
    chosen = np.random.default_rng([seed, 7]).permutation(devices)[:count]
    return frozenset(int(number) for number in chosen)


def expand_depot(seed: int) -> Expand:
    """A depot that every device fetches a model from and pushes one to; those that drop out are
    cut off in the middle."""

    def expand(lab: Lab, cell: Cell, deadline_s: float) -> Ending:
        with tempfile.TemporaryDirectory() as name:
            folder, address = Path(name), lab.server.address
            write_certificates(folder, address)
            script = [sys.executable, str(HERE / "workload.py")]
            serving = lab.server.spawn(
                [*script, "serve", name, address], stdout=subprocess.PIPE, text=True
            )
            assert serving.stdout is not None
            serving.stdout.readline()
            patience_s = str(_left_s(deadline_s) - SAYING_S)
            lost = dropped(cell, len(lab.devices), seed)
            devices = [
                node.spawn(
                    [*script, "device", name, address, *_part(number in lost), patience_s],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for number, node in enumerate(lab.devices)
            ]
            for number in lost:
                _cut_off(lab, number, folder / "relay.jsonl", deadline_s - SAYING_S)
            ending = _ending(devices, deadline_s)
            for process in (*devices, serving):
                stop(process, patience_s=0.5)
            return ending

    return expand


def expand_field(seed: int) -> Expand:
    """A deployment: sources, then targets. Who drops out is cut off when a round begins,
    initial domains in the first, target domains in the second. All others must be served, they
    must be named, and be served once they are back; what is not so is the cell's error."""

    def expand(lab: Lab, cell: Cell, deadline_s: float) -> Ending:
        lost = dropped(cell, len(lab.devices), seed)
        domains = ImuWorld(len(lab.devices), 60, seed=seed).domain_ids
        places = dict(zip(domains, lab.devices, strict=True))
        half = len(domains) // 2
        away = {domains[number] for number in lost}
        # What still ends on a machine may write while its folder is removed.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            data = Path(name) / "data"
            write_world(ImuWorld(len(domains), 60, seed=seed), domains, data, list(CHANNELS))
            with Field(
                Path(name) / "field", data, domains, host=lab.server.address,
                spawn_server=lab.server.spawn, spawn_device=lambda d: places[d].spawn,
                settings={"training.max_steps": 20, "selection.num_sources": 2},
            ) as field:  # fmt: skip
                back: list[str] = []
                for index, arriving in enumerate((domains[:half], domains[half:])):
                    here = sorted(away & set(arriving))
                    words = [*arriving, *([] if index else ["--initial"])]
                    wanted = set(arriving) - set(here)
                    ending = _round(lab, field, domains, words, wanted, here, deadline_s)
                    for domain_id in here:
                        lab.shape(domains.index(domain_id), cell.shape)
                    if ending is None and field.finished_rounds() == index:  # nobody was there
                        ending = _round(lab, field, domains, [], set(arriving), [], deadline_s)
                    else:
                        back += here
                    if ending is not None:
                        return ending
                if back:
                    ending = _round(lab, field, domains, back, set(back), [], deadline_s)
                    if ending is not None:
                        return ending
        return Ending(outcome="finished")

    return expand


def _round(
    lab: Lab,
    field: Field,
    domains: Sequence[str],
    words: Sequence[str],
    wanted: set[str],
    away: Sequence[str],
    deadline_s: float,
) -> Ending | None:
    """One expansion of which some go off their link; None where exactly ``wanted`` were served and
    the others named."""
    left_s = _left_s(deadline_s) - _EXPAND_SAYING_S
    words = [*words, "--deadline-s", f"{left_s:.0f}", "--join-timeout-s", "150"]
    words += ["--patience-s", "30", "--format", "json"]
    pipe = subprocess.PIPE
    expanding = field.start_expand(words, stdout=pipe, stderr=pipe, text=True)
    # Its own deadline comes first: what it then says is the cell's ending.
    wait_until(lambda: field.is_at("profile"), "the round to begin", _left_s(deadline_s))
    for domain_id in away:
        lab.shape(domains.index(domain_id), _CUT)
    told, said = expanding.communicate(timeout=_left_s(deadline_s))
    served = set[str]()
    if told.strip().startswith("["):
        served = {row["domain"] for row in json.loads(told) if not row["error"]}
    as_wanted = (
        served == wanted
        and bool(expanding.returncode) == bool(away)
        and all(domain_id in said for domain_id in away)
    )
    if as_wanted:
        return None
    names = re.findall(r"\b[A-Z][A-Za-z]+(?:Error|Exception)\b", said)
    return Ending(outcome="failed", errors=tuple(sorted(set(names))) or ("NotServedError",))


def _part(lost: bool) -> tuple[str, str]:
    """What a device does; one that drops out would be at it for long."""
    return ("exact", "200") if lost else ("pair", "1")


def _cut_off(lab: Lab, number: int, meter: Path, deadline_s: float) -> None:
    """Take a device off its link once it has said anything."""
    peer = lab.devices[number].address
    while time.monotonic() < deadline_s and not any(
        line.peer == peer for line in (read_traffic_log(meter) if meter.exists() else ())
    ):
        time.sleep(0.1)
    lab.devices[number].configure("ip", "link", "set", "up0", "down")


def _ending(devices: Sequence["subprocess.Popen[str]"], deadline_s: float) -> Ending:
    """What the devices said, together."""
    errors = set()
    hung = False
    for device in devices:
        try:
            told, _ = device.communicate(timeout=max(0.1, _left_s(deadline_s)))
            errors.add(json.loads(told)["error"])
        except (subprocess.TimeoutExpired, ValueError):
            hung = True
    errors.discard(None)
    if hung:
        return Ending(outcome="hung", errors=tuple(sorted(errors)))
    return Ending(outcome="failed" if errors else "finished", errors=tuple(sorted(errors)))


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())


def main(
    deadline: Annotated[float, typer.Option(help="Seconds that a cell may take.")] = 90.0,
    seed: Annotated[int, typer.Option(help="Of losses and dropouts.")] = 0,
    what: Annotated[
        Literal["depot", "deployment"], typer.Option(help="What is run in a cell.")
    ] = "depot",
    limit: Annotated[int, typer.Option(help="Only so many cells, evenly spread; 0: all.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the cells' endings go.")] = HERE / "results",
) -> None:
    """Run the grid; cells that are done are not run again."""
    if (reason := unavailable()) is not None:
        raise SystemExit(reason)
    cells = grid()
    if limit:
        cells = [cells[round(place)] for place in np.linspace(0, len(cells) - 1, limit)]
    expand = expand_depot(seed) if what == "depot" else expand_field(seed)
    rows = run_grid(cells, expand, out / f"faults-{what}.jsonl", deadline_s=deadline, seed=seed)
    outcomes = [row["outcome"] for row in rows]
    command = (
        f"python benchmarks/trust/faults.py --what {what} --deadline {deadline:g} --limit {limit}"
    )
    figures = {
        f"faults-{what}/{name}": figure(outcomes.count(name), "cells", target, command, [seed])
        for name, target in (("finished", None), ("failed", None), ("hung", "0"))
    }
    write_summary(out, figures)
    print(f"{machine()}: {Counter(outcomes)}")
    if "hung" in outcomes:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
