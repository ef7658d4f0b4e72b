"""The state of a deployment, seen from the server's machine: services, devices, traffic."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer import Argument, Option

from graft.cli.shared import (
    Format,
    FormatOption,
    ServerOption,
    add_texts,
    console,
    print_facts,
    print_json,
    print_table,
)


def status(server: ServerOption = Path("server"), output: FormatOption = Format.TABLE) -> None:
    """Show whether the server responds, which devices are online, and the state of the rounds.

    Exit code 1 where the SuperLink or the depot does not respond.
    """
    # What this imports and reads has neither torch nor Flower in it: it is asked often.
    from graft_server.observability.overview import read_overview, superlink_answers

    server = server.absolute()
    overview = read_overview(
        server, superlink=superlink_answers(server), depot=depot_serves(server)
    )
    facts = asdict(overview)
    if output is Format.JSON:
        print_json(facts)
    else:
        _show(facts)
    if not (facts["superlink"] and facts["depot"]):
        raise typer.Exit(1)


def health(
    folder: Annotated[Path, Argument(help="The server's folder.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Ask the depot's health service, as the health check of a container does.

    Exit code 1 unless the depot states that it is serving.
    """
    serves = depot_serves(folder.absolute())
    print_facts({"depot": serves if output is Format.JSON else _answer(serves)}, output)
    if not serves:
        raise typer.Exit(1)


def traffic(
    server: ServerOption = Path("server"),
    counted: Annotated[
        Path | None, Option(help="An independent count of the links, as lines of a meter.")
    ] = None,
    simulated: Annotated[
        Path | None, Option(help="Run folder of a simulation of the same run, to compare.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the traffic of each stage: the ledger's payload beside the metered wire bytes."""
    from graft_server.deployment.enrolment import reported_bytes
    from graft_server.flower.deployed_app import run_folder

    from graft.core.tables import read_ledger
    from graft.report.traffic import read_stages, reconcile, traffic_dicts, traffic_rich
    from graft.wire.traffic_log import read_traffic_log

    server = server.absolute()
    state = server / "state"
    meters = (state / f"{name}-meter.jsonl" for name in ("flower", "depot"))
    rows = reconcile(
        read_stages(state / "stages.jsonl"),
        read_ledger(run_folder(server).path / "ledger.parquet"),
        [line for meter in meters for line in read_traffic_log(meter)],
        None if counted is None else read_traffic_log(counted),
        None if simulated is None else read_ledger(simulated / "ledger.parquet"),
        app_bytes=reported_bytes(server),
    )
    if output is Format.JSON:
        print_json(traffic_dicts(rows))
    else:
        print_table(traffic_rich(rows))


def depot_serves(server: Path) -> bool:
    """Whether the depot's health service answers that it is serving."""
    import grpc
    from graft_client.depot_client import open_deployed_channel
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from graft.core.addresses import join_address
    from graft.core.deployment import read_server

    settings = read_server(server)
    address = join_address(settings.depot_host or "127.0.0.1", settings.depot_port)
    with open_deployed_channel(address, server, insecure=settings.insecure) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            response = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def _answer(serves: bool) -> str:
    return "answers" if serves else "does not answer"


def _show(facts: dict[str, Any]) -> None:
    devices = facts.pop("devices")
    answers = {key: _answer(facts[key]) for key in ("superlink", "depot")}
    print_facts(facts | answers, Format.TABLE)
    table = Table("Device", "Node", "Heard", "Round", "Model", "Failed", "Certificate until")
    for each in devices:
        round_index = "" if each["round"] is None else str(each["round"])
        add_texts(
            table,
            each["domain"],
            each["node"],
            _ago(each["heard_s"]),
            round_index,
            "yes" if each["model"] else "",
            each["error"],
            each["certificate_ends"],
        )
    console.print(table)


def _ago(at_s: float | None) -> str:
    return "" if at_s is None else f"{max(0.0, time.time() - at_s):,.0f} s ago"
