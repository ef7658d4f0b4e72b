"""One model of the rows of all initial domains together: a reference that no deployment has."""

from dataclasses import replace

import torch

from graft.core.config import ExpansionConfig
from graft.core.seeding import derive_seed
from graft.data.domain import World
from graft.data.splits import schedule_rounds, split_rows
from graft.models import build_network
from graft.training import Source, SupervisedTraining, train_supervised

# An initial domain's training has that many rows' steps; all of them together have more rows.
_STEPS_FACTOR = 10
_MOST_CACHED = 8
# The world is in the value so that its id stays its own.
_cached: dict[tuple[int, str, ExpansionConfig], tuple[World, Source]] = {}


def pooled_model(world: World, config: ExpansionConfig, architecture: str) -> Source:
    """The model of an architecture, trained once a process; raises as ``schedule_rounds`` and
    ``World.load`` do."""
    key = id(world), architecture, config
    if key not in _cached:
        while len(_cached) >= _MOST_CACHED:
            _cached.pop(next(iter(_cached)))
        _cached[key] = world, _train(world, config, architecture)
    return _cached[key][1]


def _train(world: World, config: ExpansionConfig, architecture: str) -> Source:
    parts = []
    for domain_id in schedule_rounds(world, config.split, config.rounds, config.seed)[0]:
        data = world.load(domain_id)
        rows = split_rows(data, config.split, config.seed).train_N
        parts.append((torch.from_numpy(data.x[rows]), torch.from_numpy(data.y_N[rows])))
    x_N, y_N = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    seed = derive_seed("pooled", config.seed, architecture)
    mask_C = torch.bincount(y_N, minlength=world.task.num_classes).numpy() > 0
    training = replace(config.training, max_steps=_STEPS_FACTOR * config.training.max_steps)
    trained = train_supervised(
        SupervisedTraining(
            network=build_network(architecture, world.task, seed).train(),
            x=x_N,
            y_N=y_N,
            num_rows=len(x_N),
            config=training,
            seed=seed,
            architecture=architecture,
            mask_C=mask_C,
        )
    )
    return Source(
        model_id=f"{seed:064x}",
        domain_id="pooled",
        architecture=architecture,
        network=trained.network,
        mask_C=mask_C,
    )
