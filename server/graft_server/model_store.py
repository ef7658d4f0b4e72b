"""The server's durable model store: a folder of payloads named by their own SHA-256."""

import tempfile
from collections.abc import Callable, Collection, Container
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import torch

from graft.core.config import ExpansionConfig, TrustConfig
from graft.core.files import AnyPath, make_folder, place_file, replace_file, working_file
from graft.core.payload import (
    PayloadFacts,
    check_payload,
    decode_payload,
    read_header,
    write_payload,
)
from graft.core.ports import ModelStore
from graft.core.records import ModelCard
from graft.core.tasks import Task
from graft.core.tensor_types import Shapes
from graft.errors import (
    GraftError,
    ModelForgottenError,
    ModelMissingError,
    PayloadChangedError,
    PayloadLimitError,
    TransportError,
)
from graft.models import Backbone, network_cost, network_from, parameter_shapes
from graft.models.backbones import PREFIX, arrays_of, find_backbone
from graft.rounds.probe import consistency_of
from graft.selection import Reason, verify_source
from graft.wire.messages.checks import is_model_id
from graft.wire.payload.blocks import work_folder
from graft.wire.payload.parts import decode_base, split_file
from graft_server.forgetting import Tombstones
from graft_server.round_schedule import order_of

_COST_PREFIX = "work-"
_SUFFIXES = {"base": ".base", "residual": ".residual", "exact": ".safetensors"}
_FILES = {**_SUFFIXES, "order": ".order"}


class DirectoryStore:
    """``ModelStore`` in a folder; any number of processes may write it at once.

    A model is there once its ``<id>.safetensors`` is; its two parts lie beside it. Every file
    appears whole, under a name that its content decides, so writers cannot disagree.
    ``shapes_of(architecture)`` gives an architecture's tensor shapes or raises
    ArchitectureError. ``durable``: wait for the disk before a payload counts as stored.
    ``forgotten()``: ids of models that are neither stored nor given, even where a file is there.
    """

    def __init__(
        self,
        folder: AnyPath,
        *,
        shapes_of: Callable[[str], Shapes],
        durable: bool = False,
        forgotten: Callable[[], Container[str]] = frozenset,
    ) -> None:
        make_folder(folder, private=True)
        self.folder = folder
        self.shapes_of = shapes_of
        self._durable = durable
        self._forgotten = forgotten

    def put(self, payload: bytes, architecture: str) -> str:
        """Check and store a payload; returns its model id. Idempotent.

        Raises PayloadError for a payload outside the limits or of other shapes than the
        architecture's, ArchitectureError for an unknown architecture.
        """
        file = BytesIO(payload)
        facts = check_payload(file, len(payload), self.shapes_of(architecture))
        if facts.architecture != architecture:
            raise PayloadLimitError(f"payload is a {facts.architecture}, wanted {architecture}")
        name = facts.model_id
        self._check_remembered(name)
        if name not in self:
            base, residual = BytesIO(), BytesIO()
            split_file(facts, file, base, residual, None)
            self._write(name, "base", base.getvalue())
            self._write(name, "residual", residual.getvalue())
            self._write(name, "exact", payload)  # last: from here on the model is stored
        return name

    def keep_file(
        self, facts: PayloadFacts, payload: Path, work: Path, order: str | None = None
    ) -> None:
        """Move a payload file in that was checked against ``shapes_of``, and make its parts.

        It is gone from where it was. Working files lie in ``work``; a block is in memory.
        ``order``: for which order it was pushed (``order_of``).
        """
        self._check_remembered(facts.model_id)
        if facts.model_id in self:
            payload.unlink()
            return
        with payload.open("rb") as file:
            self._split_in(facts, file, work)
        if order is not None:
            self._write(facts.model_id, "order", order.encode())
        self._place(payload, facts.model_id, "exact")  # last, as in ``put``

    def keep_backbone(self, backbone: Backbone) -> str | None:
        """Store a public backbone that this machine has; its id, or None for one without a hash.

        Raises BackboneError where the weights have another hash.
        """
        if backbone.sha256 is None or (weights := find_backbone(backbone)) is None:
            return None
        if backbone.sha256 not in self:
            near = self.folder if isinstance(self.folder, Path) else None
            with (
                tempfile.TemporaryDirectory(prefix=".partial-", dir=near) as work,
                working_file(Path(work), _COST_PREFIX) as (path, file),
            ):
                write_payload(PREFIX + backbone.name, arrays_of(weights), file)
                self._place(path, backbone.sha256, "exact")
        return backbone.sha256

    def order(self, model_id: str) -> str | None:
        """For which order a model was pushed; None where no device pushed it by name."""
        path = self._path(model_id, "order")
        return path.read_text("utf-8") if path.exists() else None

    def model_ids(self) -> set[str]:
        """The ids of all stored models."""
        names = (path.name for path in self.folder.glob(f"*{_FILES['exact']}"))
        return {name.removesuffix(_FILES["exact"]) for name in names}

    def remove(self, model_ids: Collection[str]) -> None:
        """Remove models, those that are there."""
        for model_id in model_ids:
            for part in ("exact", *_FILES):  # the payload first: without it no model is stored
                self._path(model_id, part).unlink(missing_ok=True)

    def part(self, model_id: str, part: str) -> bytes:
        """The bytes of part "base", "residual" or "exact".

        Raises ModelMissingError for an unknown id, TransportError for an unknown part.
        """
        return self.path(model_id, part).read_bytes()

    def num_bytes(self, model_id: str, part: str) -> int:
        """The length of a part, in bytes; raises as ``part`` does."""
        return int(self.path(model_id, part).stat().st_size)

    def path(self, model_id: str, part: str) -> AnyPath:
        """The file that holds a part of a model; raises as ``part`` does."""
        if part not in _SUFFIXES:
            raise TransportError(f"part {part!r}: wanted one of {', '.join(_SUFFIXES)}")
        if model_id not in self:
            raise ModelMissingError(f"model {model_id!r:.80} is not in the store")
        path = self._path(model_id, part)
        if not path.exists():  # parts are a cache of the payload: make them again
            exact = self._path(model_id, "exact")
            near = self.folder if isinstance(self.folder, Path) else None
            with (
                tempfile.TemporaryDirectory(prefix=".partial-", dir=near) as work,
                exact.open("rb") as file,
            ):
                self._split_in(check_payload(file, exact.stat().st_size, None), file, Path(work))
        return path

    def __contains__(self, model_id: str) -> bool:
        if not is_model_id(model_id) or model_id in self._forgotten():
            return False
        return self._path(model_id, "exact").exists()

    def _check_remembered(self, model_id: str) -> None:
        if model_id in self._forgotten():
            raise ModelForgottenError(f"model {model_id}: was forgotten, wanted another")

    def _path(self, model_id: str, part: str) -> AnyPath:
        return self.folder / (model_id + _FILES[part])

    def _split_in(self, facts: PayloadFacts, payload: BinaryIO, work: Path) -> None:
        with (
            working_file(work, _COST_PREFIX) as (base_path, base),
            working_file(work, _COST_PREFIX) as (residual_path, residual),
        ):
            split_file(facts, payload, base, residual, work_folder(work, facts.shapes))
            self._place(base_path, facts.model_id, "base")
            self._place(residual_path, facts.model_id, "residual")

    def _place(self, temporary: Path, model_id: str, part: str) -> None:
        place_file(temporary, self._path(model_id, part), durable=self._durable)

    def _write(self, model_id: str, part: str, data: bytes) -> None:
        # A model is its owner's own; what a device may have, the depot gives it.
        replace_file(self._path(model_id, part), data, mode=0o600, durable=self._durable)


