"""``graft data``: public data sets and people's own, as domain folders."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from graft.cli.shared import Format, FormatOption, console, file_progress, print_facts
from graft.core.records import Modality

data_app = typer.Typer(
    help="Public data sets and people's own: fetch, prepare, convert, check.", no_args_is_help=True
)


@data_app.command(
    "prepare", epilog="Example: graft data prepare hapt --from downloads/hapt.zip --out hapt"
)
def data_prepare(
    name: Annotated[str, typer.Argument(help="hapt, myo, spsw, pendigits or fsdd.")],
    source: Annotated[Path, typer.Option("--from", help="The originals: a folder or archive.")],
    out: Annotated[Path, typer.Option(help="The domain folder to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace what OUT holds.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Turn a public set's original files into a domain folder; counts are checked."""
    from graft.data.public.registry import prepare_dataset

    with file_progress() as progress:
        done = prepare_dataset(name, source, out, progress, overwrite=overwrite)
    load = done.load
    facts: dict[str, Any] = {
        "name": done.name,
        "folder": str(done.folder),
        "licence": done.licence,
        "domains": load.domains,
        "recordings": load.recordings,
        "rows": load.rows,
        "windows": load.windows,
        "skipped_lines": dict(load.skipped_lines),
    }
    print_facts(facts, output)


