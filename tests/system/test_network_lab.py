"""The network laboratory makes links as bad as asked, and counts what they carry."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from graft.wire.traffic_log import TrafficCounters, TrafficRecord, read_traffic_log, total_traffic

TRUST = Path(__file__).resolve().parents[2] / "benchmarks" / "trust"
MODULES = ("lab", "faults", "summary")
# Frame 14, IP 20 and UDP 8 bytes.
HEADERS = 42
SEND = """
import socket, sys, time
count, size, gap_s = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(count):
    out.sendto(number.to_bytes(4, "big") + bytes(size - 4), (sys.argv[1], 7000))
    time.sleep(gap_s)
"""
# Prints number and time of all that comes until nothing has for so many seconds.
HEAR = """
import json, socket, sys, time
inn = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
inn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
inn.bind(("0.0.0.0", 7000))
print("hearing", flush=True)
inn.settimeout(float(sys.argv[1]) + 5)
heard = []
try:
    while True:
        data = inn.recv(2000)
        heard.append((int.from_bytes(data[:4], "big"), time.time()))
        inn.settimeout(float(sys.argv[1]))
except TimeoutError:
    print(json.dumps(heard))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[ModuleType]:
    sys.path[:0] = [str(TRUST), str(TRUST.parent)]
    import lab

    if (reason := lab.unavailable()) is not None:
        pytest.skip(reason)
    yield lab
    for place in (TRUST, TRUST.parent):
        sys.path.remove(str(place))
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]


def send_up(made, count: int, size: int, gap_s: float, quiet_s: float):
    """Datagrams from device to server: sent between when and when, and what came when."""
    python = [sys.executable, "-S", "-E", "-c"]
    hear = made.server.spawn([*python, HEAR, str(quiet_s)], stdout=subprocess.PIPE, text=True)
    assert hear.stdout is not None
    assert hear.stdout.readline() == "hearing\n"
    words = [made.server.address, str(count), str(size), str(gap_s)]
    began_s = time.time()
    assert made.devices[0].spawn([*python, SEND, *words]).wait() == 0
    ended_s = time.time()
    told, _ = hear.communicate(timeout=60)
    return (began_s, ended_s), json.loads(told)


def test_a_delay_is_there_and_back(lab: ModuleType) -> None:
    knock = """
import socket, sys, time
out = socket.socket(); began = time.monotonic()
try: out.connect((sys.argv[1], 7001))
except ConnectionRefusedError: print(time.monotonic() - began)
"""
    with lab.Lab(1, shaped=True) as made:
        took = []
        for delay_s in (0.0, 0.15):
            made.shape(0, lab.LinkShape(delay_s=delay_s))
            words = [sys.executable, "-S", "-E", "-c", knock, made.server.address]
            knocked = made.devices[0].spawn(words, stdout=subprocess.PIPE, text=True)
            took.append(float(knocked.communicate(timeout=30)[0]))
    # A SYN there, the refusal back: twice the delay, and some milliseconds of a busy machine.
    assert took[0] < 0.1
    assert 0.3 <= took[1] < 0.45


def test_a_third_of_the_packets_is_lost_and_the_same_ones_again(lab: ModuleType) -> None:
    heard = []
    for _ in range(2):
        with lab.Lab(1, shaped=True, seed=5) as made:
            made.shape(0, lab.LinkShape(loss=0.3))
            heard.append([number for number, _ in send_up(made, 2000, 100, 0.0002, 0.5)[1]])
            shaper = made.shaper
    # Four standard deviations of a binomial of 2,000 at 0.7: 4 sqrt(2000 x 0.7 x 0.3) = 82.
    assert abs(len(heard[0]) - 1400) <= 82
    if shaper == "emulator":
        assert heard[0] == heard[1]


def test_a_rate_holds_back_and_its_queue_is_bounded(lab: ModuleType) -> None:
    with lab.Lab(1, shaped=True) as made:
        made.shape(0, lab.LinkShape(rate_bits_per_s=1e6, queue_packets=100))
        spans_s = []
        for _ in range(3):
            _, heard = send_up(made, 90, 1000 - HEADERS, 0.0, 1.0)
            assert len(heard) == 90
            spans_s.append(heard[-1][1] - heard[0][1])
        # 89 frames of 8,000 bits each behind the first; a busy machine only adds to a span.
        assert 0.95 * 0.712 <= min(spans_s) <= 1.1 * 0.712
        (began_s, ended_s), heard = send_up(made, 400, 1000 - HEADERS, 0.0, 1.0)
        # The queue takes a hundred of 400, and 125 a second that leave while they are sent.
        assert 100 <= len(heard) <= 101 + 125 * (ended_s - began_s) < 400


