"""One small finished run, made by the Python API within this process."""

from pathlib import Path

import pytest

import graft

SETTINGS = {"world.windows_per_domain": 60, "training.max_steps": 8}
# The same, as the command is told it.
ARGUMENTS = (
    "simulate", "--domains", "8", "--rounds", "2", "--seed", "3", "--engine", "block",
    "--workers", "0", "--set", "world.windows_per_domain=60", "--set", "training.max_steps=8",
    "--set", 'comparisons=["label-only"]',
)  # fmt: skip


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> graft.Run:
    """Of 8 domains round(0.4 * 8) = 3 are founders, 5 are newcomers of two rounds."""
    place: Path = tmp_path_factory.mktemp("ecosystem") / "run"
    return graft.simulate(
        "imu", domains=8, rounds=2, seed=3, comparisons=["label-only"], settings=SETTINGS,
        engine="block", workers=0, out=place, track=[f"tensorboard={place.parent / 'events'}"],
    )  # fmt: skip


@pytest.fixture
def arguments() -> tuple[str, ...]:
    """What the command is told for the same run."""
    return ARGUMENTS
