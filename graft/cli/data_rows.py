"""``graft data from-images`` and ``from-table``: pictures, texts and vectors as domain folders."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from graft.cli.data import NOT_STATED, LicenceOption, NameOption, data_app
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

__all__ = ["data_app"]

if TYPE_CHECKING:
    from graft.data.importers.labelled import ImportReport

DomainOption = Annotated[str, Option(help="Of a table: column of the domain.")]
LabelOption = Annotated[str, Option(help="Of a table: column of the class.")]
GroupOption = Annotated[
    str | None, Option(help="Of a table: column of recordings, never divided by a split.")
]
UnreadableOption = Annotated[
    float, Option(help="Share of the rows that may be unreadable; more is an error.")
]
StrictOption = Annotated[bool, Option(help="The first unreadable row is an error.")]


@data_app.command(
    "from-images", epilog="Example: graft data from-images pictures --size 96 --out things"
)
def data_from_images(
    source: Annotated[Path, Argument(help="Folder of DOMAIN/CLASS/FILE, or a table of paths.")],
    out: OutOption,
    size: Annotated[int, Option(help="Every picture becomes SIZE x SIZE pixels.")] = 224,
    path: Annotated[str, Option(help="Of a table: column of the paths.")] = "path",
    domain: DomainOption = "domain",
    label: LabelOption = "label",
    group: GroupOption = None,
    max_unreadable: UnreadableOption = 0.02,
    strict: StrictOption = False,
    name: NameOption = None,
    licence: LicenceOption = NOT_STATED,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Convert pictures to a domain folder: turned upright by EXIF, RGB, scaled, centre cut out.

    Every file is accounted for as kept or as skipped by a reason. Paths of a table are relative
    to it. Nothing outside OUT is written or removed.
    """
    from graft.data.importers.images import import_images
    from graft.data.importers.labelled import Destination
    from graft.data.importers.table import RowColumns

    with file_progress() as progress:
        done = import_images(
            source,
            Destination(
                out=out,
                name=name or out.name,
                licence=licence,
                overwrite=overwrite,
                max_unreadable=0.0 if strict else max_unreadable,
            ),
            size=size,
            path_column=path,
            columns=RowColumns(domain=domain, label=label, group=group),
            progress=progress,
        )
    _print_report(done, output)


@data_app.command(
    "from-table",
    epilog="Example: graft data from-table reviews.csv --text review --domain shop --label stars "
    "--out shops",
)
def data_from_table(
    source: Annotated[
        Path, Argument(help="A .csv, .tsv, .parquet or .jsonl file with named columns.")
    ],
    out: OutOption,
    text: Annotated[str | None, Option(help="Column of the texts.")] = None,
    vector: Annotated[
        str | None, Option(help="Column of lists of numbers, or columns of numbers, by commas.")
    ] = None,
    domain: DomainOption = "domain",
    label: LabelOption = "label",
    group: GroupOption = None,
    max_bytes: Annotated[int, Option(help="Of a longer text, a model reads so many bytes.")] = 4096,
    max_unreadable: UnreadableOption = 0.02,
    strict: StrictOption = False,
    name: NameOption = None,
    licence: LicenceOption = NOT_STATED,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Convert a table's rows to a domain folder: texts in UTF-8, or vectors of numbers.

    Every row is accounted for as kept or as skipped by a reason. Nothing outside OUT is written
    or removed.
    """
    from graft.data.importers.labelled import Destination
    from graft.data.importers.table import RowColumns
    from graft.data.importers.texts import import_table

    with file_progress() as progress:
        done = import_table(
            source,
            Destination(
                out=out,
                name=name or out.name,
                licence=licence,
                overwrite=overwrite,
                max_unreadable=0.0 if strict else max_unreadable,
            ),
            RowColumns(domain=domain, label=label, group=group),
            text=text,
            vector=split_names(vector),
            max_bytes=max_bytes,
            progress=progress,
        )
    _print_report(done, output)


def _print_report(done: "ImportReport", output: Format) -> None:
    print_facts(asdict(done), output)
    announce(f"next: graft data check {done.folder}")
