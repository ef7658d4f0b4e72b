"""``graft deploy units``: systemd's units for server, depot and device."""

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from graft.cli.shared import Format, FormatOption
from graft.core.files import replace_file

_SERVICES = ("graft-server.service", "graft-depot.service", "graft-device@.service")


def units(
    folder: Annotated[Path, typer.Argument(help="Where to write them, e.g. /etc/systemd/system.")],
    state: Annotated[
        Path, typer.Option(help="Holds server/, devices/<domain>/ and data/<domain>/.")
    ] = Path("/var/lib/graft"),
    output: FormatOption = Format.TABLE,
) -> None:
    """Write systemd's units: restarted when they end, as the user graft, writing only their folder.

    They start the very graft that wrote them. After it: systemctl daemon-reload.
    """
    texts = unit_files(Path(sys.executable).with_name("graft"), state)
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    written = [str(folder / name) for name in texts]
    print(json.dumps({"units": written}) if output is Format.JSON else "\n".join(written))


def unit_files(graft: Path, state: Path) -> dict[str, str]:
    """Each unit's text by its file name, for a ``graft`` and a folder of state."""
    found = resources.files("graft.cli.deploy") / "systemd"
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
