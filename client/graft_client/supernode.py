"""Flower's SuperNode, held to the one app bundle that its device was enrolled with.

A SuperNode runs whatever app its SuperLink sends. The deployment's bundle has no code of its own,
so a device that takes no other runs nothing but what is installed on it.

    python -m client.node SHA256 [flower-supernode's options]
"""

import hashlib
import logging
import sys
from typing import Any

from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode

supernode: Any = start_client_internal  # it does not offer what is replaced here
log = logging.getLogger("graft")


def hold_to_bundle(sha256: str) -> None:
    """From now on this process ignores messages of any run whose bundle has another SHA-256."""
    unchecked = supernode.get_fused_config_from_fab

    def checked(content: Any, run: Run) -> Any:
        got = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else "a folder"
        if got != sha256:
            log.error("app bundle refused: got %s, wanted %s", got, sha256)
            # What the SuperNode takes for a reason to ignore a message, and go on.
            raise RunNotRunningException
        return unchecked(content, run)

    supernode.get_fused_config_from_fab = checked


if __name__ == "__main__":
    hold_to_bundle(sys.argv.pop(1))
    flower_supernode()
