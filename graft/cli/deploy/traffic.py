"""``graft deploy traffic``: what the links of a deployment carried, from every side."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graft.cli.shared import Format, FormatOption


def traffic(
    server: Annotated[Path, typer.Option(help="The server's folder.")] = Path("server"),
    counted: Annotated[
        Path | None, typer.Option(help="An independent count of the links, as meter lines.")
    ] = None,
    simulated: Annotated[
        Path | None, typer.Option(help="A simulation of the same run, to set beside.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what each stage carried: the ledger's payload beside the wire bytes of the meters."""
    from graft_server.deployment.enrolment import reported_bytes
    from graft_server.flower.deployed_app import run_folder

    from graft.core.ledger import read_ledger
    from graft.report import read_stages, reconcile, traffic_dicts, traffic_rich
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
        print(json.dumps(traffic_dicts(rows), indent=2))
    else:
        Console(width=None if Console().is_terminal else 160).print(traffic_rich(rows))
