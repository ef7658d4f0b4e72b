"""The compose file's own commands as processes: a deployment with TLS, beside the same in process.

Flower, its authentication, the reverse proxy, the depot and the devices are real; containers are not.
"""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from commands import GRAFT, free_port, quiet_environment
from compose import local_words
from graft_client.depot_client import open_deployed_channel
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.round_schedule import read_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process

from graft.core.config_files import read_config
from graft.core.deployment import read_device, read_server
from graft.core.results import ResultRow
from graft.core.tables import read_results
from graft.data.folder import FolderWorld, write_domain
from graft.wire.stubs import depot_pb2, depot_pb2_grpc

pytestmark = pytest.mark.slow
LIMIT_S = 1500.0
DEVICES = ("device-1", "device-2", "device-3")
INITIAL_DOMAINS, TARGET = ("user-000000", "user-000001"), "user-000002"
HERE = {"GRAFT_HOST": "127.0.0.1"}
# Smaller than the compose file's own, so that the test takes minutes.
SMALL = ["--set", "training.max_steps=20", "--set", "selection.num_sources=2"]


def graft(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [GRAFT, *arguments],
        env=quiet_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@contextmanager
def running(root: Path, name: str, *more: str) -> Iterator[None]:
    """A service as a process of its own session, until the block is left."""
    command = [str(GRAFT), *local_words(name, root, HERE), *more]
    with (root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=quiet_environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_compose_files_commands_give_what_the_same_rounds_give_in_process(
    tmp_path: Path,
) -> None:
    sampled = graft(*local_words("sample", tmp_path, HERE), "--windows", "60")
    assert sampled.returncode == 0, sampled.stderr
    ports = ["--flower-port", str(free_port()), "--depot-port", str(free_port())]
    setup = [*local_words("setup", tmp_path, HERE), *SMALL, *ports, "--format", "json"]
    first, again = graft(*setup), graft(*setup)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    made, kept = json.loads(first.stdout), json.loads(again.stdout)
    assert (len(made["devices"]), kept["devices"]) == (5, [])
    assert kept["run"] == made["run"]

    server = tmp_path / "field" / "server"
    asked = ["--server", str(server), "--format", "json"]
    patient = [*asked, "--join-timeout-s", "600", "--deadline-s", str(LIMIT_S)]
    metrics_port = free_port()
    with (
        running(tmp_path, "depot", "--metrics-port", str(free_port())),
        running(tmp_path, "server", "--metrics-port", str(metrics_port)),
        running(tmp_path, DEVICES[0], "--port", str(free_port())),
        running(tmp_path, DEVICES[1], "--port", str(free_port())),
        running(tmp_path, DEVICES[2], "--port", str(free_port())),
    ):
        rounds = [[*INITIAL_DOMAINS, "--initial"], [TARGET]]
        told = []
        for arriving in rounds:
            # What is not up yet is waited for.
            done = graft("deploy", "expand", *arriving, *patient)
            assert done.returncode == 0, done.stderr
            told += json.loads(done.stdout)
        seen = graft("deploy", "status", *asked)
        assert seen.returncode == 0, seen.stderr
        status = json.loads(seen.stdout)
        healthy = graft("deploy", "health", str(server))
        assert healthy.returncode == 0, healthy.stderr
        wanted = {
            "graft_devices_enrolled": 5.0,
            "graft_devices_online": 3.0,
            "graft_rounds_finished": 2.0,
            "graft_catalogue_models": 3.0,
        }
        _wait_for(wanted, metrics_port)
        assert (
            graft("deploy", "revoke", INITIAL_DOMAINS[1], "--server", str(server)).returncode == 0
        )
        _wait_for({"graft_devices_enrolled": 4.0, "graft_devices_online": 2.0}, metrics_port)
        model_id = told[0]["model"]
        said = [_depot_says(tmp_path / "field" / "devices" / d, model_id) for d in INITIAL_DOMAINS]
        assert said == [grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED]

    assert (status["superlink"], status["depot"]) == (True, True)
    assert (status["rounds"], status["finished"], status["models"]) == (2, 2, 3)
    online = {d["domain"]: (d["node"], d["round"], d["model"]) for d in status["devices"]}
    assert {d: online[d] for d in (*INITIAL_DOMAINS, TARGET)} == {
        INITIAL_DOMAINS[0]: ("online", 0, True),
        INITIAL_DOMAINS[1]: ("online", 0, True),
        TARGET: ("online", 1, True),
    }
    fielded = read_results(server / "runs" / made["run"] / "results.parquet")
    local = _in_process(server, tmp_path / "data", tmp_path / "local")
    assert [outcome(row) for row in fielded] == [outcome(row) for row in local]
    assert {row["domain"]: row["model"] for row in told} == {r.domain_id: r.model_id for r in local}


def outcome(row: ResultRow) -> tuple[object, ...]:
    return (
        row.domain_id, row.method, row.round_index, row.architecture, row.accuracy,
        tuple(row.source_domains), row.model_id, row.error,
    )  # fmt: skip


def _in_process(server: Path, data: Path, out: Path) -> list[ResultRow]:
    """The deployment's rounds with its own configuration, every device in this thread."""
    config = read_config(server / "expansion.toml")
    for domain_id in (*INITIAL_DOMAINS, TARGET):
        write_domain(out / "data", FolderWorld(data / domain_id).load(domain_id))
    table = (server / "dataset.toml").read_bytes()
    (out / "data" / "dataset.toml").write_bytes(table)
    world = FolderWorld(out / "data")
    folder = RunFolder(out / read_server(server).run)
    folder.begin(config, world)
    settings = RunSettings(config=config, world=world, folder=folder, planned=read_rounds(server))
    run_rounds(connect_in_process(settings), settings)
    return list(read_results(folder.path / "results.parquet"))


def _depot_says(device: Path, model_id: str) -> grpc.StatusCode:
    """The status by which the depot answers a device's question for a model."""
    with open_deployed_channel(read_device(device).depot, device, insecure=False) as channel:
        stub = depot_pb2_grpc.DepotStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.Stat(depot_pb2.StatRequest(model_id=model_id), timeout=30)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def _wait_for(wanted: dict[str, float], port: int) -> None:
    until_s = time.monotonic() + 180
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        shown = {name: float(value) for name, _, value in (line.partition(" ") for line in lines)
                 if name in wanted}  # fmt: skip
        if shown == wanted:
            return
        assert time.monotonic() < until_s, shown
        time.sleep(5)
