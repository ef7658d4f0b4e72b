"""Which unit tests ``make check`` runs for a change."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_spec = importlib.util.spec_from_file_location("check", ROOT / ".ci" / "check.py")
assert _spec is not None
assert _spec.loader is not None
check = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check)


@pytest.mark.parametrize(
    ("changed", "test", "runs"),
    [
        ("graft/errors.py", "test_config.py", True),
        ("tests/unit/test_config.py", "test_config.py", True),
        ("graft/methods/source_free.py", "methods/test_shot.py", True),
        # Through the registry, which imports every method.
        ("graft/methods/source_free.py", "rounds/test_round.py", True),
        # Through a program in a string.
        ("client/graft_client/supernode.py", "client/test_supernode.py", True),
        ("graft/training/compiled/kernels.c", "training/test_kernels.py", True),
        ("docker-compose.yml", "client/test_supernode.py", False),
        ("graft/methods/source_free.py", "wire/test_payload.py", False),
        ("server/graft_server/signing.py", "test_seeding.py", False),
    ],
)  # fmt: skip
def test_a_change_runs_the_tests_that_reach_it(changed: str, test: str, runs: bool) -> None:
    assert (ROOT / changed).exists()
    assert check.is_touched(ROOT / "tests" / "unit" / test, {changed}) is runs
