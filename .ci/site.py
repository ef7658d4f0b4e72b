"""What the built site needs beside its pages: links that leave ``docs/`` become paths.

The site stands by itself, also without the repository around it; a reader on the repository's own
pages keeps the links.
"""

import re
from typing import Any

_OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page before it is rendered."""
    return _OUTWARD.sub(_as_path, markdown)


def _as_path(found: re.Match[str]) -> str:
    text, path = found.groups()
    return f"`{path}`" if path.endswith(text) else f"{text} (`{path}`)"
