"""Selection without a score: at random, everything, or with hindsight. The bounds of the others.

Legend: S sources, k chosen.
"""

import numpy as np
import numpy.typing as npt

from graft.core.records import IntArray
from graft.core.seeding import stream
from graft.errors import ConfigError


def top_k(score_S: npt.ArrayLike, k: int) -> IntArray:
    """Places of the k highest scores, best first; of equal ones the earlier. All where k >= S.

    Raises ConfigError for k < 1.
    """
    if k < 1:
        raise ConfigError(f"sources chosen: got {k}, wanted at least 1")
    order_S: IntArray = np.argsort(-np.asarray(score_S, np.float64), kind="stable")
    return order_S[:k]


def random_k(num_sources: int, k: int, *keys: object) -> IntArray:
    """k different places drawn from the stream of ``keys``; all of them, shuffled, where k >= S.

    Raises ConfigError for k < 1.
    """
    return top_k(random_scores(num_sources, *keys), k)


def random_scores(num_sources: int, *keys: object) -> npt.NDArray[np.float64]:
    """A score in [0, 1) for every source (S,) that knows nothing of it."""
    return stream("random-selection", *keys).random(num_sources)


def ship_all(num_sources: int) -> IntArray:
    """Every place (S,): misses no source, and pays for all of them."""
    return np.arange(num_sources, dtype=np.int64)


def oracle_k(truth_S: npt.ArrayLike, k: int) -> IntArray:
    """The k places of the highest true transfer accuracy, which nobody knows beforehand.

    Raises ConfigError for k < 1.
    """
    return top_k(truth_S, k)
