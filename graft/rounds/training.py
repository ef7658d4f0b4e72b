"""A train request on the device: fetch the sources, run the method, test the model, register it.

Legend: L labelled, U unlabelled, N all rows a device may learn from, C classes, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from graft.core.config import ExpansionConfig
from graft.core.exchange import GrowRequest, TrainRequest, TrainResult
from graft.core.records import IntArray, ModelCard, Parameters, Precision, RejectedSource
from graft.core.results import required_metrics
from graft.core.seeding import derive_seed
from graft.core.streams import Rows, as_rows, concat
from graft.devices import can_train
from graft.errors import BudgetError, ConfigError, DomainEmptyError, PolicyError
from graft.methods import Method, require_private_training
from graft.methods.federated import FEDAVG_LOCAL
from graft.models import Features, build_network, network_cost, network_from, parameters_of
from graft.privacy import class_centroids, training_cost
from graft.rounds.device import Device
from graft.rounds.exchange_cost import DEVICE_LEAVES_OUT, effective_method, limit_steps
from graft.rounds.model_test import noisy_scores, scores_of_test
from graft.selection import disagreeing_sources
from graft.training import (
    PrivateTraining,
    Prototypes,
    Source,
    TrainedModel,
    TrainingTask,
    features_of_parts,
    log_probabilities,
    predict_in_batches,
)


def train(request: TrainRequest, device: Device) -> TrainResult:
    """Carry out one train request by itself; raises GraftError."""
    task = prepare_training(request, device)
    start_s = device.clock()
    method = effective_method(
        request.method, request.sources, request.allowance, lacking=device.lacks_streams
    )
    if device.compiled and method.fit_many is not None:
        (model,) = method.fit_many([task], device.accelerator)
    else:
        model = method.fit(task)
    return evaluate_and_register(request, device, task, model, device.clock() - start_s)


def prepare_training(request: TrainRequest, device: Device) -> TrainingTask:
    """Fetch the sources and lay out the rows; raises DomainEmptyError for fewer than two labelled
    rows, TransportError or PayloadError where a source does not come."""
    rows, data = device.rows(request), device.data
    config = limit_steps(device.config, request.max_steps)
    if len(rows.labelled_N) < 2:
        raise DomainEmptyError(
            f"domain {request.domain_id}: got {len(rows.labelled_N)} labelled rows, wanted 2"
            " or more"
        )
    method = effective_method(request.method, request.sources, request.allowance)
    cards = _source_cards(request, device)
    precision: Precision = "base" if request.base_only else method.precision
    sources = tuple(fetch_source(card, device, precision) for card in cards)
    x_L = as_rows(data.x, rows.labelled_N)
    y_L = torch.from_numpy(data.y_N[rows.labelled_N])
    x_U = as_rows(data.x, rows.unlabelled_N)
    # What a check finds is reported, and a report of it has no noise; and which sources agree
    # depends on all rows together, so that private training does without.
    can_compare = device.output == "classes" and not device.policy.bounds_rows
    if config.trust.disagreement and can_compare:
        sources = _agreeing(sources, concat([x_L, x_U]), y_L.numpy())
    private = _private_training(request, device, config, {"x_L": x_L, "y_L": y_L, "x_U": x_U})
    averages = [fetch_source(card, device, "exact") for card in _average_cards(request, device)]
    if private is None:
        every = _common_features(device, (*sources, *averages))
        if every is not None:
            x_L, x_U = every[rows.labelled_N], every[rows.unlabelled_N]
    offered = sorted({source.architecture for source in sources})
    return TrainingTask(
        domain_task=device.task.reading(data.inputs),
        architecture=device.architecture,
        x_L=x_L,
        y_L=y_L,
        x_U=x_U,
        sources=sources,
        config=config,
        seed=derive_seed("learn", config.seed, request.domain_id, request.round_index),
        hidden_y_U=torch.from_numpy(data.y_N[rows.unlabelled_N]),
        trainable=tuple(a for a in offered if can_train(a, device.task, device.device_class)),
        average=averages[0] if averages else None,
        pooled=_pooled(method, device),
        prototypes=_prototypes(request.sources) if method.sources_needed == "centroids" else (),
        private=private,
    )


def _common_features(device: Device, models: Sequence[Source]) -> Features | None:
    """Features of all rows, where one frozen encoder serves the device's own model and all these:
    then only heads are left to read and to train."""
    if any(model.architecture != device.architecture for model in models):
        return None
    own = build_network(device.architecture, device.task, 0) if not models else models[0].network
    return device.frozen_features(own, device.architecture)


def _private_training(
    request: TrainRequest, device: Device, config: ExpansionConfig, rows: Mapping[str, Rows]
) -> PrivateTraining | None:
    """How the site's policy wants a request's training on these rows to be private, if it does.

    Raises ConfigError for a method that cannot train so.
    """
    policy = device.policy
    settings = policy.settings
    if settings.train_epsilon is None:
        return None
    require_private_training(request.method)
    if device.output != "classes":
        raise ConfigError(
            f"policy.train_epsilon: got an output of kind {device.output!r}, wanted 'classes'"
        )
    tensors = {part: each for part, each in rows.items() if isinstance(each, Tensor)}
    if tensors.keys() != rows.keys():
        raise ConfigError(
            "policy.train_epsilon: got several streams, or one that is read from the disk, wanted "
            "one in memory"
        )
    epsilon, name = settings.train_epsilon, f"training of {request.domain_id}"
    sources = tuple(card.model_id for card in (*request.sources, *request.architecture_averages))
    asked = ("training", request.domain_id, request.round_index, request.method, sources)

    def pay(sample_rate: float, steps: int) -> tuple[float, np.random.Generator]:
        deviation, cost = training_cost(
            epsilon, settings.delta, sample_rate=sample_rate, steps=steps
        )
        data = {part: tensor.numpy() for part, tensor in tensors.items()}
        setting = (settings.train_clip, settings.train_head_only, config, torch.__version__)
        secret = policy.spend(name, (*asked, setting), data, cost)
        # Where every row is in every batch, the cost is of noise over the sensitivity, 2 C.
        return deviation * (2 if sample_rate >= 1 else 1), secret

    return PrivateTraining(
        clip_norm=settings.train_clip, pay=pay, head_only=settings.train_head_only
    )


def evaluate_and_register(
    request: TrainRequest | GrowRequest,
    device: Device,
    task: TrainingTask,
    model: TrainedModel,
    compute_s: float,
) -> TrainResult:
    """Test a trained model, register it where asked, and report; ``compute_s`` is the method's.

    Raises GraftError where the model cannot be pushed, or the site's policy releases no centroids.
    """
    if model.network.is_delta:  # the model is what its payload gives, to the bit
        parameters = parameters_of(model.network)
        rebuilt = network_from(model.architecture, device.task, parameters)
        model = replace(model, network=rebuilt)
    test_N = device.rows(request).test_N
    every = device.frozen_features(model.network, model.architecture)
    parts = [as_rows(device.data.x, test_N) if every is None else every[test_N]]
    if request.register:
        parts.append(concat([task.x_L, task.x_U]))
    test_NF, *train_NF = features_of_parts(model.network, parts, compiled=task.compiled)
    if isinstance(request, GrowRequest):
        cards: tuple[ModelCard, ...] = (request.model,)
        fetched = cards
    else:
        cards = _source_cards(request, device)
        fetched = (*cards, *_average_cards(request, device))
    source_ids = {source.model_id for source in task.sources}
    fetched_bytes = sum(card.payload_bytes for card in fetched)
    training_bytes = network_cost(model.architecture, device.task).training_memory_bytes
    result = TrainResult(
        domain_id=request.domain_id,
        round_index=request.round_index,
        method=request.method,
        architecture=model.architecture,
        device_class=device.device_class.name,
        source_domains=tuple(source.domain_id for source in model.used),
        metrics={
            **_scores(request, device, model, test_NF, device.data.y_N[test_N]),
            "num_labelled": float(len(task.x_L)),
            "num_unlabelled": float(len(task.x_U)),
        },
        compute_s=compute_s,
        peak_memory_bytes=training_bytes + fetched_bytes,
        rejected=tuple(
            RejectedSource(
                by=request.domain_id,
                domain_id=card.domain_id,
                model_id=card.model_id,
                reason="disagreement",
            )
            for card in cards
            if card.model_id not in source_ids
        ),
        # Diagnostics carry no noise, and the privacy budget is needed for profile and centroids.
        diagnostics=None if device.policy.bounds_rows else model.diagnostics,
    )
    card = _describe(request, device, task, model, train_NF[0]) if request.register else None
    return _send(result, card, parameters_of(model.network), device)


def _scores(
    request: TrainRequest | GrowRequest,
    device: Device,
    model: TrainedModel,
    test_NF: Tensor,
    y_N: IntArray,
) -> dict[str, float]:
    """The method's own metrics and those of the test; of the test alone where they have noise.

    Raises PolicyError where the policy wants noise and the output is none of classes.
    """
    policy, tested = device.policy, (model.network, model.mask_C, test_NF, y_N)
    if not policy.settings.noisy_metrics:
        return {**model.metrics, **scores_of_test(*tested, device.output)}
    what = f"scores of {request.domain_id}"
    if device.output != "classes":
        raise PolicyError(f"{what}: got an output of {device.output}, wanted classes for noise")
    asked = ("scores", request.domain_id, request.round_index, request.method)
    return noisy_scores(*tested, release=partial(policy.noisy, what, asked))


def _send(
    result: TrainResult, card: ModelCard | None, parameters: Parameters, device: Device
) -> TrainResult:
    """Push the model of ``card``, where there is one, and give the result that goes up.

    What may go up bounds both: the result goes without diagnostics, then without the method's own
    metrics, and last without the model. Raises BudgetError where even that is too long.
    """
    limit = device.limits.up_bytes
    if limit is None:
        return result if card is None else replace(result, card=_pushed(card, parameters, device))
    diagnostics, metrics, registration = DEVICE_LEAVES_OUT
    drafts = [result]
    if result.diagnostics is not None:
        drafts.append(replace(result, diagnostics=None, left_out=(diagnostics,)))
    required = {name: result.metrics[name] for name in required_metrics(device.output)}
    if result.metrics.keys() != required.keys():
        left_out = (*drafts[-1].left_out, metrics)
        drafts.append(replace(drafts[-1], metrics=required, left_out=left_out))
    for draft in drafts if card is not None else ():
        # The card's lengths are not known before the push, and no longer than these.
        room = limit - device.answer_bytes(replace(draft, card=card))
        try:
            if room >= 0 and card is not None:
                return replace(draft, card=_pushed(card, parameters, device, max_bytes=room))
        except BudgetError:
            continue
    missing = () if card is None else (registration,)
    for draft in drafts:
        draft = replace(draft, left_out=(*draft.left_out, *missing))
        if (num_bytes := device.answer_bytes(draft)) <= limit:
            return draft
    raise BudgetError(
        f"result of {result.domain_id}: got {num_bytes} bytes, wanted at most {limit}"
    )


def _pushed(
    card: ModelCard, parameters: Parameters, device: Device, max_bytes: int | None = None
) -> ModelCard:
    """The card of a model that was pushed."""
    limit = {} if max_bytes is None else {"max_bytes": max_bytes}
    model_id, exact_bytes, base_bytes, residual_bytes = device.transport.push(
        card.architecture, parameters, **limit
    )
    return replace(
        card,
        model_id=model_id,
        payload_bytes=exact_bytes,
        base_bytes=base_bytes,
        residual_bytes=residual_bytes,
    )


def _source_cards(request: TrainRequest, device: Device) -> tuple[ModelCard, ...]:
    """The sources of which the method needs the model itself."""
    needed = effective_method(request.method, request.sources, request.allowance).sources_needed
    if needed == "centroids":
        return ()
    if needed == "same-architecture":
        return tuple(c for c in request.sources if c.architecture == device.architecture)
    return request.sources


def _pooled(method: Method, device: Device) -> Source | None:
    """The model that a reference takes; raises ConfigError on a real device."""
    if not method.is_reference:
        return None
    if device.pooled is None:
        raise ConfigError(f"method: got the reference {method.name!r} outside of a simulation")
    return device.pooled(device.architecture)


def _average_cards(request: TrainRequest, device: Device) -> list[ModelCard]:
    """The average model of the device's architecture, if one was sent."""
    averages = request.architecture_averages
    return [card for card in averages if card.architecture == device.architecture][:1]


