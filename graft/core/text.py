"""Words of other machines (ids, errors, architectures, metrics), made safe where they are shown."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

_MARKDOWN = re.compile(r"([\\|*_`<>\[\]#~&])")


def printable(text: object) -> str:
    """Text on one line, with every character that is not printable as an escape.

    Newlines, terminal sequences and marks that turn the writing direction are among them. Markup
    stays: a terminal gets the text as ``rich.text.Text``, a page by a template that escapes, and
    Markdown by ``markdown_text``.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def markdown_text(text: object) -> str:
    """Text for a line or a table's cell of Markdown, without markup of its own."""
    return _MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the known name that is nearest to a mistyped one, or nothing.

    The last part of a dotted name counts as the name, too.
    """
    names = sorted(known)
    by_leaf = {name.rpartition(".")[2].lower(): name for name in reversed(names)}
    by_leaf |= {name.lower(): name for name in names}
    near = difflib.get_close_matches(got.lower(), by_leaf, 1, 0.6) or difflib.get_close_matches(
        got.lower().rpartition(".")[2], by_leaf, 1, 0.75
    )
    return f"; did you mean {by_leaf[near[0]]!r}?" if near else ""


def short_repr(record: Any) -> str:
    """A dataclass's repr in a few lines: arrays by type and shape, long collections by length."""
    values = (
        f"{each.name}={_short(getattr(record, each.name))}" for each in fields(record) if each.repr
    )
    return f"{type(record).__name__}({', '.join(values)})"


def _short(value: Any) -> str:
    if _is_array(value):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, bytes | str) and len(value) > 80:
        return f"<{len(value)} {'bytes' if isinstance(value, bytes) else 'characters'}>"
    if isinstance(value, Mapping) and (len(value) > 4 or any(map(_is_array, value.values()))):
        return f"<{len(value)} entries>"
    if isinstance(value, tuple | list) and len(value) > 8:
        return f"<{len(value)} items>"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_short, value))}{',' if len(value) == 1 else ''})"
    shown = repr(value)
    return shown if len(shown) < 200 and "\n" not in shown else f"<{type(value).__name__}>"


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")
