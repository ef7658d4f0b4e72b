"""What gRPC puts on the wire beside a payload: a connection, a fetch, a push.

    python benchmarks/trust/depot_wire.py

A depot over TLS in the network laboratory, and a device that makes so many calls of one channel.
Differences between the counts are one call's share: constants of ``graft/wire/overhead.py``.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from lab import InterfaceCounter, Lab
from lab.certificates import write_certificates
from lab.node import stop

from graft.core.files import replace_file
from graft.wire.traffic_log import TrafficRecord, total_traffic
from graft.wire.transfer.transfer_log import read_journal

CALLS = (("base", 1), ("base", 11), ("base", 101), ("exact", 1), ("pushes", 1), ("pushes", 11))


def main() -> None:
    """Make the calls and write what each number of them carried."""
    rows = []
    with Lab(1) as lab, tempfile.TemporaryDirectory() as name:
        folder, address = Path(name), lab.server.address
        write_certificates(folder, address)
        script = [sys.executable, str(HERE / "workload.py")]
        words = [*script, "serve", name, address]
        serving = lab.server.spawn(words, stdout=subprocess.PIPE, text=True)
        assert serving.stdout is not None
        serving.stdout.readline()
        for what, times in CALLS:
            lines: list[TrafficRecord] = []
            (folder / "journal.jsonl").unlink(missing_ok=True)
            with InterfaceCounter(lab, lines.append):
                words = [*script, "device", name, address, what, str(times)]
                lab.devices[0].spawn(words, stdout=subprocess.DEVNULL).wait()
                time.sleep(0.3)
            carried = total_traffic(lines)
            entries = read_journal(folder / "journal.jsonl")
            row = {
                "what": what,
                "times": times,
                "payload_bytes": sum(entry.payload_bytes for entry in entries),
                "modelled_bytes": sum(entry.wire_bytes for entry in entries),
                "up_bytes": carried.up_bytes,
                "down_bytes": carried.down_bytes,
                "up_segments": carried.up_segments,
                "down_segments": carried.down_segments,
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
        stop(serving)
    replace_file(HERE / "results" / "depot_wire.json", (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
