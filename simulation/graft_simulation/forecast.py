"""What a run needs, before anything trains: devices and architectures, time, memory, disk."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from graft_server.round_loop import RunSettings

from graft.core.config import ExpansionConfig
from graft.core.tasks import Task
from graft.data.domain import World
from graft.devices import DeviceClass, device_classes, equip_domain, fitting_architectures
from graft.errors import ArchitectureError
from graft.models import build_network, network_cost
from graft.models.building import example_rows
from graft.training.loop import count_steps

_PROCESS_BYTES = 350 * 2**20  # of Python, torch and their libraries, a process
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Equipment:
    """Each domain's device and architecture, and why a domain has none."""

    devices: dict[str, tuple[DeviceClass, str]]
    unfit: dict[str, str]


def equip_all(world: World, config: ExpansionConfig) -> Equipment:
    """Equip every domain of a world.

    With several streams a domain may lack some, which only its data tells; it is equipped
    as one that has them all.
    """
    devices: dict[str, tuple[DeviceClass, str]] = {}
    unfit: dict[str, str] = {}
    for domain_id in world.domain_ids:
        try:
            devices[domain_id] = equip_domain(domain_id, config.seed, world.task, config.devices)
        except ArchitectureError as error:
            unfit[domain_id] = str(error)
    return Equipment(devices=devices, unfit=unfit)


def check_equipment(world: World, config: ExpansionConfig) -> None:
    """Raises ArchitectureError, before anything trains, where no architecture fits a domain."""
    unfit = equip_all(world, config).unfit
    if unfit:
        shown = ", ".join([*list(unfit)[:_SHOWN], *(["..."] if len(unfit) > _SHOWN else [])])
        raise ArchitectureError(
            f"{len(unfit)} of {len(world.domain_ids)} domains ({shown}): "
            f"{next(iter(unfit.values()))}; graft simulate --dry-run shows what fits"
        )


def forecast(settings: RunSettings, workers: int) -> dict[str, Any]:
    """What ``graft simulate --dry-run`` shows; seconds and bytes are estimates.

    A training is timed as the steps of PyTorch's own loop, measured here; the compiled trainer is
    several times faster, so the time is an upper bound on this machine.
    """
    world, config = settings.world, settings.config
    equipment = equip_all(world, config)
    classes = device_classes(config.devices.classes_file)
    drawn = Counter(device.name for device, _ in equipment.devices.values())
    used = Counter(architecture for _, architecture in equipment.devices.values())
    rows = len(world.load(world.domain_ids[0]).y_N)
    steps = count_steps(rows, config.training)[1]
    pace = {name: step_seconds(name, world.task, config.training.batch_size) for name in used}
    rounds = settings.schedule()
    trainings = Counter(dict.fromkeys(used, 0))
    for index, domains in enumerate(rounds):
        for domain_id in domains:
            if domain_id in equipment.devices:
                trainings[equipment.devices[domain_id][1]] += len(config.methods) if index else 1
    seconds = sum(steps * pace[name] * count for name, count in trainings.items())
    largest = max((network_cost(n, world.task).training_memory_bytes for n in used), default=0)
    sizes = {name: network_cost(name, world.task).num_bytes for name in used}
    stored = sum(2 * sizes[a] for _, a in equipment.devices.values())  # exact, base and residual
    processes = max(workers, 1) + (1 if workers else 0)
    return {
        "domains": len(world.domain_ids),
        "rounds": len(rounds) - 1,
        "sample_shape": list(world.task.sample_shape),
        "device_classes": {
            name: {
                "domains": drawn[name],
                "memory_bytes": int(each.memory_bytes),
                "architectures": list(_fitting(world.task, each, config)),
            }
            for name, each in classes.items()
        },
        "architectures": {name: used[name] for name in sorted(used)},
        "would_fail": equipment.unfit,
        "trainings": sum(trainings.values()),
        "seconds": round(seconds / max(workers, 1), 1),
        "memory_bytes": processes * _PROCESS_BYTES + max(workers, 1) * largest,
        "memory_free_bytes": psutil.virtual_memory().available,
        "disk_bytes": stored,
    }


def _fitting(task: Task, device: DeviceClass, config: ExpansionConfig) -> tuple[str, ...]:
    try:
        return fitting_architectures(task, device, config.devices.architectures)
    except ArchitectureError:
        return ()


def step_seconds(architecture: str, task: Task, batch_size: int) -> float:
    """Seconds of one training step through PyTorch on one thread, the fastest of three."""
    network = build_network(architecture, task, seed=0).train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = float("inf")
    try:
        with torch.random.fork_rng(devices=[]):
            for _ in range(3):
                started = time.perf_counter()
                network(example_rows(architecture, task, batch_size)).sum().backward()
                best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return best
