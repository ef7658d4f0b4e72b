"""A SuperNode that is held to one app bundle."""

import hashlib
import subprocess
import sys
from importlib.metadata import version

# Flower's module is changed for the whole process, so each case has one of its own.
PROGRAM = """
import hashlib, sys
from flwr.supercore.run import RunNotRunningException
from graft_client import supernode as node
node.supernode.get_fused_config_from_fab = lambda content, run: {"taken": len(content)}
node.hold_to_bundle(sys.argv[1])
try:
    print(node.supernode.get_fused_config_from_fab(sys.argv[2].encode(), None))
except RunNotRunningException:
    print("ignored")
"""


def told(bundle: bytes, sent: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, hashlib.sha256(bundle).hexdigest(), sent],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


WITHOUT_THE_SEAM = """
import sys
from graft_client import supernode as node
def pull(message): ...
node.supernode._pull_and_store_message = pull
sys.argv = ["supernode", "0" * 64]
node.main()
"""


def test_a_flower_whose_bundles_pass_elsewhere_is_refused_with_its_version() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_SEAM], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"EdgeError: SuperNode: got flwr {version('flwr')}, whose")
    assert done.stderr.count("\n") == 1


def test_the_bundle_that_it_was_enrolled_with_is_run() -> None:
    assert told(b"ours", "ours") == "{'taken': 4}"


def test_messages_of_any_other_bundle_are_ignored() -> None:
    assert told(b"ours", "0urs") == "ignored"
