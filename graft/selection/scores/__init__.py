"""Scores of one source for a target domain, the project's own and published ones, by name.

``selection.score`` names the one that a run's probes rank by: one of ``SCORES``, one that another
package lists under the entry point group ``graft.scores``, or a reference to a ``Score``,
"package.module:attribute".

Legend: L labelled samples, N all rows the target domain may learn from, M rows of the source,
C classes, F features.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

from graft.core.plugins import loaded_references
from graft.core.records import BoolArray, FloatArray, IntArray
from graft.core.tasks import OutputKind
from graft.errors import ConfigError, DomainEmptyError, DomainValueError, GraftError
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
from graft.selection.scores.labels import (
    OUTPUT_SCORES,
    SPREAD,
    leep_score,
    likelihood_score,
    nce_score,
)

JOINT = "joint"  # A2: accuracy and similarity, standardised and mixed
RANDOM = "random"  # a reference: candidates and sources are drawn, whatever they are


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SourceOutputs:
    """What a source gives on the target domain's rows, on the target domain's device.

    ``probabilities_LC`` are of the source's head, 0 outside ``mask_C``, the classes that it knows;
    of an output of amounts, these. ``y_L`` are classes, or labels or amounts (L, C).
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A score of one source for a target domain; higher is better.

    Parameters
    ----------
    name : str
        What ``selection.score`` calls it; its reference where it is loaded by one.
    of : callable
        The score of ``SourceOutputs``, a finite number.
    sensitivity : callable, optional
        The most that one replaced row of the target domain moves it, from the numbers of labelled
        rows, of all rows and of classes (L, N, C). A site whose policy adds noise refuses a score
        without one.
    outputs : tuple of str
        The kinds of outputs whose labels it reads.
    compares_rows : bool
        Whether it reads ``source_MF``, which no source ships: no probe can rank by it.

    Examples
    --------
    >>> from graft.selection.scores import Score
    >>> margin = Score(name="margin", of=lambda outputs: outputs.probabilities_LC.max(1).mean())
    """

    name: str
    of: Callable[[SourceOutputs], float]
    sensitivity: Callable[[int, int, int], float] | None = None
    compares_rows: bool = False
    outputs: tuple[OutputKind, ...] = ("classes",)

    def __call__(self, outputs: SourceOutputs) -> float:
        """The score; raises DomainValueError where it is not finite."""
        value = float(self.of(outputs))
        if not math.isfinite(value):
            raise DomainValueError(f"score {self.name}: got {value}, wanted a finite number")
        return value


def _own_rows(outputs: SourceOutputs) -> FloatArray:
    if outputs.source_MF is None:
        raise DomainEmptyError("source: got no features of its own rows, wanted some to compare")
    return outputs.source_MF


_ALL: tuple[Score, ...] = (
    Score(name="leep", of=lambda o: leep_score(o.probabilities_LC, o.y_L)),
    Score(name="nce", of=lambda o: nce_score(o.probabilities_LC, o.y_L)),
    Score(name="h-score", of=lambda o: h_score(o.features_LF, o.y_L)),
    Score(name="h-score-shrunk", of=lambda o: h_score(o.features_LF, o.y_L, shrunk=True)),
    Score(name="logme", of=lambda o: logme_score(o.features_LF, o.y_L)),
    Score(name="transrate", of=lambda o: transrate_score(o.features_LF, o.y_L)),
    Score(name="parc", of=lambda o: parc_score(o.features_LF, o.y_L)),
    Score(name="gbc", of=lambda o: gbc_score(o.features_LF, o.y_L)),
    # Distances are negated here and nowhere else.
    Score(name="mmd", of=lambda o: -mmd_distance(_own_rows(o), o.features_NF), compares_rows=True),
    Score(
        name="frechet",
        of=lambda o: -frechet_distance(_own_rows(o), o.features_NF),
        compares_rows=True,
    ),
    Score(
        name="similarity",
        of=lambda o: centroid_similarity(o.features_NF, o.centroids_CF),
        sensitivity=lambda num_labelled, num_rows, num_classes: 2 / num_rows,  # a mean of cosines
    ),
    Score(
        name="accuracy",
        of=lambda o: smoothed_accuracy(o.probabilities_LC, o.y_L, o.mask_C),
        sensitivity=lambda num_labelled, num_rows, num_classes: 1 / (num_labelled + num_classes),
    ),
    Score(
        name="likelihood",
        of=lambda o: likelihood_score(o.probabilities_LC, o.y_L),
        # A mean of L logarithms, each between log(SPREAD / C) and 0.
        sensitivity=lambda num_labelled, num_rows, num_classes: (
            math.log(num_classes / SPREAD) / num_labelled
        ),
    ),
    Score(name="linear-probe", of=lambda o: linear_probe_score(o.features_LF, o.y_L)),
)
_RANDOM = Score(
    name=RANDOM,
    of=lambda o: zlib.crc32(o.features_NF.tobytes()) / 2**32,
    sensitivity=lambda num_labelled, num_rows, num_classes: 1.0,
    outputs=("classes", "labels", "amount"),
)
# What takes the place of accuracy and similarity where an output has no classes.
_OF_OUTPUT = {
    "labels": Score(
        name="label-likelihood",
        of=lambda o: OUTPUT_SCORES["labels"](o.probabilities_LC, o.y_L),
        # A mean over L rows of means over labels, each between log(SPREAD) and 0.
        sensitivity=lambda num_labelled, num_rows, num_classes: -math.log(SPREAD) / num_labelled,
        outputs=("labels",),
    ),
    "amount": Score(
        name="amount-error",
        of=lambda o: OUTPUT_SCORES["amount"](o.probabilities_LC, o.y_L),
        outputs=("amount",),
    ),
}
_ALL += tuple(_OF_OUTPUT.values())
SCORES: Mapping[str, Score] = MappingProxyType({score.name: score for score in _ALL})


def probe_scores(name: str, output: OutputKind = "classes") -> tuple[Score, ...]:
    """The scores that a probe computes to rank by ``name``: two for ``JOINT``, or the one of an
    output that has no classes.

    Raises ConfigError for an unknown score, for one that needs what no source ships, and for one
    that cannot read the output's labels.
    """
    if name == JOINT and output in _OF_OUTPUT:
        return (_OF_OUTPUT[output],)
    if name == JOINT:
        return SCORES["similarity"], SCORES["accuracy"]
    known = {RANDOM: _RANDOM, **SCORES, **_installed(), **loaded_references(Score)}
    if name not in known:
        raise ConfigError(f"selection.score: got {name!r}, wanted one of {sorted({JOINT, *known})}")
    if known[name].compares_rows:
        raise ConfigError(
            f"selection.score: got {name!r}, which compares a source's own rows; wanted one that "
            "reads what a probe has"
        )
    if output not in known[name].outputs:
        raise ConfigError(
            f"selection.score: got {name!r} for an output of kind {output!r}, wanted {JOINT!r} or "
            "one that reads its labels"
        )
    return (known[name],)


def require_sensitivity(score: Score, error: type[GraftError]) -> Callable[[int, int, int], float]:
    """A score's sensitivity, for noise; raises ``error`` where it states none."""
    if score.sensitivity is None:
        able = [JOINT, *sorted(each.name for each in _ALL if each.sensitivity)]
        raise error(
            f"selection.score: got {score.name!r} without a sensitivity under a policy that adds "
            f"noise, wanted one that states it, such as {able}"
        )
    return score.sensitivity


@cache
def _installed() -> Mapping[str, Score]:
    found: dict[str, Score] = {}
    for entry in entry_points(group="graft.scores"):
        score = entry.load()
        if not isinstance(score, Score) or score.name in {JOINT, RANDOM, *SCORES, *found}:
            raise ConfigError(
                f"entry point {entry.value}: got {score!r:.80}, wanted a Score of a name of its own"
            )
        found[score.name] = score
    return found