@data_app.command("fetch", epilog="Example: graft data fetch hapt --out downloads")
def data_fetch(
    name: Annotated[str, typer.Argument(help="hapt, myo, spsw, pendigits or fsdd.")],
    out: Annotated[Path, typer.Option(help="Folder for the archive.")] = Path("downloads"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Download a public set from its official address; resumes, checks, shows the licence."""
    from graft.data.public.download import fetch_dataset

    with file_progress() as progress:
        done = fetch_dataset(name, out, progress)
    print_facts(
        {
            "archive": str(done.path),
            "address": done.url,
            "bytes": done.num_bytes,
            "sha256": done.sha256,
            "licence": done.licence,
        },
        output,
    )


@data_app.command(
    "from-csv",
    epilog="Example: graft data from-csv recordings --user person --label activity "
    "--sensors acc_x,acc_y,acc_z --rate 50 --out my-folder",
)
def data_from_csv(
    source: Annotated[Path, typer.Argument(help="A CSV file with a header, or a folder of them.")],
    label: Annotated[str, typer.Option(help="The column of the class.")],
    sensors: Annotated[str, typer.Option(help="The sensors' columns, comma-separated.")],
    rate: Annotated[
        float, typer.Option(help="Samples a second: of the lines, or with --time of the result.")
    ],
    out: Annotated[Path, typer.Option(help="The domain folder to write.")],
    user: Annotated[
        str | None, typer.Option(help="The column of the person; without it a file is one person.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="The column of the time: cuts at pauses, evens the rate.")
    ] = None,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"], typer.Option(help="What the time column counts.")
    ] = "s",
    session: Annotated[
        str | None, typer.Option(help="A column whose change ends a recording.")
    ] = None,
    window: Annotated[int, typer.Option(help="Samples of a window.")] = 128,
    step: Annotated[
        int | None, typer.Option(help="Samples from one window to the next; by default half.")
    ] = None,
    block: Annotated[
        float, typer.Option(help="Seconds of the blocks that train and test are made of.")
    ] = 10.0,
    delimiter: Annotated[str, typer.Option(help="What parts the values.")] = ",",
    name: Annotated[
        str | None, typer.Option(help="The set's name; by default that of OUT.")
    ] = None,
    modality: Annotated[str, typer.Option(help=", ".join(get_args(Modality)) + ".")] = "imu",
    licence: Annotated[str, typer.Option(help="The data's licence, as dataset.toml says it.")] = (
        "not stated"
    ),
    overwrite: Annotated[bool, typer.Option(help="Replace what OUT holds.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Turn CSV recordings into a domain folder, one domain a person.

    Windows hold one label and never cross a pause, a skipped line or a block; the blocks keep
    windows that overlap on one side of the split.
    """
    from graft.data.importers.csv import Windowing, convert_csv
    from graft.data.importers.csv_recordings import CsvColumns

    columns = CsvColumns(
        sensors=tuple(part.strip() for part in sensors.split(",") if part.strip()),
        label=label,
        user=user,
        time=time,
        time_unit_s={"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[time_unit],
        session=session,
        delimiter=delimiter.replace("\\t", "\t"),
    )
    windowing = Windowing(
        rate_hz=rate, window=window, step=step or max(1, window // 2), block_s=block
    )
    with file_progress() as progress:
        done = convert_csv(
            source,
            out,
            columns,
            windowing,
            name=name or out.name,
            licence=licence,
            modality=_modality(modality),
            overwrite=overwrite,
            progress=progress,
        )
    print_facts(
        {
            "folder": str(done.folder),
            "domains": done.domains,
            "classes": list(done.classes),
            "windows": done.windows,
            "blocks": done.blocks,
            "lines": done.lines,
            "skipped": list(done.skipped),
            "left_out": list(done.left_out),
        },
        output,
    )
    console.print(f"next: graft data check {out}", highlight=False, soft_wrap=True)


@data_app.command(
    "from-flwr",
    epilog="Example: graft data from-flwr digits.parquet --sample image --label digit "
    "--partitions 10 --alpha 0.5 --out digits",
)
def data_from_flwr(
    source: Annotated[
        str, typer.Argument(help="A .parquet, .csv or .json file, or a set of the hub by name.")
    ],
    sample: Annotated[str, typer.Option(help="The column of the samples: windows or images.")],
    label: Annotated[str, typer.Option(help="The column of the class.")],
    out: Annotated[Path, typer.Option(help="The domain folder to write.")],
    user: Annotated[
        str | None, typer.Option(help="A column whose every value becomes a domain.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Instead of --user: so many domains.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="With --partitions: uneven classes, Dirichlet's alpha.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="A column of recordings that no split may part.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of a set of the hub.")] = "train",
    seed: Annotated[int, typer.Option(help="What a drawn partition derives from.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="The set's name; by default that of OUT.")
    ] = None,
    modality: Annotated[str, typer.Option(help=", ".join(get_args(Modality)) + ".")] = "image",
    licence: Annotated[str, typer.Option(help="The data's licence, as dataset.toml says it.")] = (
        "not stated"
    ),
    overwrite: Annotated[bool, typer.Option(help="Replace what OUT holds.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Turn flwr-datasets' partitions into a domain folder. Wants the extra graft-fl[datasets]."""
    from graft.data.importers.flwr_datasets import (
        PartitionColumns,
        convert_partitions,
        open_partitioner,
    )

    partitioner = open_partitioner(
        source, split=split, user=user, partitions=partitions, label=label, alpha=alpha, seed=seed
    )
    with file_progress() as progress:
        done = convert_partitions(
            partitioner,
            out,
            PartitionColumns(sample=sample, label=label, group=group),
            name=name or out.name,
            licence=licence,
            modality=_modality(modality),
            overwrite=overwrite,
            progress=progress,
        )
    print_facts(
        {
            "folder": str(done.folder),
            "domains": done.domains,
            "classes": list(done.classes),
            "rows": done.rows,
            "left_out": list(done.left_out),
        },
        output,
    )


@data_app.command("check", epilog="Example: graft data check my-folder")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A domain folder.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Read every domain of a folder; say what is wrong, why, and what to do about it.

    Exit code 1 if a run would fail on it, or if windows that overlap could be parted between
    train and test. Remarks are what a run would serve, though perhaps not as you meant it.
    """
    from graft.data.check import explain_folder
    from graft.data.folder import FolderWorld

    with file_progress() as progress:
        findings = explain_folder(folder, progress=progress)
    problems = [finding for finding in findings if finding.is_problem]
    if output is Format.JSON:
        facts: dict[str, Any] = {"folder": str(folder), "problems": len(problems)}
        if not problems:
            facts["domains"] = len(FolderWorld(folder).domain_ids)
        facts |= {each.domain_id or "dataset": f"{each.error}: {each.what}" for each in problems}
        facts["remarks"] = [
            {"domain": each.domain_id, "what": each.what, "advice": each.advice}
            for each in findings
            if not each.is_problem
        ]
        print_facts(facts, output)
    else:
        for each in findings:
            kind = f"PROBLEM ({each.error})" if each.is_problem else "remark"
            print(f"{each.domain_id or folder.name}: {kind}")
            print(f"  {each.what}\n  {each.advice}\n")
        print(
            f"{folder}: {len(problems)} problems; a run would not serve it as it is."
            if problems
            else f"{folder}: sound, {len(FolderWorld(folder).domain_ids)} domains. "
            f"Next: graft simulate --data {folder}"
        )
    if problems:
        raise typer.Exit(1)


def _modality(name: str) -> Modality:
    for known in get_args(Modality):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise typer.BadParameter(f"--modality {name}: wanted one of {', '.join(get_args(Modality))}")
