"""A ledger that survives a killed process: one JSON line an entry, written whole at once."""

import dataclasses
from pathlib import Path

from graft.core.files import LineFile, read_lines
from graft.core.records import LedgerEntry


class JournalMeter:
    """Appends ledger entries to a journal; ``record`` is the meter. One writer a path.

    Opening cuts off a line that an earlier writer was killed in: its transfer happens again.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

    def record(self, entry: LedgerEntry) -> None:
        """Append one entry; it is with the operating system when this returns.

        Raises RunError where it cannot be written whole.
        """
        self._file.append(dataclasses.asdict(entry))

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> list[LedgerEntry]:
    """All whole entries, in the order written; a torn last line is left out.

    Raises RunError for a missing journal or a line that is not an entry.
    """
    return read_lines(path, lambda row: LedgerEntry(**row))
