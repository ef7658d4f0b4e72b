"""Scores of one source for a target domain, the project's own and published ones, by name.

Legend: L labelled samples, N all rows the target domain may learn from, M rows of the source,
C classes, F features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from graft.core.records import BoolArray, FloatArray, IntArray
from graft.errors import DomainEmptyError
from graft.selection.joint import centroid_similarity, smoothed_accuracy
from graft.selection.scores.distributions import frechet_distance, mmd_distance
from graft.selection.scores.features import (
    gbc_score,
    h_score,
    linear_probe_score,
    logme_score,
    parc_score,
    transrate_score,
)
from graft.selection.scores.labels import leep_score, likelihood_score, nce_score


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SourceOutputs:
    """What a source gives on the target domain's rows, on the target domain's device.

    ``probabilities_LC`` are of the source's head, 0 outside ``mask_C``, the classes that it knows.
    ``centroids_CF`` come from its card; None where its policy withheld them. ``source_MF`` are its
    features of its own rows, which no source ships today: with None the scores that compare
    distributions raise DomainEmptyError.
    """

    features_LF: FloatArray
    features_NF: FloatArray
    probabilities_LC: FloatArray
    y_L: IntArray
    mask_C: BoolArray
    centroids_CF: FloatArray | None
    source_MF: FloatArray | None = None


def _own_rows(outputs: SourceOutputs) -> FloatArray:
    if outputs.source_MF is None:
        raise DomainEmptyError("source: got no features of its own rows, wanted some to compare")
    return outputs.source_MF


# Higher is better for every one; distances are negated here and nowhere else.
SCORES: Mapping[str, Callable[[SourceOutputs], float]] = MappingProxyType(
    {
        "leep": lambda outputs: leep_score(outputs.probabilities_LC, outputs.y_L),
        "nce": lambda outputs: nce_score(outputs.probabilities_LC, outputs.y_L),
        "h-score": lambda outputs: h_score(outputs.features_LF, outputs.y_L),
        "h-score-shrunk": lambda outputs: h_score(outputs.features_LF, outputs.y_L, shrunk=True),
        "logme": lambda outputs: logme_score(outputs.features_LF, outputs.y_L),
        "transrate": lambda outputs: transrate_score(outputs.features_LF, outputs.y_L),
        "parc": lambda outputs: parc_score(outputs.features_LF, outputs.y_L),
        "gbc": lambda outputs: gbc_score(outputs.features_LF, outputs.y_L),
        "mmd": lambda outputs: -mmd_distance(_own_rows(outputs), outputs.features_NF),
        "frechet": lambda outputs: -frechet_distance(_own_rows(outputs), outputs.features_NF),
        "similarity": lambda outputs: centroid_similarity(
            outputs.features_NF, outputs.centroids_CF
        ),
        "accuracy": lambda outputs: smoothed_accuracy(
            outputs.probabilities_LC, outputs.y_L, outputs.mask_C
        ),
        "likelihood": lambda outputs: likelihood_score(outputs.probabilities_LC, outputs.y_L),
        "linear-probe": lambda outputs: linear_probe_score(outputs.features_LF, outputs.y_L),
    }
)
