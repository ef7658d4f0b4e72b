"""docker-compose.yml as tests read it: services, the words of a command, paths of volumes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def compose_file() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def services() -> dict[str, dict[str, Any]]:
    return compose_file()["services"]


def graft_services() -> list[str]:
    """Those that run the graft command; the rest are other people's programs."""
    ours = ("graft-server", "graft-device")
    return [name for name, service in services().items() if service["image"] in ours]


def words(service: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """A service's command; ${NAME:-default} means what compose makes of it."""

    def meaning(match: re.Match[str]) -> str:
        return (variables or {}).get(match[1], match[2])

    return [_VARIABLE.sub(meaning, word) for word in services()[service]["command"]]


def mounts(service: str) -> dict[str, str]:
    """A service's volumes: the name of each, or the path on this machine, by where it is seen."""
    found = (mount.split(":") for mount in services()[service].get("volumes", ()))
    return {target: source for source, target, *_ in found}


def local_words(service: str, root: Path, variables: Mapping[str, str]) -> list[str]:
    """A service's command with each path of a volume replaced by one under ``root``.

    A volume is where ``setup`` or ``sample`` sees it, as if / were ``root``.
    """
    seen = {name: path for each in ("setup", "sample") for path, name in mounts(each).items()}
    targets = {target: f"{root}{seen[name]}" for target, name in mounts(service).items()}
    targets = {top: f"{root}{top}" for top in ("/field", "/data")} | targets
    replaced = []
    for word in words(service, variables):
        option, equals, value = word.rpartition("=")
        for target in sorted(targets, key=len, reverse=True):
            if value == target or value.startswith(f"{target}/"):
                value = f"{targets[target]}{value.removeprefix(target)}"
                break
        replaced.append(f"{option}{equals}{value}")
    return replaced
