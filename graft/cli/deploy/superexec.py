"""Flower's SuperExec, which asks another process for each app in place of starting it.

Flower has no option for another executor on a machine, so a name of one of its modules is replaced.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from flwr.supercore.cli import flower_superexec
from flwr.supercore.superexec.executor import subprocess_executor

from graft.core.ending import prepare_flower
from graft.errors import EdgeError


def run_superexec(options: Sequence[str], orders: socket.socket) -> None:
    """Be Flower's SuperExec, which asks at ``orders`` for each app and starts none itself.

    Raises EdgeError for a Flower that starts them in another way.
    """
    executor: Any = subprocess_executor
    if getattr(executor, "subprocess", None) is not subprocess:
        raise EdgeError(f"SuperExec: got flwr {version('flwr')}, wanted 1.41 or 1.42")

    def ask(words: Sequence[str], **files: object) -> None:
        orders.send(json.dumps(words[1:]).encode())

    executor.subprocess = SimpleNamespace(Popen=ask, DEVNULL=subprocess.DEVNULL)
    sys.argv = ["flower-superexec", *options]
    prepare_flower()
    flower_superexec()
