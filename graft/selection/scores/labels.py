"""Scores from a source's predictions and the true labels alone: LEEP, NCE, and the likelihood.

Higher is better, 0 the best; in nats. LEEP and NCE read the source's classes as mere symbols: a
source that calls every walk a run loses nothing, as its head can be trained anew.

Labels and amounts have a score each. Beside them, the checks of the rows and labels that every
score is given.

Legend: N any samples, L labelled samples, F features, Z the source's classes, C classes present.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from graft.core.tasks import OutputKind
from graft.errors import DomainClassError, DomainEmptyError, DomainShapeError, DomainValueError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SPREAD = 0.01


def leep_score(probabilities_LZ: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """LEEP: mean log-likelihood of y under P(y | x) = sum_z P(y | z) theta(x)_z.

    Nguyen, Hassner, Seeger and Archambeau, ICML 2020. theta are the source's probabilities, and
    P(y | z) is from their empirical joint with y. Between -log C and 0; 0 where L holds one class.
    Raises DomainShapeError, DomainEmptyError or DomainValueError where the arrays are not of these
    shapes, there is no row, or a row is no distribution.
    """
    theta_LZ = _checked_probabilities(probabilities_LZ)
    class_L, counts_C = checked_labels(y_L, len(theta_LZ))
    joint_CZ = np.zeros((len(counts_C), theta_LZ.shape[1]))
    np.add.at(joint_CZ, class_L, theta_LZ)
    marginal_Z = joint_CZ.sum(0)
    # A class that the source never gives any chance adds nothing to any row.
    given_Z = marginal_Z > 0
    conditional_CZ = joint_CZ[:, given_Z] / marginal_Z[given_Z]
    expected_L = (conditional_CZ[class_L] * theta_LZ[:, given_Z]).sum(1)
    return float(np.log(np.minimum(expected_L, 1)).mean())


def nce_score(probabilities_LZ: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """NCE: -H(Y | Z), Z the class that the source predicts (Tran, Nguyen and Hassner, ICCV 2019).

    Between -log C and 0; 0 where the predictions determine the true classes, or L holds one class.
    Raises as ``leep_score`` does.
    """
    theta_LZ = _checked_probabilities(probabilities_LZ)
    class_L, counts_C = checked_labels(y_L, len(theta_LZ))
    joint_CZ = np.zeros((len(counts_C), theta_LZ.shape[1]))
    np.add.at(joint_CZ, (class_L, theta_LZ.argmax(1)), 1)
    met = joint_CZ > 0
    conditional = (joint_CZ / np.maximum(joint_CZ.sum(0), 1))[met]
    return float((joint_CZ[met] * np.log(conditional)).sum() / len(class_L))


def likelihood_score(probabilities_LC: npt.ArrayLike, y_L: npt.ArrayLike) -> float:
    """Mean log-likelihood of the labels under the source's own head (ours).

    Here the source's classes are the target domain's. A hundredth of each row's probability is
    spread evenly over all C, so that one row of a class that the source does not know costs a
    bounded amount: between -log(100 C) and 0. Raises as ``leep_score`` does, and
    DomainClassError for a label that is none of the C.
    """
    theta_LC = _checked_probabilities(probabilities_LC)
    checked_labels(y_L, len(theta_LC))
    labels, num_classes = np.asarray(y_L), theta_LC.shape[1]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DomainClassError(
            f"labels: got {labels.min()} to {labels.max()}, wanted 0 to {num_classes - 1}"
        )
    picked_L = theta_LC[np.arange(len(labels)), labels]
    return float(np.log((1 - SPREAD) * picked_L + SPREAD / num_classes).mean())


def label_likelihood(probabilities_LC: npt.ArrayLike, y_LC: npt.ArrayLike) -> float:
    """Mean log-likelihood of labels (L, C) of 0 and 1 under a source's probability of each (ours).

    A probability counts as a hundredth at least, so that no label costs more than log 100.
    """
    theta_LC, y = _checked_pair(probabilities_LC, y_LC)
    right_LC = np.where(y > 0, theta_LC, 1 - theta_LC)
    return float(np.log(np.maximum(right_LC, SPREAD)).mean())


def amount_score(predicted_LC: npt.ArrayLike, y_LC: npt.ArrayLike) -> float:
    """Minus the mean absolute error of amounts (L, C), each over its mean absolute distance from
    its median (ours): -1 is as good as the best constant."""
    predicted, y = _checked_pair(predicted_LC, y_LC)
    usual_C = np.abs(y - np.median(y, axis=0)).mean(0)
    error_C = np.abs(predicted - y).mean(0)
    return -float((error_C / np.where(usual_C > 0, usual_C, 1)).mean())


# A source's own score on the labels of an output that has no classes; higher is better.
OUTPUT_SCORES: Mapping[OutputKind, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = (
    MappingProxyType({"labels": label_likelihood, "amount": amount_score})
)


def _checked_pair(given_LC: npt.ArrayLike, y_LC: npt.ArrayLike) -> tuple[Floats, Floats]:
    given, y = checked_rows(given_LC, "predictions"), checked_rows(y_LC, "labels")
    if given.shape != y.shape:
        raise DomainShapeError(f"labels: got shape {y.shape}, wanted {given.shape}")
    return given, y


def _checked_probabilities(probabilities_LZ: npt.ArrayLike) -> Floats:
    theta_LZ = checked_rows(probabilities_LZ, "probabilities")
    if (theta_LZ < 0).any() or not np.allclose(theta_LZ.sum(1), 1, atol=1e-3):
        raise DomainValueError(
            f"probabilities: got rows that sum to {theta_LZ.sum(1).min():.4g} to "
            f"{theta_LZ.sum(1).max():.4g}, wanted numbers of at least 0 that sum to 1"
        )
    # Summed in float32, a row may be off by its rounding.
    normalised_LZ: Floats = theta_LZ / theta_LZ.sum(1, keepdims=True)
    return normalised_LZ


def checked_rows(rows_NF: npt.ArrayLike, name: str = "features") -> Floats:
    """The rows in double precision; raises DomainShapeError unless (N, F) with F >= 1,
    DomainEmptyError for no rows, DomainValueError for NaN or infinity."""
    array = np.asarray(rows_NF, np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise DomainShapeError(f"{name}: got shape {array.shape}, wanted (rows, 1 or more)")
    if not len(array):
        raise DomainEmptyError(f"{name}: got 0 rows, wanted at least 1")
    if not np.isfinite(array).all():
        raise DomainValueError(f"{name}: got NaN or infinity, wanted finite numbers")
    return array


def checked_labels(y_L: npt.ArrayLike, num_rows: int) -> tuple[Ints, Ints]:
    """Each row's class as an index into the classes present (L), and those classes' counts (C);
    raises DomainShapeError where there is not one whole number a row."""
    labels = np.asarray(y_L)
    if labels.shape != (num_rows,) or labels.dtype.kind not in "iu":
        raise DomainShapeError(
            f"labels: got {labels.dtype} of shape {labels.shape}, wanted integers ({num_rows},)"
        )
    _, class_L, counts_C = np.unique(labels, return_inverse=True, return_counts=True)
    return class_L.astype(np.int64), counts_C.astype(np.int64)
