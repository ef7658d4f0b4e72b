"""Every score of every source for one target, beside the accuracy that the source truly brings.

Two probes: the source "as-is", and "renormalised", its batch-norm statistics re-estimated from
the target domain's rows without any label. Two truths, on rows that no score sees: "as-is", and
"taught", which is the renormalised source after its head was trained on L.

Legend: L labelled, U unlabelled, T test rows, N = L and U, S sources, C classes, F features.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig, TrainingConfig
from graft.core.exchange import ProfileRequest
from graft.core.payload import decode_payload
from graft.core.ports import ModelStore
from graft.core.records import BoolArray, FloatArray, IntArray, ModelCard
from graft.core.seeding import derive_seed
from graft.data.domain import World
from graft.data.splits import split_rows
from graft.methods.blocks.adaptation import renormalise
from graft.models import network_from
from graft.privacy import profile_domain
from graft.rounds import configured_policy
from graft.selection import joint_scores, profile_distances
from graft.selection.evaluation import random_scores
from graft.selection.scores import SCORES, SourceOutputs
from graft.selection.scores.distributions import profile_frechet_distances
from graft.training import (
    Source,
    features_in_batches,
    masked_probabilities,
    minimise,
    parameter_group,
)

NO_PROBE, AS_IS, RENORMALISED = "none", "as-is", "renormalised"
TRUTHS = (AS_IS, "taught")
# Two scores of one probe, mixed half and half by A2's formula.
PAIRS = {
    "joint (A2)": ("accuracy", "similarity"),
    "joint (linear probe)": ("likelihood", "linear-probe"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Offer:
    """A source model as the catalogue offers it, and its features of its own domain's rows."""

    card: ModelCard
    source: Source
    own_MF: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A domain's rows, labelled ones first in ``x_N``, and the profile that it would send."""

    domain_id: str
    x_N: Tensor
    y_L: Tensor
    x_T: Tensor
    y_T: Tensor
    statistics_D: FloatArray


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One score of one source: its value, and the CPU seconds it took beyond the probe's own."""

    source: str
    architecture: str
    probe: str
    score: str
    value: float
    seconds: float
    truth_as_is: float
    truth_taught: float


def open_offer(card: ModelCard, world: World, store: ModelStore, config: ExpansionConfig) -> Offer:
    """The model behind an source's card, run over the source's own training rows."""
    _, parameters = decode_payload(store.part(card.model_id, "exact"), None, card.model_id)
    network = network_from(card.architecture, world.task, parameters)
    data = world.load(card.domain_id)
    rows = split_rows(data, config.split, config.seed)
    source = Source(
        model_id=card.model_id,
        domain_id=card.domain_id,
        architecture=card.architecture,
        network=network,
        mask_C=card.class_mask_C,
    )
    own_MF = features_in_batches(network, torch.from_numpy(data.x[rows.train_N])).numpy()
    return Offer(card=card, source=source, own_MF=own_MF)


def open_target(domain_id: str, world: World, config: ExpansionConfig) -> Target:
    """A domain's rows as every method of the system gets them."""
    data = world.load(domain_id)
    rows = split_rows(data, config.split, config.seed)
    y_L = data.y_N[rows.labelled_N]
    x = data.x[rows.train_N]
    policy = configured_policy(ProfileRequest(domain_id=domain_id, round_index=1), config)
    profile = profile_domain(domain_id, world.task, x, y_L, policy)
    order_N = np.concatenate([rows.labelled_N, rows.unlabelled_N])
    return Target(
        domain_id=domain_id,
        x_N=torch.from_numpy(data.x[order_N]),
        y_L=torch.from_numpy(y_L),
        x_T=torch.from_numpy(data.x[rows.test_N]),
        y_T=torch.from_numpy(data.y_N[rows.test_N]),
        statistics_D=profile.statistics_D,
    )


