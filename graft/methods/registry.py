"""Every method by name.

A module of this package that has ``METHODS`` is a method's file; one that is installed from
elsewhere names itself under the entry point group ``graft.methods``.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType, ModuleType

import graft.methods
from graft.errors import ConfigError
from graft.methods.base import Method


@cache
def methods_by_name() -> Mapping[str, Method]:
    """Every method, here or installed; raises ConfigError where two have one name."""
    known: dict[str, Method] = {}
    for module in _modules():
        for method in getattr(module, "METHODS", ()):
            if method.name in known:
                raise ConfigError(f"method {method.name!r}: got two, wanted one of each name")
            known[method.name] = method
    return MappingProxyType(known)


def find_method(name: str) -> Method:
    """The method of that name; raises ConfigError for an unknown one."""
    known = methods_by_name()
    if name not in known:
        raise ConfigError(f"method: got {name!r}, wanted one of {sorted(known)}")
    return known[name]


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(graft.methods.__path__, "graft.methods."):
        yield importlib.import_module(found.name)
    for entry in entry_points(group="graft.methods"):
        yield entry.load()
