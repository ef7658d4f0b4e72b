"""Rows of the benchmark matrix, made by hand."""

from typing import Any

from graft.bench.rows import BenchmarkRow

PAIRS = ((0, "p"), (0, "q"), (1, "p"), (1, "r"))
ACCURACIES = {
    "main": (0.8, 0.7, 0.9, 0.6),
    "label-only": (0.7, 0.5, 0.6, 0.6),
    "all-labels": (0.9, 0.8, 0.9, 0.8),
}


def row(**changes: Any) -> BenchmarkRow:
    """A finished cell; the person is the domain unless told otherwise."""
    cell: dict[str, Any] = {
        "data": "a", "seed": 0, "gamma": 0.1, "num_sources": 5, "method": "main",
        "domain_id": "p", "accuracy": 0.5, "macro_f1": 0.4, "bytes_up": 10, "bytes_down": 100,
        "device_s": 2.0, "peak_memory_bytes": 1000, "architecture": "mlp",
        "config_digest": "c0", "data_digest": "d0",
    }  # fmt: skip
    cell |= changes
    return BenchmarkRow(**{"person": cell["domain_id"], **cell})


def set_rows(data: str = "a", gamma: float = 0.1) -> list[BenchmarkRow]:
    """Three methods on four pairs of seed and target domain."""
    return [
        row(data=data, gamma=gamma, method=method, seed=seed, domain_id=name, accuracy=accuracy)
        for method, accuracies in ACCURACIES.items()
        for (seed, name), accuracy in zip(PAIRS, accuracies, strict=True)
    ]
