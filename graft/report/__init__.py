"""Tables, figures and the one-file HTML report, all from a run folder's own records.

Reads what a run left behind and counts nothing anew; opens no socket.
"""

from graft.report.class_times import class_dicts, class_times
from graft.report.page.comparison import comparison_page
from graft.report.page.html import report_page, write_report
from graft.report.run import RunRecord, read_run
from graft.report.summary import (
    MethodSummary,
    RoundSummary,
    domain_gains,
    summarise,
    summarise_rounds,
)
from graft.report.tables import markdown_table, rich_table, summary_dict
from graft.report.wire_model import StageTime
from graft.report.wire_stages import StageTraffic, read_stages, reconcile
from graft.report.wire_tables import wire_dicts, wire_markdown, wire_rich

__all__ = [
    "MethodSummary",
    "RoundSummary",
    "RunRecord",
    "StageTime",
    "StageTraffic",
    "class_dicts",
    "class_times",
    "comparison_page",
    "domain_gains",
    "markdown_table",
    "read_run",
    "read_stages",
    "reconcile",
    "report_page",
    "rich_table",
    "summarise",
    "summarise_rounds",
    "summary_dict",
    "wire_dicts",
    "wire_markdown",
    "wire_rich",
    "write_report",
]
