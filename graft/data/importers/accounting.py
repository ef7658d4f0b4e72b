"""What an importer read, kept and skipped: every row is accounted for by a reason."""

from dataclasses import dataclass, field

from graft.errors import ConfigError, DatasetFormatError


@dataclass(kw_only=True, slots=True)
class RowTally:
    """Rows read, and of those skipped the number and the first place of each reason.

    ``unreadable`` are the skipped rows that hold something which cannot be read: damage, unlike
    rows that only have no label. ``read`` is at any time the rows kept and skipped together.
    """

    read: int = 0
    unreadable: int = 0
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        return sum(count for count, _ in self.reasons.values())

    @property
    def kept(self) -> int:
        return self.read - self.skipped

    def skip(self, reason: str, where: str, *, rows: int = 1, unreadable: bool = False) -> None:
        """Account for rows that are left out; ``where`` names the first of them."""
        count, first = self.reasons.get(reason, (0, where))
        self.reasons[reason] = count + rows, first
        self.unreadable += rows if unreadable else 0

    def words(self) -> tuple[str, ...]:
        """A phrase for each reason."""
        return tuple(
            f"{count} row{'s' if count > 1 else ''}: {reason}, first {first}"
            for reason, (count, first) in sorted(self.reasons.items())
        )

    def check_share(self, label: str, most: float) -> None:
        """Raise DatasetFormatError where more than this share of the rows cannot be read."""
        if self.unreadable > most * self.read:
            raise DatasetFormatError(
                f"{label}: got {self.unreadable} of {self.read} rows that cannot be read, wanted "
                f"at most {most:.3g} of them (--max-unreadable); " + "; ".join(self.words())
            )


def check_share_option(most: float) -> None:
    """Raise ConfigError for a share that is none."""
    if not 0 <= most < 1:
        raise ConfigError(f"max-unreadable: got {most}, wanted 0 to less than 1")
