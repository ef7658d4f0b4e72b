"""Two streams, which a third of the domains have not both: what do they lose, what do others gain?

The same people, seeds and schedule three times: a world of both streams, in which a third of the
people lack one, and two worlds of a single stream, in which are those who have it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from folds import interval, run_listed

from graft.bench.figures_file import figure, write_summary
from graft.bench.rows import BenchmarkRow
from graft.cli.shared import read_settings
from graft.core.config import ExpansionConfig, SplitConfig
from graft.core.config_files import with_settings
from graft.core.outputs import new_folder
from graft.core.seeding import stream
from graft.core.streams import Streams
from graft.core.tasks import Task
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData, World
from graft.data.folder import FolderWorld, write_domain
from graft.data.public.archives import open_originals
from graft.data.public.recordings import Tally
from graft.data.public.registry import READERS, find_dataset
from graft.data.splits import schedule_rounds
from graft.errors import DomainEmptyError

BOTH = "both"


def lacking(ids: list[str], names: tuple[str, ...]) -> dict[str, str]:
    """The stream that each of a third of the domains lacks, in turn one and the other."""
    order = stream("lacking", 0).permutation(len(ids))[: round(len(ids) / 3)]
    return {ids[index]: names[turn % 2] for turn, index in enumerate(order)}


def write_worlds(name: str, originals: Path, work: Path) -> dict[str, Path]:
    """The three worlds of a set, written once."""
    task = find_dataset(name).task
    folders = {part: work / f"{name}-{part}" for part in (BOTH, *task.input_names)}
    if all((folder / "dataset.toml").exists() for folder in folders.values()):
        return folders
    with open_originals(originals) as files:
        domains = list(READERS[name](files, Tally()))
    lacks = lacking([data.domain_id for data in domains], task.input_names)
    for part, folder in folders.items():
        wanted = task.input_names if part == BOTH else (part,)
        of_part = task if part == BOTH else task.reading(wanted)
        _write(folder, of_part, (_with_streams(data, wanted, lacks) for data in domains))
    return folders


def _with_streams(
    data: DomainData, wanted: tuple[str, ...], lacks: Mapping[str, str]
) -> DomainData | None:
    own = tuple(n for n in wanted if n in data.x.names and n != lacks.get(data.domain_id))
    if not own:
        return None
    x: Streams = data.x.only(own)
    return replace(data, x=x, inputs=own)


def _write(folder: Path, task: Task, domains: Iterable[DomainData | None]) -> None:
    with new_folder(folder, overwrite=True) as new:
        for data in domains:
            if data is not None:
                write_domain(new, data, task=task)
        write_dataset(new, task, licence="as the originals")


def main(
    originals: Annotated[Path, typer.Option(help="The set's folder or archive.")],
    work: Annotated[Path, typer.Option(help="Folder for the worlds and initial domains.")],
    data: Annotated[str, typer.Option(help="spsw-pairs or utd-mhad.")] = "spsw-pairs",
    out: Path = Path("benchmarks/models/results"),
    seeds: int = 5,
    gamma: float = 0.1,
    targets: int = 8,
    methods: str = "graft,label-only",
    setting: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Run what is missing, write the summary."""
    folders = write_worlds(data, originals, work)
    whole = FolderWorld(folders[BOTH])

    def schedule(_: str, world: World, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        initial, arriving = schedule_rounds(whole, SplitConfig(initial_fraction=0.6), 1, seed)
        known = set(world.domain_ids)
        served = arriving[:targets]
        return tuple(d for d in initial if d in known), tuple(d for d in served if d in known)

    config = with_settings(ExpansionConfig(), read_settings(setting))
    rows = run_listed(
        folders,
        schedule,
        config,
        methods=methods.split(","),
        gammas=[gamma],
        seeds=range(seeds),
        targets=targets,
        out=work / f"{data}-rows",
        work=work / f"{data}-initial",
    )
    command = (
        f"python benchmarks/models/streams.py --data {data} --originals ORIGINALS --work WORK "
        f"--seeds {seeds} --targets {targets} {' '.join(f'--set {each}' for each in setting or ())}"
    ).strip()
    records = {}
    for method in methods.split(","):
        own = [row for row in rows if row.method == method and row.accuracy is not None]
        for key, (value, unit, target) in compare(own, whole).items():
            records[f"{data}/{method}/{key}"] = figure(value, unit, target, command, range(seeds))
            print(f"{method:12} {key:60} {value:8.3f} {unit}")
    failed = [row for row in rows if row.error]
    for row in failed[:5]:
        print(row.data, row.method, row.domain_id, row.error, row.error_message)
    records[f"{data}/failed targets"] = figure(len(failed), "targets", "0", command, range(seeds))
    write_summary(out, records)


def compare(
    rows: list[BenchmarkRow], whole: FolderWorld
) -> dict[str, tuple[float, str, str | None]]:
    """A method's accuracy in the world of both streams beside that in each single one."""
    names = whole.task.input_names
    table = {(row.data, row.seed, row.domain_id): float(row.accuracy or 0) for row in rows}
    full = [key for key in table if key[0] == BOTH and len(whole.inputs(key[2])) == len(names)]
    if not full:
        raise DomainEmptyError("targets: got none with both streams, wanted one at least")
    found: dict[str, tuple[float, str, str | None]] = {}
    found["both streams: accuracy"] = (_mean([table[key] for key in full]), "share", None)
    single = {n: _mean([table[n, seed, d] for _, seed, d in full if (n, seed, d) in table])
              for n in names}  # fmt: skip
    for name, accuracy in single.items():
        found[f"both streams: accuracy with {name} alone"] = (accuracy, "share", None)
    better = max(single, key=lambda name: single[name])
    by_seed: dict[int, list[float]] = {}
    for _, seed, domain_id in full:
        if (better, seed, domain_id) in table:
            gain = table[BOTH, seed, domain_id] - table[better, seed, domain_id]
            by_seed.setdefault(seed, []).append(gain)
    _add(found, "both streams: gain over the better single one", by_seed, "at least 0")
    by_seed = {}
    for part, seed, domain_id in table:
        has = whole.inputs(domain_id)
        if part == BOTH and len(has) == 1 and (has[0], seed, domain_id) in table:
            gain = table[part, seed, domain_id] - table[has[0], seed, domain_id]
            by_seed.setdefault(seed, []).append(gain)
    _add(found, "one stream: gain over a world of that stream", by_seed, "at least 0")
    return found


def _add(
    found: dict[str, tuple[float, str, str | None]],
    key: str,
    by_seed: Mapping[int, list[float]],
    target: str,
) -> None:
    low, high = interval([100 * _mean(gains) for gains in by_seed.values()])
    every = [100 * gain for gains in by_seed.values() for gain in gains]
    found[key] = (_mean(every), "points", target)
    found[f"{key}, low"] = (low, "points", None)
    found[f"{key}, high"] = (high, "points", None)
    found[f"{key}, targets"] = (len(every), "targets", None)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


if __name__ == "__main__":
    typer.run(main)