def open_store(folder: AnyPath, task: Task, *, durable: bool = False) -> DirectoryStore:
    """The store in ``folder`` for models of the zoo that do ``task``."""
    return DirectoryStore(
        folder,
        shapes_of=partial(parameter_shapes, task=task),
        durable=durable,
        forgotten=Tombstones(folder.parent),
    )


def check_stored(card: ModelCard, store: ModelStore, task: Task) -> ModelCard:
    """The card, if it describes the stored payload and fits the task.

    Raises PayloadChangedError where the payload was pushed for another order, or sizes or
    architecture differ from it,
    PayloadLimitError where mask or centroids have another shape than the model.
    """
    exact = store.part(card.model_id, "exact")
    order = store.order(card.model_id) if isinstance(store, DirectoryStore) else None
    own = order_of(card.domain_id, card.round_index)
    # A method may keep a source as it is; parents are sources that it was sent.
    if order not in (None, own) and card.model_id not in card.parents:
        raise PayloadChangedError(
            f"card of {card.domain_id}: got model {card.model_id}, which another order's device "
            "pushed, wanted its own"
        )
    architecture, shapes, _ = read_header(BytesIO(exact), len(exact))
    stored = (
        architecture,
        len(exact),
        store.num_bytes(card.model_id, "base"),
        store.num_bytes(card.model_id, "residual"),
    )
    announced = (card.architecture, card.payload_bytes, card.base_bytes, card.residual_bytes)
    if stored != announced:
        raise PayloadChangedError(
            f"card of {card.domain_id}: got {announced}, wanted {stored}, as stored"
        )
    num_features = network_cost(card.architecture, task).num_features
    num_classes = task.num_classes
    centroids_CF = card.centroids_CF
    if shapes != parameter_shapes(card.architecture, task):
        raise PayloadLimitError(f"card of {card.domain_id}: got tensors of another task")
    if card.class_mask_C.shape != (num_classes,):
        raise PayloadLimitError(
            f"card of {card.domain_id}: got a mask of {card.class_mask_C.shape}, "
            f"wanted ({task.num_classes},)"
        )
    if centroids_CF is not None and centroids_CF.shape != (num_classes, num_features):
        raise PayloadLimitError(
            f"card of {card.domain_id}: got centroids of {centroids_CF.shape}, "
            f"wanted {(num_classes, num_features)}"
        )
    return card


@torch.no_grad()
def find_fault(
    card: ModelCard, store: ModelStore, task: Task, config: ExpansionConfig
) -> Reason | None:
    """The fault of a stored model or its card that shows without any domain's rows, or None.

    "payload": bytes of another hash, that cannot be decoded, not finite or of other shapes.
    "scale", "centroids": as a target domain finds them, here on the card's own centroids.
    """
    shapes = parameter_shapes(card.architecture, task)
    try:
        check_stored(card, store, task)
        decode_payload(store.part(card.model_id, "exact"), shapes, card.model_id)
        _, parameters = decode_base(store.part(card.model_id, "base"), shapes)
    except GraftError:
        return "payload"
    network, size = network_from(card.architecture, task, parameters), 0.0
    if card.centroids_CF is not None and (known_C := card.centroids_CF.any(axis=1)).any():
        size = float(network.head(torch.from_numpy(card.centroids_CF[known_C])).abs().mean())
    consistency = consistency_of(card, network, config)
    return verify_source(size, consistency, True, claims_near=False, config=TrustConfig())
