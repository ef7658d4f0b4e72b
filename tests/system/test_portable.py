"""``graft simulate --portable`` here and on an emulated processor of another kind."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import quiet_environment

from graft.cli.simulate import ENVIRONMENT

pytestmark = pytest.mark.slow
QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
COMMAND = (
    "simulate", "--portable", "--domains", "6", "--rounds", "1", "--engine", "block",
    "--set", "world.windows_per_domain=40", "--set", "training.max_steps=6",
    "--set", "selection.num_sources=2",
)  # fmt: skip
Graft = Callable[..., "subprocess.CompletedProcess[str]"]


def hash_of(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).rpartition("hash ")[2].strip()


def test_workers_get_the_environment_too(graft: Graft) -> None:
    alone = hash_of(graft(*COMMAND, "--workers", "0", "--out", "alone"))
    assert hash_of(graft(*COMMAND, "--workers", "2", "--out", "workers")) == alone


@pytest.mark.skipif(QEMU is None, reason="qemu-user-static is not here")
def test_an_emulated_haswell_gives_the_same_hash(graft: Graft, tmp_path: Path) -> None:
    here = hash_of(graft(*COMMAND, "--workers", "0", "--out", "here"))
    program = (QEMU, "-cpu", "Haswell", sys.executable, "-P", "-m", "graft_origin")
    done = subprocess.run(
        [*program, *COMMAND, "--workers", "0", "--out", "there"],
        cwd=tmp_path,
        # Set beforehand: a program that an emulated one starts would not be emulated.
        env=quiet_environment() | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert hash_of(done) == here


@pytest.mark.parametrize("elsewhere", [("--accelerator", "cuda"), ("--ray-address", "host:6379")])
def test_what_no_environment_holds_is_refused(graft: Graft, elsewhere: tuple[str, str]) -> None:
    done = graft(*COMMAND, *elsewhere)
    assert done.returncode == 1
    assert f"portable: got {elsewhere[1]}, wanted the processor of this machine" in done.stderr
