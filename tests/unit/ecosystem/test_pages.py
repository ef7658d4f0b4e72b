"""Every code block of the README and of docs/ runs, made small, in the order of its page."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command_examples import COMMANDS, parse
from pages import PAGES, ROOT, Block, read_blocks
from typer.testing import CliRunner

import graft
from graft.cli.main import app
from graft.core.config_files import config_from_dict
from graft.data.dataset_table import read_dataset
from graft.data.public import download as fetch

SMALL_RUN = (
    "--rounds 1 --engine block --workers 0 --set training.max_steps=2 "
    "--set world.windows_per_domain=40 --set comparisons=[]"
)
BLOCKS = {page: read_blocks(page) for page in PAGES}
NOT_RUN = 33  # with more, a page is no longer tested
ENTRY_POINTS = {"graft.methods", "graft.architectures"}


def graft_arguments(words: list[str]) -> list[str]:
    """The arguments of a ``graft`` that is called by its path, with sudo or in a container."""
    for at, word in enumerate(words):
        if (word == "graft" or word.endswith("/bin/graft")) and at + 1 < len(words):
            return words[at + 1 :]
    return []


def check_without_running(words: list[str]) -> None:
    """A command's options, make targets and files exist."""
    if words[0] == "make":
        made = subprocess.run(
            ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
        for line in made.stdout.replace("\\\n", " ").splitlines():
            if arguments := graft_arguments(shlex.split(line)):
                parse(arguments)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    elif arguments := graft_arguments(words):
        parse(arguments)


def run_small(words: list[str]) -> None:
    """Run one ``graft`` command; its output replaces the fixture's."""
    name = next(each for each in (" ".join(words[1:3]), words[1]) if each in COMMANDS)
    extra = []
    if name == "simulate":
        fresh = SMALL_RUN if "--data" in words else f"{SMALL_RUN} --domains 6"
        extra = shlex.split("--workers 0" if "--resume" in words else fresh)
    if "--out" in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    done = CliRunner().invoke(app, [*words[1:], *extra], catch_exceptions=False)
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"


def run_shell(block: Block) -> None:
    for words in block.commands():
        if words[0] == "graft" and block.reason is None:
            run_small(words)
        else:
            # `. .venv/bin/activate` is the shell's; any other block that cannot run has a reason.
            assert block.reason or words[0] in ("make", "."), f"{block.name}: {words[0]}"
            check_without_running(words)


def read_table(block: Block, place: Path) -> None:
    """A TOML block is a configuration, a data set's table, or entry points."""
    table = tomllib.loads(block.text)
    if "project" in table:
        assert set(table["project"]["entry-points"]) <= ENTRY_POINTS
    elif "licence" in table:
        (place / "table" / "domains").mkdir(parents=True, exist_ok=True)
        (place / "table" / "dataset.toml").write_text(block.text, "utf-8")
        task = read_dataset(place / "table").task
        assert list(task.classes) == table.get("classes", ["sit", "walk"])
        assert task.input_names == tuple(table.get("inputs", "x"))
    else:
        config_from_dict(table)


@pytest.fixture
def around(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples' folder, with small runs in Python and with the download's own name."""
    shutil.copy(place / "my-folder/domains/user-000000.npz", place / "my-folder/domains/alice.npz")
    download = replace(fetch.find_download("hapt"), file_name="hapt.zip")
    monkeypatch.setattr("graft.data.public.download.find_download", lambda name: download)
    settings: Mapping[str, object] = {"training.max_steps": 2}
    small = partial(graft.simulate, comparisons=[], settings=settings, engine="block", workers=0)
    monkeypatch.setattr("graft.simulate", small, raising=False)
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page: Path, around: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in BLOCKS[page]:
        if block.language == "sh":
            run_shell(block)
        elif block.language == "python":
            exec(compile(block.text, block.name, "exec"), namespace)
        elif block.language == "toml":
            read_table(block, around)
        else:
            assert block.language == "text", f"{block.name}: got {block.language!r}"


def test_blocks_that_do_not_run_are_counted_and_say_why() -> None:
    not_run = [block for blocks in BLOCKS.values() for block in blocks if block.reason]
    listing = "\n".join(f"{block.name}: {block.reason}" for block in not_run)
    print(listing)
    assert len(not_run) == NOT_RUN, listing
    assert all(block.language == "sh" for block in not_run), listing


def test_all_code_is_fenced_so_that_none_escapes_these_tests() -> None:
    for page in PAGES:
        prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.M | re.S)
        lines = prose.splitlines()
        for before, line in zip(["", *lines], lines, strict=False):
            is_listed = re.search(r"^\d\. ", prose, re.M) and line.startswith("    ")
            assert before or not line.startswith("    ") or is_listed, f"{page.name}: {line}"
