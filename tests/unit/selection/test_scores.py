"""The scores by name: of a good, a foreign and a useless source, the good one comes first."""

from dataclasses import replace

import numpy as np
import pytest

from graft.errors import DomainEmptyError
from graft.selection import centroid_similarity
from graft.selection.scores import SCORES, SourceOutputs
from graft.selection.scores.distributions import frechet_distance, mmd_distance
from graft.selection.scores.features import h_score

ROWS, WIDTH, CLASSES = 60, 6, 3


def probe(gap: float, shift: float) -> SourceOutputs:
    """A source whose features hold the classes ``gap`` apart, its own rows ``shift`` away."""
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % CLASSES
    means_CF = gap * np.eye(CLASSES, WIDTH)
    features = means_CF[y] + rng.normal(size=(ROWS, WIDTH))
    logits = features[:, :CLASSES]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = means_CF[y] + rng.normal(size=(ROWS, WIDTH)) + shift
    return SourceOutputs(
        features_LF=features[:12].astype(np.float32),
        features_NF=features.astype(np.float32),
        probabilities_LC=probabilities[:12].astype(np.float32),
        y_L=y[:12],
        mask_C=np.ones(CLASSES, np.bool_),
        centroids_CF=means_CF.astype(np.float32),
        source_MF=own.astype(np.float32),
    )


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, score in SCORES.items()
        if "classes" in score.outputs and name not in ("mmd", "frechet")
    ),
)
def test_telling_the_classes_apart_scores_higher(name: str) -> None:
    assert SCORES[name](probe(6.0, 0.0)) > SCORES[name](probe(0.1, 0.0))


@pytest.mark.parametrize("name", ["mmd", "frechet"])
def test_rows_like_the_sources_own_score_higher(name: str) -> None:
    assert SCORES[name](probe(2.0, 0.0)) > SCORES[name](probe(2.0, 3.0))


def test_a_name_stands_for_its_function_and_distances_are_negated() -> None:
    one = probe(1.0, 0.5)
    assert SCORES["h-score"](one) == h_score(one.features_LF, one.y_L)
    assert SCORES["h-score-shrunk"](one) == h_score(one.features_LF, one.y_L, shrunk=True)
    assert SCORES["mmd"](one) == -mmd_distance(one.source_MF, one.features_NF)
    assert SCORES["frechet"](one) == -frechet_distance(one.source_MF, one.features_NF)
    assert SCORES["similarity"](one) == centroid_similarity(one.features_NF, one.centroids_CF)


@pytest.mark.parametrize("name", ["mmd", "frechet"])
def test_a_source_that_ships_no_rows_cannot_be_compared_by_them(name: str) -> None:
    with pytest.raises(DomainEmptyError, match="own rows"):
        SCORES[name](replace(probe(1.0, 0.0), source_MF=None))
