"""The device half of a round: describe, probe, learn, on the domain's own machine.

Legend: L labelled, N all rows a device may learn from, C classes, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from graft.core.records import (
    BoolArray,
    Candidate,
    DomainProfile,
    FloatArray,
    IntArray,
    ModelCard,
    ProbeRequest,
    ProfileRequest,
    RejectedSource,
    Request,
    Response,
    Selection,
    TrainRequest,
    failure_of,
)
from graft.devices import affordable_sources
from graft.errors import GraftError
from graft.methods import find_method
from graft.models import Network, network_from
from graft.privacy import profile_domain
from graft.rounds.device import Device
from graft.rounds.training import PreparedTraining, evaluate_and_register, learn, prepare_training
from graft.selection import (
    Reason,
    above_chance,
    centroid_consistency,
    centroid_similarity,
    disagreeing_sources,
    joint_scores,
    logit_outliers,
    smoothed_accuracy,
    verify_source,
)
from graft.training import (
    features_in_batches,
    log_probabilities,
    masked_probabilities,
    quick_features,
)


def handle_request(request: Request, device: Device) -> Response:
    """Carry out one request; what goes wrong on purpose comes back as a named failure."""
    try:
        if isinstance(request, ProfileRequest):
            return _describe(request, device)
        if isinstance(request, ProbeRequest):
            return _probe(request, device)
        return learn(request, device)
    except GraftError as error:
        return failure_of(request, error)


def handle_together(
    requests: Sequence[TrainRequest], devices: Sequence[Device], accelerator: str = "cpu"
) -> list[Response]:
    """Carry out learn requests of one method side by side, their models trained as stacks.

    For a simulator that has many devices in one process, and a method that has ``fit_many``.
    ``accelerator`` is the torch device of the stacks. ``compute_s`` is an equal share of the
    time that all of them took.
    """
    fit_many = find_method(requests[0].method).fit_many
    assert fit_many is not None
    responses: dict[int, Response] = {}
    studies: dict[int, PreparedTraining] = {}
    for number, (request, device) in enumerate(zip(requests, devices, strict=True)):
        try:
            studies[number] = prepare_training(request, device)
        except GraftError as error:
            responses[number] = failure_of(request, error)
    start_s = devices[0].clock()
    trained_model = fit_many([prepared.task for prepared in studies.values()], accelerator)
    compute_s = (devices[0].clock() - start_s) / max(len(studies), 1)
    for (number, prepared), model in zip(studies.items(), trained_model, strict=True):
        try:
            responses[number] = evaluate_and_register(prepared, model, compute_s, quick_features)
        except GraftError as error:
            responses[number] = failure_of(prepared.request, error)
    return [responses[number] for number in range(len(requests))]


def _describe(request: ProfileRequest, device: Device) -> DomainProfile:
    rows = device.rows(request)
    return profile_domain(
        request.domain_id,
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


def _probe(request: ProbeRequest, device: Device) -> Selection:
    """A2: fetch each candidate's base, score it on the device's own rows, keep the best."""
    rows = device.rows(request)
    x_N = torch.from_numpy(device.data.x[rows.train_N])
    labelled = torch.from_numpy(np.isin(rows.train_N, rows.labelled_N))
    y_L = device.data.y_N[rows.train_N][labelled.numpy()]
    sound: list[_Probed] = []
    faults: dict[str, Reason] = {}
    trust = device.config.trust
    nearer = np.median(request.coarse_distances) if request.coarse_distances else 0.0
    for card, distance in zip(request.candidates, request.coarse_distances, strict=True):
        network = network_from(card.architecture, device.task, device.transport.fetch(card, "base"))
        features_NF = features_in_batches(network, x_N)
        mask_C = torch.from_numpy(card.class_mask_C)
        with torch.no_grad():
            logits_NC = network.head(features_NF)
            size = float(logits_NC.abs().mean())
            probabilities_LC = masked_probabilities(network.head(features_NF[labelled]), mask_C)
        fault = verify_source(
            size,
            _consistency(card, network, device),
            above_chance(probabilities_LC.argmax(1).numpy(), y_L, card.class_mask_C),
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
        sound = _without(sound, logit_outliers([each.size for each in sound]), "scale", faults)
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
        for card, distance in zip(request.candidates, request.coarse_distances, strict=True)
    )
    ranked = sorted(
        (each.card for each in sound), key=lambda card: (-score_of[card.model_id], card.domain_id)
    )
    wanted = ranked[: device.config.selection.num_sources]
    if find_method(request.method).warm_start:
        wanted = _with_a_start(wanted, ranked, device.architecture)
    kept = affordable_sources(wanted, device.architecture, device.task, device.device_class)
    return Selection(
        domain_id=request.domain_id,
        candidates=candidates,
        chosen=tuple(card.model_id for card in kept),
        rejected=tuple(
            RejectedSource(
                by=request.domain_id,
                domain_id=card.domain_id,
                model_id=card.model_id,
                reason=faults[card.model_id],
            )
            for card in request.candidates
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
    """Places of candidates that agree with no others; see ``source_checks.disagreeing_sources``."""
    if not probed:
        return []
    log_SNC = np.stack([each.log_NC for each in probed if each.log_NC is not None])
    mask_SC = np.stack([each.card.class_mask_C for each in probed])
    return disagreeing_sources(log_SNC, labelled_N, y_L, mask_SC)


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
