"""Result rows survive, and the run's hash sees what counts and nothing that a clock measured."""

import random
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.exchange import Failure, FusionDiagnostics, TrainResult
from graft.core.records import LedgerEntry, ModelCard
from graft.core.results import ResultRow, result_row, run_hash
from graft.core.tables import RESULTS_SCHEMA, read_results, write_results
from graft.errors import RunError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)
SHARE = st.none() | st.floats(0, 1)
COUNT = st.none() | st.integers(0, 2**62)
ROWS = st.builds(
    ResultRow,
    domain_id=TEXT,
    method=TEXT,
    round_index=st.integers(0, 99),
    architecture=st.none() | TEXT,
    accuracy=SHARE,
    macro_f1=SHARE,
    num_test=COUNT,
    compute_s=st.none() | st.floats(0, 1e6),
    link_class=st.none() | TEXT,
    simulated_s=st.none() | st.floats(0, 1e6),
    peak_memory_bytes=COUNT,
    source_domains=st.lists(TEXT, max_size=3),
    model_id=st.none() | TEXT,
    error=st.none() | TEXT,
    mixture=st.none() | st.lists(st.lists(st.floats(0, 1, width=32), max_size=6), max_size=3),
    dictionary=st.none() | st.lists(st.lists(st.floats(0, 1, width=32), max_size=4), max_size=3),
)

REPORT = TrainResult(
    domain_id="ann",
    round_index=2,
    method="hat",
    architecture="mlp",
    device_class="phone",
    source_domains=("ben", "cid"),
    metrics={
        "accuracy": 0.75,
        "macro_f1": 0.5,
        "num_test": 40.0,
        "num_labelled": 8.0,
        "num_unlabelled": 92.0,
        "knowledge_quality": 0.25,
        "dictionary_share": 0.5,
    },
    compute_s=1.5,
    peak_memory_bytes=1_000,
    card=ModelCard(
        model_id="f" * 64,
        domain_id="ann",
        architecture="mlp",
        payload_bytes=3,
        base_bytes=1,
        residual_bytes=2,
        class_mask_C=np.ones(2, np.bool_),
        round_index=2,
    ),
)
ROW = result_row(REPORT)
ENTRY = LedgerEntry(
    run="run",
    round_index=2,
    phase="ship",
    method="hat",
    domain_id="ann",
    sender="depot",
    receiver="ann",
    message="payload.base",
    payload_bytes=100,
    wire_bytes=120,
    wire_source="modelled",
    measured_s=0.5,
)


def test_a_report_becomes_a_row() -> None:
    assert ResultRow(
        domain_id="ann",
        method="hat",
        round_index=2,
        architecture="mlp",
        device_class="phone",
        accuracy=0.75,
        macro_f1=0.5,
        num_test=40,
        num_labelled=8,
        num_unlabelled=92,
        held_out_accuracy=None,
        knowledge_quality=0.25,
        compute_s=1.5,
        peak_memory_bytes=1_000,
        source_domains=["ben", "cid"],
        model_id="f" * 64,
    ) == result_row(REPORT)
    assert result_row(replace(REPORT, card=None)).model_id is None
    traced = FusionDiagnostics(
        mixture_SQ=np.full((2, 6), 0.5, np.float32),
        dictionary_E4=np.array([[3, 0.25, 0.5, 0.75]], np.float32),
    )
    row = result_row(replace(REPORT, diagnostics=traced))
    assert (row.mixture, row.dictionary) == ([[0.5] * 6] * 2, [[3, 0.25, 0.5, 0.75]])


def test_a_failure_becomes_a_row_without_numbers() -> None:
    failure = Failure(
        domain_id="ann", round_index=1, method="hat", error="DataError", message="no rows"
    )
    assert result_row(failure) == ResultRow(
        domain_id="ann", method="hat", round_index=1, error="DataError", error_message="no rows"
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_results_go_through_parquet_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[ResultRow]
) -> None:
    path = tmp_path_factory.mktemp("results") / "results.parquet"
    write_results(rows, path)
    arranged = sorted(rows, key=lambda r: (r.round_index, r.domain_id, r.method))
    assert read_results(path) == arranged


