"""The results of a run: a row per domain, method and round; Parquet in and out; the run's hash."""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graft.core.exchange import Failure, TrainResult
from graft.core.ledger import ordered
from graft.core.ranges import R2, Error, Index, NumBytes, Samples, Score, Seconds, Share
from graft.core.records import LedgerEntry, PeerFindings
from graft.core.tasks import OutputKind

# The scores of a test by the output's kind; the first one is what a report compares methods by.
SCORES: Mapping[OutputKind, tuple[str, ...]] = MappingProxyType(
    {
        "classes": ("accuracy", "macro_f1"),
        "labels": ("macro_f1", "accuracy", "mean_average_precision"),
        "amount": ("r2", "mean_absolute_error"),
    }
)
_ROWS = ("num_test", "num_labelled", "num_unlabelled")
# What peers found of the model afterwards, in the results of the whole run.
_PEERS = ("peers_probed", "peers_chose", "peers_rejected", "peers_score")
_SIMULATED = ("link_class", "simulated_compute_s", "simulated_s")
# Of labels and amounts alone.
_OTHER_SCORES = ("mean_average_precision", "r2", "mean_absolute_error")
# Of a growth round's rows alone.
_GROWTH = ("old_accuracy_before", "old_accuracy", "new_accuracy")
GROW = "grow-"  # what the names of their methods begin with
# What a clock or the host decides stays out of the run's hash.
_UNHASHED = {"compute_s", "peak_memory_bytes"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One domain's outcome of one method in one round; the initial domains' method is "initial".

    A failed domain has ``error``, the error's class name, and no numbers. ``compute_s`` is measured
    where the model was trained; ``simulated_compute_s`` is that work on the domain's device class,
    and ``simulated_s`` when the domain was done, from the start of the round. ``mixture`` (a row a
    source domain) and ``dictionary`` (a row an epoch) are those of ``FusionDiagnostics``.

    In a growth round ``old_accuracy_before`` is the model's that grew, on test rows of the classes
    (or the output) that it knew; ``old_accuracy`` is the grown model's on the same rows, among all
    its classes, and ``new_accuracy`` that on what it grew by.
    ``accuracy`` of labels is the share of rows with every label right. ``mean_average_precision``
    is a mean over labels; ``r2`` (the share of the variance that is explained, below 0 where the
    mean would be better) and ``mean_absolute_error`` are means over amounts.
    ``left_out``: what was left out to stay within the budget, each with its limit.

    The device itself reports its numbers. ``peers_*`` are what other domains found: how many
    probed, chose and rejected its model in later rounds, and the mean of their joint scores.
    """

    domain_id: str
    method: str
    round_index: Index
    architecture: str | None = None
    device_class: str | None = None
    accuracy: Share | None = None
    macro_f1: Share | None = None
    num_test: Samples | None = None
    num_labelled: Samples | None = None
    num_unlabelled: Samples | None = None
    held_out_accuracy: Share | None = None
    knowledge_quality: Share | None = None
    compute_s: Seconds | None = None
    peak_memory_bytes: NumBytes | None = None
    source_domains: list[str] = dataclasses.field(default_factory=list)
    model_id: str | None = None
    error: str | None = None
    error_message: str | None = None
    link_class: str | None = None
    simulated_compute_s: Seconds | None = None
    simulated_s: Seconds | None = None
    mixture: list[list[float]] | None = None
    dictionary: list[list[float]] | None = None
    peers_probed: Samples | None = None
    peers_chose: Samples | None = None
    peers_rejected: Samples | None = None
    peers_score: Score | None = None
    old_accuracy_before: Share | None = None
    old_accuracy: Share | None = None
    new_accuracy: Share | None = None
    left_out: list[str] = dataclasses.field(default_factory=list)
    mean_average_precision: Share | None = None
    r2: R2 | None = None
    mean_absolute_error: Error | None = None

    @property
    def output(self) -> OutputKind:
        """The kind of the output, by the scores that there are."""
        if self.r2 is not None:
            return "amount"
        return "classes" if self.mean_average_precision is None else "labels"

    @property
    def score(self) -> float | None:
        """The first of its output's ``SCORES``; None where the domain failed."""
        value: float | None = getattr(self, SCORES[self.output][0])
        return value

    @property
    def is_growth(self) -> bool:
        """Whether the domain was in the system before, and came back."""
        return self.method.startswith(GROW)


def required_metrics(kind: OutputKind) -> tuple[str, ...]:
    """What a result must contain for its row."""
    return (*SCORES[kind], *_ROWS)


def missing_metrics(metrics: Mapping[str, float]) -> list[str]:
    """What metrics lack of a row, whatever the kind of the output."""
    kind: OutputKind = "amount" if "r2" in metrics else "classes"
    return [name for name in required_metrics(kind) if name not in metrics]


def result_row(report: TrainResult | Failure) -> ResultRow:
    """The row of one answer."""
    key: dict[str, Any] = {
        name: getattr(report, name) for name in ("domain_id", "method", "round_index")
    }
    if isinstance(report, Failure):
        return ResultRow(**key, error=report.error, error_message=report.message)
    metrics, diagnostics = report.metrics, report.diagnostics
    dictionary_E4 = None if diagnostics is None else diagnostics.dictionary_E4
    return ResultRow(
        **key,
        architecture=report.architecture,
        device_class=report.device_class,
        accuracy=metrics.get("accuracy"),
        macro_f1=metrics.get("macro_f1"),
        num_test=int(metrics["num_test"]),
        num_labelled=int(metrics["num_labelled"]),
        num_unlabelled=int(metrics["num_unlabelled"]),
        held_out_accuracy=metrics.get("held_out_accuracy"),
        knowledge_quality=metrics.get("knowledge_quality"),
        compute_s=report.compute_s,
        peak_memory_bytes=report.peak_memory_bytes,
        source_domains=list(report.source_domains),
        model_id=report.card.model_id if report.card else None,
        mixture=None if diagnostics is None else diagnostics.mixture_SQ.tolist(),
        dictionary=None if dictionary_E4 is None else dictionary_E4.tolist(),
        old_accuracy_before=metrics.get("old_accuracy_before"),
        old_accuracy=metrics.get("old_accuracy"),
        new_accuracy=metrics.get("new_accuracy"),
        left_out=list(report.left_out),
        mean_average_precision=metrics.get("mean_average_precision"),
        r2=metrics.get("r2"),
        mean_absolute_error=metrics.get("mean_absolute_error"),
    )


def with_peers(rows: Iterable[ResultRow], peers: Iterable[PeerFindings]) -> list[ResultRow]:
    """The rows with what peers found of their models, over all rounds."""
    found: dict[tuple[str, str], list[PeerFindings]] = defaultdict(list)
    for each in peers:
        found[each.model_id, each.domain_id].append(each)
    return [_with_peers(row, found.get((row.model_id or "", row.domain_id), [])) for row in rows]


def _with_peers(row: ResultRow, peers: Sequence[PeerFindings]) -> ResultRow:
    if row.model_id is None:
        return row
    scores = [(each.probed - each.rejected, each.joint_score) for each in peers]
    known = [(weight, score) for weight, score in scores if score is not None and weight]
    total = sum(weight for weight, _ in known)
    return dataclasses.replace(
        row,
        peers_probed=sum(each.probed for each in peers),
        peers_chose=sum(each.chosen for each in peers),
        peers_rejected=sum(each.rejected for each in peers),
        peers_score=sum(weight * score for weight, score in known) / total if total else None,
    )


def run_hash(rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> str:
    """SHA-256 over results and payload ledger, without anything measured by a clock or host."""
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda r: (r.round_index, r.domain_id, r.method)):
        table = dataclasses.asdict(row)
        without = {*_SIMULATED, *_PEERS, *(() if row.is_growth else _GROWTH)}
        without |= set() if row.left_out else {"left_out"}
        without |= {name for name in _OTHER_SCORES if table[name] is None}
        hashed = (None if n in _UNHASHED else table[n] for n in table if n not in without)
        digest.update(repr(tuple(hashed)).encode())
    for entry in ordered(entries):
        message = (
            entry.round_index, entry.phase, entry.method, entry.domain_id, entry.sender,
            entry.receiver, entry.message, entry.attempt, entry.payload_bytes, entry.cached,
            entry.outcome,
        )  # fmt: skip
        digest.update(repr(message).encode())
    return digest.hexdigest()
