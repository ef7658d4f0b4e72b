"""The wheel in an environment of its own, beside files that bear the names of our folders."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from commands import LIMIT_S, free_port, quiet_environment, run_facts

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("server.py", "simulation.py", "graft.py", "client/__init__.py")
SPOILT = """\
from pathlib import Path
(Path(__file__).resolve().parents[{up}] / "imported").write_text(__file__)
raise RuntimeError("a stranger's file was imported")
"""
SMALL = (
    "--domains", "4", "--rounds", "1", "--set", "world.windows_per_domain=40",
    "--set", "training.max_steps=4", "--set", "comparisons=[]", "--set", "selection.num_sources=2",
)  # fmt: skip
APP = """\
[project]
name = "mine"
version = "1.0.0"
description = ""
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "me"
components = {{ serverapp = "graft_server.app:app", clientapp = "graft_client.app:app" }}

[tool.flwr.app.config]
run-folder = "{folder}"
config-file = ""
join-timeout-s = 120.0
rounds = 1
world.domains = 4
world.windows_per_domain = 40
training.max_steps = 4
selection.num_sources = 2
"""
Graft = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working copy."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel, and sees this one's dependencies."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    here = Path(sys.executable).parent
    for script in (*here.glob("flower-*"), *here.glob("flwr*")):
        lines = script.read_text("utf-8").splitlines()
        copy = folder / "bin" / script.name
        copy.write_text("\n".join([f"#!{python}", *lines[1:]]) + "\n")
        copy.chmod(0o755)
    return folder / "bin"


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files must not be imported, and were not when the test is over."""
    folder = tmp_path / "hostile"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SPOILT.format(up=len(Path(name).parts) - 1))
    yield folder
    mark = folder / "imported"
    assert not mark.exists(), mark.read_text()


def environment(binaries: Path, **more: str) -> dict[str, str]:
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    clean = {k: v for k, v in quiet_environment().items() if k != "PYTHONPATH"}
    return {**clean, "PATH": path, **more}


