"""What Flower puts on the wire for an exchange, and while a node waits.

    python benchmarks/trust/flower_wire.py

A SuperLink over TLS and a SuperNode in the network laboratory, the TCP proxy between them, and an
app whose requests and answers are random bytes of known lengths. The constants of
``graft/wire/overhead.py`` are fitted to what it prints; results go to results/flower_wire.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from lab import InterfaceCounter, Lab
from lab.certificates import write_certificates
from lab.node import stop

from graft.core.files import replace_file
from graft.wire.traffic_log import TrafficCounters, TrafficRecord, read_traffic_log

FLOWER_PORT, PUBLIC_PORT = 8000, 9092
# Payload bytes of order and answer, seconds of work between them, and how often; the lengths are
# those of joins, profiles, requests and reports.
EXCHANGES = (
    ((0, 40, 0), 4), ((2_200, 2_200, 0), 4), ((20_000, 200, 0), 3), ((200, 20_000, 0), 3),
    ((200_000, 200, 0), 2), ((200, 200_000, 0), 2), ((200, 200, 61), 2),
)  # fmt: skip
IDLE_S = 61.0
LIMIT_S = 900
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "wireapp"
version = "1.0.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "graft"
[tool.flwr.app.components]
serverapp = "wireapp:server"
clientapp = "wireapp:client"
[tool.flwr.app.config]
plan = ""
"""
APP = """
import json, os, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()


@client.query("profile")
def answer(message, context):
    wanted = message.content["graft"]["answer"]
    time.sleep(message.content["graft"]["work_s"])
    body = ConfigRecord({"body": os.urandom(wanted)})
    return Message(RecordDict({"graft": body}), reply_to=message)


@server.main()
def main(grid, context):
    plan = json.load(open(context.run_config["plan"]))
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    told = open(plan["told"], "a")
    for order, reply, work_s in plan["exchanges"]:
        began_s = time.time()
        if order is None:
            time.sleep(work_s)
        else:
            body = ConfigRecord({"body": os.urandom(order), "answer": reply, "work_s": work_s})
            content = RecordDict({"graft": body})
            sent = Message(content, dst_node_id=nodes[0], message_type="query.profile")
            waiting = list(grid.push_messages([sent]))
            while not list(grid.pull_messages(waiting)):
                time.sleep(0.05)
        time.sleep(0.3)
        row = {"order": order, "answer": reply, "work_s": work_s}
        row |= {"began_s": began_s, "ended_s": time.time()}
        told.write(json.dumps(row) + "\\n")
        told.flush()
"""


def relay_main(meter_path: str, listen: str, upstream: str) -> None:
    """The TCP proxy's process on the server's machine."""
    from graft_server.deployment.tcp_proxy import TcpProxy

    from graft.wire.traffic_log import TrafficLog

    meter = TrafficLog(Path(meter_path))
    with TcpProxy(listen, upstream, service="flower", record=meter.write):
        print("relaying", flush=True)
        time.sleep(LIMIT_S + 60)


def traffic_between(lines: list[TrafficRecord], since_s: float, until_s: float) -> TrafficCounters:
    """What was carried between two moments, a line's share by its middle."""
    inside = [a for a in lines if since_s <= (a.since_s + a.until_s) / 2 < until_s]
    return sum((line.carried for line in inside), TrafficCounters())


def main(
    repeats: Annotated[int, typer.Option(help="Times that the whole list is run.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = HERE / "results",
) -> None:
    """Run the exchanges and write what each carried, up and down."""
    exchanges = [list(sizes) for sizes, times in EXCHANGES for _ in range(times)] * repeats
    exchanges += [[None, 0, IDLE_S]] * 2
    with tempfile.TemporaryDirectory() as name, Lab(1) as lab:
        work = Path(name)
        write_certificates(work, lab.server.address)
        told, counted = work / "told.jsonl", []
        (work / "plan.json").write_text(json.dumps({"told": str(told), "exchanges": exchanges}))
        (work / "wireapp").mkdir()
        (work / "wireapp" / "pyproject.toml").write_text(PROJECT)
        (work / "wireapp" / "wireapp.py").write_text(APP)
        (work / "home").mkdir()
        (work / "home" / "config.toml").write_text(
            '[superlink]\ndefault = "lab"\n[superlink.lab]\n'
            f'address = "127.0.0.1:{FLOWER_PORT}"\nroot-certificates = "{work}/ca.pem"\n'
        )
        with InterfaceCounter(lab, counted.append):
            _run(lab, work, told, len(exchanges))
        lines = read_traffic_log(work / "relay.jsonl")
        rows = [json.loads(line) for line in told.read_text().splitlines()]
        first_s = rows[0]["began_s"]
        rows.insert(
            0, {"order": "start", "answer": 0, "work_s": 0, "began_s": 0.0, "ended_s": first_s}
        )
        for row in rows:
            window = (row.pop("began_s"), row.pop("ended_s"))
            row["seconds"] = round(window[1] - max(window[0], first_s - 60), 2)
            for kind, source in (("relay", lines), ("link", counted)):
                carried = traffic_between(source, *window)
                row[kind] = {
                    field: getattr(carried, field)
                    for field in ("up_bytes", "down_bytes", "up_segments", "down_segments")
                }
            print(json.dumps(row), flush=True)
        fab = sum(path.stat().st_size for path in (work / "wireapp").iterdir())
        found = json.dumps({"app_bytes": fab, "exchanges": rows}, indent=1) + "\n"
        replace_file(out / "flower_wire.json", found.encode())


def _run(lab: Lab, work: Path, told: Path, wanted: int) -> None:
    environment = os.environ | {
        "FLWR_HOME": str(work / "home"),
        "HOME": str(work / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    options = {"env": environment, "stderr": subprocess.STDOUT}
    script = "import sys; from flower_wire import relay_main; relay_main(*sys.argv[1:])"
    public = f"{lab.server.address}:{PUBLIC_PORT}"
    started = []

    def start(node, log, *words):  # type: ignore[no-untyped-def]
        with (work / log).open("wb") as file:
            started.append(node.spawn(words, stdout=file, **options))

    try:
        start(
            lab.server, "superlink.log", "flower-superlink", "--port", str(FLOWER_PORT),
            "--ssl-ca-certfile", str(work / "ca.pem"), "--ssl-certfile", str(work / "server.pem"),
            "--ssl-keyfile", str(work / "server.key"),
        )  # fmt: skip
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        start(
            lab.server, "relay.log", sys.executable, "-c", script, str(work / "relay.jsonl"),
            public, f"127.0.0.1:{FLOWER_PORT}",
        )  # fmt: skip
        time.sleep(8)
        start(
            lab.devices[0], "supernode.log", "flower-supernode", "--superlink", public,
            "--root-certificates", str(work / "ca.pem"), "--port", "9094",
            "--node-config", "partition-id=0",
        )  # fmt: skip
        time.sleep(8)
        start(
            lab.server, "run.log", "flwr", "run", str(work / "wireapp"), "lab",
            "--run-config", f"plan='{work / 'plan.json'}'",
        )  # fmt: skip
        deadline_s = time.monotonic() + LIMIT_S
        while not told.exists() or len(told.read_text().splitlines()) < wanted:
            if time.monotonic() > deadline_s:
                for log in ("superlink", "supernode", "run"):
                    print(log, (work / f"{log}.log").read_text()[-2000:], file=sys.stderr)
                raise TimeoutError(f"Flower: not done within {LIMIT_S} s")
            time.sleep(0.5)
        time.sleep(1)
    finally:
        for process in reversed(started):
            stop(process)


if __name__ == "__main__":
    typer.run(main)
