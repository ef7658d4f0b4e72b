"""A deployment in figures, for Prometheus; of one registry, which is an argument."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from graft.core.deployment import read_server
from graft.errors import GraftError
from graft_server.round_schedule import read_rounds
from graft_server.run_folder import RunFolder

_ASK_FLOWER_EVERY_S = 60.0  # its command takes seconds of processor time


class DeploymentMetrics(Collector):
    """Gauges named ``graft_...`` of what a server's folder says, read anew whenever asked.

    ``nodes`` tells what Flower says of each enrolled device; it raises GraftError where it does
    not answer, and takes seconds, so it is asked once a minute while ``watch`` lasts.
    """

    def __init__(self, server: Path, nodes: Callable[[], Mapping[str, str]]) -> None:
        self._server = server
        self._ask = nodes
        self._nodes: Mapping[str, str] | None = None
        self._closing = threading.Event()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What Prometheus gets."""
        nodes = self._nodes
        responses = nodes is not None
        online = sum(status == "online" for status in (nodes or {}).values())
        server = self._server
        state = RunFolder(server / "runs" / read_server(server).run).read_state()
        yield _gauge("graft_superlink_up", "1 where Flower's SuperLink answers", int(responses))
        yield _gauge(
            "graft_devices_enrolled",
            "Devices that may join",
            len([*(server / "nodes").glob("*.pub")]),
        )
        yield _gauge("graft_devices_online", "Devices that Flower hears from", online)
        yield _gauge("graft_rounds_planned", "Rounds begun", len(read_rounds(server)))
        yield _gauge("graft_rounds_finished", "Rounds over", state.round_index)
        yield _gauge("graft_catalogue_models", "Models to learn from", len(state.catalogue))
        yield from self._progress()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Ask Flower now and then, on a thread, until the block is left."""
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

    def _progress(self) -> Iterator[GaugeMetricFamily]:
        """Where the round is; nothing before the first."""
        path = self._server / "state" / "progress.json"
        if path.exists():
            told = json.loads(path.read_text("utf-8"))
            for key, name, what in (
                ("wanted", "graft_stage_orders", "Answers wanted in the stage that runs"),
                ("done", "graft_stage_answers", "Answers that came"),
            ):
                family = GaugeMetricFamily(name, what, labels=("stage",))
                family.add_metric([told["phase"]], told[key])
                yield family
            yield _gauge(
                "graft_round_payload_bytes", "Payload of the round so far", told["payload_bytes"]
            )


@contextmanager
def serve_metrics(
    host: str, port: int, registry: CollectorRegistry, news: Callable[[str], None]
) -> Iterator[None]:
    """Serve ``registry`` over HTTP while the block lasts; port 0: nothing is served.

    A server without metrics is better than none: that its port is taken is ``news`` only.
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


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)
