"""Is a deployment what its simulation is, and is what its links carried told truly?

    python benchmarks/trust/wire.py --data hapt

A server and five devices, each a machine of the network laboratory, over TLS: three rounds through
``graft deploy``. Beside it the same rounds in one process. Compared: selections, accuracies and
models; the TCP proxy's bytes against the interfaces', and against the simulation's modelled ones,
by stage. Without ``--data`` (a domain folder) the domains are embedded IMU people.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from field import Field, write_world
from graft_server.deployment.enrolment import reported_bytes
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process
from lab import InterfaceCounter, Lab, unavailable
from summary import figure, write_summary

from graft.core.config_files import read_config
from graft.core.ledger import LedgerEntry, delivered
from graft.core.outputs import fresh_folder
from graft.core.results import ResultRow
from graft.core.tables import read_ledger, read_results
from graft.data.dataset_table import read_dataset
from graft.data.domain import World
from graft.data.folder import FolderWorld
from graft.data.synthetic.imu import ImuWorld
from graft.report.traffic import read_stages, reconcile, traffic_dicts, traffic_markdown
from graft.wire.traffic_log import TrafficLog, read_traffic_log

ROUNDS = (2, 1, 2)  # arrivals: initial domains, one target domain, two


def main(
    data: Annotated[Path | None, typer.Option(help="A domain folder of five or more.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps a model.")] = 100,
    work: Annotated[Path, typer.Option(help="Where both runs go.")] = Path("runs/trust-wire"),
) -> None:
    """Run both and write what differs."""
    if (why := unavailable()) is not None:
        raise typer.BadParameter(why)
    fresh_folder(work)
    world: World = ImuWorld(sum(ROUNDS), 160, seed=0) if data is None else FolderWorld(data)
    domains = world.domain_ids[: sum(ROUNDS)]
    write_world(world, domains, work / "data", channels_of(data))
    rounds = planned(domains)
    settings = {"training.max_steps": steps, "selection.num_sources": 2}
    started_s = time.monotonic()
    with Lab(len(domains)) as lab:
        places = dict(zip(domains, lab.devices, strict=True))
        meter = TrafficLog(work / "counted.jsonl")
        with (
            InterfaceCounter(lab, meter.write),
            Field(
                work / "field", work / "data", domains, host=lab.server.address,
                spawn_server=lab.server.spawn, spawn_device=lambda d: places[d].spawn,
                settings=settings,
            ) as field,
        ):  # fmt: skip
            for index, arriving in enumerate(rounds):
                if status := field.expand(arriving, initial_domains=index == 0):
                    raise RuntimeError(f"round {index}: graft deploy expand ended with {status}")
                print(f"round {index} over at {time.monotonic() - started_s:.0f} s", flush=True)
        run = field.run_folder()
    simulated = in_process(field.server, work / "simulated", world, rounds)
    rows, entries = read_results(run / "results.parquet"), read_ledger(run / "ledger.parquet")
    own_rows = read_results(simulated / "results.parquet")
    own_entries = read_ledger(simulated / "ledger.parquet")
    state = field.server / "state"
    table = reconcile(
        read_stages(state / "stages.jsonl"), entries,
        [
            *read_traffic_log(state / "flower-meter.jsonl"),
            *read_traffic_log(state / "depot-meter.jsonl"),
        ],
        read_traffic_log(work / "counted.jsonl"), own_entries, reported_bytes(field.server),
    )  # fmt: skip
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "wire.md").write_text(traffic_markdown(table), "utf-8")
    print(traffic_markdown(table))
    text = f"python benchmarks/trust/wire.py{'' if data is None else f' --data {data.name}'}"
    figures = _same(rows, own_rows, entries, own_entries, text)
    for row in traffic_dicts(table):
        name = f"wire/{row['stage']}-{'up' if row['up'] else 'down'}"
        for what, share, target in (
            ("counted", row["count_difference"], "within 2"),
            ("modelled", row["model_difference"], "within 10"),
        ):
            if share is not None:
                figures[f"{name}/{what}"] = figure(100 * share, "%", target, text, [0])
    write_summary(HERE / "results", figures)


def planned(domains: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The domains by round."""
    rounds, start = [], 0
    for count in ROUNDS:
        rounds.append(tuple(domains[start : start + count]))
        start += count
    return tuple(rounds)


def channels_of(data: Path | None) -> list[str]:
    """The channels' names of a domain folder, or of the embedded world."""
    from graft.data.synthetic.imu import CHANNELS

    return list(CHANNELS) if data is None else list(read_dataset(data).channels)


def in_process(server: Path, out: Path, world: World, rounds: tuple[tuple[str, ...], ...]) -> Path:
    """The same rounds with the deployment's configuration, without any network."""
    config = read_config(server / "expansion.toml")
    folder = RunFolder(out)
    folder.begin(config, world)
    settings = RunSettings(config=config, world=world, folder=folder, planned=rounds)
    run_rounds(connect_in_process(settings), settings)
    return out


def _same(
    rows: Sequence[ResultRow],
    own_rows: Sequence[ResultRow],
    entries: Sequence[LedgerEntry],
    own_entries: Sequence[LedgerEntry],
    text: str,
) -> dict[str, dict[str, object]]:
    """What of the deployment's results and payload bytes is as in one process."""
    pairs = list(zip(rows, own_rows, strict=True))
    share = 100 / len(pairs)
    ours, theirs = (
        {key: n for key, n in delivered(each).items() if key[3] != "join"}
        for each in (entries, own_entries)
    )
    apart = max(abs((a.accuracy or 0) - (b.accuracy or 0)) for a, b in pairs)
    same_sources = sum(a.source_domains == b.source_domains for a, b in pairs)
    return {
        "field/same-selections": figure(share * same_sources, "% of domains", "100", text, [0]),
        "field/same-models": figure(
            share * sum(a.model_id == b.model_id for a, b in pairs), "% of domains", None, text, [0]
        ),
        "field/accuracy-apart": figure(100 * apart, "points at most", "0", text, [0]),
        "field/same-payload-bytes": figure(
            100 * sum(ours.get(key) == n for key, n in theirs.items()) / len(theirs),
            "% of messages", "100", text, [0],
        ),
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