def fetch_source(card: ModelCard, device: Device, precision: Precision) -> Source:
    """A model as a source; raises TransportError or PayloadError where it does not come."""
    return Source(
        model_id=card.model_id,
        domain_id=card.domain_id,
        architecture=card.architecture,
        network=device.network(card, precision),
        mask_C=card.class_mask_C,
    )


def _prototypes(cards: Sequence[ModelCard]) -> tuple[Prototypes, ...]:
    """The class centroids that came with the cards; a site may withhold its own."""
    return tuple(
        Prototypes(model_id=c.model_id, domain_id=c.domain_id, centroids_CF=c.centroids_CF)
        for c in cards
        if c.centroids_CF is not None
    )


def _agreeing(sources: tuple[Source, ...], x_N: Rows, y_L: IntArray) -> tuple[Source, ...]:
    """The sources but for those that agree neither with the others nor with the labels."""
    if len(sources) < 3:
        return sources
    log_SNC = np.stack(
        [
            log_probabilities(predict_in_batches(s.network, x_N), torch.from_numpy(s.mask_C))
            for s in sources
        ]
    )
    mask_SC = np.stack([source.mask_C for source in sources])
    rejected = disagreeing_sources(log_SNC, np.arange(len(x_N)) < len(y_L), y_L, mask_SC)
    return tuple(source for index, source in enumerate(sources) if index not in rejected)


