"""What machines have done to graft's processes, each with the result that is right."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from commands import GRAFT, LIMIT_S, free_port, quiet_environment, run_facts, wait_until
from machines import NAMESPACES, PROXIES, TINY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pages import ROOT

from graft.core.deployment import read_device
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS

Graft = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def graft(tmp_path: Path) -> Graft:
    """Run ``graft`` in tmp_path with variables of its own, after shell commands."""

    def run(
        *arguments: str, before: str = "", unshare: str = "", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        shell = ["/bin/bash", "-e", "-c", f'{before}\nexec "$@"', "bash", str(GRAFT), *arguments]
        return subprocess.run(
            ["unshare", *unshare.split(), *shell] if unshare else shell,
            cwd=tmp_path,
            env=quiet_environment() | variables,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=3 * LIMIT_S,
        )

    return run


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    task = ImuWorld(2, 40, seed=0).task
    write_dataset(tmp_path / "set", task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    return tmp_path / "set"


def said(done: "subprocess.CompletedProcess[str]", error: str) -> str:
    """The one line of a command that failed; no traceback is beside it."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if re.match(r"\w+Error: ", line)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(error), lines[0]
    return lines[0]


# An address with colons


def test_an_ipv6_host_has_brackets_wherever_a_port_follows(
    graft: Graft, dataset: Path, tmp_path: Path
) -> None:
    words = ("init", "dep", "--host", "::1", "--dataset", str(dataset), "--device", "p1")
    assert graft("deploy", *words).returncode == 0
    settings = read_device(tmp_path / "dep" / "devices" / "p1")
    assert (settings.superlink, settings.depot) == ("[::1]:9443", "[::1]:9444")


# Texts put into another format


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
def test_units_for_a_path_with_signs_are_what_systemd_takes(graft: Graft, tmp_path: Path) -> None:
    state = tmp_path / "my graft" / "a%20b 'c' $d"
    (state / "devices").mkdir(parents=True)
    assert graft("deploy", "units", "units", "--state", str(state)).returncode == 0
    for unit in sorted((tmp_path / "units").iterdir()):
        name = unit.name.replace("@.", "@ann.")
        if name != unit.name:
            unit = unit.rename(unit.with_name(name))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
        )
        mine = [line for line in done.stderr.splitlines() if "graft" in line]
        assert not [line for line in mine if "not absolute" in line or "resolve" in line], mine
        command = next(
            line for line in unit.read_text("utf-8").splitlines() if line.startswith("ExecStart=")
        )
        words = shlex.split(command.removeprefix("ExecStart=").replace("%%", "%"))
        assert any(word.replace("$$", "$").startswith(str(state)) for word in words)


