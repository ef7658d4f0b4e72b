"""Data -> DomainProfile: light statistics, with the site's policy applied (A1, ours).

Legend: N samples, K channels, T steps, D statistics, C classes.
"""

import numpy as np
import numpy.typing as npt

from graft.config import PolicyConfig
from graft.values import DomainProfile, FloatArray, IntArray, Task

GRADIENT_BINS = 8


def profile_domain(
    domain_id: str, task: Task, x: FloatArray, y_L: IntArray, policy: PolicyConfig
) -> DomainProfile:
    """The statistics that leave a domain: mean and deviation over its samples.

    ``x`` holds the rows the domain may learn from (never its test block); ``y_L`` its labels.
    Class counts are withheld as a whole where a class that is present has fewer rows than
    the policy's minimum.
    """
    per_sample_ND = image_statistics(x) if x.ndim == 4 else window_statistics(x)
    statistics_D = np.concatenate([per_sample_ND.mean(0), per_sample_ND.std(0)])
    counts_C = np.bincount(y_L, minlength=task.num_classes)
    present = counts_C[counts_C > 0]
    withheld = bool((present < policy.min_class_count).any())
    return DomainProfile(
        domain_id=domain_id,
        task=task.name,
        num_samples=len(x),
        statistics_D=statistics_D.astype(np.float32),
        class_counts_C=None if withheld else counts_C.astype(np.int64),
    )


def window_statistics(x_NKT: FloatArray) -> npt.NDArray[np.float64]:
    """Eight numbers a channel: mean, deviation, extremes, mean |x|, mean |dx|, two FFT bands."""
    x = x_NKT.astype(np.float64)
    spectrum = np.abs(np.fft.rfft(x - x.mean(2, keepdims=True), axis=2)) ** 2 / x.shape[2]
    # The bands part at a quarter of the spectrum: at 50 Hz that is 6 Hz, above which people
    # do not move but sensors shake.
    edge = max(2, spectrum.shape[2] // 4)
    columns = [
        x.mean(2),
        x.std(2),
        x.min(2),
        x.max(2),
        np.abs(x).mean(2),
        np.abs(np.diff(x, axis=2)).mean(2),
        np.log1p(spectrum[:, :, :edge].sum(2)),
        np.log1p(spectrum[:, :, edge:].sum(2)),
    ]
    return np.concatenate(columns, axis=1)


def image_statistics(x_NKHW: FloatArray) -> npt.NDArray[np.float64]:
    """Channel means and deviations, and an 8-bin histogram of gradient directions."""
    x = x_NKHW.astype(np.float64)
    rows, columns = np.gradient(x, axis=(2, 3))
    strength = np.hypot(rows, columns).reshape(len(x), -1)
    angle = (np.arctan2(rows, columns) + np.pi).reshape(len(x), -1) / (2 * np.pi)
    bins = np.minimum((angle * GRADIENT_BINS).astype(np.int64), GRADIENT_BINS - 1)
    total = strength.sum(1) + 1e-12
    histogram = [(strength * (bins == b)).sum(1) / total for b in range(GRADIENT_BINS)]
    return np.concatenate([x.mean((2, 3)), x.std((2, 3)), np.stack(histogram, axis=1)], axis=1)


def class_centroids(
    features_NF: FloatArray, y_N: IntArray, num_classes: int, policy: PolicyConfig
) -> FloatArray:
    """Mean feature vector of each class (C, F); a zero row where fewer rows than the policy's
    minimum would give one away."""
    centroids_CF = np.zeros((num_classes, features_NF.shape[1]), np.float32)
    for label in range(num_classes):
        rows = features_NF[y_N == label]
        if len(rows) >= policy.min_class_count:
            centroids_CF[label] = rows.mean(0)
    return centroids_CF
