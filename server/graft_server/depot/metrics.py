"""The depot in figures, for Prometheus; of one registry, which is an argument."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)


class DepotMetrics:
    """Counters, gauges and a histogram, all named ``graft_depot_...``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        moved = ("direction", "part", "device")
        self.payload_bytes = Counter(
            "graft_depot_payload_bytes", "Model bytes moved", moved, registry=registry
        )
        self.wire_bytes = Counter(
            "graft_depot_wire_bytes", "The same with gRPC's framing", moved, registry=registry
        )
        self.calls = Counter(
            "graft_depot_calls", "Calls that ended", ("rpc", "outcome"), registry=registry
        )
        self.running = Gauge("graft_depot_running", "Calls running", ("rpc",), registry=registry)
        self.waiting = Gauge("graft_depot_waiting", "Calls in the queue", registry=registry)
        self.seconds = Histogram(
            "graft_depot_seconds", "Time a call ran", ("rpc",), buckets=_SECONDS, registry=registry
        )


class CountedPool(ThreadPoolExecutor):
    """Threads that serve calls; ``waiting`` tells how many calls have none yet."""

    def __init__(self, max_workers: int, waiting: Gauge) -> None:
        super().__init__(max_workers=max_workers, thread_name_prefix="depot")
        self._waiting = waiting

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._waiting.inc()

        def begin() -> Any:
            self._waiting.dec()
            return fn(*args, **kwargs)

        return super().submit(begin)
