"""What is released: the same bytes each time, typed, with its changes and licences told."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PACKAGES = ("graft", "graft_server", "graft_client", "graft_simulation")
FOLDERS = ("graft", "server", "client", "simulation")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two builds of the same files, which lie in different folders and are of different ages."""
    place = tmp_path_factory.mktemp("release")
    for age, name in enumerate(("one", "two")):
        for part in (
            *FOLDERS,
            "proto",
            "docs",
            "pyproject.toml",
            "README.md",
            "CHANGELOG.md",
            "LICENSE",
        ):
            source, copy = ROOT / part, place / name / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        for path in (place / name).rglob("*"):
            os.utime(path, (1_600_000_000 + age * 99_999, 1_600_000_000 + age * 99_999))
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / f"dist-{name}",
             place / name],
            check=True, capture_output=True, env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
    return place / "dist-one", place / "dist-two"


def test_wheel_and_sdist_are_the_same_bytes_each_time(built: tuple[Path, Path]) -> None:
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in built)
    assert len(one) == 2
    assert one == two


def test_the_wheel_holds_every_package_with_its_types_and_nothing_else(
    built: tuple[Path, Path],
) -> None:
    (wheel,) = built[0].glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, "graft_origin.py", f"graft_fl-{PROJECT['version']}.dist-info"}
    (sdist,) = built[0].glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "CHANGELOG.md", "docs/licences.md", "graft/py.typed"} <= held


def test_the_version_has_its_section_among_the_changes() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", changes, re.MULTILINE)[0] == PROJECT["version"]


def test_every_direct_dependency_is_listed_with_a_licence() -> None:
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| ([\w-]+) \| [\w-]+ \| (.*) \|$", page, re.MULTILINE))
    for requirement in PROJECT["dependencies"]:
        name = re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
        assert listed.get(name, "not stated") != "not stated", name


def test_every_extra_of_the_code_is_an_extra_of_the_project() -> None:
    named = {
        extra
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for extra in re.findall(r'missing_extra\(.*"(\w+)"\)', path.read_text("utf-8"))
    }
    assert named == {"datasets", "excel", "export", "images", "report", "server", "trackers"}
    assert named <= set(PROJECT["optional-dependencies"])


def test_the_citation_names_this_version_and_the_four_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    known = {i["value"] for r in citation["references"] for i in r.get("identifiers", ())}
    assert known == {"arXiv:2412.04060", "arXiv:1906.10546", "arXiv:2603.26192"}
    assert "HMKD" in [reference["notes"] for reference in citation["references"]]


def test_continuous_integration_and_hooks_run_commands_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    steps = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert steps == [".ci/run", "make test-records", "make test-ranges"]
    assert all(f"\n{step.removeprefix('make ')}:" in makefile for step in steps[1:])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    for hook in hooks["repos"][0]["hooks"]:
        command = hook["entry"].removeprefix(".venv/bin/").partition(" --")[0]
        assert f"$(BIN)/{command}" in makefile
