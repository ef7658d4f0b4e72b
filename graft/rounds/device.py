"""The device half of a round: describe, probe, learn, on the domain's own machine.

Legend: L labelled, U unlabelled, N all rows a device may learn from, C classes, F features.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.metrics import f1_score

from graft.config import ExpansionConfig
from graft.data.domain import DomainData
from graft.data.splits import DomainSplit, split_rows
from graft.devices import DeviceClass, affordable_sources
from graft.errors import DomainEmptyError, GraftError
from graft.methods import Method, find_method
from graft.ports import Clock, WeightTransport
from graft.profiling import class_centroids, profile_domain
from graft.seeding import derive_seed
from graft.selection import centroid_similarity, joint_scores, smoothed_accuracy
from graft.training import (
    Learned,
    Lesson,
    Prototypes,
    Source,
    features_in_batches,
    masked_probabilities,
    predict_in_batches,
)
from graft.values import (
    Answer,
    Candidate,
    DomainProfile,
    FloatArray,
    IntArray,
    LearnOrder,
    LearnReport,
    ModelCard,
    Order,
    Precision,
    ProbeOrder,
    ProfileOrder,
    Selection,
    Task,
    failure_of,
)
from graft.zoo import network_cost, network_from, parameters_of


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Device:
    """One domain's machine: its data and budget, and its ways out."""

    task: Task
    data: DomainData
    device_class: DeviceClass
    architecture: str
    config: ExpansionConfig
    transport: WeightTransport
    clock: Clock


def answer_order(order: Order, device: Device) -> Answer:
    """Carry out one order; what goes wrong on purpose comes back as a named failure."""
    try:
        if isinstance(order, ProfileOrder):
            return _describe(order, device)
        if isinstance(order, ProbeOrder):
            return _probe(order, device)
        return _learn(order, device)
    except GraftError as error:
        return failure_of(order, error)


def _rows(order: Order, device: Device) -> DomainSplit:
    """The domain's split. A founder is fully labelled (A7)."""
    split = split_rows(device.data, device.config.split, device.config.seed)
    founder = order.round_index == 0
    return replace(split, labelled_N=split.train_N) if founder else split


def _describe(order: ProfileOrder, device: Device) -> DomainProfile:
    rows = _rows(order, device)
    return profile_domain(
        order.domain_id,
        device.task,
        device.data.x[rows.train_N],
        device.data.y_N[rows.labelled_N],
        device.config.policy,
    )


def _probe(order: ProbeOrder, device: Device) -> Selection:
    """A2: fetch each candidate's base, score it on the device's own rows, keep the best."""
    rows = _rows(order, device)
    x_N = torch.from_numpy(device.data.x[rows.train_N])
    labelled = torch.from_numpy(np.isin(rows.train_N, rows.labelled_N))
    y_L = device.data.y_N[rows.train_N][labelled.numpy()]
    similarity, accuracy = [], []
    for card in order.candidates:
        network = network_from(card.architecture, device.task, device.transport.fetch(card, "base"))
        features_NF = features_in_batches(network, x_N)
        similarity.append(centroid_similarity(features_NF.numpy(), card.centroids_CF))
        mask_C = torch.from_numpy(card.class_mask_C)
        with torch.no_grad():
            probabilities_LC = masked_probabilities(network.head(features_NF[labelled]), mask_C)
        accuracy.append(smoothed_accuracy(probabilities_LC.numpy(), y_L, card.class_mask_C))
    scores = joint_scores(similarity, accuracy, device.config.selection.score_mix)
    candidates = tuple(
        Candidate(model_id=card.model_id, coarse_distance=distance, joint_score=float(score))
        for card, distance, score in zip(
            order.candidates, order.coarse_distances, scores, strict=True
        )
    )
    ranked = sorted(
        zip(candidates, order.candidates, strict=True),
        key=lambda pair: (-(pair[0].joint_score or 0.0), pair[1].domain_id),
    )
    wanted = [card for _, card in ranked[: device.config.selection.num_sources]]
    if find_method(order.method).warm_start:
        wanted = _with_a_start(wanted, [card for _, card in ranked], device.architecture)
    kept = affordable_sources(wanted, device.architecture, device.task, device.device_class)
    return Selection(
        domain_id=order.domain_id,
        candidates=candidates,
        chosen=tuple(card.model_id for card in kept),
    )


def _with_a_start(
    wanted: list[ModelCard], ranked: list[ModelCard], architecture: str
) -> list[ModelCard]:
    """The wanted cards; where none is of the architecture, the best that is comes first, for
    the last of them."""
    kin = [card for card in ranked if card.architecture == architecture]
    if not kin or any(card.architecture == architecture for card in wanted):
        return wanted
    return [kin[0], *wanted[:-1]]


