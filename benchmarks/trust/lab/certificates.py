"""The laboratory server's certificate, from a deployment's own kind of authority."""

from pathlib import Path

from graft_server.deployment.authority import create_authority


def write_certificates(folder: Path, address: str) -> None:
    """``ca.pem``, and ``server.pem`` with ``server.key``, good for ``address`` and loopback."""
    identity = create_authority(folder).server_identity([address, "127.0.0.1"])
    (folder / "server.pem").write_bytes(identity.certificate_pem)
    (folder / "server.key").write_bytes(identity.key_pem)
