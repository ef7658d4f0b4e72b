"""Machines as people have them: each command ends with its usual result, or with one line.

A row is a variable, a limit or a place; it says which commands it stops. The others must give
what they give on a usual machine: the same hash, files and table.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import GRAFT, LIMIT_S, quiet_environment, run_facts
from machines import NAMESPACES, PROXIES, ROOT, TINY

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "block": (*TINY, "{out}", "--engine", "block"),
    "flower": (*TINY, "{out}"),
    "csv": (
        "data", "from-csv", "{base}/csv", "--user", "person", "--label", "activity",
        "--sensors", "a,b", "--rate", "10", "--window", "10", "--block", "2", "--out", "{out}",
    ),
    "report": ("report", "{out}"),
    "deploy": ("deploy", "init", "{out}", "--host", "127.0.0.1", "--dataset", "{base}/set"),
}  # fmt: skip
ALL = frozenset(COMMANDS)
RUNS = frozenset({"block", "flower"})
ERROR = re.compile(r"^(\w+Error|internal error): .+ \(see docs/errors\.md#[\w-]+\)$", re.MULTILINE)
LONG = "t" * 100


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``refused``: commands that end with one line; ``perhaps``: those that may."""

    variables: Mapping[str, str | None] = field(default_factory=dict)
    before: str = ""  # in the shell that the command replaces
    namespaces: str = ""  # options of unshare
    run: str = 'exec "$@"'
    refused: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()
    needs: str = ""
    only: frozenset[str] = ALL


