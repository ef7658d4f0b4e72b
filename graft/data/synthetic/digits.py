"""The embedded image world: scikit-learn's 1,797 handwritten digits, dealt out to domains that
see them differently.

Legend: N images, P pixels of an image (64).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.data.domain import DomainData
from graft.errors import ConfigError, DatasetFormatError

_Array = npt.NDArray[np.float64]

SIDE = 8
NUM_IMAGES = 1797
# 1,797 images leave 44 to each of 40 domains, four of a class: fewer cannot be split.
MAX_DOMAINS = 40
TASK = Task(
    name="digits-world",
    modality="image",
    sample_shape=(1, SIDE, SIDE),
    classes=tuple(str(digit) for digit in range(10)),
)


class DigitsWorld:
    """A World of ``num_domains`` disjoint parts of the digits, each with its own camera.

    A domain holds a nearly even share of every class, ``images_per_domain`` in all at most:
    there are 1,797 // num_domains for each. Every image is a group of its own. Pixels are 0 to 1
    before the domain's rotation, blur, contrast, inversion and noise.
    Raises ConfigError for fewer than 2 or more than 40 domains.
    """

    def __init__(self, num_domains: int, images_per_domain: int, seed: int) -> None:
        if not 2 <= num_domains <= MAX_DOMAINS:
            raise ConfigError(
                f"digits world: got {num_domains} domains, wanted 2 to {MAX_DOMAINS}: "
                f"there are {NUM_IMAGES} images and none is used twice"
            )
        self._domain_ids = tuple(f"camera-{index:02d}" for index in range(num_domains))
        self._seed = seed
        # scikit-learn takes a second to import, which only this world needs.
        from sklearn.datasets import load_digits

        pixels_NP, labels_N = load_digits(return_X_y=True)
        self._x: _Array = pixels_NP / 16.0
        self._y = labels_N.astype(np.int64)
        self._rows = _deal_rows(self._y, num_domains, images_per_domain, seed)

    @property
    def task(self) -> Task:
        return TASK

    @property
    def domain_ids(self) -> Sequence[str]:
        """The ids "camera-00", "camera-01", ..."""
        return self._domain_ids

    def person(self, domain_id: str) -> str:
        """Every domain counts as a person of its own; the digits name no writers."""
        return domain_id

    def load(self, domain_id: str) -> DomainData:
        """One domain's images; raises DatasetFormatError for an id that is not of this world."""
        if domain_id not in self._domain_ids:
            raise DatasetFormatError(
                f"domain id: got {domain_id!r}, wanted one of {list(self._domain_ids)}"
            )
        rows = self._rows[self._domain_ids.index(domain_id)]
        rng = stream("digits-world", self._seed, domain_id)
        seen_NP = _see(self._x[rows], rng)
        return DomainData(
            domain_id=domain_id,
            x=seen_NP.reshape(-1, *TASK.sample_shape).astype(np.float32),
            y_N=self._y[rows],
            group_N=np.arange(len(rows), dtype=np.int64),
        )


def _deal_rows(
    y_N: npt.NDArray[np.int64], num_domains: int, images_per_domain: int, seed: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Rows of each domain: classes dealt round one after the other, so that shares stay even."""
    rng = stream("digits-world", seed, "deal")
    shuffled_N = rng.permutation(len(y_N))
    by_class_N = shuffled_N[np.argsort(y_N[shuffled_N], kind="stable")]
    hands = []
    for first in range(num_domains):
        hand = rng.permutation(by_class_N[first::num_domains])
        hands.append(hand[: min(images_per_domain, NUM_IMAGES // num_domains)])
    return tuple(hands)


def _see(x_NP: _Array, rng: np.random.Generator) -> _Array:
    """The images (N, P) as one domain's camera gives them."""
    turn_PP = _rotation_operator(rng.uniform(-0.6, 0.6))
    blur_PP = _blur_operator(rng.uniform(0.0, 0.6))
    contrast = rng.uniform(0.7, 1.3)
    # Most cameras show dark ink on light or light on dark; some fade the difference.
    inversion = rng.choice([0.0, 1.0]) + rng.uniform(-0.2, 0.2)
    noise = rng.uniform(0.03, 0.12)
    plain_NP = contrast * (x_NP @ turn_PP.T @ blur_PP.T)
    inverted_NP = (1 - inversion) * plain_NP + inversion * (1 - plain_NP)
    noisy_NP: _Array = inverted_NP + noise * rng.normal(size=inverted_NP.shape)
    return noisy_NP


def _rotation_operator(angle_rad: float) -> _Array:
    """The (P, P) matrix that turns an image about its centre, by bilinear interpolation."""
    centre = (SIDE - 1) / 2
    rows_P, columns_P = np.divmod(np.arange(SIDE * SIDE), SIDE)
    sine, cosine = np.sin(angle_rad), np.cos(angle_rad)
    source_row_P = cosine * (rows_P - centre) - sine * (columns_P - centre) + centre
    source_column_P = sine * (rows_P - centre) + cosine * (columns_P - centre) + centre
    # A tent of width one over each axis is what bilinear interpolation weighs pixels with.
    near_row_PP = np.clip(1 - np.abs(source_row_P[:, None] - rows_P), 0, None)
    near_column_PP = np.clip(1 - np.abs(source_column_P[:, None] - columns_P), 0, None)
    operator_PP: _Array = near_row_PP * near_column_PP
    return operator_PP


def _blur_operator(width_pixels: float) -> _Array:
    """The (P, P) matrix of a Gaussian blur of standard deviation ``width_pixels``."""
    rows_P, columns_P = np.divmod(np.arange(SIDE * SIDE), SIDE)
    distance_PP = (rows_P[:, None] - rows_P) ** 2 + (columns_P[:, None] - columns_P) ** 2
    kernel_PP = np.exp(-distance_PP / (2 * max(width_pixels, 0.1) ** 2))
    operator_PP: _Array = kernel_PP / kernel_PP.sum(1, keepdims=True)
    return operator_PP
