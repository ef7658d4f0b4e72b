"""The embedded world of two streams: people of the IMU world who also wear a small camera.

A third of the domains lacks a stream, half of them the camera and half the motion sensor. The
camera shows the place of an activity, and two activities have one place: neither stream alone
tells all activities apart.

Legend: N samples, P pixels of a picture.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from graft.core.seeding import stream
from graft.core.streams import Streams
from graft.core.tasks import InputSpec, Task
from graft.data.domain import DomainData
from graft.data.synthetic import imu

SIDE: Final = 12
MOTION = InputSpec(
    name="motion",
    kind="window",
    shape=(len(imu.CHANNELS), imu.NUM_STEPS),
    rate_hz=imu.RATE_HZ,
    modality="imu",
)
CAMERA = InputSpec(
    name="camera", kind="image", shape=(1, SIDE, SIDE), dtype="uint8", modality="image"
)
TASK = Task(
    name="wearables-world", modality="mixed", classes=imu.TASK.classes, inputs=(MOTION, CAMERA)
)
_LACKING = 1 / 3
_SPOTS = 3
_NOISE = 0.35


class WearablesWorld:
    """A World of the persons of ``ImuWorld`` with a camera, of whom a third lacks a stream.

    Parameters
    ----------
    num_domains, windows_per_domain, seed
        As of ``ImuWorld``, whose windows are the stream "motion".
    """

    def __init__(self, num_domains: int, windows_per_domain: int, seed: int) -> None:
        self._motion = imu.ImuWorld(num_domains, windows_per_domain, seed)
        self._seed = seed
        places = stream("wearables", seed, "places")
        self._places = [_place(places) for _ in range(TASK.num_classes // 2)]

    @property
    def task(self) -> Task:
        return TASK

    @property
    def domain_ids(self) -> Sequence[str]:
        """The ids "user-000000", ..."""
        return self._motion.domain_ids

    def person(self, domain_id: str) -> str:
        """Every domain is a person of its own."""
        return domain_id

    def inputs(self, domain_id: str) -> tuple[str, ...]:
        """The streams that a domain has."""
        drawn = stream("wearables", self._seed, domain_id, "lacks").random()
        if drawn >= _LACKING:
            return TASK.input_names
        return (MOTION.name,) if drawn < _LACKING / 2 else (CAMERA.name,)

    def load(self, domain_id: str) -> DomainData:
        """Make one domain; raises DatasetFormatError for an id that is not of this world."""
        data = self._motion.load(domain_id)
        columns = {MOTION.name: data.x, CAMERA.name: self._pictures(domain_id, data.y_N)}
        inputs = self.inputs(domain_id)
        x = Streams(columns) if len(inputs) > 1 else columns[inputs[0]]
        return DomainData(
            domain_id=domain_id, x=x, y_N=data.y_N, group_N=data.group_N, inputs=inputs
        )

    def _pictures(self, domain_id: str, y_N: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """What a domain's camera sees: the place, moved and lit as the person wears it."""
        rng = stream("wearables", self._seed, domain_id, "camera")
        gain, level = rng.uniform(0.6, 1.2), rng.uniform(-0.2, 0.2)
        offset = rng.integers(-2, 3, 2)
        seen = [np.roll(place, offset, (0, 1)) for place in self._places]
        plain_NP = np.stack(seen)[y_N % len(seen)]
        light_N11 = rng.normal(level, 0.1, (len(y_N), 1, 1))
        noisy_NP = gain * plain_NP + light_N11 + rng.normal(0, _NOISE, plain_NP.shape)
        return np.clip(255 * noisy_NP, 0, 255).astype(np.uint8)[:, None]


def _place(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A picture (H, W) of a few bright spots, 0 to about 1."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    spots = [
        np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        for row, column, width in zip(
            rng.uniform(0, SIDE, _SPOTS),
            rng.uniform(0, SIDE, _SPOTS),
            rng.uniform(1, 2.5, _SPOTS),
            strict=True,
        )
    ]
    seen: npt.NDArray[np.float64] = np.clip(np.sum(spots, axis=0), 0, 1)
    return seen