# A job's own long folder for temporary files


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["block", "flower"])
def test_a_tmpdir_longer_than_a_sockets_path_is_no_obstacle(
    graft: Graft, tmp_path: Path, engine: str
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    done = graft(*TINY, "run", "--engine", engine, TMPDIR=str(long))
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_facts(tmp_path / "run")["status"] == "complete"


# A beginner's own modules on the import path


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["block", "flower"])
def test_namesakes_on_the_import_path_are_not_imported(
    graft: Graft, tmp_path: Path, engine: str
) -> None:
    for name in ("server", "client", "simulation", "graft", "graft_server"):
        path = tmp_path / "mine" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise RuntimeError('a stranger')\n", "utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path / "mine"), os.environ.get("PYTHONPATH")]))
    done = graft(*TINY, "run", "--engine", engine, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_facts(tmp_path / "run")["status"] == "complete"


# A disk that is full


@pytest.mark.slow
@pytest.mark.skipif(not NAMESPACES, reason="only root can mount a small disk")
@pytest.mark.parametrize("engine", ["block", "flower"])
def test_a_full_disk_ends_a_run_with_the_command_that_continues_it(
    graft: Graft, tmp_path: Path, engine: str
) -> None:
    (tmp_path / "t").mkdir()
    # What the small disk held when it was full is copied out before it is gone.
    run = 'mount -t tmpfs -o size=400k none t; set +e; "$@"; code=$?; cp -r t/run kept; exit $code'
    done = graft(*TINY, "t/run", "--engine", engine, before=f"{run}\n", unshare="-m")
    line = said(done, "StorageError: ")
    assert "No space left on device; make room" in line
    assert re.search(r"then graft simulate --resume \S*t/run", line)
    usual = graft(*TINY, "usual", "--engine", engine)
    assert usual.returncode == 0, usual.stderr
    done = graft("simulate", "--resume", "kept", "--workers", "1")
    assert done.returncode == 0, done.stderr
    facts, other = run_facts(tmp_path / "kept"), run_facts(tmp_path / "usual")
    assert facts["hash"] == other["hash"]


# A terminal that is not UTF-8


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_tables_are_shown_on_a_terminal_that_lacks_their_signs(
    graft: Graft, tmp_path: Path, encoding: str
) -> None:
    first = graft(*TINY, "run", "--engine", "block", PYTHONIOENCODING=encoding)
    assert first.returncode == 0, first.stderr
    usual = graft("report", "run", PYTHONIOENCODING="utf-8").stdout
    assert not usual.isascii()
    for words in (("report", "run"), ("watch", "run", "--once")):
        done = graft(*words, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
    shown = graft("report", "run", PYTHONIOENCODING="ascii").stdout
    assert len(shown.splitlines()) == len(usual.splitlines())


# An engine that breaks

BROKEN = """
import builtins, sys
real = builtins.__import__

def imported(name, *rest, **more):
    module = real(name, *rest, **more)
    backend = sys.modules.get("flwr.server.superlink.fleet.vce.backend.raybackend")
    kind = getattr(backend, "RayBackend", None)
    if kind is not None and "build" in vars(kind):
        def build(self, app):
            import time
            time.sleep(3)  # the ServerApp waits for nodes by now
            raise OSError("AF_UNIX path length cannot exceed 107 bytes")
        kind.build = build
    return module

builtins.__import__ = imported
"""


@pytest.mark.slow
def test_an_engine_that_breaks_ends_the_command_with_its_reason(
    graft: Graft, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text(BROKEN, "utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path / "mine"), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [GRAFT, *TINY, "run", "--join-timeout-s", "200"],
        cwd=tmp_path, env=quiet_environment() | {"PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    log = tmp_path / "run" / "flower.log"
    wait_until(log.exists, "Flower's log")
    began_s = time.monotonic()
    out, err = process.communicate(timeout=LIMIT_S)
    assert time.monotonic() - began_s < 60, "it waited for nodes that never come"
    line = said(subprocess.CompletedProcess([], process.returncode, out, err), "EdgeError: ")
    assert "AF_UNIX path length cannot exceed 107 bytes" in line
    assert "Exception ignored" not in err


@pytest.mark.slow
@pytest.mark.skipif(not NAMESPACES, reason="only root can mount")
def test_a_ray_without_a_place_is_told_at_once(graft: Graft, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    before = "".join(f"mount -t tmpfs -o ro none {place}\n" for place in ("/var/tmp", "/dev/shm"))
    before += f"mount --bind {tmp_path} {tmp_path}\nmount --bind /tmp /tmp\n"
    before += "mount -o remount,ro,bind /tmp\n"
    done = graft(*TINY, "run", "--engine", "flower", before=before, unshare="-m", TMPDIR=str(long))
    assert done.returncode == 1
    line = said(done, "")
    assert line.startswith(("EdgeError: Ray: ", "StorageError: temporary files: "))
    assert "TMPDIR" in line


# A deployment


@contextmanager
def started(folder: Path, variables: Mapping[str, str], *arguments: str) -> Iterator[int]:
    """A ``graft deploy`` command that runs until the block is left; its process id."""
    with (folder / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [GRAFT, "deploy", *arguments],
            cwd=folder, env=quiet_environment() | variables, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def memory_mb(pid: int) -> float:
    """Resident memory of a process and those below it."""
    found = 0
    for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.Error):
            found += each.memory_info().rss
    return found / 1e6


@contextmanager
def memory_watched(pid: int) -> Iterator[list[float]]:
    """The memory of a process and those below it while the block lasts."""
    seen, end = [0.0], threading.Event()

    def look() -> None:
        while not end.wait(0.2):
            seen.append(memory_mb(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()


def stated_memory_mb() -> tuple[float, float]:
    """A device's memory at rest and in a round, as the documentation has it."""
    page = " ".join((ROOT / "docs" / "raspberry-pi.md").read_text("utf-8").split())
    (found,) = re.findall(r"these are (\d+) MB at rest and some (\d+) MB during a round", page)
    return float(found[0]), float(found[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "name", "variables"),
    [
        ("::1", "field", {}),
        ("127.0.0.1", "field", PROXIES),
        ("localhost", "a 'field' with 100%s \"signs\"", {"PYTHONIOENCODING": "ascii"}),
        ("127.0.0.1", "long", {"TMPDIR": "{long}"}),
    ],
)
def test_a_deployment_serves_a_round(
    graft: Graft, tmp_path: Path, host: str, name: str, variables: Mapping[str, str]
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    variables = {key: value.format(long=long) for key, value in variables.items()}

    def checked(*arguments: str) -> str:
        done = graft("deploy", *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    checked("sample", "data", "--domains", "2", "--windows", "40")
    ports = ("--flower-port", str(free_port()), "--depot-port", str(free_port()))
    checked(
        "init", name, "--host", host, "--dataset", "data/user-000000", "--device",
        "user-000000", *ports, "--set", "training.max_steps=4",
    )  # fmt: skip
    server = f"{name}/server"
    with ExitStack() as running:
        running.enter_context(started(tmp_path, variables, "server", server, "--metrics-port", "0"))
        device = ("device", f"{name}/devices/user-000000", "--data", "data/user-000000")
        port = ("--port", str(free_port()))
        pid = running.enter_context(started(tmp_path, variables, *device, *port))
        with memory_watched(pid) as seen_mb:
            expand = ("expand", "user-000000", "--initial", "--server", server)
            checked(*expand, "--join-timeout-s", "120")
        rest_mb, peak_mb = stated_memory_mb()
        assert 0.7 * peak_mb < max(seen_mb) < 1.15 * peak_mb
        wait_until(lambda: memory_mb(pid) < 1.15 * rest_mb, f"less than {rest_mb} MB at rest")
        assert "answers" in checked("health", server)
        status = checked("status", "--server", server)
        assert "does not answer" not in status
        below = psutil.Process(pid).children(recursive=True)
        dead = [each for each in below if each.status() == psutil.STATUS_ZOMBIE]
        assert not dead, f"processes that nobody waits for: {dead}"
    logs = [*tmp_path.glob("*.log"), *(tmp_path / name).rglob("*.log")]
    assert len(logs) >= 4
    for log in logs:
        assert "Traceback" not in log.read_text("utf-8", "replace"), log


def test_the_installed_size_of_a_device_is_the_stated_one() -> None:
    """Of the base dependencies, with all that they need."""
    wanted, names = ["graft-fl"], set[str]()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in names:
            continue
        names.add(name)
        needs = map(Requirement, metadata.requires(name) or ())
        wanted += [each.name for each in needs
                   if not each.marker or each.marker.evaluate({"extra": ""})]  # fmt: skip
    sizes_mb = {
        name: sum(file.size or 0 for file in metadata.files(name) or ()) / 1e6 for name in names
    }
    page = " ".join((ROOT / "docs" / "raspberry-pi.md").read_text("utf-8").split())
    form = r"base dependencies take ([\d.]+) GB, of which torch is (\d+) MB and scipy (\d+) MB"
    (stated,) = re.findall(form, page)
    found = sum(sizes_mb.values()) / 1000, sizes_mb["torch"], sizes_mb["scipy"]
    assert found == pytest.approx([float(each) for each in stated], rel=0.25)
