"""Where every line of the files went: into windows, or a reason why not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graft.errors import DatasetFormatError

IN_WINDOWS: Final = "in windows"
PAUSES: Final = "cut by pauses: too short for a window"
SKIPS: Final = "between skipped lines: too short for a window"
CHANGES: Final = "between changes of label or recording: too short for a window"
RESTS: Final = "after the last whole window of a block"
UNCOVERED: Final = "outside the windows that all streams cover"
OUTSIDE: Final = "in no interval with a label"
DISPUTED: Final = "in intervals of two labels"
NO_LABEL, TWO_LABELS = -1, -2  # in place of the code of a line's label
LEFT_OUT: Final = "of people who are left out"


@dataclass(kw_only=True, slots=True)
class LineTally:
    """Lines read, and of those skipped the number and the first of each reason, by file name; and
    what became of the others. The one mutable record of an import."""

    lines: int = 0
    skipped: int = 0
    reasons: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)

    def skip(self, name: str, reason: str, first: str, count: int = 1) -> None:
        """Account for lines that cannot be used; ``first`` names the first of them."""
        self.skipped += count
        of_file = self.reasons.setdefault(name, {})
        before, known = of_file.get(reason, (0, first))
        of_file[reason] = before + count, known

    def add(self, reason: str, count: int) -> None:
        """Account for lines that can be used."""
        if count:
            self.others[reason] = self.others.get(reason, 0) + count

    def words(self) -> tuple[str, ...]:
        """A sentence for each file and reason."""
        return tuple(
            f"{name}: {count} line{'s' if count > 1 else ''} skipped: {reason}, first {first}"
            for name, reasons in sorted(self.reasons.items())
            for reason, (count, first) in sorted(reasons.items())
        )

    def account(self) -> Mapping[str, int]:
        """The number of lines by what became of them, windows first; together all lines."""
        skipped: dict[str, int] = {}
        for reasons in self.reasons.values():
            for reason, (count, _) in reasons.items():
                name = f"skipped: {reason}"
                skipped[name] = skipped.get(name, 0) + count
        others = {key: self.others[key] for key in sorted(self.others) if key != IN_WINDOWS}
        return {IN_WINDOWS: self.others.get(IN_WINDOWS, 0), **others, **skipped}

    def check_share(self, source: Path) -> None:
        """Raise DatasetFormatError where fewer than half of the lines can be used."""
        if 2 * self.skipped > self.lines or not self.lines:
            raise DatasetFormatError(
                f"{source}: got {self.lines - self.skipped} of {self.lines} lines that can be "
                "used, wanted at least half. " + "; ".join(self.words()[:5])
            )