PROXY = PROXIES["http_proxy"]
MACHINES: Mapping[str, Machine] = {
    "proxies": Machine(variables=PROXIES),
    "proxy, none for all": Machine(variables={"http_proxy": PROXY, "NO_PROXY": "*"}),
    "proxy that is no address": Machine(variables={"http_proxy": "::::", "no_proxy": ",,["}),
    "TMPDIR long": Machine(variables={"TMPDIR": f"{{base}}/{LONG}"}),
    "TMPDIR missing": Machine(variables={"TMPDIR": "/nonexistent"}),
    "TMPDIR with signs": Machine(variables={"TMPDIR": "{base}/a 'b' \"%s\" $x\nc"}),
    "TMPDIR read-only": Machine(variables={"TMPDIR": "/proc"}),
    "HOME missing": Machine(variables={"HOME": "/nonexistent"}),
    "HOME unset": Machine(variables={"HOME": None}),
    "HOME read-only": Machine(variables={"HOME": "/proc"}),
    "XDG": Machine(
        variables=dict.fromkeys(
            ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"), "/proc/x"
        )
    ),
    "library folders": Machine(
        variables=dict.fromkeys(
            ("MPLCONFIGDIR", "FLWR_HOME", "TORCH_HOME", "HF_HOME", "NUMBA_CACHE_DIR"), "/proc/x"
        )
        | {"MPLBACKEND": "nonsense"}
    ),
    "ASCII locale": Machine(
        variables={
            "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
            "TERM": "dumb",
        }
    ),
    "PYTHONIOENCODING": Machine(variables={"PYTHONIOENCODING": "ascii", "COLUMNS": "20"}),
    "locale unknown": Machine(variables={"LC_ALL": "xx_XX.nonsense", "TZ": "No/Where"}),
    "colours": Machine(variables={"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm"}),
    "umask 077": Machine(before="umask 077"),
    "umask 000": Machine(before="umask 000"),
    "64 open files": Machine(before="ulimit -n 64", perhaps=frozenset({"flower"})),
    "little address space": Machine(before="ulimit -v 700000", perhaps=ALL),
    "file size": Machine(before="ulimit -f 4", refused=RUNS, perhaps=ALL),
    "full disk": Machine(
        namespaces="-m", before="mount -t tmpfs -o size=8k none {base}/place",
        refused=RUNS | {"csv", "report"}, perhaps=ALL,
    ),
    "read-only output": Machine(
        namespaces="-m", before="mount --bind {base}/place {base}/place && "
        "mount -o remount,ro,bind {base}/place", refused=ALL,
    ),
    "no shared memory": Machine(
        namespaces="-m", before="mount -t tmpfs -o ro none /dev/shm", perhaps=frozenset({"flower"})
    ),
    "little shared memory": Machine(
        namespaces="-m", before="mount -t tmpfs -o size=1m none /dev/shm",
        perhaps=frozenset({"flower"}),
    ),
    "PYTHONPATH with namesakes": Machine(variables={"PYTHONPATH": "{base}/mine:{PYTHONPATH}"}),
    "PYTHONPATH with a broken library": Machine(
        variables={"PYTHONPATH": "{base}/broken:{PYTHONPATH}"}, refused=ALL
    ),
    "Python's variables": Machine(
        variables={
            "PYTHONSTARTUP": "/nonexistent", "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2",
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONINSPECT": None,
        }
    ),
    "warnings are errors": Machine(variables={"PYTHONWARNINGS": "error"}, perhaps=ALL),
    "no thread": Machine(variables={"OMP_NUM_THREADS": "0", "MKL_NUM_THREADS": "0"}),
    "threads unreadable": Machine(variables={"OMP_NUM_THREADS": "many", "MKL_NUM_THREADS": "-3"}),
    "a graphics card that is not there": Machine(variables={"CUDA_VISIBLE_DEVICES": "0,7"}),
    "another Ray": Machine(
        variables={"RAY_ADDRESS": "127.0.0.1:6399", "RAY_TMPDIR": "/nonexistent"}
    ),
    "host name not ASCII": Machine(
        namespaces="-u",
        before=f"{sys.executable} -c 'import socket; socket.sethostname(\"b\\u00fccher\")'",
    ),
    "host name of 64 signs": Machine(namespaces="-u", before=f"hostname {'h' * 64}"),
    "1970": Machine(  # Ray's processes wait for each other for ever on a faked clock
        run='exec faketime "1970-01-03 00:00:00" "$@"', needs="faketime", perhaps=RUNS,
        only=ALL - {"flower"},
    ),
    "2038": Machine(
        run='exec faketime "2038-02-01 00:00:00" "$@"', needs="faketime", only=ALL - {"flower"}
    ),
    "folder removed": Machine(before='cd {base}/gone && rm -r {base}/gone', refused=ALL),
    "no input": Machine(run='exec "$@" <&-'),
    "no output": Machine(run='exec "$@" >&-', perhaps=ALL),
    "no error stream": Machine(run='exec "$@" 2>&-', perhaps=ALL),
    "output full": Machine(run='exec "$@" >/dev/full', perhaps=ALL),
    "reader gone": Machine(run='"$@" | head -c 1 >/dev/null; exit "${{PIPESTATUS[0]}}"', perhaps=ALL),
    "no PATH": Machine(variables={"PATH": "/nonexistent"}),
    "user without a name": Machine(  # whom root's Python may not let in
        variables={"HOME": None},
        run='exec setpriv --reuid 23456 --regid 23456 --clear-groups "$@"', needs="setpriv",
        perhaps=RUNS,
    ),
}  # fmt: skip
QUICK = ("PYTHONIOENCODING", "file size")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every machine is given: recordings, a data set's table, namesakes, a run."""
    base = tmp_path_factory.mktemp("machines")
    for each in base.parents[:3]:
        each.chmod(0o755)
    return prepare(base)


