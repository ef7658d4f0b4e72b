"""Settings classes: frozen records that pydantic checks, and one error line for what is wrong."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar, dataclass_transform, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from graft.core.text import did_you_mean
from graft.errors import ConfigError

Kind = TypeVar("Kind")
# A list, as TOML and JSON have it, serves where names are wanted; a set has no order.
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: tuple(value) if type(value) is list else value)
]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ProperFraction = Annotated[float, Field(gt=0, lt=1)]

# A key, or a whole section whose other keys have the same names.
RENAMED_KEYS: Final = {
    "fusion": "hat",
    "fusion.holdout_share": "hat.holdout_fraction",
    "growth": "graft",
    "growth.head_pull": "graft.head_l2_sp",
    "growth.spread_share": "graft.propagation_alpha",
    "growth.agreement_rounds": "graft.agreement_iterations",
    "growth.trust": "graft.agreement_weight",
    "growth.teaching": "graft.distillation_weight",
    "growth.steps_share": "graft.steps_fraction",
    "growth.shift_share": "graft.shift_fraction",
    "split.test_share": "split.test_fraction",
    "split.founders_share": "split.initial_fraction",
    "devices.microcontroller_share": "devices.microcontroller_fraction",
    "devices.phone_share": "devices.phone_fraction",
    "devices.gateway_share": "devices.gateway_fraction",
    "network.broadband_share": "network.broadband_fraction",
    "network.lte_share": "network.lte_fraction",
    "network.lte_m_share": "network.lte_m_fraction",
    "network.nb_iot_share": "network.nb_iot_fraction",
    "network.straggler_share": "network.straggler_fraction",
    "training.group_rounds": "training.fedavg_rounds",
    "trust.demoted_by": "trust.min_reports",
    "trust.share_cap": "trust.max_source_weight",
}
RENAMED_METHODS: Final = {
    "founder": "initial",
    "graft-founders": "graft-initial",
    "hat-founders": "hat-initial",
}
_CHECKS = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_WANTED = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "finite_number": "a finite number",
    "literal_error": "one of {expected}",
    "int_type": "int",
    "float_type": "float",
    "bool_type": "bool",
    "string_type": "str",
    "tuple_type": "a list of names",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
}


def key(default: Any, description: str, **bounds: Any) -> Any:
    """A key with its default, what it means, and bounds (``ge``, ``gt``, ``le``, ``lt``)."""
    return Field(default, description=description, **bounds)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(prefix: str = "") -> Callable[[type[Kind]], type[Kind]]:
    """Make a class a frozen dataclass of keyword arguments that are checked by its annotations.

    ``prefix`` stands before a key's name in errors, e.g. "split.". An integer serves as a float;
    nothing else is converted. Creating one raises ConfigError; ``dataclasses.replace`` works.
    """

    def decorate(cls: type[Kind]) -> type[Kind]:
        made: Any = dataclass(frozen=True, kw_only=True, slots=True, config=_CHECKS)(cls)
        check = made.__init__

        @functools.wraps(check)
        def init(self: Any, /, **values: Any) -> None:
            try:
                check(self, **values)
            except ValidationError as error:
                raise _config_error(made, error, prefix) from None

        made.__init__ = init
        made.__graft_settings__ = True
        made.__repr__ = _short_repr
        if prefix:
            _sections.append((prefix, made))
        result: type[Kind] = made
        return result

    return decorate


def _short_repr(self: Any) -> str:
    """Only what differs from the defaults: a configuration has a hundred keys."""
    changed = (
        f"{name}={getattr(self, name)!r}"
        for name, item in self.__pydantic_fields__.items()
        if item.is_required() or getattr(self, name) != item.get_default(call_default_factory=True)
    )
    return f"{type(self).__name__}({', '.join(changed)})"


def build_settings(cls: type[Kind], table: Mapping[str, Any], prefix: str = "") -> Kind:
    """The settings class ``cls`` of a table, with tables of the classes that its fields have.

    ``cls`` is made by ``settings``, or is a plain dataclass or pydantic model of somebody else's,
    whose keys have ``prefix`` in errors. Raises ConfigError for an unknown key or a wrong value.
    """
    hints = get_type_hints(cls, include_extras=True)
    values = {
        key: build_settings(hints[key], value, f"{prefix}{key}.")
        if isinstance(value, dict) and dataclasses.is_dataclass(hints.get(key))
        else value
        for key, value in table.items()
    }
    try:
        if hasattr(cls, "__graft_settings__"):
            return cls(**values)
        if unknown := sorted(values.keys() - hints.keys()):
            raise _unknown_key(prefix + unknown[0], sorted(hints))
        if dataclasses.is_dataclass(cls):
            _check_plain(hints, values, prefix)
        return cls(**values)
    except ValidationError as error:
        raise _config_error(cls, error, prefix) from None
    except TypeError as error:  # of a plain dataclass
        raise ConfigError(f"{prefix.rstrip('.')}: {error}") from error


def _check_plain(hints: Mapping[str, Any], values: dict[str, Any], prefix: str) -> None:
    """Check and convert the values of a plain dataclass by its annotations.

    A dataclass that was pickled by value cannot be made pydantic's: its fields no longer know
    ``dataclasses.MISSING``.
    """
    for key, value in values.items():
        if type(value) is list and get_origin(hints[key]) is tuple:
            value = tuple(value)
        if not dataclasses.is_dataclass(value):
            try:
                values[key] = TypeAdapter(hints[key], config=_CHECKS).validate_python(value)
            except ValidationError as error:
                raise _config_error(None, error, prefix + key) from None


def _config_error(cls: Any, error: ValidationError, prefix: str) -> ConfigError:
    """The first of pydantic's errors in one line."""
    first = error.errors(include_url=False)[0]
    key = prefix + ".".join(part for part in first["loc"] if isinstance(part, str))
    got = first["input"]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        old = f"{key}.{next(iter(got))}" if isinstance(got, dict) and got else key
        if new := _renamed_key(old):
            return ConfigError(f"{old}: got the former name of a key, wanted {new}")
        return _unknown_key(key, sorted(cls.__pydantic_fields__))
    if first["type"] in ("missing", "missing_keyword_only_argument"):
        return ConfigError(f"{key}: got nothing, wanted a value")
    if first["loc"] and isinstance(first["loc"][-1], int):
        return ConfigError(f"{key}: got {got!r}, wanted a list of names")
    wanted = _WANTED.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
    if first["type"] == "literal_error" and isinstance(got, str):
        wanted += did_you_mean(got, re.findall(r"'([^']*)'", wanted))
    return ConfigError(f"{key}: got {got!r}, wanted {wanted}")


def _unknown_key(key: str, known: list[str]) -> ConfigError:
    section = key.rpartition(".")[0]
    dotted = [f"{section}.{name}" if section else name for name in known]
    hint = did_you_mean(key, [*dotted, *_dotted_keys()])
    return ConfigError(f"unknown configuration key {key!r}, wanted one of {known}{hint}")


_sections: list[Any] = []


def _dotted_keys() -> list[str]:
    """The dotted keys of every settings class that is a section of a configuration."""
    return [f"{prefix}{name}" for prefix, cls in _sections for name in cls.__pydantic_fields__]


def _renamed_key(old: str) -> str | None:
    """The present name of a former dotted key; None where it was none."""
    section, dot, leaf = old.partition(".")
    if old in RENAMED_KEYS or section not in RENAMED_KEYS:
        return RENAMED_KEYS.get(old)
    return RENAMED_KEYS[section] + dot + leaf
