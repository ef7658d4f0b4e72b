"""The documentation is whole: generated pages are up to date, every error is explained, all links
lead somewhere, and the built site asks nothing of any other machine."""

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from graft import errors
from graft.cli import main as cli
from graft.errors import GraftError, PolicyError

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["commands.md", "configuration.md"])
def test_a_generated_page_is_up_to_date(name: str) -> None:
    pages = runpy.run_path(str(ROOT / ".ci" / "reference.py"))["pages"]()
    assert (DOCS / name).read_text("utf-8") == pages[name], "run `make reference`"


def test_every_error_has_its_section_in_the_order_of_the_tree() -> None:
    classes = [
        each
        for each in vars(errors).values()
        if inspect.isclass(each) and issubclass(each, GraftError)
    ]
    text = (DOCS / "errors.md").read_text("utf-8")
    sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert sorted(sections) == sorted(each.__name__ for each in classes)
    in_tree = re.findall(r"(\w+Error)", inspect.getdoc(errors) or "")
    assert sections == list(dict.fromkeys(in_tree))
    for section in text.split("\n## ")[1:]:
        assert "**What to do.** " in section, section


def test_an_error_line_ends_with_its_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**options: object) -> None:
        raise PolicyError("epsilon: got 1 spent, wanted 1 more")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.endswith("wanted 1 more (see docs/errors.md#policyerror)")


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").glob("*.html"):
        html = page.read_text("utf-8")
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:[^\" >]+)", html
        )
        assert not loaded, f"{page.name}: {loaded}"
    assert (tmp_path / "site" / "search" / "search_index.json").is_file()


def test_links_of_the_readme_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text("utf-8")):
        assert target.startswith("https:") or (ROOT / target).exists(), target


def test_links_out_of_docs_lead_to_files() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((\.\./[^)#]+)", page.read_text("utf-8")):
            assert (DOCS / target).exists(), f"{page.name}: {target}"
