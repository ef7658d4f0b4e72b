"""The second selection stage, on the device: score each candidate's base on the domain's own rows.

Legend: L labelled, N all rows a device may learn from, C classes, F features, S candidates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig
from graft.core.exchange import ProbeRequest, Selection
from graft.core.records import BoolArray, Candidate, FloatArray, IntArray, ModelCard, RejectedSource
from graft.core.streams import Rows, as_rows
from graft.devices import affordable_sources
from graft.errors import ArchitectureError, BudgetError, PolicyError
from graft.methods import find_method
from graft.models import Network
from graft.rounds.device import Device
from graft.selection import (
    Reason,
    above_chance,
    centroid_consistency,
    disagreeing_sources,
    logit_outliers,
    rank_scores,
    verify_source,
)
from graft.selection.scores import SourceOutputs, probe_scores, require_sensitivity
from graft.training import features_in_batches, log_probabilities, predictions_of

Key = tuple[str, str]  # a card's model and domain: a card may name another domain's model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Rows:
    """The domain's train rows; ``labelled_N`` marks those of y_L."""

    x_N: Rows
    train_N: IntArray
    labelled_N: BoolArray
    y_L: IntArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Probed:
    """A candidate that was accepted so far; ``log_NC`` only where disagreement is checked."""

    card: ModelCard
    mean_logit: float
    scores: Mapping[str, float]
    log_NC: FloatArray | None


def probe(request: ProbeRequest, device: Device) -> Selection:
    """A2: fetch each candidate's base, verify and score it on the domain's rows, choose the best.

    A site whose policy adds noise verifies nothing here, because a rejection would tell of its rows
    without noise, and ranks by noisy scores.

    Raises TransportError or PayloadError where a base does not come, ArchitectureError where
    not even the best source fits the device, PolicyError where the site answers no more probes.
    """
    asked = ("probe", request.domain_id, request.round_index, request.method,
             [_key(card) for card in request.candidates])  # fmt: skip
    name = f"probe of {request.domain_id}"
    device.policy.admit_probe(name, request.round_index, asked)
    rows = _train_rows(request, device)
    reasons: dict[Key, Reason] = {}
    probed: list[_Probed] = []
    median_distance = np.median(request.coarse_distances) if request.coarse_distances else 0.0
    for card, distance in zip(request.candidates, request.coarse_distances, strict=True):
        try:
            outcome = _probe_card(card, bool(distance <= median_distance), rows, device)
        except BudgetError:  # it came in vain once, and may not come again
            continue
        if isinstance(outcome, _Probed):
            probed.append(outcome)
        else:
            reasons[_key(card)] = outcome
    if not device.policy.adds_noise:
        probed = _compare(probed, rows, device, reasons)
    scores = rank_scores(
        _released_scores(name, asked, probed, rows, device), device.config.selection
    )
    score_of = {_key(each.card): float(s) for each, s in zip(probed, scores, strict=True)}
    ranked = sorted(
        (each.card for each in probed), key=lambda card: (-score_of[_key(card)], card.domain_id)
    )
    return _selection(request, score_of, _chosen(ranked, request, device), reasons)


def _released_scores(
    name: str, asked: tuple[object, ...], probed: Sequence[_Probed], rows: _Rows, device: Device
) -> dict[str, list[float]]:
    """Each score of each candidate, with noise where the site's policy adds it."""
    wanted = probe_scores(device.config.selection.score, device.output)
    score_S = {score.name: [each.scores[score.name] for each in probed] for score in wanted}
    if not probed or not device.policy.adds_noise:
        return score_S
    # A row moves the score of each candidate.
    each_way = math.sqrt(len(probed))
    sizes = (len(rows.y_L), len(rows.x_N), device.task.num_classes)
    noisy = device.policy.noisy(name, asked, {
        score.name: (np.array(score_S[score.name]),
                     each_way * require_sensitivity(score, PolicyError)(*sizes))
        for score in wanted
    })  # fmt: skip
    return {part: values_S.tolist() for part, values_S in noisy.items()}


def _key(card: ModelCard) -> Key:
    return card.model_id, card.domain_id


def _train_rows(request: ProbeRequest, device: Device) -> _Rows:
    split, data = device.rows(request), device.data
    labelled_N = np.isin(split.train_N, split.labelled_N)
    return _Rows(
        x_N=as_rows(data.x, split.train_N),
        train_N=split.train_N,
        labelled_N=labelled_N,
        y_L=data.y_N[split.train_N][labelled_N],
    )


