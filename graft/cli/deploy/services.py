"""``graft deploy server``, ``depot`` and ``device``: the processes on a machine."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

from typer import Argument, Option

from graft.cli.deploy.processes import MAX_LOG_BYTES, SupervisedProcess, supervised, until_stopped
from graft.cli.shared import announce
from graft.core.deployment import DeviceSettings, read_device, read_server
from graft.core.files import lock_file
from graft.core.memory import usable_memory

# The graft command itself, with its own packages first on the import path.
_GRAFT = (sys.executable, "-P", "-m", "graft_origin")
_REGISTER_EVERY_S = 2.0
# In 512 MiB a round with small data was served (benchmarks/deployment).
LEAST_MEMORY: Final = 500_000_000
FolderArgument = Annotated[Path, Argument(help="The server's folder.")]
MetricsHostOption = Annotated[
    str, Option(help="Address of the Prometheus metrics, which have no TLS or password.")
]
MetricsPortOption = Annotated[
    int | None, Option(min=0, help="Port of the metrics. Default: as set up. 0: no metrics.")
]


@contextlib.contextmanager
def _public_port(
    folder: Path, service: str, port: int, upstream: int, turn_away: Callable[[str, str], None]
) -> Iterator[None]:
    """Forward a service's public port to its port on loopback, and log the traffic."""
    from graft_server.deployment.tcp_proxy import TcpProxy

    from graft.wire.traffic_log import TrafficLog

    log = TrafficLog(folder / "state" / f"{service}-meter.jsonl", MAX_LOG_BYTES)
    with (
        contextlib.closing(log),
        TcpProxy(
            f"*:{port}",
            f"127.0.0.1:{upstream}",
            service=service,
            record=log.write,
            turn_away=partial(turn_away, service),
        ),
    ):
        yield


def server(
    folder: FolderArgument,
    with_depot: Annotated[
        bool, Option("--depot/--no-depot", help="Run the model depot, too.")
    ] = True,
    serve: Annotated[
        bool,
        Option("--serve", help="Serve target domains as they come, within the serving policy."),
    ] = False,
    page: Annotated[
        bool, Option("--page", help="Serve the operator's page on loopback, as graft deploy page.")
    ] = False,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = None,
) -> None:
    """Run the server: Flower's SuperLink, its proxies and the model depot.

    Runs until Ctrl-C or SIGTERM. A process that ends is started again. A server that was killed
    continues where it was when it is started again. With --serve, an enrolled device that shows up
    is served at once, as serve.toml in the server's folder allows; graft deploy expand works too.
    """
    folder = folder.absolute()
    read_server(folder)
    if serve:
        from graft_server.serving.policy import read_policy

        read_policy(folder)
    # Before anything is written: commands find the server by what its start writes.
    with lock_file(folder / "state" / "server.lock", str(folder)):
        _serve(folder, with_depot, serve, page, metrics_host, metrics_port)


def _serve(
    folder: Path,
    with_depot: bool,
    serve: bool,
    page: bool,
    metrics_host: str,
    metrics_port: int | None,
) -> None:
    from graft_server.deployment.enrolment import enrolled
    from graft_server.deployment.heard import HeardDevices
    from graft_server.deployment.reverse_proxy import ReverseProxy
    from graft_server.flower.superlink import new_superlink
    from graft_server.mailbox import open_mailbox
    from graft_server.observability.metrics import DeploymentMetrics, serve_metrics, turned_away
    from graft_server.serving.keeper import ServingKeeper
    from prometheus_client import CollectorRegistry

    from graft.errors import GraftError

    settings, superlink = read_server(folder), new_superlink(folder, serves=serve)
    keeper = ServingKeeper(superlink, announce) if serve else None
    processes = [
        SupervisedProcess(
            name="superlink",
            command=superlink.command,
            environment=superlink.environment,
            log_file=folder / "state" / "superlink.log",
        )
    ]
    if with_depot:
        command = [*_GRAFT, "deploy", "depot", str(folder), "--metrics-host", metrics_host]
        command += ["--metrics-port", "0"] if metrics_port == 0 else []
        processes.append(
            SupervisedProcess(
                name="depot",
                command=command,
                environment=superlink.environment,
                log_file=folder / "state" / "depot.log",
            )
        )
    if page:
        processes.append(
            SupervisedProcess(
                name="page",
                command=[*_GRAFT, "deploy", "page", str(folder)],
                environment=superlink.environment,
                log_file=folder / "state" / "page.log",
            )
        )
    if metrics_port is None:
        metrics_port = settings.metrics_port
    metrics, registry = DeploymentMetrics(folder, superlink.nodes), CollectorRegistry()
    registry.register(metrics)
    turn_away, heard = turned_away(registry), HeardDevices(folder)

    def allows(device: str) -> bool:
        heard.hear(device)
        return settings.insecure or device in enrolled(folder)

    with (
        supervised(*processes) as is_running,
        # Without TLS no connection has a name, and Flower knows alone who is there.
        metrics.watch() if metrics_port or settings.insecure else contextlib.nullcontext(),
        serve_metrics(metrics_host, metrics_port, registry, announce),
        ReverseProxy(
            superlink.port,
            None if settings.insecure else folder,
            allows=allows,
            turn_away=partial(turn_away, "gateway"),
            called=open_mailbox(folder).called_ns,
        ) as reverse_proxy,
        _public_port(folder, "flower", settings.flower_port, reverse_proxy.port, turn_away),
    ):
        announce(
            f"server {settings.host}: Flower {settings.flower_port}, depot {settings.depot_port}"
        )
        due_s = 0.0
        while is_running():
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + _REGISTER_EVERY_S
                reverse_proxy.renew()
                heard.write(metrics.online() if settings.insecure else reverse_proxy.connected())
                for name, reason, times in reverse_proxy.offences():
                    announce(f"device {name}: turned away {times} times at the gateway: {reason}")
                with contextlib.suppress(GraftError):  # the SuperLink is starting
                    for domain_id in superlink.register_nodes():
                        announce(f"device {domain_id}: admitted")
                    for domain_id in superlink.unregister_nodes():
                        announce(f"device {domain_id}: no longer admitted")
                    if keeper is not None:
                        keeper.look()


