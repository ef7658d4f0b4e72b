"""Words of other machines (ids, errors, architectures, metrics), made safe where they are shown."""

import re

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
