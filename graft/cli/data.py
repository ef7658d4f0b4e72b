"""``graft data``: public data sets and your own recordings, as domain folders."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from graft.cli.shared import (
    Format,
    FormatOption,
    OutOption,
    OverwriteOption,
    announce,
    file_progress,
    print_facts,
    split_names,
)
from graft.core.outputs import check_output
from graft.core.tasks import SensorModality

data_app = typer.Typer(
    help="Fetch, prepare, convert and check data sets, public or your own.", no_args_is_help=True
)
PublicName = Annotated[
    str, Argument(help="hapt, myo, spsw, spsw-pairs, pendigits, fsdd, office, fdu-mtl or utd-mhad.")
]
NameOption = Annotated[str | None, Option(help="Name of the data set. Default: that of OUT.")]
ModalityOption = Annotated[SensorModality, Option(help="Kind of the samples.")]
LicenceOption = Annotated[str, Option(help="Licence of the data, for dataset.toml.")]
NOT_STATED = "not stated"


@data_app.command(
    "prepare", epilog="Example: graft data prepare hapt --from downloads/hapt.zip --out hapt"
)
def data_prepare(
    name: PublicName,
    source: Annotated[Path, Option("--from", help="Original files: a folder or archive.")],
    out: OutOption,
    sites: Annotated[int, Option(help="Deal each domain into so many sites.")] = 1,
    alpha: Annotated[float, Option(help="Dirichlet's alpha of the sites' classes.")] = 1.0,
    seed: Annotated[int, Option(help="Seed that deals the sites.")] = 0,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Convert the original files of a public data set to a domain folder and check the counts."""
    from graft.data.public.registry import prepare_dataset

    with file_progress() as progress:
        done = prepare_dataset(
            name, source, out, progress, overwrite=overwrite, sites=sites, alpha=alpha, seed=seed
        )
    load = asdict(done.load)
    counts = {key: load[key] for key in ("domains", "recordings", "rows", "windows")}
    facts = {"name": done.name, "folder": done.folder, "licence": done.licence, **counts}
    print_facts({**facts, "skipped_lines": dict(done.load.skipped_lines)}, output)


