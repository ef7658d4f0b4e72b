"""A run in figures, for Prometheus: what ``graft watch`` shows, as gauges."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from graft.errors import RunError
from graft.report.watch import RunWatcher


class RunMetrics(Collector):
    """Gauges named ``graft_...`` of what a run's folder says, read anew whenever asked."""

    def __init__(self, watcher: RunWatcher) -> None:
        self._watcher = watcher

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What Prometheus gets; nothing before the run has a folder."""
        try:
            now = self._watcher.look()
        except RunError:
            return
        for name, what, value in (
            ("graft_run_active", "1 while the run goes on", int(now.is_running)),
            ("graft_rounds_planned", "Rounds of the run, round 0 included", now.planned),
            ("graft_rounds_finished", "Rounds over", now.finished),
            ("graft_domains", "Domains of the finished rounds", now.domains),
            ("graft_failures", "Domains and methods that failed", len(now.failures)),
        ):
            yield GaugeMetricFamily(name, what, value=value)
        if now.stage is not None:
            for name, what, responses in (
                ("graft_stage_orders", "Answers wanted in the stage that runs", now.stage.wanted),
                ("graft_stage_answers", "Answers that came", now.stage.done),
            ):
                family = GaugeMetricFamily(name, what, labels=("stage",))
                family.add_metric([now.stage.phase], responses)
                yield family
            yield GaugeMetricFamily(
                "graft_round_payload_bytes",
                "Payload of the round so far",
                value=now.stage.payload_bytes,
            )
        accuracy = GaugeMetricFamily(
            "graft_accuracy", "Mean accuracy of target domains, 0 to 1", labels=("method",)
        )
        for each in now.methods:
            if each.accuracy_mean is not None:
                accuracy.add_metric([each.method], each.accuracy_mean)
        yield accuracy
        traffic = GaugeMetricFamily(
            "graft_payload_bytes", "Payload of the finished rounds", labels=("phase", "direction")
        )
        for phase, (down, up) in now.bytes_by_phase.items():
            traffic.add_metric([phase, "down"], down)
            traffic.add_metric([phase, "up"], up)
        yield traffic