def measure(
    target: Target, offers: Sequence[Offer], config: ExpansionConfig
) -> tuple[list[Scored], dict[str, float]]:
    """Every score of every source, and the mean CPU seconds of each probe's own forward passes."""
    values: dict[tuple[str, str], list[float]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    truths: dict[str, list[float]] = {truth: [] for truth in TRUTHS}
    probing: dict[str, list[float]] = {AS_IS: [], RENORMALISED: []}
    label_mask = np.bincount(target.y_L.numpy(), minlength=len(offers[0].source.mask_C)) > 0
    for offer in offers:
        adapted = None
        for name in (AS_IS, RENORMALISED):
            started_s = time.thread_time()
            if name == AS_IS:
                source = offer.source
            else:
                source = adapted = _adapted(offer.source, target.x_N, label_mask)
            probe = _probe(source, target, offer)
            probing[name].append(time.thread_time() - started_s)
            for score, function in SCORES.items():
                if "classes" not in function.outputs:
                    continue
                value, taken_s = _timed(lambda f=function, p=probe: f(p))
                values.setdefault((name, score), []).append(value)
                seconds.setdefault((name, score), []).append(taken_s)
        truths[AS_IS].append(_accuracy(offer.source, target))
        assert adapted is not None
        soft_targets = _teach_head(adapted, target, config)
        truths["taught"].append(_accuracy(soft_targets, target))
    for name in (AS_IS, RENORMALISED):
        for pair, (first, second) in PAIRS.items():
            both = [values[name, part] for part in (first, second)]
            mixed, taken_s = _timed(lambda b=both: joint_scores(b[1], b[0], 0.5))
            values[name, pair] = list(mixed)
            taken_S = np.array(seconds[name, first]) + np.array(seconds[name, second])
            seconds[name, pair] = list(taken_S + taken_s / len(offers))
    for score, function in _cloud_scores(target, offers, config).items():
        result, taken_s = _timed(function)
        values[NO_PROBE, score] = list(result)
        seconds[NO_PROBE, score] = [taken_s / len(offers)] * len(offers)
    rows = [
        Scored(
            source=offer.card.domain_id,
            architecture=offer.card.architecture,
            probe=name,
            score=score,
            value=float(values[name, score][place]),
            seconds=seconds[name, score][place],
            truth_as_is=truths[AS_IS][place],
            truth_taught=truths["taught"][place],
        )
        for name, score in values
        for place, offer in enumerate(offers)
    ]
    return rows, {name: float(np.mean(taken)) for name, taken in probing.items()}


def _cloud_scores(
    target: Target, offers: Sequence[Offer], config: ExpansionConfig
) -> dict[str, Callable[[], np.ndarray]]:
    """What the server can tell from cards alone, before any model is shipped."""
    profiles_SD = np.stack([offer.card.profile.statistics_D for offer in offers])
    own_D = target.statistics_D
    widths_S = np.array([float(offer.source.network.num_features) for offer in offers])
    return {
        "random": lambda: random_scores(len(offers), config.seed, target.domain_id),
        "feature width": lambda: widths_S,
        "coarse (A1)": lambda: -profile_distances(own_D, profiles_SD),
        "profile frechet": lambda: -profile_frechet_distances(own_D, profiles_SD),
    }


@torch.no_grad()
def _probe(source: Source, target: Target, offer: Offer) -> SourceOutputs:
    features_NF = features_in_batches(source.network, target.x_N)
    features_LF = features_NF[: len(target.y_L)]
    # The head knows what it learnt at home, whatever the target domain will teach it.
    mask_C = offer.source.mask_C
    logits_LC = source.network.head(features_LF)
    return SourceOutputs(
        features_LF=features_LF.numpy(),
        features_NF=features_NF.numpy(),
        probabilities_LC=masked_probabilities(logits_LC, torch.from_numpy(mask_C)).numpy(),
        y_L=target.y_L.numpy(),
        mask_C=mask_C,
        centroids_CF=offer.card.centroids_CF,
        source_MF=offer.own_MF,
    )


def _adapted(source: Source, x_N: Tensor, label_mask: BoolArray) -> Source:
    """The source with batch-norm statistics of x_N, knowing the classes of L too."""
    network = copy.deepcopy(source.network)
    renormalise(network, x_N)
    return replace(source, network=network, mask_C=source.mask_C | label_mask)


def _teach_head(source: Source, target: Target, config: ExpansionConfig) -> Source:
    """The source with its head trained on L at the rate of the main method's source heads."""
    training: TrainingConfig = config.training
    features_LF = features_in_batches(source.network, target.x_N[: len(target.y_L)])
    network = copy.deepcopy(source.network)
    mask_C = torch.from_numpy(source.mask_C)

    def loss_of(labelled_B: Tensor, _: Tensor) -> Tensor:
        probabilities_BC = masked_probabilities(network.head(features_LF[labelled_B]), mask_C)
        picked_B = probabilities_BC.gather(1, target.y_L[labelled_B][:, None])
        return -picked_B.clamp_min(1e-6).log().mean()

    groups = [parameter_group(network.head, training.source_learning_rate)]
    rows = len(target.x_N)
    seed = derive_seed("teach", config.seed, target.domain_id)
    minimise(loss_of, groups, len(target.y_L), rows - len(target.y_L), training, seed)
    return replace(source, network=network.eval())


@torch.no_grad()
def _accuracy(source: Source, target: Target) -> float:
    logits_TC = source.network.head(features_in_batches(source.network, target.x_T))
    predicted_T: IntArray = (
        masked_probabilities(logits_TC, torch.from_numpy(source.mask_C)).argmax(1).numpy()
    )
    return float((predicted_T == target.y_T.numpy()).mean())


def _timed(function: Callable[[], object]) -> tuple[object, float]:
    started_s = time.thread_time()
    result = function()
    return result, time.thread_time() - started_s
