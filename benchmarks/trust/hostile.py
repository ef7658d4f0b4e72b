"""A hostile enrolled device and strangers at the ports, beside four honest devices of a deployment.

python benchmarks/trust/hostile.py

Two initial domains are served once. Each attack begins with a copy of that deployment, and lasts
from before the round of the four honest devices until its end; 400 silent connections of strangers,
from another address, to the public ports are part of each. The hostile device either is in the
round and spoils its answers (``hostile_device/``), or attacks from outside of it. "other-user"
needs root. Between any two attacks the round runs alone: a machine with other work is as slow in
one as in the other. Finished rounds are in results/hostile.jsonl and are not run again.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import psutil
import typer
from graft_client.depot_client import open_deployed_channel
from graft_server.flower.superlink import open_superlink
from graft_server.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary
from trust.field import Field, wait_until, write_world

from graft.core.deployment import DeviceSettings, read_device
from graft.core.files import LineFile
from graft.core.outputs import fresh_folder
from graft.core.results import ResultRow
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.errors import GraftError
from graft.wire.stubs import depot_pb2, depot_pb2_grpc

HERE = Path(__file__).resolve().parent
EARLIER = ("user-000000", "user-000001")
HONEST = tuple(f"user-{number:06d}" for number in range(2, 6))
HOSTILE = "user-000006"
NOBODY = 65534
SETTINGS = {"training.max_steps": 20, "selection.num_sources": 2, "comparisons": "[]"}
_STREAMS, _FLOODS, _SILENT = 64, 8, 400
_CHUNK_BYTES = 65_536
_PAUSE_S = 0.05
_MOST_MB = 200
_STRANGER = "127.0.0.66"
ROWS = HERE / "results" / "hostile.jsonl"
Attack = Callable[[Field, DeviceSettings, threading.Event], None]
# What the hostile device does in the round, and how its domain's row says so.
ANSWERS = {
    "inadmissible-profile": "wanted 0 to", "inadmissible-result": "wanted 0 to",
    "anothers-model": "wanted its own", "false-reports": "", "markup": "[/]",
    "silent": "no answer", "replay": "signature",
}  # fmt: skip


def main(
    only: Annotated[list[str] | None, typer.Option(help="Attacks; all if left out.")] = None,
    seed: Annotated[int, typer.Option(help="Of the devices' data.")] = 0,
    work: Annotated[Path, typer.Option(help="Where deployments go.")] = Path("runs/trust-hostile"),
) -> None:
    """The time of the honest devices' round under each attack, and alone before and after it."""
    fresh_folder(work)
    names = [*EARLIER, *HONEST, HOSTILE]
    write_world(ImuWorld(len(names), 60, seed=seed), names, work / "data", list(CHANNELS))
    with Field(work / "field", work / "data", names, settings=SETTINGS) as field:
        _wait_for_ports(field)
        if status := field.expand(EARLIER, initial_domains=True):
            raise RuntimeError(f"the initial domains' round ended with {status}")
    (work / "field").rename(work / "base")
    done = {row["attack"] for row in _rows() if row["seed"] == seed}
    missing = [name for name in only or [*ANSWERS, *ATTACKS] if name not in done]
    before = _round(work, "alone", 3600) if missing else None
    for name in missing:
        assert before is not None
        # A device's first answer takes most of a round: its processes start. As long as the round
        # of before took, a silent one is waited for.
        attacked = _round(work, name, before["s"])
        after = _round(work, "alone", 3600)
        row = {"attack": name, "seed": seed, **attacked, "alone": [before, after]}
        with closing(LineFile(ROWS)) as rows:
            rows.append(row)
        typer.echo(json.dumps(row))
        before = after
    write_summary(HERE / "results", figures(_rows()))


def _rows() -> list[dict[str, Any]]:
    lines = ROWS.read_text("utf-8").splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each attack's time and memory against the means of the rounds before and after it."""
    command, told = "python benchmarks/trust/hostile.py", {}
    for row in rows:
        seeds, name = [row["seed"]], f"hostile/{row['attack']}"
        alone_s = np.mean([each["s"] for each in row["alone"]])
        more = (row["bytes"] - max(each["bytes"] for each in row["alone"])) / 1e6
        told |= {
            f"{name}/time": figure(row["s"] / alone_s, "times alone", "<= 1.5", command, seeds),
            f"{name}/alone": figure(alone_s, "s", None, command, seeds),
            f"{name}/memory": figure(
                more, "MB more than alone (PSS)", f"<= {_MOST_MB}", command, seeds
            ),
            f"{name}/named": figure(row["named"], "lines that name it", ">= 1", command, seeds),
        }
    return told


