"""Numbers as people's programs write them: decimal signs, thousands, missing words."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from graft.errors import DatasetFormatError

Decimal = Literal[".", ","]
# Words that programs write where there is no value, in lower case.
MISSING = frozenset(
    ("", "nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "(null)", "#null!", "none", "nil",
     "-", "--", "?", "missing", "undefined", "(blank)", "#value!", "#ref!", "#div/0!", "#name?",
     "#num!", "1.#qnan", "-1.#ind")
)  # fmt: skip
_SIGNS = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'"})
_SWAPPED = str.maketrans(".,", ",.")
# Thousands in groups, for a decimal point.
_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}([, '])\d{3}(?:\1\d{3})*(\.\d*)?")
_COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")


def is_missing(text: str) -> bool:
    """Whether a cell holds a word for a missing value."""
    return text.strip().casefold() in MISSING


def number_of(text: str, decimal: Decimal | None = ".") -> float | None:
    """The number in a cell; None where there is none.

    ``decimal`` is the column's decimal sign; None: not known, so that 1,002 is no number.
    """
    plain = _plain(text)
    if decimal == ",":
        plain = plain.translate(_SWAPPED)
    grouped = _GROUPED.fullmatch(plain)
    if grouped and (decimal or grouped[1] != "," or grouped[2] or plain.count(",") > 1):
        plain = plain.replace(grouped[1], "")
    try:
        return float(plain) if "_" not in plain else None
    except ValueError:
        return None


def _plain(text: str) -> str:
    return text.translate(_SIGNS).strip(" \t\"'")


def _is_comma(plain: str) -> bool | None:
    """Whether a cell's decimal sign is a comma; None where it may be either, or has none."""
    swapped = _GROUPED.fullmatch(plain.translate(_SWAPPED))
    grouped = _GROUPED.fullmatch(plain)
    if grouped and (grouped[2] or plain.count(",") > 1):
        return False
    if swapped and (swapped[2] or plain.count(".") > 1):
        return True
    if grouped or swapped:
        return None
    return True if _COMMA.fullmatch(plain) else False if "." in plain else None


def decimal_signs(
    where: object, cells: Mapping[str, Iterable[str]], given: Decimal | None
) -> dict[str, Decimal | None]:
    """The decimal sign of each column by its first cells; None where nothing tells.

    Raises DatasetFormatError for a column whose 1,002 may be either.
    """
    found: dict[str, Decimal | None] = {}
    unclear: dict[str, str] = {}
    for name, texts in cells.items():
        plain = [text for text in map(_plain, texts) if not is_missing(text)]
        signs = {_is_comma(text) for text in plain if number_of(text) is not None or "," in text}
        own: Decimal | None = "." if False in signs else "," if True in signs else None
        groups = [text for text in plain if _GROUPED.fullmatch(text) and "," in text]
        if own is None and groups and len(groups) < len(plain):
            unclear[name] = groups[0]
        elif own is None and groups:  # numbers of a fixed number of digits
            own = ","
        elif own is None and any("." in text for text in plain):
            own = "."
        found[name] = given or own
    known = set(found.values()) - {None}
    for name, sign in found.items():
        if sign is None and known == {","}:
            found[name] = ","
        elif sign is None and name in unclear:
            raise DatasetFormatError(
                f"{where}: {name}: got numbers such as {unclear[name]}, where the comma may "
                "separate thousands or decimals, wanted --decimal . or --decimal ,"
            )
    return found
