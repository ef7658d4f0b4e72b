"""Every score of one source by name, from one record of what a device sees of that source.

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
    logme_score,
    parc_score,
    transrate_score,
)
from graft.selection.scores.labels import leep_score, likelihood_score, nce_score
from graft.selection.scores.linear_probe import linear_probe_score


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """A source seen through the target domain's rows, on the target domain's device.

    ``features_LF`` and ``features_NF`` are the source's features of labelled and of all rows;
    ``probabilities_LC`` its head's, 0 outside ``mask_C``. ``centroids_CF`` come with its card.
    ``source_MF``, its own features of its own rows, it does not ship today: None, and the
    scores that compare distributions raise DomainEmptyError.
    """

    features_LF: FloatArray
    features_NF: FloatArray
    probabilities_LC: FloatArray
    y_L: IntArray
    mask_C: BoolArray
    centroids_CF: FloatArray | None
    source_MF: FloatArray | None = None


def _own_rows(probe: Probe) -> FloatArray:
    if probe.source_MF is None:
        raise DomainEmptyError("source: got no features of its own rows, wanted some to compare")
    return probe.source_MF


# Higher is better for every one; distances are negated here and nowhere else.
SCORES: Mapping[str, Callable[[Probe], float]] = MappingProxyType(
    {
        "leep": lambda probe: leep_score(probe.probabilities_LC, probe.y_L),
        "nce": lambda probe: nce_score(probe.probabilities_LC, probe.y_L),
        "h-score": lambda probe: h_score(probe.features_LF, probe.y_L),
        "h-score-shrunk": lambda probe: h_score(probe.features_LF, probe.y_L, shrunk=True),
        "logme": lambda probe: logme_score(probe.features_LF, probe.y_L),
        "transrate": lambda probe: transrate_score(probe.features_LF, probe.y_L),
        "parc": lambda probe: parc_score(probe.features_LF, probe.y_L),
        "gbc": lambda probe: gbc_score(probe.features_LF, probe.y_L),
        "mmd": lambda probe: -mmd_distance(_own_rows(probe), probe.features_NF),
        "frechet": lambda probe: -frechet_distance(_own_rows(probe), probe.features_NF),
        "similarity": lambda probe: centroid_similarity(probe.features_NF, probe.centroids_CF),
        "accuracy": lambda probe: smoothed_accuracy(
            probe.probabilities_LC, probe.y_L, probe.mask_C
        ),
        "likelihood": lambda probe: likelihood_score(probe.probabilities_LC, probe.y_L),
        "linear-probe": lambda probe: linear_probe_score(probe.features_LF, probe.y_L),
    }
)
