"""Learning on a device: fetch the sources, run the method, test the result, register it.

Legend: L labelled, U unlabelled, N all rows a device may learn from, C classes, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig
from graft.core.records import (
    FloatArray,
    IntArray,
    ModelCard,
    Precision,
    RejectedSource,
    TrainRequest,
    TrainResult,
)
from graft.core.seeding import derive_seed
from graft.errors import DomainEmptyError
from graft.methods import Method, find_method
from graft.methods.fedavg import FEDAVG_LOCAL
from graft.models import Network, network_cost, network_from, parameters_of
from graft.privacy import class_centroids
from graft.rounds.device import Device
from graft.selection import disagreeing_sources
from graft.training import (
    Prototypes,
    Source,
    TrainedModel,
    TrainingTask,
    features_of_parts,
    log_probabilities,
    predict_in_batches,
)

FeaturesOf = Callable[[Network, Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreparedTraining:
    """A prepared request: the training task, and the cards it fetched for it."""

    request: TrainRequest
    device: Device
    task: TrainingTask
    fetched: tuple[ModelCard, ...]
    rejected: tuple[RejectedSource, ...]
    x_test: FloatArray
    y_test_N: IntArray


def learn(request: TrainRequest, device: Device) -> TrainResult:
    """Carry out one request by itself; raises GraftError."""
    prepared = prepare_training(request, device)
    start_s = device.clock()
    trained_model = find_method(request.method).fit(prepared.task)
    return evaluate_and_register(prepared, trained_model, device.clock() - start_s)


def prepare_training(request: TrainRequest, device: Device) -> PreparedTraining:
    """Fetch the sources and lay out the rows; raises GraftError where either is not there."""
    rows, data, config = device.rows(request), device.data, device.config
    if len(rows.labelled_N) < 2:
        raise DomainEmptyError(
            f"domain {request.domain_id}: got {len(rows.labelled_N)} labelled rows, wanted 2"
            " or more"
        )
    method = find_method(request.method)
    cards = _cards_to_fetch(method, request, device)
    sources = tuple(_fetch_source(card, device, method.precision) for card in cards)
    x_L, x_U = data.x[rows.labelled_N], data.x[rows.unlabelled_N]
    y_L = data.y_N[rows.labelled_N]
    sources, rejected = _agreeing(sources, x_L, x_U, y_L, request, config)
    group_cards = [
        card for card in request.architecture_averages if card.architecture == device.architecture
    ][:1]
    groups = [_fetch_source(card, device, "exact") for card in group_cards]
    unlabelled_N = rows.unlabelled_N
    task = TrainingTask(
        task=device.task,
        architecture=device.architecture,
        x_L=torch.from_numpy(x_L),
        y_L=torch.from_numpy(y_L),
        x_U=torch.from_numpy(x_U),
        sources=sources,
        config=config,
        seed=derive_seed("learn", config.seed, request.domain_id, request.round_index),
        hidden_y_U=torch.from_numpy(data.y_N[unlabelled_N]),
        average=groups[0] if groups else None,
        prototypes=_prototypes(request) if method.sources_needed == "centroids" else (),
    )
    return PreparedTraining(
        request=request,
        device=device,
        task=task,
        fetched=(*cards, *group_cards),
        rejected=rejected,
        x_test=data.x[rows.test_N],
        y_test_N=data.y_N[rows.test_N],
    )


def evaluate_and_register(
    prepared: PreparedTraining,
    trained_model: TrainedModel,
    compute_s: float,
    features_of: FeaturesOf = features_of_parts,
) -> TrainResult:
    """Test what was learnt, register it where asked, and report; raises GraftError."""
    request, device, task = prepared.request, prepared.device, prepared.task
    parts = [torch.from_numpy(prepared.x_test)]
    if request.register:
        parts.append(torch.cat([task.x_L, task.x_U]))
    tested_NF, *learnt_from = features_of(trained_model.network, parts)
    metrics = {
        **trained_model.figures,
        **_test_metrics(trained_model, tested_NF, prepared.y_test_N),
        "num_labelled": float(len(task.x_L)),
        "num_unlabelled": float(len(task.x_U)),
    }
    training_bytes = network_cost(trained_model.architecture, device.task).training_memory_bytes
    return TrainResult(
        domain_id=request.domain_id,
        round_index=request.round_index,
        method=request.method,
        architecture=trained_model.architecture,
        device_class=device.device_class.name,
        source_domains=tuple(source.domain_id for source in trained_model.used),
        metrics=metrics,
        compute_s=compute_s,
        peak_memory_bytes=training_bytes + sum(card.payload_bytes for card in prepared.fetched),
        card=_register(prepared, trained_model, learnt_from[0]) if request.register else None,
        rejected=prepared.rejected,
        # It has no noise of its own, and a budget is there for what others need.
        diagnostics=trained_model.diagnostics if device.policy.settings.epsilon is None else None,
    )


def _agreeing(
    sources: tuple[Source, ...],
    x_L: FloatArray,
    x_U: FloatArray,
    y_L: IntArray,
    request: TrainRequest,
    config: ExpansionConfig,
) -> tuple[tuple[Source, ...], tuple[RejectedSource, ...]]:
    """The sources that have a share in what is learnt, and those that have none."""
    if not config.trust.disagreement or len(sources) < 3:
        return sources, ()
    x_N = torch.from_numpy(np.concatenate([x_L, x_U]))
    log_SNC = np.stack(
        [
            log_probabilities(predict_in_batches(s.network, x_N), torch.from_numpy(s.mask_C))
            for s in sources
        ]
    )
    mask_SC = np.stack([source.mask_C for source in sources])
    out = disagreeing_sources(log_SNC, np.arange(len(x_N)) < len(x_L), y_L, mask_SC)
    rejected = tuple(
        RejectedSource(
            by=request.domain_id,
            domain_id=sources[place].domain_id,
            model_id=sources[place].model_id,
            reason="disagreement",
        )
        for place in out
    )
    return tuple(s for place, s in enumerate(sources) if place not in out), rejected


def _cards_to_fetch(method: Method, request: TrainRequest, device: Device) -> list[ModelCard]:
    """The sources of which the method needs the model itself."""
    if method.sources_needed == "centroids":
        return []
    same = method.sources_needed == "same-architecture"
    return [c for c in request.sources if not same or c.architecture == device.architecture]


def _prototypes(request: TrainRequest) -> tuple[Prototypes, ...]:
    """The class centroids that came with the order; a site may withhold its own."""
    return tuple(
        Prototypes(model_id=card.model_id, domain_id=card.domain_id, centroids_CF=card.centroids_CF)
        for card in request.sources
        if card.centroids_CF is not None
    )


def _fetch_source(card: ModelCard, device: Device, precision: Precision) -> Source:
    parameters = device.transport.fetch(card, precision)
    return Source(
        model_id=card.model_id,
        domain_id=card.domain_id,
        architecture=card.architecture,
        network=network_from(card.architecture, device.task, parameters),
        mask_C=card.class_mask_C,
    )


@torch.no_grad()
def _test_metrics(
    trained_model: TrainedModel, features_NF: Tensor, y_N: IntArray
) -> dict[str, float]:
    logits_NC = trained_model.network.head(features_NF)
    mask_C = torch.from_numpy(trained_model.mask_C)
    predicted_N = logits_NC.masked_fill(~mask_C, float("-inf")).argmax(1).numpy()
    return {
        "accuracy": float((predicted_N == y_N).mean()),
        "macro_f1": macro_f1(y_N, predicted_N),
        "num_test": float(len(y_N)),
    }


def macro_f1(y_N: IntArray, predicted_N: IntArray) -> float:
    """Mean of 2 TP / (2 TP + FP + FN) over the classes that are there or are predicted (0 to 1).

    As scikit-learn's, whose checks of its arguments take longer than a small model's test.
    """
    num_classes = int(max(y_N.max(), predicted_N.max())) + 1
    pairs = np.bincount(y_N * num_classes + predicted_N, minlength=num_classes**2)
    confusion_CC = pairs.reshape(num_classes, num_classes)
    said_C = confusion_CC.sum(0) + confusion_CC.sum(1)
    score_C = 2 * confusion_CC.diagonal()[said_C > 0] / said_C[said_C > 0]
    return float(score_C.mean())


def _register(
    prepared: PreparedTraining, trained_model: TrainedModel, features_NF: Tensor
) -> ModelCard:
    """Push the finished model and describe it by its features of L and U. Where labels are
    few, the class centroids take the model's own predictions on U for labels."""
    request, device, task = prepared.request, prepared.device, prepared.task
    pushed = device.transport.push(trained_model.architecture, parameters_of(trained_model.network))
    with torch.no_grad():
        predicted_U = trained_model.network.head(features_NF[len(task.x_L) :]).argmax(1)
    y_N = torch.cat([task.y_L, predicted_U]).numpy()
    return ModelCard(
        model_id=pushed[0],
        domain_id=request.domain_id,
        architecture=trained_model.architecture,
        payload_bytes=pushed[1],
        base_bytes=pushed[2],
        residual_bytes=pushed[3],
        class_mask_C=trained_model.mask_C,
        round_index=request.round_index,
        parents=tuple(source.model_id for source in trained_model.used),
        centroids_CF=_released_centroids(request, features_NF.numpy(), y_N, device),
    )


def _released_centroids(
    request: TrainRequest, features_NF: FloatArray, y_N: IntArray, device: Device
) -> FloatArray | None:
    """The class centroids as the site's policy lets them out."""
    if request.method == FEDAVG_LOCAL and device.policy.settings.epsilon is not None:
        return None  # nobody reads a group member's, and each would cost a release
    return class_centroids(
        f"centroids of {request.domain_id}",
        ("centroids", request.domain_id, request.round_index, request.method),
        features_NF,
        y_N,
        device.task.num_classes,
        device.policy,
    )
