"""What reading large tables costs: ``python benchmarks/intake/run.py``.

Twelve people with six sensors at 50 Hz in one CSV file, 536 MB, and the same for one person alone.
The command runs in a process of its own; its CPU seconds and its peak memory are the system's.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from summary import figure, write_summary

HERE = Path(__file__).resolve().parent
RATE_HZ = 50
HEADER = "person,activity,time_ms,acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z\n"


def write_table(path: Path, people: int, num_bytes: int, seed: int) -> None:
    """Walks and rests of a minute each, in the order of the people."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        file.write(HEADER)
        for person in range(people):
            line = 0
            while file.tell() < num_bytes * (person + 1) / people:
                values = rng.normal(0, 3, (60 * RATE_HZ, 6)).cumsum(axis=0) % 20 - 10
                label = ("walk", "rest")[line // (60 * RATE_HZ) % 2]
                file.write(
                    "".join(
                        f"person-{person:02d},{label},{1700000000000 + 20 * (line + index)},"
                        + ",".join(map("{:.5f}".format, row))
                        + "\n"
                        for index, row in enumerate(values)
                    )
                )
                line += len(values)


def convert(table: Path, out: Path) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of ``graft data from-csv``."""
    code = "import sys; from graft_origin import main; sys.exit(main())"
    command = [
        sys.executable, "-c", code, "data", "from-csv", str(table), "--user", "person",
        "--label", "activity", "--sensors", "acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z",
        "--time", "time_ms", "--rate", str(RATE_HZ), "--out", str(out),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("from-csv failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def main(
    megabytes: Annotated[int, typer.Option(help="Size of the table.")] = 536,
    seed: Annotated[int, typer.Option(help="Of the readings.")] = 0,
) -> None:
    """Write the tables, convert them, and note what it took."""
    figures = {}
    text = f"python benchmarks/intake/run.py --megabytes {megabytes}"
    with tempfile.TemporaryDirectory() as place:
        for people in (12, 1):
            table = Path(place) / f"{people}.csv"
            write_table(table, people, megabytes * 10**6, seed)
            cpu_s, peak_mb = convert(table, Path(place) / f"out-{people}")
            table.unlink()
            print(f"{people} people: {cpu_s:.1f} CPU seconds, {peak_mb:.0f} MB", flush=True)
            name = f"intake/{megabytes}-mb-of-csv-{people}-people"
            figures[f"{name}/cpu"] = figure(cpu_s, "CPU seconds", "at most 60", text, [seed])
            figures[f"{name}/memory"] = figure(
                peak_mb, "MB at the peak", "at most 500", text, [seed]
            )
    write_summary(HERE / "results", figures)


if __name__ == "__main__":
    typer.run(main)