def _describe(
    request: TrainRequest | GrowRequest,
    device: Device,
    task: TrainingTask,
    model: TrainedModel,
    features_NF: Tensor,
) -> ModelCard:
    """The card of a finished model that is yet to be pushed, by its features of L and U. Labels are
    few, so the class centroids take the model's own predictions on U for labels."""
    centroids_CF = None
    # Nothing reads the centroids of a model that is averaged, and each release costs budget. Labels
    # and amounts have none.
    is_read = request.method != FEDAVG_LOCAL or not device.policy.adds_noise
    if is_read and device.output == "classes":
        with torch.no_grad():
            predicted_U = model.network.head(features_NF[len(task.x_L) :]).argmax(1)
        y_N = torch.cat([task.y_L, predicted_U]).numpy()
        centroids_CF = class_centroids(
            f"centroids of {request.domain_id}",
            ("centroids", request.domain_id, request.round_index, request.method),
            features_NF.numpy(), y_N, device.task.num_classes, device.policy,
        )  # fmt: skip
    return ModelCard(
        model_id="0" * 64,
        domain_id=request.domain_id,
        architecture=model.architecture,
        payload_bytes=2**46,
        base_bytes=2**46,
        residual_bytes=2**46,
        class_mask_C=model.mask_C,
        round_index=request.round_index,
        parents=tuple(source.model_id for source in model.used),
        centroids_CF=centroids_CF,
    )
