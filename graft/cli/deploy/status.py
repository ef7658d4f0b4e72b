"""``graft deploy status``: what a deployment has and does, from the server's machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from graft.cli.shared import Format, FormatOption, console


def status(
    server: Annotated[Path, typer.Option(help="The server's folder.")] = Path("server"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Show whether the server answers, which devices are online, and what the rounds gave.

    Exit code 1 where the SuperLink or the depot does not answer.
    """
    from graft_server.deployment.enrolment import enrolled
    from graft_server.flower.deployed_app import run_folder
    from graft_server.flower.superlink import open_superlink
    from graft_server.round_schedule import read_rounds

    from graft.core.deployment import read_server
    from graft.errors import GraftError

    server = server.absolute()
    settings = read_server(server)
    folder = run_folder(server)
    state = folder.read_state()
    rounds = read_rounds(server)
    owners = {card.domain_id for card in state.catalogue}
    arrived = {domain: index for index, domains in enumerate(rounds) for domain in domains}
    try:
        online = open_superlink(server).nodes()
        responses = True
    except GraftError as error:
        console.print(str(error), markup=False, highlight=False)
        online, responses = {}, False
    facts: dict[str, Any] = {
        "run": settings.run,
        "superlink": responses,
        "depot": _depot_serves(server),
        "rounds": len(rounds),
        "finished": state.round_index,
        "models": len(state.catalogue),
        "devices": [
            {
                "domain": domain,
                "node": online.get(domain, "unknown"),
                "round": arrived.get(domain),
                "model": domain in owners,
            }
            for domain in enrolled(server)
        ],
    }
    if output is Format.JSON:
        print(json.dumps(facts, indent=2))
    else:
        _show(facts)
    if not (facts["superlink"] and facts["depot"]):
        raise typer.Exit(1)


def health(
    folder: Annotated[Path, typer.Argument(help="The server's folder.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Ask the depot's health service, as a container's health check does.

    Exit code 1 where it does not answer that it serves.
    """
    serves = _depot_serves(folder.absolute())
    told = "answers" if serves else "does not answer"
    print(json.dumps({"depot": serves}) if output is Format.JSON else f"depot      {told}")
    if not serves:
        raise typer.Exit(1)


def _depot_serves(server: Path) -> bool:
    """Whether the depot's health service says so."""
    import grpc
    from graft_client.depot_client import open_deployed_channel
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from graft.core.deployment import read_server

    settings = read_server(server)
    address = f"{settings.depot_host or '127.0.0.1'}:{settings.depot_port}"
    with open_deployed_channel(address, server, insecure=settings.insecure) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            told = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(told.status == health_pb2.HealthCheckResponse.SERVING)


def _show(facts: dict[str, Any]) -> None:
    for key in ("run", "superlink", "depot", "rounds", "finished", "models"):
        value = facts[key]
        if isinstance(value, bool):
            value = "answers" if value else "does not answer"
        print(f"{key:10} {value}")
    table = Table("Device", "Node", "Round", "Model")
    for device in facts["devices"]:
        round_index = "" if device["round"] is None else str(device["round"])
        table.add_row(
            device["domain"], device["node"], round_index, "yes" if device["model"] else ""
        )
    console.print(table)