def depot(
    folder: FolderArgument,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = None,
) -> None:
    """Run the model depot alone, behind its meter: gRPC over TLS with client certificates."""
    from graft_server.deployment.enrolment import enrolled
    from graft_server.depot.server import DepotServer, folder_credentials
    from graft_server.flower.deployed_app import run_folder
    from graft_server.mailbox import open_mailbox
    from graft_server.model_store import open_store
    from graft_server.observability.metrics import serve_metrics, turned_away
    from graft_server.round_schedule import open_order
    from prometheus_client import CollectorRegistry, ProcessCollector

    from graft.core.config_files import read_config
    from graft.core.files import LineFile
    from graft.data.dataset_table import read_dataset

    folder = folder.absolute()
    settings = read_server(folder)
    read_config(folder / "expansion.toml")  # loads its architectures, which uploads are checked by
    # Its device forgets a model once the server has the reply that names it.
    store = open_store(run_folder(folder).models, read_dataset(folder).task, durable=True)
    registry = CollectorRegistry()
    turn_away = turned_away(registry)
    ProcessCollector(registry=registry)
    if metrics_port is None:
        metrics_port = settings.metrics_port + 1
    with (
        lock_file(folder / "state" / "depot.lock", str(folder)),
        until_stopped() as wait,
        serve_metrics(metrics_host, metrics_port, registry, announce),
        contextlib.closing(
            LineFile(folder / "state" / "depot-calls.jsonl", MAX_LOG_BYTES)
        ) as calls,
        DepotServer(
            store,
            "127.0.0.1:0",
            credentials=None if settings.insecure else folder_credentials(folder),
            insecure=settings.insecure,
            allows=None if settings.insecure else lambda device: device in enrolled(folder),
            open_order=None if settings.insecure else partial(open_order, folder),
            mailbox=open_mailbox(folder),
            registry=registry,
            record=lambda call: calls.append(asdict(call)),
            turn_away=partial(turn_away, "depot"),
        ) as behind,
        _public_port(folder, "depot", settings.depot_port, behind.port, turn_away),
    ):
        announce(f"depot: port {settings.depot_port}")
        while wait(1.0):
            pass


def device(
    folder: Annotated[Path, Argument(help="The device's folder, from graft deploy init.")],
    data: Annotated[Path, Option(help="Domain folder that holds the device's domain.")],
    port: Annotated[int, Option(help="Free loopback port for Flower's own processes.")] = 9094,
    accelerator: Annotated[
        str | None,
        Option(help="Torch device that networks compute on, e.g. cuda. Default: device.toml's."),
    ] = None,
) -> None:
    """Run a device: Flower's SuperNode with this device's key, data and policy.

    Runs until Ctrl-C or SIGTERM. The device calls the server until it answers, waits while Flower
    refuses a device that returns too soon, and continues an interrupted task.
    """
    from graft_client.depot_client import clean_cache
    from graft_server.flower.superlink import flower_environment

    from graft.data.dataset_table import read_dataset
    from graft.data.folder import FolderWorld
    from graft.errors import DatasetFormatError, StorageError

    if (memory := usable_memory()) < LEAST_MEMORY:
        raise StorageError(
            f"memory: got {memory / 1e6:.0f} MB, wanted {LEAST_MEMORY / 1e6:.0f} MB or more: "
            "the system would end it in a round"
        )
    folder, data = folder.absolute(), data.absolute()
    settings = read_device(folder)
    if accelerator is not None:
        settings = replace(settings, accelerator=accelerator)
    if settings.accelerator != "cpu":
        from graft.models.placement import check_accelerator  # imports torch

        check_accelerator(settings.accelerator)
    world = FolderWorld(data)
    if world.task != read_dataset(folder).task:
        raise DatasetFormatError(f"{data}: got another task than {folder / 'dataset.toml'} states")
    rows = len(world.load(settings.domain).y_N)  # a fault in the data is reported at the start
    with lock_file(folder / "state" / "device.lock", str(folder)):
        if removed := clean_cache(folder, settings):
            announce(f"device {settings.domain}: removed {len(removed)} forgotten models")
    announce(f"device {settings.domain}: {rows} rows; server {settings.superlink}")
    words = [str(folder), settings.bundle, *_supernode_options(folder, data, port, settings)]
    # What the checks imported is left behind, with its memory.
    os.execve(  # noqa: S606
        sys.executable,
        [sys.executable, "-P", "-m", "graft.cli.deploy.flower_processes", "device", *words],
        flower_environment(folder / "state" / "flwr", settings.superlink),
    )


def _supernode_options(folder: Path, data: Path, port: int, settings: DeviceSettings) -> list[str]:
    options = ["--superlink", settings.superlink, "--port", str(port), "--isolation", "process"]
    # Flower reads TOML strings between the first two quotes: quotes and backslashes would end them.
    paths = quote(str(folder)), quote(str(data))
    node = 'device-folder="{}" data-folder="{}" accelerator="{}"'
    options += ["--node-config", node.format(*paths, settings.accelerator)]
    if settings.insecure:
        return [*options, "--insecure"]
    options += ["--root-certificates", str(folder / "ca.pem")]
    return [*options, "--auth-supernode-private-key", str(folder / "node.key")]