def prepare(base: Path) -> Path:
    for name in ("csv", "mine", "broken"):
        (base / name).mkdir()
    for person in range(3):
        lines = ["person,activity,a,b"]
        for second in range(12):
            activity = ("rest", "walk")[second // 2 % 2]
            lines += [f"p{person},{activity},{i * 0.1:.1f},{second}.5" for i in range(10)]
        (base / "csv" / f"{person}.csv").write_text("\n".join(lines) + "\n", "utf-8")
    for name in ("server", "client", "simulation", "graft", "graft_server", "utils", "config"):
        (base / "mine" / f"{name}.py").write_text("raise RuntimeError('a stranger')\n", "utf-8")
    (base / "broken" / "typer.py").write_text("raise RuntimeError('a\\nstranger')\n", "utf-8")
    return base


def start(
    machine: Machine, command: str, base: Path, out: Path
) -> "subprocess.CompletedProcess[str]":
    """One command on one machine."""
    environment = quiet_environment()
    given = {"base": str(base), "out": str(out), "PYTHONPATH": environment.get("PYTHONPATH", "")}
    for name, value in machine.variables.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.format(**given)
    words = [str(GRAFT), *(word.format(**given) for word in COMMANDS[command])]
    script = "\n".join(filter(None, [machine.before, machine.run])).format(**given)
    shell = ["/bin/bash", "-e", "-c", script, "bash", *words]
    if machine.namespaces:
        shell = ["unshare", *machine.namespaces.split(), *shell]
    return subprocess.run(
        shell, cwd=base / "cwd", env=environment, capture_output=True, text=True, timeout=4 * LIMIT_S,
        errors="replace",
    )  # fmt: skip


def result_of(command: str, out: Path) -> object:
    """What a command leaves, without what is new each time."""
    if command in RUNS:
        return run_facts(out)["hash"]
    if command == "csv":
        return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    if command == "report":
        return len((out / "report.html").read_bytes()) // 4096
    return sorted(re.sub("run-[0-9a-f]+", "run", str(p.relative_to(out))) for p in out.rglob("*"))


@pytest.fixture(scope="module")
def usual(base: Path) -> Callable[[str], object]:
    """The result of a command on a usual machine."""
    found: dict[str, object] = {}

    def result(command: str) -> object:
        if command not in found:
            out = place_for(base, command, usual=result)
            done = start(Machine(), command, base, out)
            assert done.returncode == 0, done.stdout + done.stderr
            found[command] = result_of(command, out)
            if command == "block":
                shutil.move(out, base / "run")
            if command == "csv":
                shutil.move(out, base / "set")
        return found[command]

    return result


def place_for(base: Path, command: str, usual: Callable[[str], object]) -> Path:
    """A new place for a command's output; a report's holds its run."""
    if command in ("report", "deploy"):
        usual({"report": "block", "deploy": "csv"}[command])
    for name in ("cwd", "gone", "place", LONG, "a 'b' \"%s\" $x\nc"):
        shutil.rmtree(base / name, ignore_errors=True)
        (base / name).mkdir(mode=0o777)
        (base / name).chmod(0o777)
    out = base / "place" / "out"
    if command == "report":
        shutil.copytree(base / "run", out)
        (out / "report.html").unlink()
        for path in (out, *out.rglob("*")):
            path.chmod(0o777)
    return out


def check(name: str, command: str, base: Path, usual: Callable[[str], object]) -> None:
    machine = MACHINES[name]
    if command not in machine.only:
        pytest.skip("not on this machine")
    if machine.namespaces and not NAMESPACES:
        pytest.skip("namespaces are not allowed here")
    if machine.needs and not (shutil.which(machine.needs) and ROOT):
        pytest.skip(f"{machine.needs} is not here")
    wanted = usual(command)
    out = place_for(base, command, usual)
    done = start(machine, command, base, out)
    told = done.stdout + done.stderr
    assert "Traceback" not in told, told
    if done.returncode == 0:
        assert command not in machine.refused, told
        assert result_of(command, out) == wanted
    else:
        assert command in machine.refused | machine.perhaps, told
        if "2>&-" not in machine.run:
            assert len(ERROR.findall(done.stderr)) == 1, (done.returncode, told)


@pytest.mark.parametrize("name", QUICK)
def test_an_import_on_a_machine(name: str, base: Path, usual: Callable[[str], object]) -> None:
    check(name, "csv", base, usual)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", MACHINES)
def test_a_machine(name: str, command: str, base: Path, usual: Callable[[str], object]) -> None:
    check(name, command, base, usual)
