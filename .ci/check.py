"""Run the unit tests that a change can touch: those whose imports reach a changed file.

The change is what differs from the commit where the branch left ``main``; ``CHECK`` names another
commit, or is ``all``. A changed file that is no module touches the tests that name it or that
reach a module of its folder. Imports are followed wherever they stand, in a test's strings too.
"""

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT_PATH = [ROOT / name for name in (".", "server", "client", "simulation", "tests")]
UNITS = ("tests/unit", "tests/contract")
EVERYTHING = {"pyproject.toml", ".ci/constraints.txt", ".ci/check.py"}
_NAMED = re.compile(r"\bgraft(?:_\w+)?(?:\.\w+)+")
_REFERENCE = re.compile(rf"{_NAMED.pattern}(:\w+)?")  # what Flower, or Python's -m, imports
_FROM = re.compile(r"\bfrom (graft[\w.]*) import ([\w, ]+)")


def main() -> None:
    """Exit with pytest's code; print how many test modules ran and how long they took."""
    base = os.environ.get("CHECK", "main")
    tests = sorted(path for top in UNITS for path in (ROOT / top).rglob("test_*.py"))
    if base != "all":
        changed = set(changed_files(base))
        if not changed & EVERYTHING:
            tests = [test for test in tests if is_touched(test, changed)]
        print(f"{len(changed)} changed files reach {len(tests)} test modules", flush=True)
    if tests:
        started_s = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-m", "not slow", "--numprocesses", "2"]
        code = subprocess.run([*command, *tests], cwd=ROOT).returncode
        print(f"tests took {time.monotonic() - started_s:.0f} s")
        sys.exit(code)


def changed_files(base: str) -> Iterator[str]:
    """Paths that differ from the branching point: committed, edited and new ones."""
    fork = git("merge-base", "HEAD", base)
    yield from git("diff", "--name-only", fork[0] if fork else "HEAD")
    yield from git("ls-files", "--others", "--exclude-standard")


def git(*arguments: str) -> list[str]:
    """The lines that git prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines()


def is_touched(test: Path, changed: set[str]) -> bool:
    """Whether a test module reaches a changed file."""
    reached = {str(path.relative_to(ROOT)) for path in reach(test)}
    folders = {os.path.dirname(path) for path in reached} - {"", "tests"}
    text = test.read_text("utf-8")
    others = (name for name in changed if not name.endswith(".py"))
    return bool(reached & changed) or any(
        os.path.basename(name) in text or os.path.dirname(name) in folders for name in others
    )


def reach(test: Path) -> set[Path]:
    """A test module, its conftests, and every file of ours that they import, directly or not."""
    above = (folder / "conftest.py" for folder in test.parents if folder.is_relative_to(ROOT))
    waiting, found = [test, *(path for path in above if path.exists())], set[Path]()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(imported(path))
    return found


@cache
def imported(path: Path) -> frozenset[Path]:
    """Files of ours that a file names in an import or in a string."""
    text = path.read_text("utf-8")
    names = set[str]()
    if path.is_relative_to(ROOT / "tests"):  # programs that a test starts are strings in it
        names |= set(_NAMED.findall(text))
        for module, attributes in _FROM.findall(text):
            names |= {f"{module}.{name.split(' ')[0]}" for name in attributes.split(", ")}
    # Every module reaches graft/__init__.py, which reaches everything, but only when it is used.
    is_lazy = path == ROOT / "graft" / "__init__.py"
    for node in () if is_lazy else ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and _REFERENCE.fullmatch(str(node.value)):
            names.add(node.value.partition(":")[0])
    if "iter_modules" in text:  # a registry: it imports every module of its folder
        return frozenset(path.parent.rglob("*.py")) | {path}
    if names & {"graft", "graft.simulate", "graft.open_run", "graft.load_model"}:
        names.add("graft.api")
    return frozenset() if is_lazy else frozenset(f for n in names for f in files_of(n, path))


def files_of(module: str, importer: Path) -> Iterator[Path]:
    """The file of a module (or of an attribute's module) and those of the packages above it."""
    for folder in (*IMPORT_PATH, importer.parent):
        for part in module.split("."):
            folder = folder / part
            for candidate in (folder / "__init__.py", folder.with_suffix(".py")):
                if candidate.exists():
                    yield candidate


if __name__ == "__main__":
    main()
