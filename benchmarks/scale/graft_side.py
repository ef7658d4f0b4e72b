"""graft's own side of the scale benchmark: the command, and what one run of it took."""

import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from world import TARGETS

from graft.core.ledger import is_upload
from graft.core.tables import read_ledger
from graft.errors import RunError

_MARK = re.compile(r"round (\d+) (\w+): \d+ requests?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phases:
    """Seconds of a run, by what ``graft simulate`` says as each phase begins.

    ``start_s``: imports, Ray or workers, up to the first message. ``training_s``: from the
    moment that all initial domains are asked to train until the last is trained, tested, pushed and
    admitted and the round is on the disk.
    """

    start_s: float
    join_s: float
    profile_s: float
    training_s: float
    rest_s: float

    @property
    def whole_s(self) -> float:
        return self.start_s + self.join_s + self.profile_s + self.training_s + self.rest_s


@dataclass(frozen=True, kw_only=True, slots=True)
class GraftRun:
    """One run of an engine; ``slowest_response_s`` is the ledger's longest wait for an source's
    report, a check on ``phases.training_s``."""

    engine: str
    initial_domains: int
    phases: Phases
    slowest_response_s: float
    peak_memory_bytes: int
    digest: str


def graft_command(
    engine: str, architecture: str, world: Path, initial_domains: int, out: Path, workers: int
) -> list[str]:
    """``graft simulate`` with the peers' settings: all but one domain are sources, they train
    5 epochs of batches of 32 and nothing else is learnt."""
    settings = {
        "comparisons": "[]",
        "devices.architectures": f'["{architecture}"]',
        # Gateways, so that every architecture fits every device.
        "devices.microcontroller_fraction": "0.0",
        "devices.phone_fraction": "0.0",
        "devices.gateway_fraction": "1.0",
        "split.initial_fraction": repr(initial_domains / (initial_domains + TARGETS)),
        "training.epochs": "5",
        "training.batch_size": "32",
    }
    return [
        str(Path(sys.executable).with_name("graft")), "simulate",
        "--data", str(world), "--rounds", "1", "--seed", "0", "--method", "label-only",
        "--workers", str(workers), "--join-timeout-s", "900", "--out", str(out),
        *(["--engine", engine] if engine != "flower" else []),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    ]  # fmt: skip


def run_graft(engine: str, command: Sequence[str], initial_domains: int, out: Path) -> GraftRun:
    """Run the command and time its phases; raises RunError with its news where it failed."""
    started_s = time.perf_counter()
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append((time.perf_counter() - started_s, line.rstrip()))
    whole_s = time.perf_counter() - started_s
    if process.returncode:
        news = "\n".join(line for _, line in lines[-20:])
        raise RunError(f"{engine}: exit code {process.returncode}\n{news}")
    facts = tomllib.loads((out / "run.toml").read_text("utf-8"))["run"]
    responses = [
        entry.measured_s
        for entry in read_ledger(out / "ledger.parquet")
        if entry.round_index == 0 and entry.phase == "report" and is_upload(entry)
    ]
    return GraftRun(
        engine=engine,
        initial_domains=initial_domains,
        phases=read_phases(lines, whole_s),
        slowest_response_s=max((s for s in responses if s is not None), default=0.0),
        peak_memory_bytes=facts["peak_memory_bytes"],
        digest=facts["hash"],
    )


def read_phases(lines: Sequence[tuple[float, str]], whole_s: float) -> Phases:
    """The phases, from a run's news and their seconds; raises RunError where one is missing."""
    marks: dict[tuple[int, str], float] = {}
    for at_s, line in lines:
        if found := _MARK.search(line):
            marks.setdefault((int(found[1]), found[2]), at_s)
    try:
        join_s, profile_s, train_s, next_s = (
            marks[key] for key in ((0, "join"), (0, "profile"), (0, "report"), (1, "profile"))
        )
    except KeyError as missing:
        raise RunError(f"news of the run: got {sorted(marks)}, wanted {missing}") from missing
    return Phases(
        start_s=join_s,
        join_s=profile_s - join_s,
        profile_s=train_s - profile_s,
        training_s=next_s - train_s,
        rest_s=whole_s - next_s,
    )
