"""``graft deploy units``: systemd's units for server, depot and device."""

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from graft.files import replace_file

_SERVICES = ("graft-server.service", "graft-depot.service", "graft-device@.service")


def units(
    folder: Annotated[Path, typer.Argument(help="Where to write them, e.g. /etc/systemd/system.")],
    state: Annotated[
        Path, typer.Option(help="Holds server/, devices/<domain>/ and data/<domain>/.")
    ] = Path("/var/lib/graft"),
) -> None:
    """Write systemd's units: restarted when they end, as the user graft, writing only their folder.

    They start the very graft that wrote them. After it: systemctl daemon-reload.
    """
    for name, text in unit_files(Path(sys.executable).with_name("graft"), state).items():
        replace_file(folder / name, text.encode(), mode=0o644)
        print(folder / name)


def unit_files(graft: Path, state: Path) -> dict[str, str]:
    """Each unit's text by its file name, for a ``graft`` and a folder of state."""
    found = resources.files("graft.deploy") / "systemd"
    words = {
        "@HARDENING@": (found / "hardening.conf").read_text("utf-8").rstrip(),
        "@GRAFT@": str(graft.absolute()),
        "@STATE@": str(state.absolute()),
    }
    texts = {}
    for name in _SERVICES:
        text = (found / name).read_text("utf-8")
        for word, meaning in words.items():
            text = text.replace(word, meaning)
        texts[name] = text
    return texts
