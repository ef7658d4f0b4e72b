"""The embedded IMU world: people who carry an accelerometer and a gyroscope, made from a seed.

Each activity is a posture (gravity in the body's frame) and a periodic motion of three
harmonics. People fall into clusters, which move in their own way and wear the sensor in
their own way; a person adds an own orientation, pace, vigour, device gain and noise, and lacks
some activities. Any domain is made alone and from (seed, domain id): the last of 100,000
costs what the first does.

Legend: N windows, K channels (acc xyz in g, gyro xyz in units of 200 degrees/s), T steps,
A activities, S segments, H harmonics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from graft.core.seeding import stream
from graft.core.tasks import Task
from graft.data.domain import DomainData
from graft.errors import DatasetFormatError

_Array = npt.NDArray[np.float64]

CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
RATE_HZ = 50.0
NUM_STEPS = 64
NUM_CLUSTERS = 6
NUM_HARMONICS = 3
TASK = Task(
    name="imu-world",
    modality="imu",
    sample_shape=(len(CHANNELS), NUM_STEPS),
    classes=("walk", "jog", "stairs-up", "stairs-down", "cycle", "row", "sit", "stand"),
)

# How unlike clusters, persons and moments are decides how hard the world is: a model of the
# own cluster must help a target domain and one of another cluster must not (tuned, see the tests).
_CLUSTER_SIGNATURE = 0.45
_CLUSTER_ROTATION_RAD = 0.4
_PERSON_SIGNATURE = 0.1
_PERSON_ROTATION_RAD = 0.12
_PERSON_POSTURE = 0.1
_PERSON_PACE = 0.08
_PERSON_VIGOUR = 0.12
_DEVICE_GAIN = 0.06
_SEGMENT_SIGNATURE = 0.4
_SEGMENT_ROTATION_RAD = 0.15
_DRIFT_RAD = 0.15
_POSTURE_SPREAD = 0.3
_NOISE_G = 0.25
# Half of the people do everything; the others lack one activity or two.
_MISSING_SHARES = (0.5, 0.35, 0.15)
# Four passes leave each activity a last segment to test on and three to learn from.
_PASSES = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Signatures:
    """How people move, of all, of a cluster, or one person.

    Gravity's direction in the body's frame (A, 3), the pace in Hz (A), the harmonics' sine and
    cosine parts (2, A, H, K), and the rotation from the body's frame to the sensor's (3, 3).
    """

    posture_A3: _Array
    pace_hz_A: _Array
    harmonics_2AHK: _Array
    placement_33: _Array


class ImuWorld:
    """A World of ``num_domains`` persons with ``windows_per_domain`` windows each.

    A domain depends on the seed, its id and the number of windows, never on the size of the
    world. Windows come in time order and in segments of one activity (the groups), across
    which orientation and gain drift.
    """

    def __init__(self, num_domains: int, windows_per_domain: int, seed: int) -> None:
        self._domain_ids = _DomainIds(num_domains)
        self._num_windows = windows_per_domain
        self._seed = seed
        self._clusters = _make_clusters(seed)

    @property
    def task(self) -> Task:
        return TASK

    @property
    def domain_ids(self) -> Sequence[str]:
        """The ids "user-000000", ..., named when they are asked for."""
        return self._domain_ids

    def person(self, domain_id: str) -> str:
        """Every domain is a person of its own."""
        return domain_id

    def cluster(self, domain_id: str) -> int:
        """The latent cluster that a person belongs to; for analysis, no part of the data."""
        return int(self._stream(domain_id, "cluster").integers(NUM_CLUSTERS))

    def load(self, domain_id: str) -> DomainData:
        """Make one domain; raises DatasetFormatError for an id that is not of this world."""
        if domain_id not in self._domain_ids:
            raise DatasetFormatError(
                f"domain id: got {domain_id!r}, wanted one of the {len(self._domain_ids)} "
                f"of this world, such as {self._domain_ids[0]!r}"
            )
        person = _vary(self._clusters[self.cluster(domain_id)], self._stream(domain_id, "person"))
        rng = self._stream(domain_id, "windows")
        y_N, group_N = self._schedule_segments(domain_id)
        x = _record(person, y_N, group_N, rng)
        return DomainData(domain_id=domain_id, x=x.astype(np.float32), y_N=y_N, group_N=group_N)

    def _stream(self, domain_id: str, purpose: str) -> np.random.Generator:
        return stream("imu-world", self._seed, domain_id, purpose)

    def _schedule_segments(
        self, domain_id: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Labels and segment numbers (N): passes through the person's activities, each shuffled."""
        rng = self._stream(domain_id, "schedule")
        num_present = TASK.num_classes - int(rng.choice(len(_MISSING_SHARES), p=_MISSING_SHARES))
        present = rng.permutation(TASK.num_classes)[:num_present]
        length = max(1, round(self._num_windows / (_PASSES * num_present)))
        group_N = np.arange(self._num_windows, dtype=np.int64) // length
        num_passes = -(-(int(group_N[-1]) + 1) // num_present)
        activity_S = np.concatenate([rng.permutation(present) for _ in range(num_passes)])
        return activity_S[group_N].astype(np.int64), group_N


def _make_clusters(seed: int) -> tuple[_Signatures, ...]:
    shared = _draw_signatures(stream("imu-world", seed, "activities"))
    clusters = []
    for index in range(NUM_CLUSTERS):
        rng = stream("imu-world", seed, "cluster", index)
        clusters.append(
            _Signatures(
                posture_A3=_unit(
                    shared.posture_A3 + _POSTURE_SPREAD * rng.normal(size=shared.posture_A3.shape)
                ),
                pace_hz_A=shared.pace_hz_A * np.exp(rng.normal(0, 0.1, len(shared.pace_hz_A))),
                harmonics_2AHK=_blend(shared.harmonics_2AHK, _CLUSTER_SIGNATURE, rng),
                placement_33=_rotations(_CLUSTER_ROTATION_RAD * rng.normal(size=3)),
            )
        )
    return tuple(clusters)


def _draw_signatures(rng: np.random.Generator) -> _Signatures:
    num_activities = TASK.num_classes
    # Higher harmonics are weaker, as in gait; the last two activities are nearly still.
    decay_H = 0.7 ** np.arange(NUM_HARMONICS)
    vigour_A = np.array([0.35, 0.6, 0.35, 0.4, 0.3, 0.45, 0.1, 0.1])
    unit = rng.normal(size=(2, num_activities, NUM_HARMONICS, len(CHANNELS)))
    return _Signatures(
        posture_A3=_unit(np.array([0.0, 0.0, 1.0]) + 0.5 * rng.normal(size=(num_activities, 3))),
        pace_hz_A=rng.uniform(0.9, 2.2, num_activities),
        harmonics_2AHK=unit * decay_H[:, None] * vigour_A[:, None, None],
        placement_33=np.eye(3),
    )


def _vary(cluster: _Signatures, rng: np.random.Generator) -> _Signatures:
    """One person of a cluster: own orientation, pace, vigour, device gain and manner."""
    gain_K = np.exp(rng.normal(0, _DEVICE_GAIN, len(CHANNELS)))
    vigour = np.exp(rng.normal(0, _PERSON_VIGOUR))
    posture_A3 = cluster.posture_A3 + _PERSON_POSTURE * rng.normal(size=cluster.posture_A3.shape)
    return _Signatures(
        posture_A3=_unit(posture_A3),
        pace_hz_A=cluster.pace_hz_A * np.exp(rng.normal(0, _PERSON_PACE)),
        harmonics_2AHK=_blend(cluster.harmonics_2AHK, _PERSON_SIGNATURE, rng) * gain_K * vigour,
        placement_33=_rotations(_PERSON_ROTATION_RAD * rng.normal(size=3)) @ cluster.placement_33,
    )


def _record(
    person: _Signatures,
    y_N: npt.NDArray[np.int64],
    group_N: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> _Array:
    """The windows (N, K, T) of one person."""
    num_windows, num_segments = len(y_N), int(group_N[-1]) + 1
    activity_S = y_N[np.searchsorted(group_N, np.arange(num_segments))]
    harmonics_2SHK = _blend(person.harmonics_2AHK[:, activity_S], _SEGMENT_SIGNATURE, rng)
    vigour_N = np.exp(rng.normal(0, 0.15, num_segments)[group_N] + rng.normal(0, 0.1, num_windows))
    pace_hz_N = person.pace_hz_A[y_N] * np.exp(rng.normal(0, 0.08, num_segments)[group_N])
    steps_T = np.arange(NUM_STEPS) / RATE_HZ
    start_N = rng.uniform(0, 2 * np.pi, num_windows)
    phase_NT = start_N[:, None] + 2 * np.pi * pace_hz_N[:, None] * steps_T
    phase_NHT = np.arange(1, NUM_HARMONICS + 1)[:, None] * phase_NT[:, None, :]
    waves_2NHT = np.stack([np.sin(phase_NHT), np.cos(phase_NHT)])
    motion_NKT = np.einsum("pnhk,pnht->nkt", harmonics_2SHK[:, group_N], waves_2NHT, optimize=True)
    motion_NKT *= vigour_N[:, None, None]
    motion_NKT[:, :3] += person.posture_A3[y_N][:, :, None]
    # The sensor slips along one slow arc over the day, and shifts a little at each segment.
    elapsed_N = np.arange(num_windows) / num_windows
    slip_N3 = elapsed_N[:, None] * (_DRIFT_RAD * rng.normal(size=3))
    slip_N3 = slip_N3 + (_SEGMENT_ROTATION_RAD * rng.normal(size=(num_segments, 3)))[group_N]
    turn_N33 = _rotations(slip_N3) @ person.placement_33
    sensed_NKT = np.einsum(
        "nij,nsjt->nsit", turn_N33, motion_NKT.reshape(num_windows, 2, 3, NUM_STEPS), optimize=True
    ).reshape(motion_NKT.shape)
    noise = _NOISE_G * np.exp(rng.normal(0, 0.3))
    noisy_NKT: _Array = sensed_NKT + noise * rng.normal(size=sensed_NKT.shape)
    return noisy_NKT


def _blend(harmonics: _Array, share: float, rng: np.random.Generator) -> _Array:
    """Replace a ``share`` of the harmonics' variance by a fresh draw of the same strength.

    ``harmonics`` is (2, ..., H, K); strength is taken over both parts and all channels.
    """
    scale = np.sqrt((harmonics**2).mean(axis=(0, -1), keepdims=True))
    fresh = scale * rng.normal(size=harmonics.shape)
    blended: _Array = np.sqrt(1 - share) * harmonics + np.sqrt(share) * fresh
    return blended


def _unit(vectors: _Array) -> _Array:
    """Vectors (..., 3) scaled to length 1."""
    units: _Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units


def _rotations(vectors: _Array) -> _Array:
    """Rotation matrices (..., 3, 3) about rotation vectors (..., 3) in radians (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    # np.sinc is sin(pi t) / (pi t): it carries the formula through an angle of zero.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    rotations: _Array = np.eye(3) + first * cross + second * (cross @ cross)
    return rotations


class _DomainIds(Sequence[str]):
    """The ids of a world of any size, none of them stored."""

    def __init__(self, num_domains: int) -> None:
        self._range = range(num_domains)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [_domain_id(number) for number in self._range[index]]
        return _domain_id(self._range[index])

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        digits = value.removeprefix("user-")
        if not (digits.isascii() and digits.isdigit()):
            return False
        return int(digits) in self._range and _domain_id(int(digits)) == value


def _domain_id(number: int) -> str:
    return f"user-{number:06d}"
