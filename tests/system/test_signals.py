"""Ctrl-C and SIGTERM at several moments: no traceback, nobody left, and the same hash after all."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import GRAFT, quiet_environment, run_facts, wait_until
from machines import TINY

MOMENTS = ("round 0 join", "round 0 report", "round 1 probe", "round 1 report")
CTRL_C, SIGTERM = "Ctrl-C", "SIGTERM"


def interrupted(
    cwd: Path, reached: Callable[[str], object], how: str, *words: str
) -> tuple[int, str]:
    """Start a command, and interrupt it at a moment that its error stream tells; its exit code, and
    all that it said. Nobody of its family lives on."""
    log = cwd / "stderr"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [GRAFT, *words], cwd=cwd, env=quiet_environment() | {"COLUMNS": "400"},
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True, text=True,
        )  # fmt: skip
    wait_until(
        lambda: process.poll() is not None or bool(reached(log.read_text("utf-8", "replace"))),
        "the moment",
    )  # fmt: skip
    assert process.poll() is None, log.read_text("utf-8")
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    if how == CTRL_C:  # a terminal sends it to all
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    end_s = time.monotonic() + 20
    while alive := [each for each in family if each.is_running()
                    and each.status() != psutil.STATUS_ZOMBIE]:  # fmt: skip
        assert time.monotonic() < end_s, alive
        time.sleep(0.1)
    told = out + log.read_text("utf-8", "replace")
    assert "Traceback" not in told
    assert told.splitlines().count("interrupted") == 1
    return process.returncode, told


def check_run(cwd: Path, engine: str, how: str, moments: tuple[str, ...]) -> None:
    """A run that is interrupted again and again ends as one that never was."""
    words = [*TINY, "run", "--engine", engine]
    for moment in moments:
        code, told = interrupted(cwd, lambda told, at=moment: at in told, how, *words)
        assert code == 130
        (resume,) = re.findall(
            r"^continue with: graft (simulate --resume \S+)$", told, re.MULTILINE
        )
        words = resume.split()
    done = [subprocess.run([GRAFT, *each], cwd=cwd, env=quiet_environment(), capture_output=True)
            for each in (words, [*TINY, "whole", "--engine", engine])]  # fmt: skip
    assert [each.returncode for each in done] == [0, 0], done
    assert run_facts(cwd / "run")["hash"] == run_facts(cwd / "whole")["hash"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [CTRL_C, SIGTERM])
@pytest.mark.parametrize("engine", ["block", "flower"])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, engine: str, how: str) -> None:
    check_run(tmp_path, engine, how, MOMENTS)


@pytest.mark.parametrize("how", [pytest.param(CTRL_C, marks=pytest.mark.slow), SIGTERM])
def test_an_interrupted_import_leaves_nothing(tmp_path: Path, how: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    lines = "".join(f"{10 * i},{'ab'[i // 3000 % 2]},{i % 97}\n" for i in range(120_000))
    for person in range(12):  # a second of work
        (source / f"p{person}.csv").write_text("t,label,x\n" + lines, "utf-8")
    words = ("data", "from-csv", str(source), "--sensors", "x", "--label", "label", "--rate", "100",
             "--time", "t", "--time-unit", "ms", "--out", "out")  # fmt: skip
    code, _ = interrupted(tmp_path, lambda told: list(tmp_path.glob(".lines-*")), how, *words)
    assert code == 130
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "stderr"]
