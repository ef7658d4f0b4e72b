"""A grow request on the device: fetch the own model, grow it, test old and new, register it."""

from dataclasses import replace

import numpy as np
import torch

from graft.core.exchange import GrowRequest, TrainResult
from graft.core.records import BoolArray, IntArray
from graft.core.seeding import derive_seed
from graft.core.streams import Rows, as_rows
from graft.core.tasks import Task
from graft.errors import ConfigError, DomainEmptyError, EdgeError
from graft.lifelong.growth import GrowthTask, grow_classes, growth_method
from graft.models import Network
from graft.rounds.device import Device
from graft.rounds.training import evaluate_and_register, fetch_source
from graft.training import TrainedModel, TrainingTask, predict_in_batches


def grow(request: GrowRequest, device: Device) -> TrainResult:
    """Carry out one grow request.

    Raises EdgeError for a model of another domain, ConfigError for classes that the task does not
    have or that the model knows, and for a site that wants private training; DomainEmptyError
    without labelled rows of the new classes; and as a train request does.
    """
    way, card, what = growth_method(request.method), request.model, f"growth of {request.domain_id}"
    if card.domain_id != request.domain_id:
        raise EdgeError(f"{what}: got the model of {card.domain_id}, wanted its own")
    if device.policy.settings.train_epsilon is not None:
        raise ConfigError(f"{what}: got policy.train_epsilon, wanted none: it trains plainly")
    old_C, new_C = card.class_mask_C, class_mask(what, device.task, request.classes)
    if known := [n for n, k in zip(device.task.classes, old_C & new_C, strict=True) if k]:
        raise ConfigError(f"{what}: got class {known[0]!r}, which the model knows, wanted new ones")
    rows, data, config = device.rows(request), device.data, device.config
    labels_N = data.y_N[rows.labelled_N]
    labelled_N, old_N = rows.labelled_N[new_C[labels_N]], rows.labelled_N[old_C[labels_N]]
    if not len(labelled_N):
        raise DomainEmptyError(f"{what}: got no labelled row of {', '.join(request.classes)}")
    unlabelled_N = np.setdiff1d(rows.train_N, labelled_N)
    own = fetch_source(card, device, "exact")
    task = TrainingTask(
        domain_task=device.task.reading(data.inputs),
        architecture=card.architecture,
        x_L=as_rows(data.x, labelled_N),
        y_L=torch.from_numpy(data.y_N[labelled_N]),
        x_U=as_rows(data.x, unlabelled_N),
        sources=(own,),
        config=config,
        seed=derive_seed("grow", config.seed, request.domain_id, request.round_index),
        hidden_y_U=torch.from_numpy(data.y_N[unlabelled_N]),
    )
    start_s = device.clock()
    grown = grow_classes(
        GrowthTask(
            network=own.network, old_C=old_C, new_C=new_C,
            x_L=task.x_L, y_L=task.y_L, x_U=task.x_U,
            x_old=as_rows(data.x, old_N), y_old=torch.from_numpy(data.y_N[old_N]),
            training=config.training, seed=task.seed,
        ),
        way,
        config.growth.strength,
    )  # fmt: skip
    compute_s = device.clock() - start_s
    x, y_N = as_rows(data.x, rows.test_N), data.y_N[rows.test_N]
    metrics = {
        "old_accuracy_before": _accuracy(own.network, x, y_N, among_C=old_C, of_C=old_C),
        "old_accuracy": _accuracy(grown, x, y_N, among_C=old_C | new_C, of_C=old_C),
        "new_accuracy": _accuracy(grown, x, y_N, among_C=old_C | new_C, of_C=new_C),
    }
    model = TrainedModel(
        architecture=card.architecture,
        network=grown,
        mask_C=old_C | new_C,
        used=(own,),
        metrics={name: value for name, value in metrics.items() if value is not None},
    )
    result = evaluate_and_register(request, device, task, model, compute_s)
    return replace(result, source_domains=())


def class_mask(what: str, task: Task, classes: tuple[str, ...]) -> BoolArray:
    """The classes of these names, (C,); raises ConfigError for none or an unknown one."""
    if unknown := sorted(set(classes) - set(task.classes)):
        raise ConfigError(f"{what}: got class {unknown[0]!r}, wanted one of {list(task.classes)}")
    if not classes:
        raise ConfigError(f"{what}: got no class, wanted 1 or more")
    return np.isin(task.classes, classes)


def _accuracy(
    network: Network, x: Rows, y_N: IntArray, among_C: BoolArray, of_C: BoolArray
) -> float | None:
    """Share of the rows of some classes whose class is predicted; None where there is no row."""
    rows_N = of_C[y_N]
    if not rows_N.any():
        return None
    logits_NC = predict_in_batches(network, x[torch.from_numpy(rows_N)])
    predicted_N = logits_NC.masked_fill(~torch.from_numpy(among_C), float("-inf")).argmax(1)
    return float((predicted_N.numpy() == y_N[rows_N]).mean())
