"""Print the lowest version of every range that ``graft-fl[all]`` states, as pip's constraints.

torch is the version of constraints.txt: PyPI has older ones for x86-64 with CUDA only.
"""

import re
import tomllib
from pathlib import Path

_LOWER = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def main() -> None:
    """Print one ``name==version`` a line."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = (requirement for requirement in extras["all"])
    named = everything.partition("[")[2].rstrip("]").split(",")
    asked = [*project["dependencies"], *(text for name in named for text in extras[name])]
    lowest = dict(found.groups() for text in asked if (found := _LOWER.match(text)))
    pinned = (root / ".ci" / "constraints.txt").read_text("utf-8")
    lowest["torch"] = re.findall(r"^torch==(\S+)$", pinned, re.MULTILINE)[0]
    for name, version in sorted(lowest.items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
