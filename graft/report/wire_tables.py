"""What a link carried as a table: for the terminal, as Markdown, and as plain values for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from graft.report.formatting import MINUS, NONE, bytes_text
from graft.report.tables import markdown_grid
from graft.report.wire_stages import ALL, STAGED, StageTraffic

HEADINGS: Final = (
    "Stage", "Direction", "Ledger payload", "Measured wire", "Counted on the link",
    "Measured to counted", "Modelled wire", "Of that by time", "Modelled to measured",
)  # fmt: skip
NOTE: Final = (
    "Wire bytes are Ethernet frames with all headers. Measured: the kernel's counts of the "
    "TCP proxy's connections. Counted: interfaces of the link. Modelled: the simulation's ledger, "
    "with the calls and acknowledgements that go against its messages, the application's bundle, "
    "and, by time, what nodes sent while they waited and worked, for as long as each stage took."
)


def wire_cells(row: StageTraffic) -> tuple[str, ...]:
    """One row under ``HEADINGS``."""
    return (
        row.stage,
        "up" if row.up else "down",
        bytes_text(row.payload_bytes),
        bytes_text(row.measured_bytes),
        bytes_text(row.counted_bytes),
        _share_text(row.count_difference),
        bytes_text(row.modelled_bytes),
        NONE if row.modelled_bytes is None else bytes_text(row.timed_bytes),
        _share_text(row.model_difference),
    )


def wire_rich(rows: Sequence[StageTraffic]) -> Table:
    """The table for the terminal."""
    table = Table(caption=NOTE, caption_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*wire_cells(row), style="bold" if row.stage in (STAGED, ALL) else "")
    return table


def wire_markdown(rows: Sequence[StageTraffic]) -> str:
    """The same table as Markdown, with its note below."""
    return markdown_grid(HEADINGS, [wire_cells(row) for row in rows], words=(0, 1)) + f"\n{NOTE}\n"


def wire_dicts(rows: Sequence[StageTraffic]) -> list[dict[str, Any]]:
    """Plain values for JSON; differences are shares of 1."""
    return [
        {
            **asdict(row),
            "count_difference": row.count_difference,
            "model_difference": row.model_difference,
        }
        for row in rows
    ]


def _share_text(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:+.1f} %".replace("-", MINUS)
