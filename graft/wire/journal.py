"""A ledger that survives a killed process: one JSON line an entry, written whole at once."""

import dataclasses
import json
import os
from pathlib import Path

from graft.errors import RunError
from graft.values import LedgerEntry


class JournalMeter:
    """Appends ledger entries to a journal; ``record`` is the meter. One writer a path.

    Opening cuts off a line that an earlier writer was killed in: its transfer happens again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def record(self, entry: LedgerEntry) -> None:
        """Append one entry; it is with the operating system when this returns."""
        line = json.dumps(dataclasses.asdict(entry), separators=(",", ":")).encode() + b"\n"
        written = os.write(self._file.fileno(), line)
        if written != len(line):
            raise RunError(f"journal {self._file.name}: wrote {written} of {len(line)} bytes")

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> list[LedgerEntry]:
    """All whole entries, in the order written; a torn last line is left out.

    Raises RunError for a missing journal or a line that is not an entry.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError as error:
        raise RunError(f"journal {path}: missing") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(LedgerEntry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RunError(f"journal {path}, line {number}: {error}") from error
    return entries
