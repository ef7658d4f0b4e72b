"""Every method by name.

A module of this package that has ``METHODS`` is a method's file. Other packages list theirs under
the entry point group ``graft.methods``; the configuration may name one by its reference,
"package.module:attribute"; a script adds its own with ``add_method``.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType, ModuleType
from typing import Any

import graft.methods
from graft.core.config import ExpansionConfig, with_settings
from graft.core.plugins import loaded_references
from graft.errors import ConfigError
from graft.methods.base import Method

_added: dict[str, Method] = {}


def methods_by_name() -> Mapping[str, Method]:
    """Every method: of graft, installed, added or loaded by its reference.

    Raises ConfigError where two installed ones have one name.
    """
    return MappingProxyType({**_installed(), **_added, **loaded_references(Method)})


def find_method(name: str) -> Method:
    """The method of that name; raises ConfigError for an unknown one."""
    known = methods_by_name()
    if name not in known:
        raise ConfigError(
            f"method: got {name!r}, wanted one of {sorted(known)}, or for one of a script or "
            "notebook its Method object (graft.simulate, graft.resume)"
        )
    return known[name]


def add_method(method: Method) -> None:
    """Make a script's method known in this process; one added before under its name is replaced.

    Raises ConfigError for the name of an installed method.
    """
    if method.name in _installed():
        raise ConfigError(f"method {method.name!r}: got two, wanted one of each name")
    _added[method.name] = method


def added_methods() -> tuple[Method, ...]:
    """What ``add_method`` was given: processes that work for this one need it too."""
    return tuple(_added.values())


def with_method_sections(config: ExpansionConfig) -> ExpansionConfig:
    """The configuration with the whole sections of its methods, defaults included.

    Raises ConfigError for a value that a method's settings class refuses.
    """
    own: dict[str, Any] = {m.section: {} for m in map(find_method, config.methods) if m.section}
    return with_settings(config, own) if own else config


@cache
def _installed() -> Mapping[str, Method]:
    known: dict[str, Method] = {}
    for module in _modules():
        for method in getattr(module, "METHODS", ()):
            if method.name in known:
                raise ConfigError(f"method {method.name!r}: got two, wanted one of each name")
            known[method.name] = method
    return known


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(graft.methods.__path__, "graft.methods."):
        yield importlib.import_module(found.name)
    for entry in entry_points(group="graft.methods"):
        yield entry.load()
