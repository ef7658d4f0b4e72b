"""The second selection stage, on the device: score each candidate's base on the domain's own rows.

Legend: L labelled, N all rows a device may learn from, C classes, F features, S candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graft.core.records import (
    BoolArray,
    Candidate,
    FloatArray,
    IntArray,
    ModelCard,
    ProbeRequest,
    RejectedSource,
    Selection,
)
from graft.devices import affordable_sources
from graft.methods import find_method
from graft.models import Network, network_from
from graft.rounds.device import Device
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
from graft.training import features_in_batches, log_probabilities, masked_probabilities


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Rows:
    """The domain's train rows; ``labelled_N`` marks those of y_L."""

    x_N: Tensor
    labelled_N: BoolArray
    y_L: IntArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Outputs:
    """One candidate's outputs on the rows; ``consistency`` is that of its card's centroids."""

    features_NF: Tensor
    logits_NC: Tensor
    probabilities_LC: Tensor
    consistency: float

    @property
    def mean_logit(self) -> float:
        """Mean |logit|."""
        return float(self.logits_NC.abs().mean())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Probed:
    """A candidate that was accepted so far: its scores, without its outputs."""

    card: ModelCard
    mean_logit: float
    similarity: float
    accuracy: float
    log_NC: FloatArray | None


def probe(request: ProbeRequest, device: Device) -> Selection:
    """A2: fetch each candidate's base, verify and score it on the domain's rows, choose the best.

    Raises TransportError or PayloadError where a base does not come, ArchitectureError where
    not even the best source fits the device.
    """
    rows = _train_rows(request, device)
    reasons: dict[str, Reason] = {}
    probed: list[_Probed] = []
    median_distance = np.median(request.coarse_distances) if request.coarse_distances else 0.0
    for card, distance in zip(request.candidates, request.coarse_distances, strict=True):
        outputs = _outputs(card, rows, device)
        reason = _verify(card, outputs, rows, bool(distance <= median_distance), device)
        if reason is None:
            probed.append(_scored(card, outputs, rows, device))
        else:
            reasons[card.model_id] = reason
    probed = _compare(probed, rows, device, reasons)
    scores = joint_scores(
        [each.similarity for each in probed],
        [each.accuracy for each in probed],
        device.config.selection.score_mix,
    )
    score_of = {each.card.model_id: float(s) for each, s in zip(probed, scores, strict=True)}
    ranked = sorted(
        (each.card for each in probed), key=lambda card: (-score_of[card.model_id], card.domain_id)
    )
    return _selection(request, score_of, _chosen(ranked, request, device), reasons)


def _train_rows(request: ProbeRequest, device: Device) -> _Rows:
    split, data = device.rows(request), device.data
    labelled_N = np.isin(split.train_N, split.labelled_N)
    return _Rows(
        x_N=torch.from_numpy(data.x[split.train_N]),
        labelled_N=labelled_N,
        y_L=data.y_N[split.train_N][labelled_N],
    )


@torch.no_grad()
def _outputs(card: ModelCard, rows: _Rows, device: Device) -> _Outputs:
    """Fetch a candidate's base and run it on the rows."""
    parameters = device.transport.fetch(card, "base")
    network = network_from(card.architecture, device.task, parameters)
    features_NF = features_in_batches(network, rows.x_N)
    logits_LC = network.head(features_NF[torch.from_numpy(rows.labelled_N)])
    return _Outputs(
        features_NF=features_NF,
        logits_NC=network.head(features_NF),
        probabilities_LC=masked_probabilities(logits_LC, torch.from_numpy(card.class_mask_C)),
        consistency=_consistency(card, network, device),
    )


def _consistency(card: ModelCard, network: Network, device: Device) -> float:
    """How well a card's centroids fit its model's head; infinite where they may have noise."""
    if card.centroids_CF is None or device.config.policy.epsilon is not None:
        return math.inf
    logits_CC = network.head(torch.from_numpy(card.centroids_CF))
    return centroid_consistency(logits_CC.numpy(), card.centroids_CF)


def _verify(
    card: ModelCard, outputs: _Outputs, rows: _Rows, claims_near: bool, device: Device
) -> Reason | None:
    """Why the candidate is rejected by itself, or None."""
    predicted_L = outputs.probabilities_LC.argmax(1).numpy()
    return verify_source(
        outputs.mean_logit,
        outputs.consistency,
        above_chance(predicted_L, rows.y_L, card.class_mask_C),
        claims_near=claims_near,
        config=device.config.trust,
    )


def _scored(card: ModelCard, outputs: _Outputs, rows: _Rows, device: Device) -> _Probed:
    mask_C = card.class_mask_C
    log_NC = None
    if device.config.trust.disagreement:
        log_NC = log_probabilities(outputs.logits_NC, torch.from_numpy(mask_C))
    return _Probed(
        card=card,
        mean_logit=outputs.mean_logit,
        similarity=centroid_similarity(outputs.features_NF.numpy(), card.centroids_CF),
        accuracy=smoothed_accuracy(outputs.probabilities_LC.numpy(), rows.y_L, mask_C),
        log_NC=log_NC,
    )


def _compare(
    probed: list[_Probed], rows: _Rows, device: Device, reasons: dict[str, Reason]
) -> list[_Probed]:
    """The candidates that pass the checks against each other; ``reasons`` gets the others."""
    if device.config.trust.verify:
        outliers = logit_outliers([each.mean_logit for each in probed])
        probed = _without(probed, outliers, "scale", reasons)
    if device.config.trust.disagreement and probed:
        log_SNC = np.stack([each.log_NC for each in probed if each.log_NC is not None])
        mask_SC = np.stack([each.card.class_mask_C for each in probed])
        outliers = disagreeing_sources(log_SNC, rows.labelled_N, rows.y_L, mask_SC)
        probed = _without(probed, outliers, "disagreement", reasons)
    return probed


def _without(
    probed: Sequence[_Probed], rejected: Sequence[int], why: Reason, reasons: dict[str, Reason]
) -> list[_Probed]:
    reasons |= {probed[index].card.model_id: why for index in rejected}
    return [each for index, each in enumerate(probed) if index not in rejected]


def _chosen(
    ranked: Sequence[ModelCard], request: ProbeRequest, device: Device
) -> tuple[ModelCard, ...]:
    """The best cards that fit the device, ``num_sources`` at most.

    For a method with ``warm_start``, where none of them is of the target's own architecture, the
    best that is takes the last one's place and comes first.
    """
    best = list(ranked[: device.config.selection.num_sources])
    same = [card for card in ranked if card.architecture == device.architecture]
    if find_method(request.method).warm_start and same and same[0] not in best:
        best = [same[0], *best[:-1]]
    return affordable_sources(best, device.architecture, device.task, device.device_class)


def _selection(
    request: ProbeRequest,
    score_of: dict[str, float],
    chosen: Sequence[ModelCard],
    reasons: dict[str, Reason],
) -> Selection:
    candidates = tuple(
        Candidate(
            model_id=card.model_id,
            coarse_distance=distance,
            joint_score=score_of.get(card.model_id),
        )
        for card, distance in zip(request.candidates, request.coarse_distances, strict=True)
    )
    rejected = tuple(
        RejectedSource(
            by=request.domain_id,
            domain_id=card.domain_id,
            model_id=card.model_id,
            reason=reasons[card.model_id],
        )
        for card in request.candidates
        if card.model_id in reasons
    )
    return Selection(
        domain_id=request.domain_id,
        candidates=candidates,
        chosen=tuple(card.model_id for card in chosen),
        rejected=rejected,
    )
