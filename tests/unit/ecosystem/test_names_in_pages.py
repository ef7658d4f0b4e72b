"""Names of files, modules and functions in the pages exist, so that a move leaves none behind."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from pages import PAGES, ROOT

from graft.core.config_files import config_from_dict, config_to_dict
from graft.core.settings import RENAMED_KEYS, RENAMED_METHODS

SOURCES = ("graft", "server", "client", "simulation", "proto", "tests", "benchmarks")
WRITTEN = (
    *(page for page in PAGES if page.name != "licences.md"),
    *(path for path in [ROOT / "CONTRIBUTING.md"] if path.exists()),
    *sorted((ROOT / "benchmarks").glob("*/README.md")),
)
# A deployment has a folder `server` too, so that only the packages inside it are looked up.
FOLDER = (
    r"(?:graft|server/graft_server|client/graft_client|simulation/graft_simulation|proto|tests"
    r"|benchmarks|examples|docker|docs|\.ci)"
)
PATH = re.compile(rf"(?<![\w/.-]){FOLDER}/[\w./-]*")
DOTTED = re.compile(
    r"(?<![\w/.-])graft(?!\.py\b)(?:_server|_client|_simulation)?(?:\.[A-Za-z_]\w*)+(?![\w/])"
)
IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*(?:\(\))?")
FOREIGN = {"manylinux_2_28_aarch64", "test_a_revoked_device_is_refused"}


def spans(page: Path) -> list[str]:
    """The inline code of a page; its fenced blocks are run by another test."""
    prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"`([^`]+)`", prose)


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, an attribute of one, or a key of the configuration."""
    config = config_to_dict(config_from_dict({}))
    section, _, key = dotted.partition(".")
    if key in config.get(section, {}):
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_dotted_names_of_a_page_exist(page: Path) -> None:
    missing = []
    for span in spans(page):
        paths = [match.group().rstrip(".") for match in PATH.finditer(span)]
        missing += [each for each in paths if not (ROOT / each).exists()]
        rest = PATH.sub("", span)
        missing += [name for name in DOTTED.findall(rest) if not is_there(name)]
    assert not missing


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_identifiers_of_a_page_occur_in_the_sources(page: Path) -> None:
    known = {
        word
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".proto", ".toml", ".service", ".c")
        for word in re.findall(r"\w+", path.read_text("utf-8"))
    }
    unknown = {
        part
        for span in spans(page)
        if IDENTIFIER.fullmatch(span)
        for part in re.findall(r"\w+", span)
        # prometheus-client puts `_total` behind a counter's name.
        if ("_" in part or re.search(r"[a-z][A-Z]", part))
        and part.removesuffix("_total") not in known
    }
    assert not unknown - FOREIGN


def test_the_migration_tables_lead_to_names_that_exist() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for old, new in (RENAMED_KEYS | RENAMED_METHODS).items():
        assert re.search(rf"^\| .*`{re.escape(old)}` \| .*`{re.escape(new)}` \|$", changes, re.M), (
            old
        )
    new_names = [
        name
        for cell in re.findall(r"^\| .* \| (.*) \|$", changes, re.M)
        for span in re.findall(r"`([^`]+)`", cell)
        for name in DOTTED.findall(span)
    ]
    assert len(new_names) > len(RENAMED_KEYS)
    assert not [name for name in new_names if not is_there(name)]


def test_the_import_order_is_pyprojects() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in table["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    page = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")
    (block,) = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)
    assert block.splitlines() == layers
