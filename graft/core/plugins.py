"""Plug-ins: methods and architectures by reference, and the sections of the configuration they add.

A reference is "package.module:attribute". Names come from other machines too, in requests and
model cards, so only references of a configuration or device file of this process are imported, and
only libraries' models that one names are built.
"""

import importlib
import re
from collections.abc import Iterable
from dataclasses import is_dataclass, replace
from importlib.metadata import entry_points
from typing import Any, TypeVar

from graft.errors import ConfigError

Kind = TypeVar("Kind")
LIBRARIES = ("timm", "torchvision", "transformers")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_loaded: dict[str, Any] = {}
_sections: dict[str, type] = {}


def is_reference(name: str) -> bool:
    """Whether a name is a reference, "package.module:attribute"."""
    return _REFERENCE.fullmatch(name) is not None and not is_library(name)


def is_library(name: str) -> bool:
    """Whether a name is that of a library's model, such as "timm:resnet18"."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def load_references(references: Iterable[str]) -> None:
    """Import references; raises ConfigError where one cannot be imported."""
    for name in references:
        if is_library(name):
            _loaded[name] = None  # known; imported when it is built
            continue
        module, _, attribute = name.partition(":")
        try:
            plug_in = getattr(importlib.import_module(module), attribute)
            # A record is known by its reference.
            is_record = is_dataclass(plug_in) and not isinstance(plug_in, type)
            _loaded[name] = replace(plug_in, name=name) if is_record else plug_in
            if not is_record and not callable(plug_in):
                raise TypeError(f"{type(plug_in).__name__} is no plug-in")
        except Exception as error:  # somebody else's module may fail in any way
            _loaded.pop(name, None)
            raise ConfigError(
                f"{name}: got {type(error).__name__}: {error}, wanted an attribute of a module "
                "that is installed or on PYTHONPATH"
            ) from error


def is_loaded(name: str) -> bool:
    """Whether a configuration or device file of this process named it."""
    return name in _loaded


def loaded_values() -> dict[str, Any]:
    """All loaded plug-ins that are no records, by their reference."""
    return {name: each for name, each in _loaded.items() if not is_dataclass(each)}


def loaded_references(kind: type[Kind]) -> dict[str, Kind]:
    """The loaded plug-ins of a kind, by their reference, which is their name."""
    return {name: each for name, each in _loaded.items() if isinstance(each, kind)}


def declare_section(name: str, cls: type) -> None:
    """Let a plug-in's settings class check its section; one made anew replaces the former."""
    _sections[name] = cls


def find_section(name: str) -> type | None:
    """The settings class of a plug-in's section; None where no plug-in has declared it."""
    if name not in _sections:
        for entry in entry_points(group="graft.methods"):
            entry.load()  # a method declares its section when it is made
    return _sections.get(name)
