"""The simulated clock beside a run: it watches what is asked, and times each finished round.

What a device computes follows from the requests and their answers (FLOPs, device class), what it
transfers from the ledger (wire bytes, link class). Nothing here reads a clock of the host.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graft.core.config import ExpansionConfig
from graft.core.exchange import (
    GrowRequest,
    ProbeRequest,
    Request,
    Response,
    Selection,
    TrainRequest,
    TrainResult,
)
from graft.core.ports import Edge
from graft.core.records import DomainProfile, LedgerEntry
from graft.core.results import ResultRow
from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.devices import assign_link, equip_domain
from graft.methods import Method
from graft.methods.cost import growth_cost, read_all
from graft.rounds.exchange_cost import effective_method, limit_steps, memory_limit
from graft.training.cost import ComputeCost, WorkloadShape, compute_seconds
from graft_simulation.clock.timelines import ComputeTimes, MethodRound, method_round
from graft_simulation.clock.tracks import Server, Timeline, Track, domain_availability, run_tracks
from graft_simulation.dropout import DropoutEdge

DomainMethod = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundTimes:
    """Simulated seconds of one round. ``entry_s``: by index of the ledger entry, None for what
    never travelled; ``makespan_s``: by method."""

    entry_s: tuple[float | None, ...]
    compute_s: Mapping[DomainMethod, float]
    finish_s: Mapping[DomainMethod, float]
    makespan_s: Mapping[str, float]


class SimulatedClock:
    """``RoundClock`` of a simulated run."""

    def __init__(self, config: ExpansionConfig, task: Task) -> None:
        self._config = config
        self._costs = _Costs(config, task)

    def watch(self, edge: Edge, run: str, record: Callable[[LedgerEntry], None]) -> Edge:
        """The edge with its configured dropouts, observed by this clock."""
        config = self._config
        if config.network.dropout_rate:
            edge = DropoutEdge(
                edge, run=run, seed=config.seed, network=config.network, record=record
            )
        return _WatchedEdge(edge, self._costs.note)

    def time_round(
        self, rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]
    ) -> tuple[list[ResultRow], list[LedgerEntry]]:
        """See ``RoundClock.time_round``; the noted costs are cleared."""
        seconds = self._costs.take_seconds()
        times = simulate_round(entries, seconds, self._config)
        timed = [
            replace(entry, simulated_s=entry_s)
            for entry, entry_s in zip(entries, times.entry_s, strict=True)
        ]
        return [self._timed(row, times) for row in rows], timed

    def _timed(self, row: ResultRow, times: RoundTimes) -> ResultRow:
        if row.error is not None:
            return row
        key = (row.domain_id, row.method)
        return replace(
            row,
            link_class=assign_link(row.domain_id, self._config.seed, self._config.network).name,
            simulated_compute_s=times.compute_s.get(key),
            simulated_s=times.finish_s.get(key),
        )


def simulate_round(
    entries: Sequence[LedgerEntry],
    seconds: Mapping[DomainMethod, ComputeTimes],
    config: ExpansionConfig,
) -> RoundTimes:
    """Simulate one round from its ledger and its devices' compute times, before stragglers are
    slowed. Neither's order matters."""
    round_index = entries[0].round_index if entries else 0
    slowed = {
        (domain_id, method): _slowed(times, domain_id, round_index, config)
        for (domain_id, method), times in seconds.items()
    }
    methods = sorted({entry.method for entry in entries} - {""}) or [""]
    entry_s: list[float | None] = [0.0 if entry.cached else None for entry in entries]
    finish_s: dict[DomainMethod, float] = {}
    makespan_s: dict[str, float] = {}
    for method in methods:
        own = {d: times for (d, name), times in slowed.items() if name == method}
        devices_round = method_round(entries, method, own)
        timeline = _timeline(devices_round, round_index, config)
        makespan_s[method] = timeline.makespan_s
        for domain_id, device in devices_round.devices.items():
            finish_s[domain_id, method] = timeline.finish_s[domain_id]
            for index, (stage, position) in device.steps.items():
                # The system's own messages come before any method's, so they agree under each.
                entry_s[index] = timeline.durations_s[domain_id][stage][position]
    return RoundTimes(
        entry_s=tuple(entry_s),
        compute_s={key: sum(times.learn_s) for key, times in slowed.items()},
        finish_s=finish_s,
        makespan_s=makespan_s,
    )


def _timeline(devices_round: MethodRound, round_index: int, config: ExpansionConfig) -> Timeline:
    network, seed = config.network, config.seed
    tracks = [
        Track(
            device_id=domain_id,
            link=assign_link(domain_id, seed, network),
            stages=device.stages,
            availability=domain_availability(domain_id, round_index, seed, network),
        )
        for domain_id, device in devices_round.devices.items()
    ]
    server = Server(
        up_bits_per_s=network.server_up_bits_per_s,
        down_bits_per_s=network.server_down_bits_per_s,
        waits_s=dict.fromkeys(devices_round.lossy_stages, network.patience_s),
    )
    return run_tracks(tracks, server)


