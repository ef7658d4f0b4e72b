"""A finished model as a folder in the layout of the Hugging Face hub.

model.safetensors   the payload itself: its SHA-256 is the model's id
config.json         architecture and task: enough for ``load_model``
README.md           the model card: what it does, its lineage, licence and metrics
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.files import replace_file
from graft.core.outputs import new_folder
from graft.core.payload import decode_payload
from graft.core.records import BoolArray
from graft.core.task_table import task_from_table, task_to_table
from graft.core.tasks import Task
from graft.core.text import short_repr
from graft.errors import DatasetFormatError
from graft.models import Network, network_from, parameter_shapes
from graft.models.registry import task_read
from graft_server.export.finished import FinishedModel

# How the hub's table of licences writes those that data sets usually have.
_HUB_LICENCES: Mapping[str, str] = {
    "mit": "mit",
    "cc by 4.0": "cc-by-4.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc0": "cc0-1.0",
    "cc0-1.0": "cc0-1.0",
    "apache 2.0": "apache-2.0",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class LoadedModel:
    """What ``load_model`` gives: the network in eval mode, its task, the classes it knows."""

    network: Network
    task: Task
    class_mask_C: BoolArray
    model_id: str
    __repr__ = short_repr


def write_model_folder(
    model: FinishedModel,
    out: Path,
    *,
    licence: str | None = None,
    overwrite: bool = False,
    sources: Sequence[object] = (),
) -> None:
    """Write the folder ``out``, all or nothing; equal models give equal bytes.

    ``licence`` is the model's own; without one the card names the data's. Raises DataError
    where ``out`` is, holds or lies in one of ``sources``, or is not empty and ``overwrite`` is off.
    """
    with new_folder(out, sources=sources, overwrite=overwrite) as folder:
        replace_file(folder / "model.safetensors", model.payload)
        config = json.dumps(_config(model), indent=2) + "\n"
        replace_file(folder / "config.json", config.encode())
        replace_file(folder / "README.md", model_card(model, licence).encode())


def load_model(folder: str | Path) -> LoadedModel:
    """An exported model, checked: what ``graft export`` or ``write_model_folder`` wrote.

    Parameters
    ----------
    folder : str or Path
        Holds config.json and model.safetensors.

    Returns
    -------
    LoadedModel
        The network in eval mode, its task, and the classes that it knows.

    Raises
    ------
    DatasetFormatError
        Where it is no such folder.
    PayloadError
        Where the payload is not the one that config.json names.

    Examples
    --------
    >>> import graft
    >>> from graft_server.export import write_model_folder
    >>> write_model_folder(graft.open_run("runs/example").model("user-000000"), Path("exported"))
    >>> graft.load_model("exported").task.sample_shape
    (6, 64)
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        classes = list(config["id2label"].values())
        task = task_from_table(config["task"], {**config, "classes": classes})
        architecture, model_id = config["architecture"], config["model_id"]
        known = np.isin(task.classes, config["known_classes"])
        payload = (folder / "model.safetensors").read_bytes()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetFormatError(f"{folder}: got {error!r}, wanted an exported model") from error
    parameters = decode_payload(payload, parameter_shapes(architecture, task), model_id)[1]
    network = network_from(architecture, task, parameters)
    return LoadedModel(network=network, task=task, class_mask_C=known, model_id=model_id)


def model_card(model: FinishedModel, licence: str | None = None) -> str:
    """README.md: the hub's front matter, then the card as text."""
    card, row = model.card, model.row
    stated = licence or model.data_licence
    hub_licence = _HUB_LICENCES.get(stated.lower(), "other")
    front: dict[str, Any] = {
        "library_name": "graft",
        "tags": ["graft", "federated-learning", "domain-expansion", model.task.modality],
        "license": hub_licence,
    }
    if hub_licence == "other":
        front["license_name"] = stated
    metrics = _metrics(model)
    if metrics:
        measured = [{"type": name, "value": value} for name, value in metrics.items()]
        front["model-index"] = [
            {
                "name": f"{card.domain_id} ({card.architecture})",
                "results": [
                    {
                        "task": {"type": "other", "name": f"{model.task.modality} classification"},
                        "dataset": {"type": model.task.name, "name": model.task.name},
                        "metrics": measured,
                    }
                ],
            }
        ]
    read = task_read(card.architecture, model.task).inputs
    # JSON is YAML: a value's quotes keep any text of a domain's or a class's from being markup.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    known = [name for name, is_known in _classes(model) if is_known]
    unknown = [name for name, is_known in _classes(model) if not is_known]
    method = row.method if row else "not recorded"
    lines += [
        f"# {card.domain_id}: {card.architecture} for {model.task.name}",
        "",
        f"Learnt by the domain `{card.domain_id}` in round {card.round_index} of the run "
        f"`{model.run}` (seed {model.seed}) with the method `{method}` of graft.",
        "",
        *(
            f"- Input: {spec.dtype} (batch, {', '.join(map(str, spec.shape))}), as "
            f"{'in' if len(read) == 1 else f'the stream {spec.name} of'} the data set "
            f"{model.task.name}."
            for spec in read
        ),
        f"- Classes: {', '.join(known)}.",
        *([f"- Never seen, and never to be answered: {', '.join(unknown)}."] if unknown else []),
        f"- Model id (SHA-256 of `model.safetensors`): `{card.model_id}`",
        f"- Signed by its run's server (Ed25519): `{card.signature.hex()}`",
        "",
        "## Metrics",
        "",
        "On the domain's own later recordings, which neither it nor any source trained on.",
        "",
        *([f"- {name}: {value:.4g}" for name, value in metrics.items()] or ["- none recorded"]),
        "",
        "## Lineage",
        "",
        "| model | domain | round | architecture | sources |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for each in model.lineage:
        parents = ", ".join(f"`{parent[:12]}`" for parent in each.parents) or "its own labels"
        lines.append(
            f"| `{each.model_id[:12]}` | {each.domain_id} | {each.round_index} | "
            f"{each.architecture} | {parents} |"
        )
    lines += [
        "",
        "## Licence",
        "",
        f"Data: {model.data_licence}. Model: {licence or 'as the data'}.",
        "",
        "## Use",
        "",
        "```python",
        "import graft",
        "",
        'model = graft.load_model("path/to/this/folder")',
        "logits = model.network(x)",
        "```",
        "",
    ]
    return "\n".join(lines)


def _config(model: FinishedModel) -> dict[str, Any]:
    return {
        "model_type": "graft",
        "graft_version": metadata.version("graft-fl"),
        "architecture": model.card.architecture,
        "task": model.task.name,
        **{k: v for k, v in task_to_table(model.task).items() if k != "classes"},
        "id2label": {str(label): name for label, name in enumerate(model.task.classes)},
        "known_classes": [name for name, is_known in _classes(model) if is_known],
        "model_id": model.card.model_id,
        "domain_id": model.card.domain_id,
        "parents": list(model.card.parents),
        "signature": model.card.signature.hex(),
    }


def _classes(model: FinishedModel) -> list[tuple[str, bool]]:
    return list(zip(model.task.classes, model.card.class_mask_C.tolist(), strict=True))


def _metrics(model: FinishedModel) -> dict[str, float]:
    if model.row is None:
        return {}
    named = {
        "accuracy": model.row.accuracy,
        "f1": model.row.macro_f1,
        "test_windows": model.row.num_test,
        "labelled_windows": model.row.num_labelled,
    }
    return {name: value for name, value in named.items() if value is not None}
