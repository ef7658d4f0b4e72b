"""graft beside learnware: the same target domains, rows, labels and source models.

    python -m venv runs/peers/learnware
    runs/peers/learnware/bin/pip install -r benchmarks/peers/learnware.txt
    python benchmarks/peers/run.py --data hapt=FOLDER --data pendigits=FOLDER

graft's figures are those of the accuracy matrix's committed rows for the same target domains.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from by_seed import interval_text
from summary import figure, write_summary
from tasks import CAPTURE, PeerTask, export_tasks, register_capture

from graft.bench.plan import MatrixPlan, name_world
from graft.bench.rows import BenchmarkRow, read_benchmark_rows
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.files import replace_file

ROWS = HERE.parent / "accuracy" / "results" / "rows.parquet"
WORLD_DOMAINS = 50  # of the embedded world, as in the committed matrix
console = Console(stderr=True)


def main(
    data: Annotated[list[str], typer.Option(help="NAME=FOLDER of a prepared set; repeatable.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to SEEDS - 1.")] = 1,
    gamma: Annotated[float, typer.Option(help="Share of labelled rows.")] = 0.1,
    targets: Annotated[int, typer.Option(help="Target domains a seed.")] = 4,
    peer: Annotated[Path, typer.Option(help="The peer's interpreter.")] = Path(
        "runs/peers/learnware/bin/python"
    ),
    work: Annotated[Path, typer.Option(help="Initial domains and files.")] = Path(
        "runs/peers/work"
    ),
) -> None:
    """Export the target domains, run the peer, write results/learnware.md and summary.json."""
    torch.set_num_threads(1)
    register_capture()
    config = with_settings(ExpansionConfig(), {"world.domains": WORLD_DOMAINS})
    plan = MatrixPlan(
        worlds=dict(name_world(item, config.world) for item in data),
        config=config,
        methods=(CAPTURE,),
        gammas=(gamma,),
        seeds=tuple(range(seeds)),
        targets=targets,
        work=work,
        compiled=True,
    )
    tasks = list(export_tasks(plan, work))
    console.print(f"{len(tasks)} target domains exported")
    rows = []
    for task in tasks:
        done = task.path.with_suffix(".learnware.json")
        if not done.exists():
            command = [str(peer), str(HERE / "learnware_peer.py"), str(task.path)]
            replace_file(done, subprocess.run(command, check=True, capture_output=True).stdout)
        rows += [(task, row) for row in json.loads(done.read_text("utf-8"))]
        console.print(f"{task.path.stem}: {len(rows)} rows")
    options = " ".join(f"--data {name}=FOLDER" for name in plan.worlds)
    report(
        rows, f"python benchmarks/peers/run.py {options} --seeds {seeds} --gamma {gamma:g}", seeds
    )


def report(rows: list[tuple[PeerTask, dict[str, Any]]], command: str, seeds: int) -> None:
    """A line a set and reuser: accuracy, graft's, the paired gain, bytes and device seconds."""
    ours = {row.key: row for row in read_benchmark_rows(ROWS) if row.method == "graft"}
    by_line: dict[tuple[str, str], list[tuple[BenchmarkRow, dict[str, Any]]]] = defaultdict(list)
    for task, row in rows:
        key = next(
            key
            for key in ours
            if (key.data, key.seed, key.gamma, key.domain_id, key.num_sources)
            == (task.data, task.seed, task.gamma, task.domain_id, 5)
        )
        by_line[task.data, row["reuser"]].append((ours[key], row))
    lines = [
        "| set | learnware's reuser | targets | accuracy | graft | graft more, points "
        "| 95 % interval | kB a target | graft, kB | device s | graft, device s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    figures = {}
    for (name, reuser), pairs in sorted(by_line.items()):
        error = next((row["error"] for _, row in pairs if row["error"]), "")
        if error:
            lines.append(f"| {name} | {reuser} | {len(pairs)} | not run: {error} | | | | | | | |")
            continue
        peer = np.array([row["accuracy"] for _, row in pairs])
        mine = np.array([row.accuracy for row, _ in pairs])
        gains = 100 * (mine - peer)
        kilobytes = np.mean([row["bytes"] for _, row in pairs]) / 1e3
        our_kilobytes = np.mean([row.bytes_up + row.bytes_down for row, _ in pairs]) / 1e3
        seconds = np.mean([row["device_s"] for _, row in pairs])
        our_seconds = np.mean([row.device_s or 0.0 for row, _ in pairs])
        label = f"{name}/{reuser}"
        for part, value, unit in (
            ("accuracy", peer.mean(), "share"),
            ("graft_more", gains.mean(), "points"),
            ("kilobytes", kilobytes, "kB a target"),
            ("device_s", seconds, "s a target"),
        ):
            target = "> 0" if part == "graft_more" else None
            figures[f"{label}/{part}"] = figure(float(value), unit, target, command, range(seeds))
        lines.append(
            f"| {name} | {reuser} | {len(pairs)} | {peer.mean():.1%} | {mine.mean():.1%} "
            f"| {gains.mean():+.1f} | {interval_text(gains, 1)} | {kilobytes:,.0f} "
            f"| {our_kilobytes:,.0f} | {seconds:.1f} | {our_seconds:.1f} |"
        )
    write_summary(HERE / "results", figures)
    text = f"# graft beside learnware\n\n    {command}\n\n" + "\n".join(lines) + "\n"
    replace_file(HERE / "results" / "learnware.md", text.encode())
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
