"""Data -> DomainProfile: light statistics, with the site's policy applied (A1, ours).

Legend: N samples, K channels, T steps, P statistics a sample, D = 2P statistics, C classes,
F features.
"""

import numpy as np
import numpy.typing as npt

from graft.core.records import DomainProfile, FloatArray, IntArray
from graft.core.streams import Column, Lazy, Streams, in_batches
from graft.core.tasks import InputKind, InputSpec, Task
from graft.privacy.accounting import Floats
from graft.privacy.policy import SitePolicy

GRADIENT_BINS = 8
TOKEN_BINS = 32
_ROWS_AT_ONCE = 256


def profile_domain(
    domain_id: str,
    task: Task,
    x: Column,
    y_L: IntArray,
    policy: SitePolicy,
    inputs: tuple[str, ...] = (),
) -> DomainProfile:
    """The statistics that leave a domain: mean and deviation over its samples (A1, ours).

    Those of several streams follow one another.

    Parameters
    ----------
    domain_id, task
        Whose profile it is.
    x
        The rows that the domain may learn from, never its test block, of the streams that it has.
    y_L
        Its labels; the positive rows of each label are counted, and of amounts there is no count.
    policy
        Class counts are withheld as a whole where a class that is present has fewer rows than the
        policy's minimum. With noise, a count below the minimum is released as 0. The number of
        samples is released as it is.
    inputs
        The streams that the domain has, where it lacks some; by default all of the task's.

    Raises
    ------
    PolicyError
        The budget is spent.
    """
    task = task.reading(inputs)
    counts_C = count_classes(y_L, task)
    released_C: IntArray | None
    if policy.settings.epsilon is None:
        statistics_D = np.concatenate(
            [_moments(part, spec.kind) for part, spec in _streams(x, task)]
        )
        present = counts_C[counts_C > 0]
        too_few = bool((present < policy.settings.min_class_count).any())
        released_C = None if too_few or policy.settings.withhold_class_counts else counts_C
    else:
        statistics_D, released_C = _noisy_profile(domain_id, task, x, counts_C, policy)
    return DomainProfile(
        domain_id=domain_id,
        task=task.name,
        num_samples=len(x),
        statistics_D=statistics_D.astype(np.float32),
        class_counts_C=None if released_C is None else released_C.astype(np.int64),
        inputs=inputs,
        input_sizes=tuple(
            2 * len(statistic_ranges(spec.shape, 1.0, spec.kind)[0])
            for spec in task.inputs
            if inputs
        ),
    )


def _clipped(x: Column, kind: InputKind, bound: float) -> Column:
    if kind == "tokens":
        return x
    return np.clip(_unit_pixels(x), -bound, bound)


def _unit_pixels(x: Column) -> Column:
    """Pixels of uint8 from 0 to 1, as a network reads them."""
    return x / np.float32(255) if x.dtype == np.uint8 else x


def count_classes(y_N: IntArray, task: Task) -> IntArray:
    """Rows of each class or label (C,); 0 for amounts."""
    if task.outputs[0].kind == "classes":
        return np.bincount(y_N, minlength=task.num_classes)
    counts_C: IntArray = y_N.sum(0).astype(np.int64)
    return counts_C if task.outputs[0].kind == "labels" else 0 * counts_C


def _streams(x: Column, task: Task) -> list[tuple[Column, InputSpec]]:
    if isinstance(x, Streams):
        return [(x[spec.name], spec) for spec in task.inputs]
    return [(x, task.inputs[0])]


def _moments(x: Column, kind: InputKind) -> Floats:
    """Mean and deviation of each statistic of a stream; a Lazy one is read in batches."""
    if isinstance(x, Lazy):
        parts = [sample_statistics(part, kind) for part in in_batches(x, _ROWS_AT_ONCE)]
        per_sample_NP = np.concatenate(parts)
    else:
        per_sample_NP = sample_statistics(x, kind)
    return np.concatenate([per_sample_NP.mean(0), per_sample_NP.std(0)])


def _noisy_profile(
    domain_id: str, task: Task, x: Column, counts_C: IntArray, policy: SitePolicy
) -> tuple[Floats, IntArray | None]:
    """Statistics (D,) and counts (C,) from noisy first and second moments and noisy counts.

    With every statistic of a row scaled to u in [-1, 1], a row that is replaced moves the means
    of u and of u^2 by at most 2/N together, a statistic: (u-v)^2 + (u^2-v^2)^2 <= 4. Counts move
    by sqrt(2). Deviations themselves would move by 1/sqrt(N).
    """
    settings, streams = policy.settings, _streams(x, task)
    bound = settings.value_bound
    ranges = [statistic_ranges(spec.shape, bound, spec.kind) for _, spec in streams]
    low_P, high_P = (np.concatenate(each) for each in zip(*ranges, strict=True))
    half_P, middle_P = (high_P - low_P) / 2, (high_P + low_P) / 2
    per_sample_NP = np.concatenate(
        [sample_statistics(_clipped(part[:], s.kind, bound), s.kind) for part, s in streams], axis=1
    )
    u_NP = np.clip((per_sample_NP - middle_P) / half_P, -1, 1)
    moments_D = np.concatenate([u_NP.mean(0), (u_NP**2).mean(0)])
    parts = {"moments": (moments_D, 2 * np.sqrt(len(low_P)) / len(x))}
    if not settings.withhold_class_counts:
        parts["counts"] = (counts_C.astype(np.float64), np.sqrt(2))
    noisy = policy.noisy(f"profile of {domain_id}", ("profile", domain_id), parts)
    first_P, second_P = np.split(noisy["moments"], 2)
    deviation_P = np.sqrt(np.clip(second_P - first_P**2, 0, 1))
    mean_P, deviation_P = middle_P + half_P * first_P, half_P * deviation_P
    # As without noise: a stream's means and deviations, then the next stream's.
    ends = np.cumsum([len(low) for low, _ in ranges])[:-1]
    parts_of = zip(np.split(mean_P, ends), np.split(deviation_P, ends), strict=True)
    statistics_D = np.concatenate([part for pair in parts_of for part in pair])
    if "counts" not in noisy:
        return statistics_D, None
    counts = np.rint(noisy["counts"])
    return statistics_D, np.where(counts < settings.min_class_count, 0, counts).astype(np.int64)