def test_a_delay_of_seconds_with_loss_and_a_slow_rate_still_delivers(lab: ModuleType) -> None:
    with lab.Lab(1, shaped=True) as made:
        made.shape(0, lab.LinkShape(delay_s=1.0, loss=0.1, rate_bits_per_s=64_000))
        (began_s, ended_s), heard = send_up(made, 10, 200 - HEADERS, 0.01, 2.0)
    # Each frame of 1,600 bits waits for those before it, 25 ms each, and is 1 s on its way.
    for place, (_, heard_s) in enumerate(heard, start=1):
        assert heard_s - began_s >= 1.0 + 0.025 * place
    assert heard[-1][1] - ended_s < 1.0 + 0.25 + 0.3


def test_an_interface_counts_every_frame(lab: ModuleType) -> None:
    lines: list[TrafficRecord] = []
    with lab.Lab(2) as made, lab.InterfaceCounter(made, lines.append):
        _, heard = send_up(made, 50, 500, 0.001, 0.5)
    assert len(heard) == 50
    assert total_traffic(lines) == TrafficCounters(up_bytes=50 * (500 + HEADERS), up_segments=50)
    assert {line.peer for line in lines} == {made.devices[0].address}


@pytest.mark.parametrize("shaped", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_relay_agrees_with_the_interfaces_within_two_per_cent(
    lab: ModuleType, tmp_path: Path, shaped: bool
) -> None:
    """4 MB down, 4 MB up and 200 small calls, each its own TLS connection, by gRPC."""
    from lab.certificates import write_certificates
    from lab.node import stop

    script = [sys.executable, str(TRUST / "workload.py")]
    with lab.Lab(1, shaped=shaped) as made:
        address = made.server.address
        write_certificates(tmp_path, address)
        words = [*script, "serve", str(tmp_path), address]
        serving = made.server.spawn(words, stdout=subprocess.PIPE, text=True)
        assert serving.stdout is not None
        assert serving.stdout.readline() == "serving\n"
        before = TrafficCounters()
        for what in ("fetch", "push", "small"):
            lines: list[TrafficRecord] = []
            words = [*script, "device", str(tmp_path), address, what]
            with lab.InterfaceCounter(made, lines.append):
                device = made.devices[0].spawn(words, stdout=subprocess.PIPE, text=True)
                assert device.communicate(timeout=100)[0] == '{"error": null}\n'
                time.sleep(0.5)  # the last segments, and the TCP proxy's next line
            counted = total_traffic(lines)
            after = total_traffic(read_traffic_log(tmp_path / "relay.jsonl"))
            relayed, before = after - before, after
            assert relayed.up_bytes == pytest.approx(counted.up_bytes, rel=0.02)
            assert relayed.down_bytes == pytest.approx(counted.down_bytes, rel=0.02)
            large = {"fetch": counted.down_bytes, "push": counted.up_bytes, "small": 3_000_000}
            assert large[what] >= 3_000_000
        assert stop(serving) == 0


def test_each_cell_of_the_fault_grid_ends_by_name_and_only_once(
    lab: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import faults

    from graft.errors import DomainLostError

    ran: list[str] = []

    def expand(made, cell, deadline_s: float):
        ran.append(cell.name)
        if cell.dropout:
            raise DomainLostError("gone")
        if cell.loss:
            time.sleep(deadline_s - time.monotonic() + faults.GRACE_S + 0.1)
        return faults.Ending(outcome="finished")

    cells = [faults.Cell(), faults.Cell(dropout=0.9), faults.Cell(loss=0.5)]
    for _ in range(2):
        rows = faults.run_grid(cells, expand, tmp_path / "cells.jsonl", devices=1, deadline_s=0.3)
        endings = [(row["outcome"], row["errors"]) for row in rows]
        assert endings == [("finished", []), ("failed", ["DomainLostError"]), ("hung", [])]
    assert len(ran) == 3


def test_the_grid_pairs_every_fault_with_every_other(lab: ModuleType) -> None:
    import faults

    cells = faults.grid()
    assert len(cells) == len(set(cells))
    worst = {"delay_s": 5.0, "loss": 0.5, "rate_bits_per_s": 64e3, "dropout": 0.9}
    assert faults.Cell(**worst) in cells
    for one in worst:
        for two in worst:
            assert faults.Cell(**{name: worst[name] for name in {one, two}}) in cells
    assert next(len(faults.dropped(cell, 10, 0)) for cell in cells if cell.dropout == 0.9) == 9


def test_a_killed_laboratory_leaves_no_process_behind(lab: ModuleType) -> None:
    script = f"""
import sys, time; sys.path.insert(0, {str(TRUST)!r})
from lab import Lab
made = Lab(1, shaped=True)
made.devices[0].spawn(["sh", "-c", "sleep 1000 & sleep 1000"])
time.sleep(0.3)
print(made.server.pid, made.devices[0].pid, made._emulators[0].pid if made._emulators else "")
sys.stdout.flush()
time.sleep(1000)
"""
    maker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    pids = [int(word) for word in maker.stdout.readline().split()]
    mine = f"/proc/{pids[1]}/ns/pid"
    inside = os.stat(mine).st_ino
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    for process in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            assert process.stat().st_ino != inside
        except OSError:
            continue
