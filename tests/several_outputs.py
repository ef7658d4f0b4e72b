"""A domain folder whose rows have labels and amounts that can be learnt, of six or more people."""

from pathlib import Path

import numpy as np

from graft.core.tasks import InputSpec, OutputSpec, Task
from graft.data.dataset_table import write_dataset

INPUT = InputSpec(name="x", kind="window", shape=(2, 32), modality="imu", rate_hz=50.0)
OUTPUTS = (
    OutputSpec(name="tags", kind="labels", classes=("loud", "fast", "never")),
    OutputSpec(name="pulse", kind="amount", classes=("pulse", "depth")),
)
TASK = Task(name="waves", modality="imu", inputs=(INPUT,), outputs=OUTPUTS)


def write_waves(folder: Path, people: int = 8, rows: int = 60) -> Path:
    """Waves of an amplitude and a frequency, which are loud, fast, and measured as two amounts."""
    write_dataset(folder, TASK, channels={"x": ["a", "b"]}, rate_hz=50.0, licence="x")
    (folder / "domains").mkdir()
    for person in range(people):
        rng = np.random.default_rng(person)
        size, pace = rng.uniform(0.2, 2.0, rows), rng.uniform(1, 6, rows)
        time_T = np.linspace(0, 2 * np.pi, 32)
        phase = rng.uniform(0, 6, rows)[:, None]
        wave_NT = size[:, None] * np.sin(pace[:, None] * time_T + phase)
        x = np.stack([wave_NT, np.roll(wave_NT, 4, 1)], 1) + rng.normal(0, 0.05, (rows, 2, 32))
        tags = np.stack([size > 1, pace > 3, size > 9], 1).astype(np.int64)
        pulse = np.stack([70 + 20 * pace, 1000 * size], 1)
        np.savez(
            folder / "domains" / f"p{person}.npz",
            x=x.astype(np.float32), tags=tags, pulse=pulse.astype(np.float32),
            group=np.arange(rows) // 4,
        )  # fmt: skip
    return folder
