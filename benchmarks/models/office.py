"""Office-Caltech10 in sites, on EfficientNet-lite0's frozen features: every method's accuracy and
bytes where a target's natural domain is in no source."""

import hashlib
from pathlib import Path
from typing import Annotated

import torch
import typer
from backbones import picture_features, whole_bytes
from folds import gain_records, left_out, method_figures, run_listed, table_lines
from frozen import FeatureCache, write_vectors
from vectors import REFERENCES

from graft.bench.figures_file import figure, write_summary
from graft.bench.plan import COMPARISONS
from graft.cli.shared import announce, read_settings
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.files import replace_file
from graft.data.public.archives import open_originals
from graft.data.public.recordings import Tally
from graft.data.public.registry import READERS, find_dataset
from graft.data.sites import deal_domain

SITES, ALPHA = 6, 1.0
PLACES = ("amazon", "caltech10", "dslr", "webcam")
MAIN = "graft"
SETTINGS = {
    "devices.architectures": list(REFERENCES),
    "devices.microcontroller_fraction": 0.0,
    "devices.phone_fraction": 0.5,
    "devices.gateway_fraction": 0.5,
    # A vector has no neighbours to shift to: nothing augments it, for any method.
    "graft.shift_fraction": 0.0,
    # Chosen on development rows: 89.6 % by the defaults (100 steps at 5e-3), 92.0 % by these.
    "graft.steps_fraction": 1.0,
    "graft.learning_rate": 2e-3,
}


def main(
    originals: Annotated[Path, typer.Option(help="Office-Caltech10's folder or archive.")],
    work: Annotated[Path, typer.Option(help="Folder for features and initial domains.")],
    out: Path = Path("benchmarks/models/results"),
    seeds: int = 5,
    gamma: Annotated[list[float] | None, typer.Option()] = None,
    targets: Annotated[int, typer.Option(help="Sites of a place that are served, a seed.")] = 2,
    methods: str = "",
    setting: Annotated[list[str] | None, typer.Option("--set")] = None,
    development: Annotated[bool, typer.Option(help="On the rows that no test sees.")] = False,
) -> None:
    """Run what is missing, write tables and summary."""
    part = "development" if development else "office"
    tried = hashlib.sha256(repr(setting).encode()).hexdigest()[:8] if setting else ""
    folder = work / part
    if not (folder / "dataset.toml").exists():
        cache = FeatureCache(work / "office-features.npz", lambda x: picture_features(
            torch.from_numpy(x)))  # fmt: skip
        with open_originals(originals) as files:
            whole = READERS["office"](files, Tally())
            sites = (site for data in whole for site in deal_domain(data, SITES, ALPHA, seed=0))
            task = find_dataset("office").task
            write_vectors(folder, sites, task, cache.features, development=development)
        announce(f"{cache.passes} pictures passed the backbone")
    config = with_settings(ExpansionConfig(), {**SETTINGS, **read_settings(setting)})
    gammas = gamma or [0.1]
    rows = run_listed(
        {f"office-{place}": folder for place in PLACES},
        left_out,
        config,
        methods=methods.split(",") if methods else (MAIN, *COMPARISONS),
        gammas=gammas,
        seeds=range(seeds),
        targets=targets,
        out=work / f"{part}-rows{tried}",
        work=work / f"{part}-initial",
    )
    figures = method_figures(rows, MAIN)
    lines = table_lines(figures, MAIN)
    print("\n".join(lines))
    if development:
        return
    exact, base = whole_bytes()
    command = (
        f"python benchmarks/models/office.py --originals ORIGINALS --work WORK --seeds {seeds} "
        f"--targets {targets}"
    )
    candidates = config.selection.candidates_wanted
    records = gain_records(figures, "office", MAIN, command, range(seeds))
    for g in gammas:
        each = figures[g, MAIN]
        total = each.bytes_down + each.bytes_up
        for words, size in (("bases", base), ("exact", exact)):
            records[f"office/gamma={g:g}/bytes of {candidates} whole models, {words}"] = figure(
                100 * total / (candidates * size), "percent", "at most 2", command, range(seeds)
            )
    write_summary(out, records)
    replace_file(out / "office.md", ("\n".join(lines).strip() + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
