"""Tables, figures and the one-file HTML report, read from a run folder's own records.

Opens no socket. Figures and pages need the extra ``graft-fl[report]``.
"""

from graft.report.page.comparison import comparison_page
from graft.report.page.report import report_page, write_report
from graft.report.run import RunRecord, read_run
from graft.report.summary import (
    MethodSummary,
    RoundSummary,
    class_times,
    domain_gains,
    summarise,
    summarise_rounds,
)
from graft.report.tables import class_dicts, markdown_table, rich_table, summary_dict
from graft.report.traffic import (
    StageTraffic,
    read_stages,
    reconcile,
    traffic_dicts,
    traffic_markdown,
    traffic_rich,
)
from graft.report.traffic_model import StageTime

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
    "traffic_dicts",
    "traffic_markdown",
    "traffic_rich",
    "write_report",
]
