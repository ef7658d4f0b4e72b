"""Target domains as arrays that a peer's own package can read, from the accuracy matrix's own runs.

Legend: L labelled, U unlabelled, T test, N rows of L, U and T in that order, S sources, C classes,
D numbers of a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from graft.bench import jobs
from graft.bench.plan import Expansion, MatrixPlan
from graft.core.payload import encode_payload
from graft.core.records import FloatArray
from graft.core.streams import as_rows
from graft.data.splits import split_rows
from graft.methods import add_method, find_method
from graft.models import parameters_of
from graft.training import Source, TrainedModel, TrainingTask, predict_in_batches
from graft.wire.payload.parts import split_payload

CAPTURE = "capture"
_captured: list[TrainingTask] = []


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PeerTask:
    """One target domain's file, and what it is called."""

    data: str
    seed: int
    gamma: float
    domain_id: str
    path: Path


def export_tasks(plan: MatrixPlan, folder: Path) -> Iterator[PeerTask]:
    """Write a file a target domain of a plan whose only method is ``CAPTURE``.

    Every source is asked for all rows, with the weights that a device probes: the int8 base. What a
    peer computes with those predictions is what it would compute with the models.
    """
    for expansion in plan.expansions(()):
        jobs.run_job(expansion.initial_training)
        _captured.clear()
        rows = jobs.run_job(expansion)
        config, data = expansion.config, expansion.initial_training.data
        for row, task in zip(rows, _captured, strict=True):
            gamma = config.split.gamma
            path = folder / f"{data}-seed{config.seed}-gamma{gamma:g}-{row.domain_id}.npz"
            _write(path, expansion, row.domain_id, task)
            yield PeerTask(
                data=data, seed=config.seed, gamma=gamma, domain_id=row.domain_id,
                path=path,
            )  # fmt: skip


def register_capture() -> None:
    """Make the method known that keeps its tasks; every source is sent to it."""
    like = find_method("average-kd-all")
    add_method(replace(like, name=CAPTURE, title="Captured", fit=_capture, fit_many=None))


def _capture(task: TrainingTask) -> TrainedModel:
    _captured.append(task)
    training = replace(task.config.training, max_steps=1)
    return find_method("label-only").fit(
        replace(task, config=replace(task.config, training=training))
    )


def _write(path: Path, expansion: Expansion, domain_id: str, task: TrainingTask) -> None:
    config = expansion.config
    world = jobs._world(config.world, config.seed, expansion.initial_training.data_digest)
    domain = world.load(domain_id)
    split = split_rows(domain, config.split, config.seed)
    x_T = as_rows(domain.x, split.test_N)
    x_N = torch.cat([torch.as_tensor(x) for x in (task.x_L[:], task.x_U[:], x_T[:])])
    arrays: dict[str, FloatArray] = {}
    for place, source in enumerate(task.sources):
        loaded = world.load(source.domain_id)
        rows = as_rows(loaded.x, split_rows(loaded, config.split, config.seed).train_N)
        arrays[f"source_{place}"] = torch.as_tensor(rows[:]).flatten(1).numpy()
    np.savez(
        path,
        x_ND=x_N.flatten(1).numpy(),
        y_L=task.y_L.numpy(),
        y_T=domain.y_N[split.test_N],
        logits_SNC=np.stack([_logits(source, x_N) for source in task.sources]),
        model_bytes_S=np.array([_base_bytes(source) for source in task.sources]),
        source_ids=np.array([source.domain_id for source in task.sources]),
        **arrays,
    )


def _logits(source: Source, x_N: torch.Tensor) -> FloatArray:
    logits_NC = predict_in_batches(source.network, x_N)
    return logits_NC.masked_fill(~torch.from_numpy(source.mask_C), -30.0).numpy()


def _base_bytes(source: Source) -> int:
    """What the model's int8 base takes on the wire."""
    base, _ = split_payload(encode_payload(source.architecture, parameters_of(source.network)))
    return len(base)
