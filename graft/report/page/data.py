"""Every domain of a run as columns of small numbers, as JSON that the page's script reads.

A *visit* is one domain in one round. Accuracies are in ten-thousandths, times in milliseconds,
memory in kilobytes, mixture coefficients and fractions in thousandths; -1 refers to nothing, null
is not measured.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from graft.core.results import ResultRow
from graft.methods import INITIAL
from graft.report.formatting import LABEL_ONLY, PHASES, SCORE_TITLES, capitalised, display_name
from graft.report.run import DOWN, UP, RunRecord, payload_by
from graft.report.summary import Target, is_finished, output_of

_MODEL_ID_DIGITS = 12


def domain_columns(run: RunRecord) -> dict[str, Any]:
    """Every domain of the run with its rows, sources and bytes, the same for the same run."""
    rows = sorted(run.rows, key=lambda r: (r.round_index, r.domain_id, r.method))
    visits = sorted({(row.round_index, row.domain_id) for row in rows})
    names = sorted({name for row in rows for name in (row.domain_id, *row.source_domains)})
    methods = sorted({row.method for row in rows}, key=_method_order(run))
    domain_of = {name: number for number, name in enumerate(names)}
    visit_of = {visit: number for number, visit in enumerate(visits)}
    any_row = {(row.round_index, row.domain_id): row for row in reversed(rows)}
    seen: dict[Target, ResultRow] = any_row | {
        (row.round_index, row.domain_id): row for row in rows if row.device_class
    }
    architectures, classes, links, errors = _Texts(), _Texts(), _Texts(), _Texts()
    traffic = _traffic(run.ledger)
    return {
        "methods": [display_name(method) for method in methods],
        "main": _index(methods, run.config.method),
        "scores": [capitalised(title) for title in SCORE_TITLES[output_of(rows)]],
        "labelOnly": _index(methods, LABEL_ONLY),
        "initial": _index(methods, INITIAL),
        "phases": list(PHASES),
        "domains": names,
        "visits": {
            "domain": [domain_of[name] for _, name in visits],
            "round": [index for index, _ in visits],
            "class": [classes.of(seen[visit].device_class) for visit in visits],
            "link": [links.of(seen[visit].link_class) for visit in visits],
            "labelled": [seen[visit].num_labelled for visit in visits],
            "unlabelled": [seen[visit].num_unlabelled for visit in visits],
            "test": [seen[visit].num_test for visit in visits],
            "system": [traffic.get((*visit, ""), []) for visit in visits],
        },
        "rows": {
            "visit": [visit_of[row.round_index, row.domain_id] for row in rows],
            "method": [methods.index(row.method) for row in rows],
            "accuracy": [_scaled(row.score if is_finished(row) else None) for row in rows],
            "f1": [_second_score(row) for row in rows],
            "mixture": [_thousandths(row.mixture) for row in rows],
            "dictionary": [_dictionary(row.dictionary) for row in rows],
            "measured": [_scaled(row.compute_s, 1000) for row in rows],
            "simulatedCompute": [_scaled(row.simulated_compute_s, 1000) for row in rows],
            "simulated": [_scaled(row.simulated_s, 1000) for row in rows],
            "memory": [_scaled(row.peak_memory_bytes, 0.001) for row in rows],
            "architecture": [architectures.of(row.architecture) for row in rows],
            "model": [(row.model_id or "")[:_MODEL_ID_DIGITS] for row in rows],
            # Domains that probed, chose and rejected the model in later rounds.
            "peers": [
                None
                if row.peers_probed is None
                else [row.peers_probed, row.peers_chose, row.peers_rejected]
                for row in rows
            ],
            "error": [errors.of(_error(row)) for row in rows],
            "sources": [[domain_of[name] for name in row.source_domains] for row in rows],
            "traffic": [traffic.get((r.round_index, r.domain_id, r.method), []) for r in rows],
        },
        "architectures": architectures.known,
        "classes": classes.known,
        "links": links.known,
        "errors": errors.known,
    }


def script_json(columns: dict[str, Any]) -> str:
    """The columns as JSON for a script element: no text in it can end the element."""
    text = json.dumps(columns, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # A name may hold an address; the page itself is to hold none.
    return text.replace("://", ":\\/\\/")


class _Texts:
    """Recurring texts, each listed once."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._number_of: dict[str, int] = {}

    def of(self, text: str | None) -> int:
        """The text's number; -1 for none."""
        if not text:
            return -1
        if text not in self._number_of:
            self._number_of[text] = len(self.known)
            self.known.append(text)
        return self._number_of[text]


def _method_order(run: RunRecord) -> Callable[[str], tuple[int, str]]:
    order = {method: number for number, method in enumerate(run.config.methods)}
    return lambda method: (order.get(method, len(order)), method)


def _index(methods: Sequence[str], method: str) -> int:
    return methods.index(method) if method in methods else -1


def _scaled(value: float | None, scale: float = 10_000) -> int | None:
    return None if value is None or value != value else round(value * scale)


def _second_score(row: ResultRow) -> int | str | None:
    """Scaled, or the text of an amount's mean absolute error."""
    if row.mean_absolute_error is not None:
        return f"{row.mean_absolute_error:.4g}"
    return _scaled(row.macro_f1 if row.output == "classes" else row.mean_average_precision)


def _thousandths(table: Sequence[Sequence[float]] | None) -> list[int]:
    return [round(1000 * value) for line in table or () for value in line]


def _dictionary(table: Sequence[Sequence[float]] | None) -> list[int]:
    """Epochs as they are, then three shares."""
    return [
        part for epochs, *shares in table or () for part in (int(epochs), *_thousandths([shares]))
    ]


def _error(row: ResultRow) -> str | None:
    return f"{row.error}: {row.error_message or ''}" if row.error else None


def _traffic(ledger: pa.Table) -> dict[tuple[int, str, str], list[int]]:
    """By (round, domain, method): phase, bytes down, bytes up, next phase, and so on."""
    sums = payload_by(ledger, "round_index", "domain_id", "method", "phase", "up")
    traffic: dict[tuple[int, str, str], list[int]] = defaultdict(list)
    for number, phase in enumerate(PHASES):
        # An initial domain's messages are charged to no method; its row's method is "initial".
        for key in dict.fromkeys(each[:3] for each in sums if each[3] == phase):
            down, up = (sums.get((*key, phase, way), 0) for way in (DOWN, UP))
            traffic[key] += [number, down, up]
    return traffic
