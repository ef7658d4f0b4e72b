"""How long a network of 98 MiB takes to be built from its mapped payload, as a probe builds it.

python benchmarks/models/building.py
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from summary import figure, write_summary
from torch import nn

from graft.core.payload import load_tensors, write_payload
from graft.core.tasks import Task
from graft.models import Architecture, add_architecture, build_network, network_from, parameters_of

RESULTS = Path(__file__).parent / "results"
REPEATS = 10
TASK = Task(name="windows", modality="imu", sample_shape=(6, 64), classes=tuple("abcdefgh"))


def dense(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Dense layers of 2048: 99 MiB in all."""
    layers = [nn.Linear(shape[0] * shape[1], 2048), *(nn.Linear(2048, 2048) for _ in range(6))]
    return nn.Sequential(nn.Flatten(), *(m for each in layers for m in (each, nn.ReLU()))), 2048


def main() -> None:
    add_architecture(Architecture(name="dense-99", takes="window", encoder=dense))
    times_s = []
    with tempfile.TemporaryFile() as file:
        facts = write_payload("dense-99", parameters_of(build_network("dense-99", TASK, 0)), file)
        for _ in range(REPEATS):
            parameters = load_tensors(file, facts.shapes, facts.data_at, mapped=True)
            start_s = time.perf_counter()
            network_from("dense-99", TASK, parameters)
            times_s.append(time.perf_counter() - start_s)
    median_ms = 1000 * sorted(times_s)[REPEATS // 2]
    command = "python benchmarks/models/building.py"
    path = write_summary(
        RESULTS, {"building a network of 99 MiB": figure(median_ms, "ms", "below 50", command, [0])}
    )
    print(f"{median_ms:.1f} ms; {path}")


if __name__ == "__main__":
    main()
