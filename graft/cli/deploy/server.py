"""``graft deploy server`` and ``depot``: what runs on the server's machine."""

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from graft.cli.deploy.processes import Kept, until_stopped
from graft.cli.shared import console

# Flower starts what runs its apps once, and goes on without it when it was killed.
EXECUTOR = "flower-superexec"
_LOOK_S = 0.5
_REGISTER_EVERY_S = 2.0
MetricsHostOption = Annotated[
    str, typer.Option(help="Where Prometheus may ask; metrics have neither TLS nor a password.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(min=0, help="Port of the metrics; by default as set up. 0: no metrics."),
]


def server(
    folder: Annotated[Path, typer.Argument(help="The server's folder.")],
    with_depot: Annotated[
        bool, typer.Option("--depot/--no-depot", help="Also run the model depot here.")
    ] = True,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = None,
) -> None:
    """Run the server: Flower's SuperLink, its proxies, the model depot.

    Until Ctrl-C or SIGTERM. What dies is started again; killed and started again, the server
    goes on where it was.
    """
    from graft_server.deployment.reverse_proxy import ReverseProxy
    from graft_server.flower.superlink import new_superlink
    from graft_server.metering.tcp_proxy import TcpProxy
    from graft_server.observability.deployment_metrics import DeploymentMetrics, serve_metrics
    from prometheus_client import CollectorRegistry

    from graft.core.deployment import read_server
    from graft.errors import GraftError
    from graft.wire.traffic_log import TrafficLog

    folder = folder.absolute()
    settings = read_server(folder)
    superlink = new_superlink(folder)
    kept = [_kept("superlink", superlink.command, superlink.environment, folder, EXECUTOR)]
    if with_depot:
        command = [sys.executable, "-c", _GRAFT, "deploy", "depot", str(folder)]
        command += ["--metrics-host", metrics_host]
        command += ["--metrics-port", "0"] if metrics_port == 0 else []
        kept.append(_kept("depot", command, superlink.environment, folder))
    if metrics_port is None:
        metrics_port = settings.metrics_port
    metrics, registry = DeploymentMetrics(folder, superlink.nodes), CollectorRegistry()
    registry.register(metrics)
    with (
        until_stopped() as wait,
        metrics.watch() if metrics_port else contextlib.nullcontext(),
        serve_metrics(metrics_host, metrics_port, registry, tell),
        ReverseProxy(superlink.port, None if settings.insecure else folder) as gateway,
        contextlib.closing(TrafficLog(folder / "state" / "flower-meter.jsonl")) as meter,
        TcpProxy(
            f"0.0.0.0:{settings.flower_port}",
            f"127.0.0.1:{gateway.port}",
            service="flower",
            record=meter.write,
        ),
    ):
        tell(f"server {settings.host}: Flower {settings.flower_port}, depot {settings.depot_port}")
        due_s = 0.0
        try:
            while wait(_LOOK_S):
                for process in kept:
                    process.look()
                due_s -= _LOOK_S
                if due_s <= 0:
                    due_s = _REGISTER_EVERY_S
                    with contextlib.suppress(GraftError):  # the SuperLink is starting
                        for domain_id in superlink.register_nodes():
                            tell(f"device {domain_id}: admitted")
                        for domain_id in superlink.unregister_nodes():
                            tell(f"device {domain_id}: admitted no more")
        finally:
            for process in kept:
                process.end()


def depot(
    folder: Annotated[Path, typer.Argument(help="The server's folder.")],
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = None,
) -> None:
    """Run the model depot by itself, its meter before it: gRPC, TLS with client certificates."""
    from graft_server.deployment.enrolment import enrolled
    from graft_server.depot.server import DepotServer, tls_credentials
    from graft_server.flower.deployed_app import run_folder
    from graft_server.metering.tcp_proxy import TcpProxy
    from graft_server.model_store import open_store
    from graft_server.observability.deployment_metrics import serve_metrics
    from prometheus_client import CollectorRegistry, ProcessCollector

    from graft.core.deployment import read_server
    from graft.core.files import LineFile
    from graft.data.dataset_table import read_dataset
    from graft.wire.traffic_log import TrafficLog

    folder = folder.absolute()
    settings = read_server(folder)
    store = open_store(run_folder(folder).models, read_dataset(folder).task)
    credentials = None
    if not settings.insecure:
        credentials = tls_credentials(
            key_pem=(folder / "tls.key").read_bytes(),
            certificate_pem=(folder / "tls.pem").read_bytes(),
            client_ca_pem=(folder / "ca.pem").read_bytes(),
        )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    if metrics_port is None:
        metrics_port = settings.metrics_port + 1
    with (
        until_stopped() as wait,
        serve_metrics(metrics_host, metrics_port, registry, tell),
        contextlib.closing(LineFile(folder / "state" / "depot-calls.jsonl")) as calls,
        DepotServer(
            store,
            "127.0.0.1:0",
            credentials=credentials,
            insecure=settings.insecure,
            allows=None if settings.insecure else lambda device: device in enrolled(folder),
            registry=registry,
            record=lambda call: calls.append(asdict(call)),
        ) as behind,
        contextlib.closing(TrafficLog(folder / "state" / "depot-meter.jsonl")) as meter,
        TcpProxy(
            f"0.0.0.0:{settings.depot_port}",
            f"127.0.0.1:{behind.port}",
            service="depot",
            record=meter.write,
        ),
    ):
        tell(f"depot: port {settings.depot_port}")
        while wait(1.0):
            pass


def tell(news: str) -> None:
    """A line of news on the error stream."""
    console.print(news, highlight=False, markup=False, soft_wrap=True)


# The command itself, whichever way this process was started.
_GRAFT = "from graft.cli.main import main; main()"


def _kept(
    name: str, command: list[str], environment: dict[str, str], folder: Path, helper: str = ""
) -> Kept:
    return Kept(
        name=name,
        command=command,
        environment=environment,
        log_file=folder / "state" / f"{name}.log",
        news=tell,
        helper=helper,
    )