def sample_statistics(x: Column, kind: InputKind | None = None) -> Floats:
    """The statistics (N, P) of each sample of a stream, before any mean.

    Without a ``kind``, samples of three axes are images and all others windows.
    """
    if kind == "tokens":
        return token_statistics(x)
    if kind == "vector":
        values: Floats = x.astype(np.float64)
        return values
    if x.ndim == 4:
        return image_statistics(_unit_pixels(x))
    return window_statistics(x)


def statistic_ranges(
    sample_shape: tuple[int, ...], bound: float, kind: InputKind | None = None
) -> tuple[Floats, Floats]:
    """Least and greatest value (P,) of each statistic of a sample within [-bound, bound].

    A band's energy is at most that of the whole window, T bound^2 (Parseval).
    """
    if kind == "tokens":
        return np.zeros(TOKEN_BINS + 1), np.ones(TOKEN_BINS + 1)
    if kind == "vector":
        return np.full(sample_shape, -bound), np.full(sample_shape, bound)
    channels = np.ones(sample_shape[0])
    if len(sample_shape) == 3:
        ranges = [(-bound, bound), (0.0, bound)]
        bins = np.ones(GRADIENT_BINS)
        low = [*(channels * least for least, _ in ranges), 0 * bins]
        high = [*(channels * most for _, most in ranges), bins]
    else:
        energy = float(np.log1p(sample_shape[1] * bound**2))
        ranges = [
            (-bound, bound), (0.0, bound), (-bound, bound), (-bound, bound), (0.0, bound),
            (0.0, 2 * bound), (0.0, energy), (0.0, energy),
        ]  # fmt: skip
        low = [channels * least for least, _ in ranges]
        high = [channels * most for _, most in ranges]
    return np.concatenate(low), np.concatenate(high)


def window_statistics(x_NKT: FloatArray) -> npt.NDArray[np.float64]:
    """Eight numbers a channel: mean, deviation, extremes, mean |x|, mean |dx|, two FFT bands."""
    x = x_NKT.astype(np.float64)
    spectrum = np.abs(np.fft.rfft(x - x.mean(2, keepdims=True), axis=2)) ** 2 / x.shape[2]
    # The bands meet at a quarter of the spectrum: at 50 Hz that is 6 Hz, above which signals
    # are vibration and noise rather than people's motion.
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


def token_statistics(x_NT: Column) -> Floats:
    """The share of the length that is used, and of the tokens in each of 32 bins of their ids."""
    used_NT = x_NT > 0
    bins_NT = np.where(used_NT, x_NT.astype(np.int64) % TOKEN_BINS, -1)
    shares = [(bins_NT == b).sum(1) / np.maximum(used_NT.sum(1), 1) for b in range(TOKEN_BINS)]
    return np.stack([used_NT.mean(1), *shares], axis=1)


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
    name: str,
    request: tuple[object, ...],
    features_NF: FloatArray,
    y_N: IntArray,
    num_classes: int,
    policy: SitePolicy,
) -> FloatArray:
    """Mean feature vector (C, F) of each class, as the policy releases it.

    With noise: noisy sums over noisy counts. Rows are cut to the policy's length R; a row that is
    replaced moves sums / R and counts together by at most 2. The bound is for the rows as
    features of the given model, which has learnt from them too.

    Parameters
    ----------
    name, request
        Whose centroids, for errors, and what they are asked for (see ``SitePolicy.noisy``).
    features_NF, y_N
        Features of the domain's rows, and their classes.
    num_classes
        C.
    policy
        A class has a zero row where it has fewer rows than the policy's minimum; all have where
        the policy withholds centroids.

    Raises
    ------
    PolicyError
        The budget is spent.
    """
    settings = policy.settings
    centroids_CF = np.zeros((num_classes, features_NF.shape[1]), np.float32)
    if settings.withhold_centroids:
        return centroids_CF
    if settings.epsilon is None:
        for label in range(num_classes):
            rows = features_NF[y_N == label]
            if len(rows) >= settings.min_class_count:
                centroids_CF[label] = rows.mean(0)
        return centroids_CF
    rows_NF = features_NF.astype(np.float64) / settings.feature_bound
    rows_NF /= np.maximum(1, np.linalg.norm(rows_NF, axis=1, keepdims=True))
    of_class_CN = (y_N == np.arange(num_classes)[:, None]).astype(np.float64)
    # One part, for they share one sensitivity: same class (2, 0), another (sqrt 2, sqrt 2).
    exact_CG = np.concatenate([of_class_CN @ rows_NF, of_class_CN.sum(1, keepdims=True)], axis=1)
    noisy_CG = policy.noisy(name, request, {"sums and counts": (exact_CG, 2.0)})["sums and counts"]
    counts_C1 = noisy_CG[:, -1:]
    released_CF = settings.feature_bound * noisy_CG[:, :-1] / np.maximum(counts_C1, 1)
    enough_C1 = counts_C1 >= settings.min_class_count
    return np.where(enough_C1, released_CF, 0).astype(np.float32)
