"""From what the command and the Python API are asked for to a configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft.core.config import ExpansionConfig, with_settings


def configure(
    config: ExpansionConfig,
    settings: Mapping[str, Any],
    *,
    data: Path | None,
    domains: int | None,
    rounds: int | None,
    gamma: float | None,
    seed: int | None,
    method: str | None,
) -> ExpansionConfig:
    """A configuration, then ``settings`` by their dotted keys, then the options of their own."""
    changes = dict(settings)
    if data is not None:
        changes |= {"world.kind": "folder", "world.path": str(data.absolute())}
    if domains is not None:
        changes["world.max_domains" if data is not None else "world.domains"] = domains
    named = {"rounds": rounds, "split.gamma": gamma, "seed": seed, "method": method}
    changes |= {key: value for key, value in named.items() if value is not None}
    for key in ("devices.classes_file", "network.classes_file"):
        if key in changes:  # a run's workers stand in other folders
            changes[key] = str(Path(changes[key]).absolute())
    if method is not None and "comparisons" not in changes:
        # The default comparisons include the default method's own variant, not the new one.
        changes["comparisons"] = [name for name in config.comparisons if name != method]
    return with_settings(config, changes)
