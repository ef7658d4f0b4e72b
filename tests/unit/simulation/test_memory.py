"""The memory meter sees this process, its children, and the highest that they came to."""

import subprocess
import sys
import time

import numpy as np
import psutil
from graft_simulation.environment import memory_measured

CHILD_BYTES = 60 * 2**20
CHILD = f"""
import sys
held = bytearray(b"x" * {CHILD_BYTES})
print("ready", flush=True)
sys.stdin.read()
"""


def own_bytes() -> int:
    info = psutil.Process().memory_full_info()
    return int(getattr(info, "pss", info.rss))


def test_it_sees_at_least_this_process_however_short_the_block() -> None:
    before = own_bytes()
    with memory_measured() as meter:
        pass
    assert meter.peak_bytes > before / 2


def test_it_remembers_a_peak_that_is_over() -> None:
    before = own_bytes()
    with memory_measured(period_s=0.01) as meter:
        held = np.ones(CHILD_BYTES // 8)
        time.sleep(0.3)
        assert held[-1] == 1
        del held
        time.sleep(0.05)
    # Half of what was allocated leaves room for what the process gave back meanwhile.
    assert meter.peak_bytes > before + CHILD_BYTES / 2


def test_it_sees_children() -> None:
    before = own_bytes()
    with (
        subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
        memory_measured(period_s=0.01) as meter,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.3)
        child.communicate()
    assert meter.peak_bytes > before + CHILD_BYTES / 2
