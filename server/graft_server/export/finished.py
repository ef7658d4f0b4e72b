"""One finished model of a run: its payload, checked, and all that the run knows of it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.core.catalogue import Catalogue
from graft.core.config_files import config_from_dict
from graft.core.files import AnyPath
from graft.core.payload import decode_payload
from graft.core.plugins import load_references
from graft.core.records import ModelCard, Parameters
from graft.core.results import ResultRow
from graft.core.tasks import Task, without_streams
from graft.core.text import short_repr
from graft.data.dataset_table import read_dataset
from graft.errors import DataError, ModelMissingError, RunError
from graft.models import Network, network_from, parameter_shapes
from graft.wire.messages.card_signature import verify_card
from graft_server.model_store import open_store
from graft_server.run_folder import RunFolder

_EMBEDDED_LICENCE = "synthetic data, made by graft"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class FinishedModel:
    """A model of the catalogue. ``lineage`` are its ancestors, itself first, then its sources,
    then theirs, each once; ``row`` is its result; ``data_licence`` that of the data it saw."""

    run: str
    seed: int
    task: Task
    card: ModelCard
    payload: bytes
    parameters: Parameters
    lineage: tuple[ModelCard, ...]
    row: ResultRow | None
    data_licence: str
    __repr__ = short_repr

    def network(self) -> Network:
        """The model itself, in eval mode."""
        return network_from(self.card.architecture, self.task, self.parameters)


def find_model(path: AnyPath, name: str) -> FinishedModel:
    """The model of the domain called ``name``, or whose id begins with it (8 digits or more).

    Its bytes are checked against its id, and its card against the run's signature. Raises RunError
    where the folder is no run's or cannot be read, ConfigError where the run names an architecture
    that cannot be imported, ModelMissingError for a name that is none or
    several, PayloadError for bytes or a card that were changed.
    """
    try:
        tables = tomllib.loads((path / "run.toml").read_text("utf-8"))
    except (FileNotFoundError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"run folder {path}: got no readable run.toml, wanted a run's") from error
    catalogue = RunFolder(path).read_state().catalogue
    card = _choose(catalogue, name)
    try:
        public_key = (path / "keys" / "server.pub").read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"run folder {path}: got no keys/server.pub, wanted the run's") from error
    verify_card(tables["run"]["id"], card, public_key, former=True)
    architecture = without_streams(card.architecture)[0]
    load_references({architecture} & set(config_from_dict(tables["config"]).plug_ins))
    task = RunFolder(path).read_task()
    payload = open_store(path / "models", task).part(card.model_id, "exact")
    shapes = parameter_shapes(card.architecture, task)
    folder = RunFolder(path)
    rows = folder.read_rows(folder.count_rounds())
    return FinishedModel(
        run=tables["run"]["id"],
        seed=tables["run"]["seed"],
        task=task,
        card=card,
        payload=payload,
        parameters=decode_payload(payload, shapes, card.model_id)[1],
        lineage=_lineage(card, catalogue),
        row=next((row for row in rows if row.model_id == card.model_id), None),
        data_licence=_licence(tables["config"]["world"]),
    )


def _choose(catalogue: Catalogue, name: str) -> ModelCard:
    matches = list(catalogue.of_domains([name]))
    if not matches and len(name) >= 8:
        matches = [card for card in catalogue if card.model_id.startswith(name)]
    if len(matches) != 1:
        some = ", ".join(card.domain_id for card in catalogue[:5])
        raise ModelMissingError(
            f"model {name!r}: got {len(matches)} of {len(catalogue)} in the catalogue, wanted one: "
            f"a domain's id ({some}, ...) or the first digits of a model's"
        )
    return matches[0]


def _lineage(card: ModelCard, catalogue: Catalogue) -> tuple[ModelCard, ...]:
    lineage = [card]
    for each in lineage:  # which grows: breadth first
        found = {card.model_id for card in lineage}
        parents = catalogue.find(each.parents)
        lineage += [parents[p] for p in dict.fromkeys(each.parents) if p in parents.keys() - found]
    return tuple(lineage)


def _licence(world: Mapping[str, Any]) -> str:
    if world.get("kind", "imu") != "folder":
        return _EMBEDDED_LICENCE
    try:
        return read_dataset(Path(world["path"])).licence
    except DataError:
        return "not known: the data's folder is not there any more"
