"""Flower's SuperNode, held to the one app bundle that its device was enrolled with.

A SuperNode runs whatever app its SuperLink sends. The deployment's bundle has no code of its own,
so a device that takes no other runs nothing but what is installed on it. The port at which its own
ClientApp fetches tasks serves no other user of the machine.

    python -P -m graft_client.supernode SHA256 [flower-supernode's options]
"""

import hashlib
import logging
import ssl
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode, flwr_clientapp

from graft.core.ending import prepare_flower, run_process
from graft.errors import EdgeError
from graft.wire.own_user import serve_own_user_alone

supernode: Any = start_client_internal  # it does not offer what is replaced here
log = logging.getLogger("graft")
_KEEP_S = 50.0


def check_flower() -> None:
    """Raises EdgeError for a Flower whose SuperNode does not pass every bundle through here.

    There is no public way to refuse a bundle: Flower's ``--trusted-entities`` asks its makers'
    platform for signatures. What is replaced is an internal function, so its caller is checked.
    """
    pull = getattr(supernode, "_pull_and_store_message", None)
    names = getattr(getattr(pull, "__code__", None), "co_names", ())
    if "get_fused_config_from_fab" not in names or not hasattr(
        supernode, "get_fused_config_from_fab"
    ):
        raise EdgeError(
            f"SuperNode: got flwr {version('flwr')}, whose app bundles cannot be checked, "
            "wanted 1.41 or 1.42"
        )


def hold_to_bundle(sha256: str) -> None:
    """From now on this process ignores messages of any run whose bundle has another SHA-256."""
    check_flower()
    unchecked = supernode.get_fused_config_from_fab

    def checked(content: Any, run: Run) -> Any:
        got = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else "a folder"
        if got != sha256:
            log.error("app bundle refused: got %s, wanted %s", got, sha256)
            # What the SuperNode takes for a reason to ignore a message, and go on.
            raise RunNotRunningException
        return unchecked(content, run)

    supernode.get_fused_config_from_fab = checked


class DeviceContext(ssl.SSLContext):
    """TLS with the deployment's authority and the device's certificate, the newest in ``folder``.

    A certificate that is renewed is shown from the next connection on.
    """

    folder: Path
    shown_ns = 0

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        written_ns = (self.folder / "tls.pem").stat().st_mtime_ns
        if written_ns != self.shown_ns:
            self.load_cert_chain(self.folder / "tls.pem", self.folder / "tls.key")
            self.shown_ns = written_ns
        return super().wrap_socket(*args, **options)


def device_context(folder: Path) -> DeviceContext:
    """The TLS of a device's folder."""
    context = DeviceContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.pem")
    context.folder = folder
    return context


def present_certificate(folder: Path) -> None:
    """From now on the SuperNode shows the gateway its device's certificate; Flower has no option.

    Raises EdgeError for a Flower that connects in another way.
    """
    connection: Any = fleet_http_connection
    client: Any = getattr(connection, "FleetHttpClient", None)
    if client is None:
        raise EdgeError(f"SuperNode: got flwr {version('flwr')}, wanted 1.41 or 1.42")

    class Client(client):  # type: ignore[misc]
        def __init__(self, base_url: str, *, verify: object, **options: Any) -> None:
            super().__init__(base_url, verify=device_context(folder), **options)

    connection.FleetHttpClient = Client


def keep_connections() -> None:
    """From now on this process keeps idle HTTP connections for 50 s, below the gateway's 60.

    A node says every 24 s that it lives; with httpx's own 5 s each time took a TLS handshake.
    """

    class Client(httpx.Client):
        def __init__(self, **options: Any) -> None:
            limits = httpx.Limits(keepalive_expiry=_KEEP_S)
            super().__init__(**{"limits": limits, **options})

    httpx.Client = Client  # type: ignore[misc]


def run_supernode(bundle: str, options: Sequence[str]) -> None:
    """Be Flower's SuperNode with these options, held to one app bundle."""
    hold_to_bundle(bundle)
    if "--root-certificates" in options:
        authority = Path(options[list(options).index("--root-certificates") + 1])
        present_certificate(authority.parent)
    sys.argv = ["flower-supernode", *options]
    prepare_flower()
    keep_connections()
    serve_own_user_alone("SuperNode")
    flower_supernode()


def run_clientapp(options: Sequence[str]) -> None:
    """Be Flower's ClientApp."""
    sys.argv = ["flwr-clientapp", *options]
    flwr_clientapp()


def main() -> None:
    """Run the SuperNode; what ends it, as bundles that cannot be checked, is one line."""
    sys.exit(run_process(lambda: run_supernode(sys.argv[1], sys.argv[2:])))


if __name__ == "__main__":
    main()