def test_every_field_of_a_row_has_its_column() -> None:
    assert [field.name for field in fields(ResultRow)] == RESULTS_SCHEMA.names


def test_foreign_columns_or_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    with pytest.raises(RunError, match=r"results\.parquet"):
        read_results(path)
    pq.write_table(pa.table({"domain_id": ["ann"]}), path)
    with pytest.raises(RunError, match="columns"):
        read_results(path)
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(RunError, match=r"results\.parquet"):
        read_results(path)


def test_results_from_before_the_traces_and_the_simulated_clock_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    write_results([ROW], path)
    peers = ["peers_probed", "peers_chose", "peers_rejected", "peers_score"]
    clock = ["link_class", "simulated_compute_s", "simulated_s"]
    growth = ["old_accuracy_before", "old_accuracy", "new_accuracy"]
    scores = ["mean_average_precision", "r2", "mean_absolute_error"]
    for later in (scores, ["left_out"], growth, peers, ["mixture", "dictionary"], clock):
        pq.write_table(pq.read_table(path).drop_columns(later), path)
        assert read_results(path) == [ROW]


@pytest.mark.parametrize(
    "measured",
    [
        {"compute_s": 9.0},
        {"compute_s": None},
        {"peak_memory_bytes": 7},
        {"peers_probed": 3, "peers_chose": 2, "peers_rejected": 1, "peers_score": 0.5},
        {"simulated_compute_s": 1.0, "simulated_s": 2.0, "link_class": "lte"},
    ],
)
def test_the_hash_does_not_see_what_the_host_measured_or_a_clock_simulated(
    measured: dict[str, object],
) -> None:
    changed = replace(ROW, **measured)  # type: ignore[arg-type]
    assert run_hash([changed], [ENTRY]) == run_hash([ROW], [ENTRY])


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"measured_s": 3.0},
        {"simulated_s": 3.0},
        {"run": "another"},
        {"wire_bytes": 7, "wire_source": "measured"},
    ],
)
def test_the_hash_does_not_see_times_names_of_runs_or_the_wire(
    elsewhere: dict[str, object],
) -> None:
    changed = replace(ENTRY, **elsewhere)  # type: ignore[arg-type]
    assert run_hash([ROW], [changed]) == run_hash([ROW], [ENTRY])


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": np.nextafter(0.75, 1)},
        {"macro_f1": 0.51},
        {"source_domains": ["cid", "ben"]},
        {"model_id": "e" * 64},
        {"architecture": "gru"},
        {"num_labelled": 9},
        {"error": "DataError"},
        {"domain_id": "bea"},
    ],
)
def test_the_hash_sees_every_result(change: dict[str, object]) -> None:
    changed = replace(ROW, **change)  # type: ignore[arg-type]
    assert run_hash([changed], [ENTRY]) != run_hash([ROW], [ENTRY])


@pytest.mark.parametrize(
    "change",
    [
        {"payload_bytes": 101},
        {"outcome": "lost"},
        {"cached": True},
        {"attempt": 1},
        {"phase": "probe"},
        {"method": "hat-initial"},
    ],
)
def test_the_hash_sees_every_payload(change: dict[str, object]) -> None:
    changed = replace(ENTRY, **change)  # type: ignore[arg-type]
    assert run_hash([ROW], [changed]) != run_hash([ROW], [ENTRY])


def test_the_hash_counts_rows_and_entries() -> None:
    hashes = {
        run_hash(rows, entries) for rows in ([], [ROW]) for entries in ([], [ENTRY], [ENTRY, ENTRY])
    }
    assert len(hashes) == 6


@given(st.randoms())
def test_the_hash_does_not_see_the_order(chance: random.Random) -> None:
    rows = [replace(ROW, domain_id=d, method=m) for d in ("ann", "ben") for m in ("hat", "x")]
    entries = [
        replace(ENTRY, payload_bytes=size, cached=cached, outcome=outcome)  # type: ignore[arg-type]
        for size in (0, 5)
        for cached in (False, True)
        for outcome in ("ok", "lost")
    ]
    before = run_hash(rows, entries)
    chance.shuffle(rows)
    chance.shuffle(entries)
    assert run_hash(rows, entries) == before
