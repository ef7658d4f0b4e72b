"""The finished rounds of a run as a page or a command shows them; each is read once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graft.core.files import AnyPath
from graft.core.results import ResultRow
from graft.core.tables import read_results
from graft.report.run import DOWN, UP, payload_by, read_ledger_table
from graft_server.durability import MARKER, count_rounds

Bytes = Mapping[str, tuple[int, int]]  # payload down and up, by phase


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRound:
    """A round's results, its payload bytes by phase, and when it ended, in epoch seconds."""

    index: int
    rows: tuple[ResultRow, ...]
    bytes_by_phase: Bytes
    ended_s: float


@dataclass(slots=True)
class FinishedRounds:
    """Reads the rounds of a run folder, with ``ledgers`` their bytes too."""

    run_folder: AnyPath
    ledgers: bool = True
    _rounds: list[FinishedRound] = field(default_factory=list)
    _forgotten: int = 0

    def look(self) -> tuple[FinishedRound, ...]:
        """The rounds that are over now; all are read again after a domain was forgotten."""
        finished = count_rounds(self.run_folder)
        records = self.run_folder / "forgotten"
        forgotten = len([*records.glob("*.json")]) if records.exists() else 0
        if finished < len(self._rounds) or forgotten != self._forgotten:
            self._rounds.clear()
        self._forgotten = forgotten
        for index in range(len(self._rounds), finished):
            self._rounds.append(self._read(index))
        return tuple(self._rounds)

    def latest(self) -> dict[str, ResultRow]:
        """Each domain's latest result; of one round's, one that failed."""
        found: dict[str, ResultRow] = {}
        for each in self.look():
            found |= {row.domain_id: row for row in sorted(each.rows, key=lambda r: bool(r.error))}
        return found

    def bytes_by_phase(self) -> Bytes:
        """The payload bytes of all rounds."""
        return add_bytes(each.bytes_by_phase for each in self.look())

    def _read(self, index: int) -> FinishedRound:
        folder = self.run_folder / "rounds" / str(index)
        marker, results = folder / MARKER, folder / "results.parquet"
        sums: dict[tuple[Any, ...], int] = {}
        if self.ledgers:
            sums = payload_by(read_ledger_table(folder / "ledger.parquet"), "phase", "up")
        return FinishedRound(
            index=index,
            rows=tuple(read_results(results)),
            bytes_by_phase={
                phase: (sums.get((phase, DOWN), 0), sums.get((phase, UP), 0)) for phase, _ in sums
            },
            ended_s=(marker if marker.exists() else results).stat().st_mtime,
        )


def add_bytes(parts: Iterable[Bytes]) -> Bytes:
    """The sums over several counts."""
    down, up = Counter[str](), Counter[str]()
    for part in parts:
        down.update({phase: pair[0] for phase, pair in part.items()})
        up.update({phase: pair[1] for phase, pair in part.items()})
    return {phase: (down[phase], up[phase]) for phase in down}
