"""A deployment in containers, from nothing to a second round: what `make field` does.

Docker or Podman builds the images and starts docker-compose.yml's field: server, depot and five
devices. Two domains become the first sources, one device is killed and comes back, and a third
domain is served. Containers and volumes of this project name are removed at the end.

FIELD_BUILD has further arguments of the engine's build command, FIELD_SERVICES other services to
start.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = "graft-field"
SERVICES = "server depot prometheus device-1 device-2 device-3 device-4 device-5"
LIMIT_S = 1800.0
INITIAL, TARGET, KILLED = ("user-000000", "user-000001"), "user-000002", "device-3"


def main() -> None:
    """Exit code 0 only if both rounds were served and the killed container came back."""
    engine = next(filter(answers, ("docker", "podman")), None)
    if engine is None:
        sys.exit("field: got neither a Docker nor a Podman that answers, wanted one")
    compose = compose_command(engine)
    services = os.environ.get("FIELD_SERVICES", SERVICES).split()
    for target in ("server", "device", "prometheus"):
        say(f"building graft-{target} with {engine}")
        more = shlex.split(os.environ.get("FIELD_BUILD", ""))
        run([engine, "build", "--target", target, "--tag", f"graft-{target}", *more, "."])
    run([*compose, "down", "--volumes"])
    try:
        # One after the other and without dependencies: podman-compose makes containers that are
        # not started again while one that they depended on has ended, as sample and setup do.
        for once in ("sample", "setup"):
            run([*compose, "up", "--detach", "--no-deps", once])
            if (code := run([engine, "wait", container_of(engine, once)]).strip()) != "0":
                sys.exit(f"field: {once}: got exit code {code}, wanted 0")
        run([*compose, "up", "--detach", "--no-deps", *services])
        expand(engine, *INITIAL, "--initial")
        container = container_of(engine, KILLED)
        before = started(engine, container)
        say(f"killing {KILLED}")  # from inside: what the engine itself ends is not started again
        run([engine, "exec", container, "sh", "-c", "kill -9 -1"], check=False)
        wait_until_started_again(engine, container, before)
        expand(engine, TARGET)
        show = ["deploy", "status", "--server", "/field/server", "--format", "json"]
        status = json.loads(in_server(engine, *show))
        say(f"{status['finished']} rounds, {status['models']} models, all from containers")
        if (status["finished"], status["models"]) != (2, 3):
            sys.exit(f"field: got {status}, wanted 2 rounds and 3 models")
        if "prometheus" in services:
            wait_until_scraped(engine, container_of(engine, "prometheus"))
    except (SystemExit, Exception):
        for service in services:
            say(f"last words of {service}")
            run([engine, "logs", "--tail", "12", container_of(engine, service)], check=False)
        raise
    finally:
        run([*compose, "down", "--volumes"], check=False)


def answers(engine: str) -> bool:
    """Whether an engine is here and works: Docker's command may be there without its server."""
    words = [engine, "info"]
    return (
        shutil.which(engine) is not None
        and not subprocess.run(words, capture_output=True).returncode
    )


def compose_command(engine: str) -> list[str]:
    """Compose as a part of the engine, or podman-compose."""
    files = ["--project-name", PROJECT, "--file", str(ROOT / "docker-compose.yml")]
    if engine == "podman" and (found := shutil.which("podman-compose")):
        return [found, *files, "--profile", "field"]
    return [engine, "compose", *files, "--profile", "field"]


def container_of(engine: str, service: str) -> str:
    """A service's container; Compose names it by project and service, with either separator."""
    names = run([engine, "ps", "--all", "--format", "{{.Names}}"]).split()
    fit = [name for name in names if name.replace("_", "-") == f"{PROJECT}-{service}-1"]
    return fit[0] if fit else f"{PROJECT}-{service}-1"


def in_server(engine: str, *words: str) -> str:
    """What a ``graft`` command in the server's container prints."""
    return run([engine, "exec", container_of(engine, "server"), "graft", *words])


def expand(engine: str, *words: str) -> None:
    """One round, from inside."""
    say(f"expanding by {' '.join(words)}")
    waits = ["--join-timeout-s", "600", "--deadline-s", str(LIMIT_S)]
    print(in_server(engine, "deploy", "expand", *words, "--server", "/field/server", *waits))


def started(engine: str, container: str) -> str:
    """When a container was last started, and whether it runs."""
    shown = "{{.State.StartedAt}} {{.State.Running}}"
    return run([engine, "inspect", "--format", shown, container]).strip()


def wait_until_started_again(engine: str, container: str, before: str) -> None:
    """Ask once a second; exits where the limit is reached."""
    until_s = time.monotonic() + LIMIT_S
    while (now := started(engine, container)) == before or not now.endswith("true"):
        if time.monotonic() > until_s:
            sys.exit(
                f"field: {container}: got {now} after {LIMIT_S:.0f} s, wanted it started again"
            )
        time.sleep(1)


def wait_until_scraped(engine: str, container: str) -> None:
    """Ask Prometheus until it knows of both rounds and of five devices; exits at the limit."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/query?query={}').read().decode())"
    wanted, found = {"graft_rounds_finished": 2, "graft_devices_enrolled": 5, "up": 2}, {}
    until_s = time.monotonic() + 120.0
    while found != wanted:
        if time.monotonic() > until_s:
            sys.exit(f"field: prometheus: got {found}, wanted {wanted}")
        time.sleep(5)
        for name in wanted:
            query = f"sum({name})"
            told = run([engine, "exec", container, "python3", "-c", ask.format(query)], check=False)
            result = json.loads(told or "{}").get("data", {}).get("result", [])
            found[name] = int(result[0]["value"][1]) if result else 0
    run([engine, "exec", container, *health_check("prometheus")])
    say(f"prometheus: {found}")


def health_check(service: str) -> list[str]:
    """The command of a service's health check, as the compose file has it."""
    lines = (ROOT / "docker-compose.yml").read_text("utf-8").splitlines()
    here = lines.index(f"  {service}:")
    test = next(line for line in lines[here:] if line.strip().startswith("test: [CMD, "))
    words = test.strip().removeprefix("test: [CMD, ").removesuffix("]")
    return [word.strip().strip('"') for word in words.split(", ", 2)]


def run(words: list[str], *, check: bool = True) -> str:
    """A command's output; exits with the command's own words where it fails."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"field: {shlex.join(words)}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def say(words: str) -> None:
    """One line of progress."""
    print(f"field: {words}", flush=True)


if __name__ == "__main__":
    main()
