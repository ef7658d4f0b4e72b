"""FDU-MTL's sixteen kinds of reviews on MiniLM's frozen features: every method's accuracy and bytes
with 1, 5 and 10 % of a target's rows labelled."""

from pathlib import Path
from typing import Annotated

import typer
from backbones import text_features
from folds import gain_records, method_figures, run_listed, table_lines
from frozen import FeatureCache, first_rows, write_vectors
from office import MAIN, SETTINGS

from graft.bench.figures_file import write_summary
from graft.bench.plan import COMPARISONS
from graft.cli.shared import announce, read_settings
from graft.core.config import ExpansionConfig, SplitConfig
from graft.core.config_files import with_settings
from graft.core.files import replace_file
from graft.data.domain import World
from graft.data.public.archives import open_originals
from graft.data.public.recordings import Tally
from graft.data.public.registry import READERS, find_dataset
from graft.data.splits import schedule_rounds
from graft.data.stream_columns import texts_of

# Eleven kinds of reviews are initial domains, five are targets.
INITIAL = 0.7


def drawn(_: str, world: World, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    initial, targets = schedule_rounds(world, SplitConfig(initial_fraction=INITIAL), 1, seed)
    return initial, targets


def main(
    originals: Annotated[Path, typer.Option(help="FDU-MTL's folder or archive.")],
    work: Annotated[Path, typer.Option(help="Folder for features and initial domains.")],
    out: Path = Path("benchmarks/models/results"),
    seeds: int = 5,
    gamma: Annotated[list[float] | None, typer.Option()] = None,
    targets: int = 5,
    methods: str = "",
    train_rows: Annotated[int, typer.Option(help="Train lines of each kind that are used.")] = 500,
    test_rows: Annotated[int, typer.Option(help="Test lines of each kind that are used.")] = 250,
    setting: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    """Run what is missing, write tables and summary."""
    folder = work / "fdu-mtl"
    if not (folder / "dataset.toml").exists():
        cache = FeatureCache(work / "fdu-mtl-features.npz", lambda x: text_features(texts_of(x)))
        with open_originals(originals) as files:
            domains = READERS["fdu-mtl"](files, Tally())
            parts = (first_rows(data, train_rows, test_rows) for data in domains)
            task = find_dataset("fdu-mtl").task
            write_vectors(folder, parts, task, cache.features)
        announce(f"{cache.passes} texts passed the backbone")
    config = with_settings(ExpansionConfig(), {**SETTINGS, **read_settings(setting)})
    rows = run_listed(
        {"fdu-mtl": folder},
        drawn,
        config,
        methods=methods.split(",") if methods else (MAIN, *COMPARISONS),
        gammas=gamma or [0.01, 0.05, 0.1],
        seeds=range(seeds),
        targets=targets,
        out=work / "fdu-mtl-rows",
        work=work / "fdu-mtl-initial",
    )
    figures = method_figures(rows, MAIN)
    lines = table_lines(figures, MAIN)
    print("\n".join(lines))
    command = (
        f"python benchmarks/models/fdu_mtl.py --originals ORIGINALS --work WORK --seeds {seeds} "
        f"--targets {targets}"
    )
    write_summary(out, gain_records(figures, "fdu-mtl", MAIN, command, range(seeds)))
    replace_file(out / "fdu_mtl.md", ("\n".join(lines).strip() + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
