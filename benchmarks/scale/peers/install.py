"""Make the peers' virtual environments, one a peer, with pinned versions.

python benchmarks/scale/peers/install.py
"""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
PEERS = ("pfl-research", "fedjax", "fedjax-as-released")


def peer_python(name: str, folder: Path) -> Path:
    """The interpreter of a peer's environment under ``folder``, there or not."""
    return folder.absolute() / name / "bin" / "python"


def install_peer(name: str, folder: Path) -> bool:
    """Make or bring up to date one peer's environment; False where it was as pinned already.

    Raises CalledProcessError where pip cannot install the pins or finds that they conflict.
    """
    pins = (HERE / f"{name}.txt").read_bytes()
    installed = folder / name / "installed.txt"
    if installed.exists() and installed.read_bytes() == pins:
        return False
    venv.create(folder / name, with_pip=True, clear=True)
    pip = [str(peer_python(name, folder)), "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", "-r", str(HERE / f"{name}.txt")], check=True)
    subprocess.run([*pip, "check"], check=True)
    installed.write_bytes(pins)  # last: an interrupted installation is made again
    return True


def main(
    peer: Annotated[
        list[str] | None, typer.Argument(help=f"Which: {', '.join(PEERS)}; all by default.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the environments go.")] = Path(
        "runs/scale/peers"
    ),
) -> None:
    """Install the peers with Python 3.11, each in an environment of its own."""
    if sys.version_info[:2] != (3, 11):
        raise typer.BadParameter(f"got Python {sys.version.split()[0]}, the pins are for 3.11")
    for name in _known(peer or PEERS):
        made = install_peer(name, folder)
        print(f"{name}: {'installed' if made else 'there already'}, {folder / name}")


def _known(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in PEERS:
            raise typer.BadParameter(f"peer: got {name!r}, wanted one of {list(PEERS)}")
    return names


if __name__ == "__main__":
    typer.run(main)