@torch.no_grad()
def _probe_card(
    card: ModelCard, claims_near: bool, rows: _Rows, device: Device
) -> _Probed | Reason:
    """Run a candidate's base on the rows: its scores, or why it is rejected by itself."""
    network = device.network(card, "base")
    every = device.frozen_features(network, card.architecture)
    if every is None:
        features_NF = features_in_batches(network, rows.x_N)
    else:
        features_NF = every[torch.from_numpy(rows.train_N)].as_subclass(Tensor)
    logits_NC = network.head(features_NF)
    mask_C = torch.from_numpy(card.class_mask_C)
    logits_LC = network.head(features_NF[torch.from_numpy(rows.labelled_N)])
    probabilities_LC = predictions_of(logits_LC, mask_C, device.output)
    mean_logit = float(logits_NC.abs().mean())
    of_classes = device.output == "classes"
    if device.output == "amount" and np.isfinite(mean_logit):
        mean_logit = 0.0  # amounts have whatever size they have
    reason = verify_source(
        mean_logit,
        consistency_of(card, network, device.config),
        not of_classes
        or above_chance(probabilities_LC.argmax(1).numpy(), rows.y_L, card.class_mask_C),
        claims_near=claims_near,
        config=device.config.trust,
    )
    if reason is not None and not device.policy.adds_noise:
        return reason
    disagreement = device.config.trust.disagreement and of_classes
    outputs = SourceOutputs(
        features_LF=features_NF[torch.from_numpy(rows.labelled_N)].numpy(),
        features_NF=features_NF.numpy(),
        probabilities_LC=probabilities_LC.numpy(),
        y_L=rows.y_L,
        mask_C=card.class_mask_C,
        centroids_CF=card.centroids_CF,
    )
    return _Probed(
        card=card,
        mean_logit=mean_logit,
        scores={
            each.name: each(outputs)
            for each in probe_scores(device.config.selection.score, device.output)
        },
        log_NC=log_probabilities(logits_NC, mask_C) if disagreement else None,
    )


def consistency_of(card: ModelCard, network: Network, config: ExpansionConfig) -> float:
    """How well a card's centroids fit its model's head; infinite where they may have noise."""
    if card.centroids_CF is None or config.policy.epsilon is not None:
        return math.inf
    logits_CC = network.head(torch.from_numpy(card.centroids_CF))
    return centroid_consistency(logits_CC.numpy(), card.centroids_CF)


def _compare(
    probed: list[_Probed], rows: _Rows, device: Device, reasons: dict[Key, Reason]
) -> list[_Probed]:
    """The candidates that pass the checks against each other; ``reasons`` gets the others."""

    def without(rejected: Sequence[int], why: Reason) -> list[_Probed]:
        reasons.update({_key(probed[index].card): why for index in rejected})
        return [each for index, each in enumerate(probed) if index not in rejected]

    if device.config.trust.verify:
        probed = without(logit_outliers([each.mean_logit for each in probed]), "scale")
    if device.config.trust.disagreement and device.output == "classes" and probed:
        log_SNC = np.stack([each.log_NC for each in probed if each.log_NC is not None])
        mask_SC = np.stack([each.card.class_mask_C for each in probed])
        outliers = disagreeing_sources(log_SNC, rows.labelled_N, rows.y_L, mask_SC)
        probed = without(outliers, "disagreement")
    return probed


def _chosen(
    ranked: Sequence[ModelCard], request: ProbeRequest, device: Device
) -> tuple[ModelCard, ...]:
    """The best cards that fit the device, ``num_sources`` at most. For a method with
    ``warm_start``, where none of them has the target's architecture, the best card that has it
    replaces the last and comes first."""
    best = list(ranked[: device.config.selection.num_sources])
    same = [card for card in ranked if card.architecture == device.architecture]
    if find_method(request.method).warm_start and same and same[0] not in best:
        best = [same[0], *best[:-1]]
    try:
        return affordable_sources(best, device.architecture, device.task, device.device_class)
    except ArchitectureError:
        if request.allowance is None:
            raise
        return ()  # within a budget the device then learns from its own labels


def _selection(
    request: ProbeRequest,
    score_of: dict[Key, float],
    chosen: Sequence[ModelCard],
    reasons: dict[Key, Reason],
) -> Selection:
    pairs = list(zip(request.candidates, request.coarse_distances, strict=True))
    return Selection(
        domain_id=request.domain_id,
        candidates=tuple(
            Candidate(model_id=c.model_id, coarse_distance=d, joint_score=score_of.get(_key(c)))
            for c, d in pairs
        ),
        chosen=tuple(card.model_id for card in chosen),
        rejected=tuple(
            RejectedSource(
                by=request.domain_id, domain_id=c.domain_id, model_id=c.model_id,
                reason=reasons[_key(c)],
            )
            for c, _ in pairs
            if _key(c) in reasons
        ),
    )  # fmt: skip
