"""The device half of a round: describe, probe, learn, on the domain's own machine.

Legend: L labelled, N all rows a device may learn from, C classes, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from graft.core.records import (
    Answer,
    BoolArray,
    Candidate,
    Demotion,
    DomainProfile,
    FloatArray,
    IntArray,
    LearnOrder,
    ModelCard,
    Order,
    ProbeOrder,
    ProfileOrder,
    Selection,
    failure_of,
)
from graft.devices.classes import affordable_sources
from graft.errors import GraftError
from graft.methods import find_method
from graft.models.zoo import Network, network_from
from graft.privacy.profiling import profile_domain
from graft.rounds.device import Device
from graft.rounds.training import Study, begin_study, finish_study, learn
from graft.selection import (
    Reason,
    beats_chance,
    centroid_consistency,
    centroid_similarity,
    find_fault,
    joint_scores,
    outsiders,
    overblown,
    smoothed_accuracy,
)
from graft.training import (
    features_in_batches,
    log_probabilities,
    masked_probabilities,
    quick_features,
)


def answer_order(order: Order, device: Device) -> Answer:
    """Carry out one order; what goes wrong on purpose comes back as a named failure."""
    try:
        if isinstance(order, ProfileOrder):
            return _describe(order, device)
        if isinstance(order, ProbeOrder):
            return _probe(order, device)
        return learn(order, device)
    except GraftError as error:
        return failure_of(order, error)


def answer_together(
    orders: Sequence[LearnOrder], devices: Sequence[Device], accelerator: str = "cpu"
) -> list[Answer]:
    """Carry out learn orders of one method side by side, their models trained as stacks.

    For a simulator that has many devices in one process, and a method that has ``fit_many``.
    ``accelerator`` is the torch device of the stacks. ``compute_s`` is an equal share of the
    time that all of them took.
    """
    fit_many = find_method(orders[0].method).fit_many
    assert fit_many is not None
    answers: dict[int, Answer] = {}
    studies: dict[int, Study] = {}
    for number, (order, device) in enumerate(zip(orders, devices, strict=True)):
        try:
            studies[number] = begin_study(order, device)
        except GraftError as error:
            answers[number] = failure_of(order, error)
    start_s = devices[0].clock()
    learned = fit_many([study.lesson for study in studies.values()], accelerator)
    compute_s = (devices[0].clock() - start_s) / max(len(studies), 1)
    for (number, study), model in zip(studies.items(), learned, strict=True):
        try:
            answers[number] = finish_study(study, model, compute_s, quick_features)
        except GraftError as error:
            answers[number] = failure_of(study.order, error)
    return [answers[number] for number in range(len(orders))]


def _describe(order: ProfileOrder, device: Device) -> DomainProfile:
    rows = device.rows(order)
    return profile_domain(
        order.domain_id,
        device.task,
        device.data.x[rows.train_N],
        device.data.y_N[rows.labelled_N],
        device.policy,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Probed:
    """What the probe found of one candidate that stood so far."""

    card: ModelCard
    size: float
    similarity: float
    accuracy: float
    log_NC: FloatArray | None


def _probe(order: ProbeOrder, device: Device) -> Selection:
    """A2: fetch each candidate's base, score it on the device's own rows, keep the best."""
    rows = device.rows(order)
    x_N = torch.from_numpy(device.data.x[rows.train_N])
    labelled = torch.from_numpy(np.isin(rows.train_N, rows.labelled_N))
    y_L = device.data.y_N[rows.train_N][labelled.numpy()]
    sound: list[_Probed] = []
    faults: dict[str, Reason] = {}
    trust = device.config.trust
    nearer = np.median(order.coarse_distances) if order.coarse_distances else 0.0
    for card, distance in zip(order.candidates, order.coarse_distances, strict=True):
        network = network_from(card.architecture, device.task, device.transport.fetch(card, "base"))
        features_NF = features_in_batches(network, x_N)
        mask_C = torch.from_numpy(card.class_mask_C)
        with torch.no_grad():
            logits_NC = network.head(features_NF)
            size = float(logits_NC.abs().mean())
            probabilities_LC = masked_probabilities(network.head(features_NF[labelled]), mask_C)
        fault = find_fault(
            size,
            _consistency(card, network, device),
            beats_chance(probabilities_LC.argmax(1).numpy(), y_L, card.class_mask_C),
            claims_near=bool(distance <= nearer),
            config=trust,
        )
        if fault is not None:
            faults[card.model_id] = fault
            continue
        sound.append(
            _Probed(
                card=card,
                size=size,
                similarity=centroid_similarity(features_NF.numpy(), card.centroids_CF),
                accuracy=smoothed_accuracy(probabilities_LC.numpy(), y_L, card.class_mask_C),
                log_NC=log_probabilities(logits_NC, mask_C) if trust.disagreement else None,
            )
        )
    if trust.verify:
        sound = _without(sound, overblown([each.size for each in sound]), "scale", faults)
    if trust.disagreement:
        out = _outsiders(sound, labelled.numpy(), y_L)
        sound = _without(sound, out, "disagreement", faults)
    similarity, accuracy = [s.similarity for s in sound], [s.accuracy for s in sound]
    scores = joint_scores(similarity, accuracy, device.config.selection.score_mix)
    score_of = {each.card.model_id: float(s) for each, s in zip(sound, scores, strict=True)}
    candidates = tuple(
        Candidate(
            model_id=card.model_id,
            coarse_distance=distance,
            joint_score=score_of.get(card.model_id),
        )
        for card, distance in zip(order.candidates, order.coarse_distances, strict=True)
    )
    ranked = sorted(
        (each.card for each in sound), key=lambda card: (-score_of[card.model_id], card.domain_id)
    )
    wanted = ranked[: device.config.selection.num_sources]
    if find_method(order.method).warm_start:
        wanted = _with_a_start(wanted, ranked, device.architecture)
    kept = affordable_sources(wanted, device.architecture, device.task, device.device_class)
    return Selection(
        domain_id=order.domain_id,
        candidates=candidates,
        chosen=tuple(card.model_id for card in kept),
        demoted=tuple(
            Demotion(
                by=order.domain_id,
                domain_id=card.domain_id,
                model_id=card.model_id,
                reason=faults[card.model_id],
            )
            for card in order.candidates
            if card.model_id in faults
        ),
    )


def _without(
    probed: Sequence[_Probed], out: Sequence[int], why: Reason, faults: dict[str, Reason]
) -> list[_Probed]:
    """The candidates but for the places in ``out``, whose fault is noted."""
    faults |= {probed[place].card.model_id: why for place in out}
    return [each for place, each in enumerate(probed) if place not in out]


def _outsiders(probed: Sequence[_Probed], labelled_N: BoolArray, y_L: IntArray) -> list[int]:
    """Places of candidates that agree with no others; see ``selection.trust.outsiders``."""
    if not probed:
        return []
    log_SNC = np.stack([each.log_NC for each in probed if each.log_NC is not None])
    mask_SC = np.stack([each.card.class_mask_C for each in probed])
    return outsiders(log_SNC, labelled_N, y_L, mask_SC)


def _consistency(card: ModelCard, network: Network, device: Device) -> float:
    """How far a card's centroids fit its model's head; infinite where noise may part them."""
    if card.centroids_CF is None or device.config.policy.epsilon is not None:
        return math.inf
    with torch.no_grad():
        logits_CC = network.head(torch.from_numpy(card.centroids_CF))
    return centroid_consistency(logits_CC.numpy(), card.centroids_CF)


def _with_a_start(
    wanted: list[ModelCard], ranked: list[ModelCard], architecture: str
) -> list[ModelCard]:
    """The wanted cards; where none is of the architecture, the best that is comes first, for
    the last of them."""
    kin = [card for card in ranked if card.architecture == architecture]
    if not kin or any(card.architecture == architecture for card in wanted):
        return wanted
    return [kin[0], *wanted[:-1]]