def _round(work: Path, name: str, deadline_s: float) -> dict[str, Any]:
    """Seconds of the honest round, the server's peak memory, and how often it named the culprit."""
    typer.echo(f"{time.strftime('%H:%M:%S')} {name}")
    if (work / "field").exists():
        shutil.rmtree(work / "field")
    shutil.copytree(work / "base", work / "field", symlinks=True)
    answers = name in ANSWERS

    def spawn(domain: str) -> Any:
        if not answers or domain != HOSTILE:
            return subprocess.Popen
        folder = str(HERE / "hostile_device")

        def hostile(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
            path = os.pathsep.join([folder, env.get("PYTHONPATH", "")])
            more = {"PYTHONPATH": path, "GRAFT_HOSTILE": name}
            return subprocess.Popen(command, env={**env, **more}, **options)

        return hostile

    domains = [*HONEST, HOSTILE] if answers else list(HONEST)
    words = [*domains, *(["--answer-s", str(deadline_s)] if name == "silent" else [])]
    field = Field(work / "field", work / "data", [*HONEST, HOSTILE], spawn_device=spawn)
    with field:
        device = _wait_for_ports(field)
        wait_until(lambda: _has_joined(field), "the devices", 600)
        attack = None if name == "alone" else ATTACKS.get(name, _nothing)
        with _attacked(attack, field, device), _peak_memory(field) as peak:
            started_s = time.monotonic()
            field.start_expand(words).wait()
            taken_s = time.monotonic() - started_s
        rows = RunFolder(field.run_folder()).read_rows(2)
        of_round = {row.domain_id: row for row in rows if row.round_index == 1}
        failed = [d for d in HONEST if d not in of_round or of_round[d].error]
        if failed:
            raise RuntimeError(f"{name}: {failed[0]} was not served: {of_round.get(failed[0])}")
        named = 0 if name == "alone" else _mentions(field, of_round.get(HOSTILE), name)
        return {"s": round(taken_s, 1), "bytes": max(peak), "named": named}


def _wait_for_ports(field: Field) -> DeviceSettings:
    device = read_device(field.folder / "devices" / HOSTILE)
    wait_until(lambda: _is_up(device), "the server's ports", 600)
    return device


def _has_joined(field: Field) -> bool:
    """Whether all devices' nodes are online, so that a round has not to wait for them."""
    with suppress(GraftError, OSError):
        return all(
            open_superlink(field.server).nodes().get(d) == "online" for d in (*HONEST, HOSTILE)
        )
    return False


def _nothing(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Nothing beside the answers."""


@contextmanager
def _attacked(attack: Attack | None, field: Field, device: DeviceSettings) -> Iterator[None]:
    over = threading.Event()
    work = [] if attack is None else [attack, silent_strangers]
    threads = [threading.Thread(target=each, args=[field, device, over]) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def _peak_memory(field: Field) -> Iterator[list[int]]:
    """Samples of the memory of the server's processes, in bytes."""
    samples, over = [0], threading.Event()

    def sample() -> None:
        while not over.wait(2.0):
            processes = field.processes()
            roles = (processes.get(role, []) for role in ("server", "superlink", "serverapp"))
            with suppress(psutil.Error):
                samples.append(sum(p.memory_full_info().pss for role in roles for p in role))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _mentions(field: Field, row: ResultRow | None, name: str) -> int:
    """How often the hostile device's row, its reports, or lines of the server's logs name it."""
    if name in ANSWERS and name != "false-reports":
        said = f"{row.error} {row.error_message}" if row is not None and row.error else ""
        if not said or ANSWERS[name] not in said:
            raise RuntimeError(f"{name}: got the row {row}, wanted an error with {ANSWERS[name]!r}")
        return 1
    if name == "false-reports":
        reports = RunFolder(field.run_folder()).read_state().rejections
        if any(report.confirmed for report in reports):
            raise RuntimeError(f"{name}: an honest source was found to have a fault")
        return sum(report.by == HOSTILE for report in reports)
    calls = field.server / "state" / "depot-calls.jsonl"
    lines = calls.read_text("utf-8").splitlines() if calls.exists() else []
    records = [json.loads(line) for line in lines]
    refused = sum(c["device"] == HOSTILE and c["outcome"] != "OK" for c in records)
    logs = [*field.server.rglob("*.log"), field.folder / "server.log"]
    text = "".join(path.read_text("utf-8", "replace") for path in logs if path.exists())
    gateway = text.count(f"device {HOSTILE}: turned away")
    named = refused + gateway + text.count(f"user {NOBODY} refused")
    if not named and name != "silent-strangers":  # whose addresses name nobody
        raise RuntimeError(f"{name}: nothing names it")
    return named


def _is_up(device: DeviceSettings) -> bool:
    return all(_connects(address) for address in (device.superlink, device.depot))


def _connects(address: str) -> bool:
    with suppress(OSError), _connected(address):
        return True
    return False


def _connected(address: str, own: str = "127.0.0.1") -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), 5, (own, 0))