def _slowed(
    times: ComputeTimes, domain_id: str, round_index: int, config: ExpansionConfig
) -> ComputeTimes:
    """The times of a straggler, where the domain is one in this round."""
    network = config.network
    chance = stream("straggler", config.seed, domain_id, round_index).random()
    factor = network.straggler_slowdown if chance < network.straggler_fraction else 1.0
    return ComputeTimes(
        probe_s=factor * times.probe_s, learn_s=tuple(factor * s for s in times.learn_s)
    )


@dataclass(frozen=True, slots=True)
class _WatchedEdge:
    """``Edge`` whose requests and responses ``note`` gets."""

    edge: Edge
    note: Callable[[Request, Response], None]

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``."""
        responses = self.edge.ask(requests)
        for request, response in zip(requests, responses, strict=True):
            self.note(request, response)
        return responses


class _Costs:
    """The costs of one round so far; a failure's is not known and counts nothing."""

    def __init__(self, config: ExpansionConfig, task: Task) -> None:
        self._config = config
        self._task = task
        self._num_rows: dict[str, int] = {}
        self._inputs: dict[str, tuple[str, ...]] = {}
        self._probes: dict[DomainMethod, ComputeCost] = {}
        self._tasks: dict[DomainMethod, list[ComputeCost]] = defaultdict(list)

    def note(self, request: Request, response: Response) -> None:
        key = (request.domain_id, request.method)
        if isinstance(response, DomainProfile):
            self._num_rows[request.domain_id] = response.num_samples
            self._inputs[request.domain_id] = response.inputs
        elif isinstance(request, ProbeRequest) and isinstance(response, Selection):
            rows = self._num_rows.get(request.domain_id, 0)
            probed = read_all([card.architecture for card in request.candidates], rows)
            self._probes[key] = self._probes.get(key, ComputeCost()) + probed
        elif isinstance(request, TrainRequest) and isinstance(response, TrainResult):
            method = effective_method(request.method, request.sources, request.allowance)
            self._tasks[key].append(method.cost(self._shape(request, response, method)))

        elif isinstance(request, GrowRequest) and isinstance(response, TrainResult):
            self._tasks[key].append(growth_cost(self._growth_shape(request, response)))

    def take_seconds(self) -> dict[DomainMethod, ComputeTimes]:
        """Compute seconds of the noted costs, which are cleared."""
        seconds = {}
        for key in {*self._probes, *self._tasks}:
            device, _ = equip_domain(key[0], self._config.seed, self._task, self._config.devices)
            tasks = self._tasks.get(key, [])
            seconds[key] = ComputeTimes(
                probe_s=compute_seconds(self._probes.get(key, ComputeCost()), self._task, device),
                learn_s=tuple(compute_seconds(cost, self._task, device) for cost in tasks),
            )
        self._num_rows.clear()
        self._probes.clear()
        self._tasks.clear()
        return seconds

    def _growth_shape(self, request: GrowRequest, report: TrainResult) -> WorkloadShape:
        own = request.model.architecture
        return WorkloadShape(
            task=self._task,
            config=self._config,
            architecture=own,
            trained_model=own,
            sources=(own,),
            num_labelled=int(report.metrics["num_labelled"]),
            num_unlabelled=int(report.metrics["num_unlabelled"]),
        )

    def _shape(self, request: TrainRequest, report: TrainResult, method: Method) -> WorkloadShape:
        config = limit_steps(self._config, request.max_steps)
        memory = memory_limit(config, config.policy, request.round_index)
        domain_id, devices = request.domain_id, config.devices
        inputs = self._inputs.get(domain_id, ())
        _, own = equip_domain(domain_id, config.seed, self._task, devices, inputs, memory)
        architecture_of = {card.domain_id: card.architecture for card in request.sources}
        fetched = [
            card.architecture
            for card in request.sources
            if method.sources_needed != "same-architecture" or card.architecture == own
        ]
        return WorkloadShape(
            task=self._task,
            config=config,
            architecture=own,
            trained_model=report.architecture,
            sources=() if method.sources_needed == "centroids" else tuple(fetched),
            used=tuple(
                architecture_of[domain_id]
                for domain_id in report.source_domains
                if domain_id in architecture_of
            ),
            prototypes=len(fetched) if method.sources_needed == "centroids" else 0,
            num_labelled=int(report.metrics["num_labelled"]),
            num_unlabelled=int(report.metrics["num_unlabelled"]),
        )