def _learn(order: LearnOrder, device: Device) -> LearnReport:
    """Fetch the sources, run the method, test the result, register it where asked."""
    rows, data, config = _rows(order, device), device.data, device.config
    if len(rows.labelled_N) < 2:
        raise DomainEmptyError(
            f"domain {order.domain_id}: got {len(rows.labelled_N)} labelled rows, wanted 2 or more"
        )
    method = find_method(order.method)
    cards = _cards_to_fetch(method, order, device)
    sources = tuple(_fetch_source(card, device, method.precision) for card in cards)
    group_cards = [card for card in order.groups if card.architecture == device.architecture]
    unlabelled_N = rows.unlabelled_N
    lesson = Lesson(
        task=device.task,
        architecture=device.architecture,
        x_L=torch.from_numpy(data.x[rows.labelled_N]),
        y_L=torch.from_numpy(data.y_N[rows.labelled_N]),
        x_U=torch.from_numpy(data.x[unlabelled_N]),
        sources=sources,
        config=config,
        seed=derive_seed("learn", config.seed, order.domain_id, order.round_index),
        hidden_y_U=torch.from_numpy(data.y_N[unlabelled_N]),
        group=_fetch_source(group_cards[0], device, "exact") if group_cards else None,
        prototypes=_prototypes(order) if method.reach == "centroids" else (),
    )
    start_s = device.clock()
    learned = method.fit(lesson)
    compute_s = device.clock() - start_s
    metrics = {
        **learned.figures,
        **_test_metrics(learned, data.x[rows.test_N], data.y_N[rows.test_N]),
        "num_labelled": float(len(lesson.x_L)),
        "num_unlabelled": float(len(lesson.x_U)),
    }
    training_bytes = network_cost(learned.architecture, device.task).training_memory_bytes
    source_bytes = sum(card.payload_bytes for card in (*cards, *group_cards[:1]))
    return LearnReport(
        domain_id=order.domain_id,
        round_index=order.round_index,
        method=order.method,
        architecture=learned.architecture,
        device_class=device.device_class.name,
        source_domains=tuple(source.domain_id for source in learned.used),
        metrics=metrics,
        compute_s=compute_s,
        peak_memory_bytes=training_bytes + source_bytes,
        card=_register(order, learned, lesson, device) if order.register else None,
    )


def _cards_to_fetch(method: Method, order: LearnOrder, device: Device) -> list[ModelCard]:
    """The sources of which the method needs the model itself."""
    if method.reach == "centroids":
        return []
    same = method.reach == "same-architecture"
    return [c for c in order.sources if not same or c.architecture == device.architecture]


def _prototypes(order: LearnOrder) -> tuple[Prototypes, ...]:
    """The class centroids that came with the order; a site may withhold its own."""
    return tuple(
        Prototypes(model_id=card.model_id, domain_id=card.domain_id, centroids_CF=card.centroids_CF)
        for card in order.sources
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


def _test_metrics(learned: Learned, x: FloatArray, y_N: IntArray) -> dict[str, float]:
    logits_NC = predict_in_batches(learned.network, torch.from_numpy(x))
    mask_C = torch.from_numpy(learned.mask_C)
    predicted_N = logits_NC.masked_fill(~mask_C, float("-inf")).argmax(1).numpy()
    return {
        "accuracy": float((predicted_N == y_N).mean()),
        "macro_f1": float(f1_score(y_N, predicted_N, average="macro", zero_division=0)),
        "num_test": float(len(y_N)),
    }


def _register(order: LearnOrder, learned: Learned, lesson: Lesson, device: Device) -> ModelCard:
    """Push the finished model and describe it. Where labels are few, the class centroids
    take the model's own predictions on U for labels."""
    pushed = device.transport.push(learned.architecture, parameters_of(learned.network))
    x_N = torch.cat([lesson.x_L, lesson.x_U])
    features_NF = features_in_batches(learned.network, x_N)
    with torch.no_grad():
        predicted_U = learned.network.head(features_NF[len(lesson.x_L) :]).argmax(1)
    y_N = torch.cat([lesson.y_L, predicted_U]).numpy()
    return ModelCard(
        model_id=pushed[0],
        domain_id=order.domain_id,
        architecture=learned.architecture,
        payload_bytes=pushed[1],
        base_bytes=pushed[2],
        residual_bytes=pushed[3],
        class_mask_C=learned.mask_C,
        round_index=order.round_index,
        parents=tuple(source.model_id for source in learned.used),
        centroids_CF=class_centroids(
            features_NF.numpy(), y_N, device.task.num_classes, device.config.policy
        ),
    )
