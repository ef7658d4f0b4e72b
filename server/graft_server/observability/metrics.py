"""A run and a deployment as gauges for Prometheus; the registry is an argument."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from graft.core.deployment import read_server
from graft.errors import GraftError, RunError
from graft.report.watch import RunWatcher
from graft_server.deployment.authority import certificate_ends
from graft_server.round_schedule import read_rounds
from graft_server.run_folder import RunFolder

_ASK_FLOWER_EVERY_S = 60.0  # its command takes seconds of processor time


class RunMetrics(Collector):
    """Gauges named ``graft_...`` of what ``graft watch`` shows of a run."""

    def __init__(self, watcher: RunWatcher) -> None:
        self._watcher = watcher

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What Prometheus gets; nothing before the run has a folder."""
        try:
            now = self._watcher.look()
        except RunError:
            return
        yield _gauge("graft_run_active", "1 while the run goes on", int(now.is_running))
        yield _gauge("graft_rounds_planned", "Rounds of the run, round 0 included", now.planned)
        yield _gauge("graft_rounds_finished", "Rounds over", now.finished)
        yield _gauge("graft_domains", "Domains of the finished rounds", now.domains)
        yield _gauge("graft_failures", "Domains and methods that failed", len(now.failures))
        if now.stage is not None:
            stage = now.stage
            yield from _stage_gauges(stage.phase, stage.wanted, stage.done, stage.payload_bytes)
        means = {m.method: m.accuracy_mean for m in now.methods if m.accuracy_mean is not None}
        yield _by("method", "graft_accuracy", "Mean accuracy of target domains, 0 to 1", means)
        traffic = GaugeMetricFamily(
            "graft_payload_bytes", "Payload of the finished rounds", labels=("phase", "direction")
        )
        for phase, (down, up) in now.bytes_by_phase.items():
            traffic.add_metric([phase, "down"], down)
            traffic.add_metric([phase, "up"], up)
        yield traffic


class DeploymentMetrics(Collector):
    """Gauges named ``graft_...`` of a deployment server's folder, read anew at every scrape.

    ``nodes`` gives Flower's status of each enrolled device and raises GraftError where Flower does
    not answer. It takes seconds, so it is called once a minute while ``watch`` lasts.
    """

    def __init__(self, server: Path, nodes: Callable[[], Mapping[str, str]]) -> None:
        self._server = server
        self._ask = nodes
        self._nodes: Mapping[str, str] | None = None
        self._closing = threading.Event()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What Prometheus gets."""
        nodes, server = self._nodes, self._server
        online = len(self.online())
        enrolled = len([*(server / "nodes").glob("*.pub")])
        state = RunFolder(server / "runs" / read_server(server).run).read_state()
        answers = int(nodes is not None)
        yield _gauge("graft_superlink_up", "1 where Flower's SuperLink answers", answers)
        yield _gauge("graft_devices_enrolled", "Devices that may join", enrolled)
        yield _gauge("graft_devices_online", "Devices that Flower hears from", online)
        yield _gauge("graft_rounds_planned", "Rounds begun", len(read_rounds(server)))
        yield _gauge("graft_rounds_finished", "Rounds over", state.round_index)
        yield _gauge("graft_catalogue_models", "Models to learn from", len(state.catalogue))
        ends = {name: end.timestamp() for name, end in certificate_ends(server).items()}
        expires = "When a certificate ends, in Unix seconds"
        yield _by("certificate", "graft_certificate_expires", expires, ends)
        progress = server / "state" / "progress.json"
        if progress.exists():
            now = json.loads(progress.read_text("utf-8"))
            yield from _stage_gauges(now["phase"], now["wanted"], now["done"], now["payload_bytes"])

    def online(self) -> list[str]:
        """The devices that Flower heard from when it was asked last."""
        return [name for name, status in (self._nodes or {}).items() if status == "online"]

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Ask Flower once a minute, on a thread, until the block is left."""
        thread = threading.Thread(target=self._watch, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing.set()

    def look(self) -> None:
        """Ask Flower once."""
        try:
            self._nodes = dict(self._ask())
        except GraftError:
            self._nodes = None

    def _watch(self) -> None:
        while not self._closing.is_set():
            self.look()
            self._closing.wait(_ASK_FLOWER_EVERY_S)


def turned_away(registry: CollectorRegistry) -> Callable[[str, str], None]:
    """A counter of what a service refused: gets (service, reason)."""
    what = "Connections, requests and calls that were refused or cut off"
    counter = Counter("graft_turned_away", what, ("service", "reason"), registry=registry)
    return lambda service, reason: counter.labels(service, reason).inc()


@contextmanager
def serve_metrics(
    host: str, port: int, registry: CollectorRegistry, news: Callable[[str], None]
) -> Iterator[None]:
    """Serve ``registry`` over HTTP while the block lasts; port 0: nothing is served.

    A port that is taken is reported to ``news``: a server without metrics is better than none.
    """
    if port == 0:
        yield
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        news(f"no metrics: {host}:{port}: {error}")
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _stage_gauges(
    phase: str, wanted: int, done: int, payload_bytes: int
) -> Iterator[GaugeMetricFamily]:
    """The stage that runs."""
    wanted_text = "Responses wanted in the stage that runs"
    yield _by("stage", "graft_stage_requests", wanted_text, {phase: wanted})
    yield _by("stage", "graft_stage_responses", "Responses that came", {phase: done})
    yield _gauge("graft_round_payload_bytes", "Payload of the round so far", payload_bytes)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _by(label: str, name: str, what: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge with a value for each value of a label."""
    family = GaugeMetricFamily(name, what, labels=(label,))
    for key, value in values.items():
        family.add_metric([key], value)
    return family
