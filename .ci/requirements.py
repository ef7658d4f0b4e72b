"""Print what graft needs, or what the named extras add, one requirement a line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]
for listed in extras or [project["dependencies"]]:
    print(*(each for each in listed if not each.startswith("graft-fl")), sep="\n")
