"""Writes docs/licences.md: what graft installs with it, and under which licence.

Run it in an environment that holds graft: ``python .ci/licences.py``.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licences of dependencies

Everything that `pip install graft` brings, without the extras, as each package states it itself.
`make licences` writes this page anew. Listed with torch's build for processors alone; its builds
for NVIDIA's accelerators bring NVIDIA's libraries too, under NVIDIA's own licences.

| package | needed by | licence |
| --- | --- | --- |
"""


def main() -> None:
    lines = [f"| {name} | {by} | {licence_of(name)} |" for name, by in sorted(needed().items())]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")


def needed() -> dict[str, str]:
    """Every package that graft needs here, and who asks for it first; breadth first."""
    found: dict[str, str] = {}
    waiting = [("graft-fl", frozenset({""}))]
    while waiting:
        owner, extras = waiting.pop(0)
        for text in requirements_of(owner):
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": e}) for e in extras):
                continue
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if name not in found:
                found[name] = owner
                waiting.append((name, frozenset({"", *requirement.extras})))
    return found


def requirements_of(name: str) -> list[str]:
    """What a package asks for; graft-fl: a simulating machine, by pyproject.toml."""
    if name != "graft-fl":
        return metadata.requires(name) or []
    project = tomllib.loads((PAGE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["server"], *extras["simulation"], *extras["report"]]
    return [text for text in asked if not text.startswith("graft-fl")]


def licence_of(name: str) -> str:
    """The licence expression, else the classifiers, else the first line of the licence's text."""
    facts = metadata.metadata(name)
    expression = facts.get("License-Expression")
    classes = [
        each.rpartition(" :: ")[2]
        for each in facts.get_all("Classifier") or ()
        if each.startswith("License ::") and each != "License :: OSI Approved"
    ]
    text = (facts.get("License") or "").strip().partition("\n")[0]
    return (expression or ", ".join(classes) or text or "not stated").replace("|", "/")


if __name__ == "__main__":
    main()
