"""Tables of device and link classes: the shipped ones, and those of a person's own TOML file."""

import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from graft.core.seeding import stream
from graft.errors import ConfigError

Row = TypeVar("Row")


def read_classes(
    build: Callable[[str, Mapping[str, Any]], Row], shipped: str, classes_file: str | None
) -> dict[str, Row]:
    """Classes by name from the package's table, or from ``classes_file`` in its place.

    ``build`` makes one from its name and keys. Raises ConfigError, with file and class named.
    """
    try:
        if classes_file is None:
            text = resources.files("graft.devices").joinpath(shipped).read_text("utf-8")
        else:
            text = Path(classes_file).read_text("utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"classes {classes_file or shipped}: cannot be read: {error}") from error
    classes = {}
    for name, row in table.items():
        try:
            classes[name] = build(name, row)
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"class {name!r} of {classes_file or shipped}: {error}") from error
    if not classes:
        raise ConfigError(f"classes {classes_file or shipped}: got none, wanted at least one")
    return classes


def require_range(row: Any, name: str, lowest: float, highest: float = float("inf")) -> None:
    """Raise ValueError unless ``lowest`` <= the row's number < ``highest``."""
    value = getattr(row, name)
    if type(value) not in (int, float) or not lowest <= value < highest:
        raise ValueError(f"{name}: got {value!r}, wanted {lowest:g} up to below {highest:g}")


def draw_class(purpose: str, domain_id: str, seed: int, shares: Mapping[str, float]) -> str:
    """A class's name, drawn from (seed, domain) by shares that need not sum to 1.

    Raises ConfigError where they are all 0.
    """
    total = sum(shares.values())
    if not total:
        raise ConfigError(f"{purpose} classes: got no share above 0, wanted one or more")
    weights = [share / total for share in shares.values()]
    return str(stream(purpose, seed, domain_id).choice(list(shares), p=weights))
