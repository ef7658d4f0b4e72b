"""The averaging of architecture groups, by Flower's own FedAvg strategy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    Message,
    MessageType,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy import FedAvg

from graft.core.payload import decode_payload, encode_payload
from graft.core.ports import ModelStore
from graft.core.records import BFLOAT16, BoolArray, FloatArray, ModelCard, Parameters
from graft.core.seeding import derive_seed
from graft.core.tasks import Task
from graft.core.tensor_types import DTYPES, FLOAT_DTYPES, dtype_name, from_float, shape_of, to_float
from graft.models import build_network, parameters_of
from graft.rounds import Admission
from graft.rounds.architecture_averages import Members

_ARRAYS, _METRICS, _NUM_EXAMPLES = "arrays", "metrics", "num-examples"


class FlowerAveraging:
    """``Averaging`` over a model store; the cards it makes go through ``admit``.

    A group's card has the domain id ``group.<architecture>`` and neither profile nor centroids.
    Everything in a payload is averaged, batch-norm statistics too.
    """

    def __init__(self, store: ModelStore, admit: Admission, task: Task, seed: int) -> None:
        self._store = store
        self._admit = admit
        self._task = task
        self._seed = seed

    def begin(self, architecture: str) -> ModelCard:
        """The common initialisation, drawn from (seed, architecture); it knows no class yet."""
        seed = derive_seed("group", self._seed, architecture)
        network = build_network(architecture, self._task, seed)
        nothing_C = np.zeros(self._task.num_classes, np.bool_)
        return self._keep(architecture, parameters_of(network), nothing_C)

    def average(self, architecture: str, members: Members) -> ModelCard:
        """See ``Averaging.average``; the average knows every class that a member knows."""
        parts = [(self._store.part(card.model_id, "exact"), card, n) for card, n in members]
        parameters = [(decode_payload(part, None, card.model_id)[1], n) for part, card, n in parts]
        known_C: BoolArray = np.any([card.class_mask_C for card, _ in members], axis=0)
        return self._keep(architecture, average_parameters(parameters), known_C)

    def _keep(self, architecture: str, parameters: Parameters, mask_C: BoolArray) -> ModelCard:
        payload = encode_payload(architecture, parameters)
        model_id = self._store.put(payload, architecture)
        return self._admit(
            ModelCard(
                model_id=model_id,
                domain_id=f"group.{architecture}",
                architecture=architecture,
                payload_bytes=len(payload),
                base_bytes=self._store.num_bytes(model_id, "base"),
                residual_bytes=self._store.num_bytes(model_id, "residual"),
                class_mask_C=mask_C,
                round_index=0,
            )
        )


def average_parameters(members: Sequence[tuple[Parameters, int]]) -> Parameters:
    """The mean of one or more parameters, weighted by numbers of samples, as FedAvg makes it."""
    first, _ = members[0]
    dtypes = {name: dtype_name(shape_of(array)) for name, array in first.items()}
    # Whole numbers have no mean: positions and masks are those of the first.
    floats = {name: dtype for name, dtype in dtypes.items() if dtype in FLOAT_DTYPES}
    replies = [
        _reply(node, {name: _as_float(parameters[name], floats[name]) for name in floats}, samples)
        for node, (parameters, samples) in enumerate(members)
    ]
    arrays, _ = FedAvg(weighted_by_key=_NUM_EXAMPLES).aggregate_train(0, replies)
    assert arrays is not None
    means = {n: array.numpy().astype(np.float32, copy=False) for n, array in arrays.items()}
    return {n: _as_type(means[n], dtypes[n]) if n in floats else first[n] for n in first}


def _as_float(array: Any, dtype: str) -> FloatArray:
    return to_float(array.view(DTYPES[dtype]), dtype) if dtype == "BF16" else to_float(array, dtype)


def _as_type(mean: FloatArray, dtype: str) -> Any:
    stored = from_float(mean, dtype)
    return stored.view(BFLOAT16) if dtype == "BF16" else stored


def _reply(node: int, parameters: Parameters, num_samples: int) -> Message:
    """What a node would have answered to a train message of Flower's."""
    arrays = ArrayRecord({name: Array(values) for name, values in parameters.items()})
    metrics = MetricRecord({_NUM_EXAMPLES: num_samples})
    # Whole metadata, because a reply to a message can be made inside a Flower run only.
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=node,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=DEFAULT_TTL,
        message_type=MessageType.TRAIN,
    )
    content = RecordDict({_ARRAYS: arrays, _METRICS: metrics})
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload,no-any-return]