@pytest.fixture
def graft(binaries: Path, hostile: Path) -> Graft:
    """Run the installed ``graft`` in the hostile folder, which is on PYTHONPATH too."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [binaries / "graft", *arguments],
            cwd=hostile,
            env=environment(binaries, PYTHONPATH=str(hostile)),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run


def test_the_environment_has_no_package_of_a_common_name(binaries: Path, tmp_path: Path) -> None:
    for name in ("server", "client", "simulation"):
        command = [binaries / "python", "-c", f"import {name}"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(binaries), capture_output=True, text=True
        )
        assert f"No module named '{name}'" in done.stderr


@pytest.mark.parametrize("engine", [("block", "2"), ("block", "0"), ("flower", "2")])
def test_a_simulation_imports_nothing_of_the_folder(
    graft: Graft, hostile: Path, engine: tuple[str, str]
) -> None:
    kind, workers = engine
    done = graft("simulate", *SMALL, "--engine", kind, "--workers", workers, "--out", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_facts(hostile / "run")["status"] == "complete"


def test_a_deployment_imports_nothing_of_the_folder(
    graft: Graft, binaries: Path, hostile: Path
) -> None:
    def checked(*arguments: str) -> None:
        done = graft("deploy", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    checked("sample", "data", "--domains", "2", "--windows", "40")
    ports = ("--flower-port", str(free_port()), "--depot-port", str(free_port()))
    names = ("user-000000", "user-000001")
    enrolled = [word for name in names for word in ("--device", name)]
    small = ("--set", "training.max_steps=4", "--set", "selection.num_sources=1")
    checked(
        "init", "field", "--host", "127.0.0.1", "--dataset", "data/user-000000", *enrolled,
        *ports, *small,
    )  # fmt: skip
    with ExitStack() as running:
        # The depot is a process that the server starts.
        server = ("server", "field/server", "--metrics-port", "0")
        running.enter_context(started(binaries, hostile, *server))
        for name in names:
            device = ("device", f"field/devices/{name}", "--data", f"data/{name}")
            port = ("--port", str(free_port()))
            running.enter_context(started(binaries, hostile, *device, *port))
        patient = ("--join-timeout-s", "120", "--server", "field/server")
        checked("expand", names[0], "--initial", *patient)
        checked("expand", names[1], *patient)


@contextmanager
def started(binaries: Path, folder: Path, *arguments: str) -> Iterator[None]:
    """A ``graft deploy`` command that runs until the block is left."""
    with (folder / f"{arguments[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [binaries / "graft", "deploy", *arguments],
            cwd=folder,
            env=environment(binaries, PYTHONPATH=str(folder)),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_flwr_run_imports_nothing_of_the_apps_folder(
    binaries: Path, hostile: Path, tmp_path: Path
) -> None:
    """Flower puts the app's folder first on the import path; its graft.py is in the bundle."""
    folder, home = tmp_path / "run", tmp_path / "home"
    (hostile / "pyproject.toml").write_text(APP.format(folder=folder))
    flower_home = str(home / "flwr")
    ports = {
        f"FLWR_LOCAL_{name}_API_PORT": str(free_port()) for name in ("SUPERLINK_HTTP", "CONTROL")
    }
    quiet = {"HOME": str(home), "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
    try:
        done = subprocess.run(
            [binaries / "flwr", "run", ".", "--stream", "--federation-config",
             "num-supernodes=4 client-resources-num-cpus=1"],
            cwd=hostile,
            env=environment(
                binaries, PYTHONPATH=str(hostile), FLWR_HOME=flower_home, **ports, **quiet
            ),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )  # fmt: skip
        assert (folder / "run.toml").exists(), done.stdout + done.stderr
        assert run_facts(folder)["status"] == "complete"
    finally:
        # The SuperLink that ``flwr run`` started keeps running: whatever has our home is ours.
        for process in psutil.process_iter():
            try:
                if process.environ().get("FLWR_HOME") == flower_home:
                    process.kill()
            except psutil.Error:
                continue


def test_a_device_installs_from_the_base_dependencies_and_answers_a_round(
    wheel: Path, binaries: Path, hostile: Path, graft: Graft, tmp_path: Path
) -> None:
    """A real installation, without any extra; the server runs in the other environment."""
    folder = installed(tmp_path / "device", str(wheel))
    packages = {path.name for path in folder.glob("lib/python*/site-packages/*")}
    assert not {"ray", "matplotlib", "simpy", "prometheus_client", "sklearn"} & packages

    def checked(*arguments: str) -> None:
        done = graft("deploy", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    checked("sample", "data", "--domains", "2", "--windows", "40")
    ports = ("--flower-port", str(free_port()), "--depot-port", str(free_port()))
    checked(
        "init", "field", "--host", "127.0.0.1", "--dataset", "data/user-000000", "--device",
        "user-000000", *ports, "--set", "training.max_steps=4",
    )  # fmt: skip
    server = ("server", "field/server", "--metrics-port", "0")
    device = ("device", "field/devices/user-000000", "--data", "data/user-000000")
    with (
        started(binaries, hostile, *server),
        started(folder / "bin", hostile, *device, "--port", str(free_port())),
    ):
        checked("expand", "user-000000", "--initial", "--server", "field/server")
    shutil.rmtree(folder)


def test_the_extras_install_with_the_constraints_and_run(
    wheel: Path, hostile: Path, tmp_path: Path
) -> None:
    folder = installed(tmp_path / "server", f"{wheel}[simulation,server]")
    done = subprocess.run(
        [folder / "bin" / "graft", "simulate", *SMALL, "--engine", "block", "--out", "run"],
        cwd=hostile,
        env=environment(folder / "bin", PYTHONPATH=str(hostile)),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(folder)


def installed(folder: Path, requirement: str) -> Path:
    """A new environment with the requirement as pip installs it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python, constraints = folder / "bin" / "python", ROOT / ".ci" / "constraints.txt"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", constraints, requirement], check=True
    )
    return folder


def test_the_wheel_puts_only_our_names_on_the_import_path(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert all(name == "graft" or name.startswith("graft_") for name in names)
