"""The fenced code blocks of README.md and docs/*.md, as a test runs them."""

import os
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^( *)```(.*)$")
# In the line above a block: it is not run here, and why.
_NOT_RUN = re.compile(r"^ *<!-- not run: (.+) -->$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block; ``reason`` says why it is not run, where it is not."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block, comments taken off."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [each for each in words if each]


def read_blocks(page: Path) -> list[Block]:
    blocks: list[Block] = []
    lines = page.read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        indent, language = fence.groups()
        end = lines.index(indent + "```", number + 1)
        said = _NOT_RUN.match(lines[number - 1]) if number else None
        blocks.append(
            Block(
                page=page,
                line=number + 1,
                language=language.strip(),
                text="".join(f"{line[len(indent) :]}\n" for line in lines[number + 1 : end]),
                reason=said.group(1) if said else None,
            )
        )
        number = end + 1
    return blocks


def block_of(page: Path, language: str, words: str = "") -> Block:
    """The page's one block of a language that holds the words."""
    blocks = read_blocks(page)
    (block,) = (each for each in blocks if each.language == language and words in each.text)
    return block


def install_page(page: Path, module: str, folder: Path) -> str:
    """What pip makes of the page's one module and its pyproject table; gives the PYTHONPATH."""
    information = folder / f"{module}-0.1.dist-info"
    information.mkdir(parents=True)
    ((group, names),) = tomllib.loads(block_of(page, "toml").text)["project"][
        "entry-points"
    ].items()
    listed = f"{group.rpartition('.')[2].upper()} = ("
    (folder / f"{module}.py").write_text(block_of(page, "python", listed).text, "utf-8")
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n", "utf-8"
    )
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