@data_app.command("fetch", epilog="Example: graft data fetch hapt --out downloads")
def data_fetch(
    name: PublicName,
    out: Annotated[Path, Option(help="Folder for the archive.")] = Path("downloads"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Download a public data set from its official address, resume and check it, show its licence.

    An interrupted download continues when the command is repeated.
    """
    from graft.data.public.download import fetch_dataset

    with file_progress() as progress:
        done = fetch_dataset(name, out, progress)
    print_facts(
        {
            "archive": done.path,
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
    source: Annotated[
        Path, Argument(help="CSV, Parquet or .xlsx file with a header, or a folder of them.")
    ],
    out: OutOption,
    sensors: Annotated[
        str | None, Option(help="Columns of the sensors, comma-separated. Or --stream.")
    ] = None,
    rate: Annotated[
        float | None, Option(help="Samples per second; with --time, of the result.")
    ] = None,
    stream: Annotated[
        list[str] | None,
        Option(help="NAME=COLUMN,COLUMN@RATE: files of one sensor; repeatable, labels first."),
    ] = None,
    label: Annotated[str | None, Option(help="Column of the class. Or {label} in --path.")] = None,
    labels: Annotated[
        Path | None,
        Option(help="File or folder of labelled intervals, for --label in the recordings."),
    ] = None,
    interval: Annotated[
        str, Option(help="With --labels: its columns of starts and ends.")
    ] = "start,end",
    label_shift: Annotated[
        str,
        Option(
            help="With --labels: seconds added to its times; 'start': they count from the "
            "first line of each recording."
        ),
    ] = "0",
    user: Annotated[str | None, Option(help="Column of the person. Default: one per file.")] = None,
    time: Annotated[str | None, Option(help="Column of the time: cuts pauses, resamples.")] = None,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns", "min", "h", "d"] | None,
        Option(help="Unit of the time column. Default: the one that fits --rate."),
    ] = None,
    session: Annotated[str | None, Option(help="Column whose change ends a recording.")] = None,
    path: Annotated[
        str | None,
        Option(help="What paths below SOURCE state, e.g. {user}/{label} or {label}/{user}_*."),
    ] = None,
    map_label: Annotated[
        list[str] | None,
        Option(help="OLD=NEW renames a class, OLD= leaves its lines out; repeatable."),
    ] = None,
    max_gap: Annotated[
        float | None,
        Option(help="Seconds up to which gaps are filled. Default: 3 usual intervals."),
    ] = None,
    window: Annotated[int, Option(help="Samples per window.")] = 128,
    step: Annotated[
        int | None, Option(help="Samples from window to window. Default: half.")
    ] = None,
    block: Annotated[float, Option(help="Seconds per block, the unit of the split.")] = 10.0,
    delimiter: Annotated[
        str | None, Option(help="Separator of the values. Default: the one that fits the header.")
    ] = None,
    encoding: Annotated[
        str | None, Option(help="Encoding of the text. Default: UTF-8, UTF-16 or Windows-1252.")
    ] = None,
    decimal: Annotated[
        Literal[".", ","] | None, Option(help="Decimal sign. Default: as the first lines show.")
    ] = None,
    name: NameOption = None,
    modality: ModalityOption = "imu",
    licence: LicenceOption = NOT_STATED,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Convert CSV recordings to a domain folder with one domain per person.

    A window has one label and never spans a pause, a skipped line or two blocks. Blocks keep
    overlapping windows on one side of the split. Every line is accounted for.
    """
    from graft.data.importers.csv import convert_csv
    from graft.data.importers.csv_columns import CsvColumns, label_file
    from graft.data.importers.csv_streams import convert_streams, parse_stream
    from graft.data.importers.csv_windows import Windowing

    streams = [parse_stream(text) for text in stream or ()]
    if streams and (sensors or rate):
        raise typer.BadParameter("--stream: wanted no --sensors and no --rate beside it")
    if not streams and not (sensors and rate):
        raise typer.BadParameter("wanted --sensors and --rate, or --stream for each sensor's files")
    columns = CsvColumns(
        sensors=streams[0].sensors if streams else split_names(sensors),
        label=label,
        user=user,
        time=time,
        time_unit=time_unit,
        session=session,
        delimiter=delimiter.replace("\\t", "\t") if delimiter else None,
        encoding=encoding,
        decimal=decimal,
        path=path,
        intervals=label_file(labels, interval, label_shift) if labels else None,
        map_label=_label_map(map_label),
    )
    windowing = Windowing(
        rate_hz=streams[0].rate_hz if streams else rate or 0.0,
        window=window,
        step=step or max(1, window // 2),
        block_s=block,
        max_gap_s=max_gap,
    )
    with file_progress() as progress:
        named: dict[str, Any] = {
            "name": name or out.resolve().name,
            "licence": licence,
            "modality": modality,
            "overwrite": overwrite,
            "progress": progress,
        }
        if streams:
            done = convert_streams(source, out, streams, columns, windowing, **named)
        else:
            done = convert_csv(source, out, columns, windowing, **named)
    facts = asdict(done)
    if output is Format.TABLE:
        facts["account"] = [
            f"{count:,} ({100 * count / done.lines:.1f} %) {what}"
            for what, count in done.account.items()
        ]
        facts["renamed"] = [f"{old!r} is {new}" for old, new in done.renamed.items()]
    print_facts(facts, output)
    announce(f"next: graft data check {out}")


def _label_map(texts: list[str] | None) -> dict[str, str]:
    """OLD=NEW texts as a table; raises BadParameter for any other text."""
    pairs = [text.partition("=") for text in texts or ()]
    wrong = ["".join(pair) for pair in pairs if not pair[1] or not pair[0].strip()]
    if wrong:
        raise typer.BadParameter(f"--map-label {wrong[0]}: wanted OLD=NEW")
    return {old.strip(): new.strip() for old, _, new in pairs}


@data_app.command(
    "from-flwr",
    epilog="Example: graft data from-flwr digits.parquet --sample image --label digit "
    "--partitions 10 --alpha 0.5 --out digits",
)
def data_from_flwr(
    source: Annotated[
        str, Argument(help="A .parquet, .csv or .json file, or a set's name on the hub.")
    ],
    sample: Annotated[str, Option(help="Column of the samples: windows or images.")],
    label: Annotated[str, Option(help="Column of the class.")],
    out: OutOption,
    user: Annotated[str | None, Option(help="Column whose every value becomes a domain.")] = None,
    partitions: Annotated[
        int | None, Option(min=1, help="Number of domains, without --user.")
    ] = None,
    alpha: Annotated[float | None, Option(help="With --partitions: Dirichlet's alpha.")] = None,
    group: Annotated[str | None, Option(help="Column of recordings, never divided.")] = None,
    split: Annotated[str, Option(help="Split of a set on the hub.")] = "train",
    seed: Annotated[int, Option(help="Seed of a random partition.")] = 0,
    name: NameOption = None,
    modality: ModalityOption = "image",
    licence: LicenceOption = NOT_STATED,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Convert partitions of flwr-datasets to a domain folder. Needs graft-fl[datasets]."""
    from graft.data.importers.flwr_datasets import (
        PartitionColumns,
        convert_partitions,
        open_partitioner,
    )

    check_output(out, [Path(source)])
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
            modality=modality,
            overwrite=overwrite,
            progress=progress,
        )
    print_facts(asdict(done), output)


@data_app.command("check", epilog="Example: graft data check my-folder")
def data_check(
    folder: Annotated[Path, Argument(help="Domain folder.")], output: FormatOption = Format.TABLE
) -> None:
    """Read every domain of a folder; state each problem, its reason and what to do about it.

    Exit code 1 if a run would fail on the folder, or if overlapping windows could be divided
    between train and test. A remark does not stop a run, but may not be what you intended.
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
            f"{folder}: {len(problems)} problems; a run would fail on it."
            if problems
            else f"{folder}: sound, {len(FolderWorld(folder).domain_ids)} domains. "
            f"Next: graft simulate --data {folder}"
        )
    if problems:
        raise typer.Exit(1)