def idle_streams(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Pushes that say nothing after their first message, renewed as they are ended."""

    def messages() -> Iterator[depot_pb2.PushChunk]:
        yield depot_pb2.PushChunk(header=depot_pb2.PushHeader(model_id="0" * 64, exact_bytes=10))
        over.wait()

    def hold() -> None:
        while not over.wait(_PAUSE_S):
            with suppress(grpc.RpcError):
                stub.Push(messages())

    with _depot(field, device) as stub:
        _in_threads(hold, _STREAMS)


def calls(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Questions for a model that does not exist, one after another on several threads."""

    def ask() -> None:
        while not over.is_set():
            with suppress(grpc.RpcError):
                stub.Stat(depot_pb2.StatRequest(model_id="0" * 64), timeout=30)

    with _depot(field, device) as stub:
        _in_threads(ask, _FLOODS)


def pushes(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Whole models that nobody asked for, one after another on several threads."""

    def push() -> None:
        while not over.wait(_PAUSE_S):
            with suppress(grpc.RpcError):
                stub.Push(iter([header, *chunks]), timeout=30)

    header = depot_pb2.PushChunk(
        header=depot_pb2.PushHeader(model_id="0" * 64, exact_bytes=32 * _CHUNK_BYTES)
    )
    chunks = [depot_pb2.PushChunk(data=bytes(_CHUNK_BYTES)) for _ in range(32)]
    with _depot(field, device) as stub:
        _in_threads(push, _FLOODS)


def bodies(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Requests to the gateway whose bodies come byte by byte and never end."""
    folder = field.folder / "devices" / HOSTILE
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"

    def send() -> None:
        while not over.wait(_PAUSE_S):
            with (
                suppress(OSError),
                _connected(device.superlink) as line,
                context.wrap_socket(line, server_hostname="127.0.0.1") as sealed,
            ):
                sealed.sendall(head)
                while not over.wait(1.0):
                    sealed.sendall(b"x")

    _in_threads(send, _STREAMS)


def silent_strangers(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Connections to the public ports that never say a word, renewed as they are closed."""
    lines: list[socket.socket] = []
    while not over.wait(_PAUSE_S):
        for address in (device.superlink, device.depot):
            if len(lines) < _SILENT:
                with suppress(OSError):
                    lines.append(_connected(address, _STRANGER))
    for line in lines:
        line.close()


def other_user(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Another user of the server's machine asks the SuperLink to start runs."""
    port = int((field.server / "state" / "superlink.port").read_text("utf-8"))
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(NOBODY)
        while True:
            with suppress(OSError), socket.socket() as line:
                line.settimeout(5)
                line.connect(("127.0.0.1", port))
                line.sendall(b"POST /v1/control/start-run HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
                line.recv(64)
            time.sleep(_PAUSE_S)
    over.wait()
    os.kill(child, 9)
    os.waitpid(child, 0)


def all_at_once(field: Field, device: DeviceSettings, over: threading.Event) -> None:
    """Every attack from outside of the round, by one device and one other user."""
    attacks = (other_user, idle_streams, calls, pushes, bodies)
    threads = [threading.Thread(target=each, args=[field, device, over]) for each in attacks]
    for thread in threads:
        thread.start()
        time.sleep(1.0)  # a process is forked before gRPC has threads
    for thread in threads:
        thread.join()


@contextmanager
def _depot(field: Field, device: DeviceSettings) -> Iterator[depot_pb2_grpc.DepotStub]:
    folder = field.folder / "devices" / HOSTILE
    with open_deployed_channel(device.depot, folder, insecure=device.insecure) as channel:
        yield depot_pb2_grpc.DepotStub(channel)


def _in_threads(work: Callable[[], None], number: int) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ATTACKS: dict[str, Attack] = {
    "idle-streams": idle_streams,
    "calls": calls,
    "pushes": pushes,
    "bodies": bodies,
    "all-at-once": all_at_once,
    "silent-strangers": _nothing,
    "other-user": other_user,
}


if __name__ == "__main__":
    typer.run(main)
