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
    Demotion,
    FloatArray,
    IntArray,
    LearnOrder,
    LearnReport,
    ModelCard,
    Precision,
)
from graft.core.seeding import derive_seed
from graft.errors import DomainEmptyError
from graft.methods import Method, find_method
from graft.methods.fedavg import FEDAVG_LOCAL
from graft.models.zoo import Network, network_cost, network_from, parameters_of
from graft.privacy.profiling import class_centroids
from graft.rounds.device import Device
from graft.selection import outsiders
from graft.training import (
    Learned,
    Lesson,
    Prototypes,
    Source,
    features_of_parts,
    log_probabilities,
    predict_in_batches,
)

FeaturesOf = Callable[[Network, Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Study:
    """An order that a device has prepared for: the lesson, and the cards it fetched for it."""

    order: LearnOrder
    device: Device
    lesson: Lesson
    fetched: tuple[ModelCard, ...]
    demoted: tuple[Demotion, ...]
    x_test: FloatArray
    y_test_N: IntArray


def learn(order: LearnOrder, device: Device) -> LearnReport:
    """Carry out one order by itself; raises GraftError."""
    study = begin_study(order, device)
    start_s = device.clock()
    learned = find_method(order.method).fit(study.lesson)
    return finish_study(study, learned, device.clock() - start_s)


def begin_study(order: LearnOrder, device: Device) -> Study:
    """Fetch the sources and lay out the rows; raises GraftError where either is not there."""
    rows, data, config = device.rows(order), device.data, device.config
    if len(rows.labelled_N) < 2:
        raise DomainEmptyError(
            f"domain {order.domain_id}: got {len(rows.labelled_N)} labelled rows, wanted 2 or more"
        )
    method = find_method(order.method)
    cards = _cards_to_fetch(method, order, device)
    sources = tuple(_fetch_source(card, device, method.precision) for card in cards)
    x_L, x_U = data.x[rows.labelled_N], data.x[rows.unlabelled_N]
    y_L = data.y_N[rows.labelled_N]
    sources, demoted = _agreeing(sources, x_L, x_U, y_L, order, config)
    group_cards = [card for card in order.groups if card.architecture == device.architecture][:1]
    groups = [_fetch_source(card, device, "exact") for card in group_cards]
    unlabelled_N = rows.unlabelled_N
    lesson = Lesson(
        task=device.task,
        architecture=device.architecture,
        x_L=torch.from_numpy(x_L),
        y_L=torch.from_numpy(y_L),
        x_U=torch.from_numpy(x_U),
        sources=sources,
        config=config,
        seed=derive_seed("learn", config.seed, order.domain_id, order.round_index),
        hidden_y_U=torch.from_numpy(data.y_N[unlabelled_N]),
        group=groups[0] if groups else None,
        prototypes=_prototypes(order) if method.reach == "centroids" else (),
    )
    return Study(
        order=order,
        device=device,
        lesson=lesson,
        fetched=(*cards, *group_cards),
        demoted=demoted,
        x_test=data.x[rows.test_N],
        y_test_N=data.y_N[rows.test_N],
    )


def finish_study(
    study: Study, learned: Learned, compute_s: float, features_of: FeaturesOf = features_of_parts
) -> LearnReport:
    """Test what was learnt, register it where asked, and report; raises GraftError."""
    order, device, lesson = study.order, study.device, study.lesson
    parts = [torch.from_numpy(study.x_test)]
    if order.register:
        parts.append(torch.cat([lesson.x_L, lesson.x_U]))
    tested_NF, *learnt_from = features_of(learned.network, parts)
    metrics = {
        **learned.figures,
        **_test_metrics(learned, tested_NF, study.y_test_N),
        "num_labelled": float(len(lesson.x_L)),
        "num_unlabelled": float(len(lesson.x_U)),
    }
    training_bytes = network_cost(learned.architecture, device.task).training_memory_bytes
    return LearnReport(
        domain_id=order.domain_id,
        round_index=order.round_index,
        method=order.method,
        architecture=learned.architecture,
        device_class=device.device_class.name,
        source_domains=tuple(source.domain_id for source in learned.used),
        metrics=metrics,
        compute_s=compute_s,
        peak_memory_bytes=training_bytes + sum(card.payload_bytes for card in study.fetched),
        card=_register(study, learned, learnt_from[0]) if order.register else None,
        demoted=study.demoted,
        # It has no noise of its own, and a budget is there for what others need.
        trace=learned.trace if device.policy.settings.epsilon is None else None,
    )


def _agreeing(
    sources: tuple[Source, ...],
    x_L: FloatArray,
    x_U: FloatArray,
    y_L: IntArray,
    order: LearnOrder,
    config: ExpansionConfig,
) -> tuple[tuple[Source, ...], tuple[Demotion, ...]]:
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
    out = outsiders(log_SNC, np.arange(len(x_N)) < len(x_L), y_L, mask_SC)
    demoted = tuple(
        Demotion(
            by=order.domain_id,
            domain_id=sources[place].domain_id,
            model_id=sources[place].model_id,
            reason="disagreement",
        )
        for place in out
    )
    return tuple(s for place, s in enumerate(sources) if place not in out), demoted


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


@torch.no_grad()
def _test_metrics(learned: Learned, features_NF: Tensor, y_N: IntArray) -> dict[str, float]:
    logits_NC = learned.network.head(features_NF)
    mask_C = torch.from_numpy(learned.mask_C)
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


def _register(study: Study, learned: Learned, features_NF: Tensor) -> ModelCard:
    """Push the finished model and describe it by its features of L and U. Where labels are
    few, the class centroids take the model's own predictions on U for labels."""
    order, device, lesson = study.order, study.device, study.lesson
    pushed = device.transport.push(learned.architecture, parameters_of(learned.network))
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
        centroids_CF=_told_centroids(order, features_NF.numpy(), y_N, device),
    )


def _told_centroids(
    order: LearnOrder, features_NF: FloatArray, y_N: IntArray, device: Device
) -> FloatArray | None:
    """The class centroids as the site's policy lets them out."""
    if order.method == FEDAVG_LOCAL and device.policy.settings.epsilon is not None:
        return None  # nobody reads a group member's, and each would cost a release
    return class_centroids(
        f"centroids of {order.domain_id}",
        ("centroids", order.domain_id, order.round_index, order.method),
        features_NF,
        y_N,
        device.task.num_classes,
        device.policy,
    )
