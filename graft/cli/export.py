"""``graft export``: finished models of a run, for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from graft.cli.shared import Format, FormatOption, print_facts
from graft.core.files import open_path

export_app = typer.Typer(help="Finished models of a run, for other programs.", no_args_is_help=True)
RunArgument = Annotated[str, typer.Argument(help="A run folder.")]
ModelOption = Annotated[
    str, typer.Option(help="The domain whose model it is, or the first 8 digits of a model's id.")
]


@export_app.command(
    epilog="Example: graft export onnx runs/first --model user-000003 --out user.onnx"
)
def onnx(
    run: RunArgument,
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")] = Path("model.onnx"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model as ONNX: input x, outputs logits and probabilities, any batch.

    Checked with onnxruntime: answers within 1e-5 of torch's, or nothing is written.
    """
    from graft_server.export import find_model, write_onnx

    found = find_model(open_path(run), model)
    difference = write_onnx(found, out)
    print_facts(
        {
            "file": str(out),
            "bytes": out.stat().st_size,
            "domain": found.card.domain_id,
            "model": found.card.model_id,
            "architecture": found.card.architecture,
            "difference": difference,
        },
        output,
    )


@export_app.command(epilog="Example: graft export hub runs/first --model user-000003 --out user")
def hub(
    run: RunArgument,
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("model"),
    licence: Annotated[
        str | None, typer.Option(help="The model's own licence; by default the data's is named.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what OUT holds.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model as a folder in the way of the Hugging Face hub; nothing is uploaded.

    model.safetensors, config.json and a model card with lineage, licence and metrics, which name
    the domains that taught it.
    """
    from graft_server.export import find_model, write_model_folder

    found = find_model(open_path(run), model)
    write_model_folder(found, out, licence=licence, overwrite=overwrite)
    print_facts(
        {
            "folder": str(out),
            "domain": found.card.domain_id,
            "model": found.card.model_id,
            "architecture": found.card.architecture,
            "lineage": len(found.lineage),
            "licence": licence or found.data_licence,
        },
        output,
    )
