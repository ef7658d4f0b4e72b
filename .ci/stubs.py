"""Regenerates the committed stubs from ``proto/``; needs grpcio-tools (a development tool).

The ``.proto`` folder is mapped onto ``graft/wire/stubs`` so that generated modules import one
another under their real package name and no package called ``proto`` exists.
"""

from pathlib import Path
from typing import Final

STUBS: Final = "graft/wire/stubs"
SOURCES: Final = ("messages.proto", "depot.proto")


def generate_stubs(proto_folder: Path, root: Path) -> None:
    """Write every stub below ``root``/graft/wire/stubs; raises RuntimeError where protoc fails.

    ``proto_folder`` is the folder that holds the ``.proto`` files.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]

    (root / STUBS).mkdir(parents=True, exist_ok=True)
    arguments = [
        "protoc",
        f"-I{STUBS}={proto_folder}",
        f"--python_out={root}",
        f"--pyi_out={root}",
        f"--grpc_python_out={root}",
        *(f"{STUBS}/{source}" for source in SOURCES),
    ]
    if (status := protoc.main(arguments)) != 0:
        raise RuntimeError(f"protoc: exit status {status} for {', '.join(SOURCES)}")
    # The messages file declares no service; its empty service stub would only mislead.
    (root / STUBS / "messages_pb2_grpc.py").unlink()


if __name__ == "__main__":
    repository = Path(__file__).resolve().parents[1]
    generate_stubs(repository / "proto" / "graft", repository)
