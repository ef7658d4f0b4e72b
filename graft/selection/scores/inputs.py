"""Checks of the rows and labels that scores are given.

Legend: L labelled samples, N any samples, F features, C classes present.
"""

import numpy as np
import numpy.typing as npt

from graft.errors import DomainEmptyError, DomainShapeError, DomainValueError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def checked_rows(rows_NF: npt.ArrayLike, name: str = "features") -> Floats:
    """The rows in double precision.

    Raises DomainShapeError unless (N, F) with F >= 1, DomainEmptyError for no rows,
    DomainValueError for NaN or infinity.
    """
    array = np.asarray(rows_NF, np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise DomainShapeError(f"{name}: got shape {array.shape}, wanted (rows, 1 or more)")
    if not len(array):
        raise DomainEmptyError(f"{name}: got 0 rows, wanted at least 1")
    if not np.isfinite(array).all():
        raise DomainValueError(f"{name}: got NaN or infinity, wanted finite numbers")
    return array


def checked_labels(y_L: npt.ArrayLike, num_rows: int) -> tuple[Ints, Ints]:
    """Each row's class as an index into the classes present (L), and those classes' counts (C).

    Raises DomainShapeError where there is not one whole number a row.
    """
    labels = np.asarray(y_L)
    if labels.shape != (num_rows,) or labels.dtype.kind not in "iu":
        raise DomainShapeError(
            f"labels: got {labels.dtype} of shape {labels.shape}, wanted integers ({num_rows},)"
        )
    _, class_L, counts_C = np.unique(labels, return_inverse=True, return_counts=True)
    return class_L.astype(np.int64), counts_C.astype(np.int64)


def class_means(features_LF: Floats, class_L: Ints, counts_C: Ints) -> Floats:
    """Mean feature vector of each class present (C, F)."""
    sums_CF = np.zeros((len(counts_C), features_LF.shape[1]))
    np.add.at(sums_CF, class_L, features_LF)
    means_CF: Floats = sums_CF / counts_C[:, None]
    return means_CF
