"""``graft export``: finished models of a run, for other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from graft.cli.shared import Format, FormatOption, OverwriteOption, RunArgument, print_facts
from graft.core.files import open_path

export_app = typer.Typer(
    help="Export finished models of a run for other programs.", no_args_is_help=True
)
ModelOption = Annotated[str, Option(help="Domain of the model, or first 8 digits of its id.")]


@export_app.command(
    epilog="Example: graft export onnx runs/first --model user-000003 --out user.onnx"
)
def onnx(
    run: RunArgument,
    model: ModelOption,
    out: Annotated[Path, Option(help="ONNX file to write.")] = Path("model.onnx"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model as ONNX: input x, outputs logits and probabilities, any batch size.

    The file is checked with onnxruntime and written only if its outputs are within 1e-5 of torch's.
    """
    from graft_server.export import find_model, write_onnx

    found = find_model(open_path(run), model)
    difference = write_onnx(found, out)
    facts = {"file": str(out), "bytes": out.stat().st_size, **_model_facts(found)}
    print_facts({**facts, "difference": difference}, output)


@export_app.command(epilog="Example: graft export hub runs/first --model user-000003 --out user")
def hub(
    run: RunArgument,
    model: ModelOption,
    out: Annotated[Path, Option(help="Folder to write.")] = Path("model"),
    licence: Annotated[str | None, Option(help="Licence. Default: that of the data.")] = None,
    overwrite: OverwriteOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a model as a folder in the layout of the Hugging Face hub; nothing is uploaded.

    The folder holds model.safetensors, config.json and a model card with lineage, licence and
    metrics. The lineage names the domains of the sources.
    """
    from graft_server.export import find_model, write_model_folder

    found = find_model(open_path(run), model)
    write_model_folder(found, out, licence=licence, overwrite=overwrite)
    facts = {"folder": str(out), **_model_facts(found), "lineage": len(found.lineage)}
    print_facts({**facts, "licence": licence or found.data_licence}, output)


def _model_facts(found: Any) -> dict[str, str]:
    card = found.card
    return {"domain": card.domain_id, "model": card.model_id, "architecture": card.architecture}
