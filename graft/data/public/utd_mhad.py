"""Reader of UTD-MHAD: 27 actions of eight people by a worn inertial sensor and a depth camera.

Legend: N trials, T samples of a trial, P points of a sample, J joints.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from graft.core.records import FloatArray
from graft.core.streams import Streams
from graft.data.domain import DomainData
from graft.data.public.archives import Originals
from graft.data.public.recordings import Tally
from graft.errors import DatasetFormatError, DomainEmptyError

INERTIAL_POINTS = 128
SKELETON_POINTS = 64
NUM_ACTIONS = 27
HIP_CENTRE = 3
# Degrees to radians a second, as in the other inertial sets.
_RADIANS = np.pi / 180
# Of each folder: its suffix, the variable in the file, and its axes, time apart.
_KINDS = {
    "inertial": (r"Inertial/{}_inertial\.mat", "d_iner", (6,)),
    "skeleton": (r"Skeleton/{}_skeleton\.mat", "d_skel", (20, 3)),
}
_TRIAL = r"a(?P<action>\d+)_s(?P<who>\d+)_t(?P<trial>\d+)"


def read_utd_mhad(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a subject, "s1" to "s8"; a sample is a trial in two streams, its own group.

    ``inertial`` (6, 128): acceleration in g and angular speed in rad/s. ``skeleton`` (60, 64): x, y
    and z of 20 joints in metres from where the hip's centre was in the first frame. Both are 128
    or 64 points evenly over the whole trial, whose length differs from trial to trial. Rows are
    ordered by the number of the trial and then by action, so that every action occurs early and
    late. A trial that one sensor alone recorded is skipped and counted, but a subject without any
    file of a sensor lacks that stream. Raises DatasetFormatError for no trial, an unknown action,
    or a file that is not as published.
    """
    files: dict[int, dict[tuple[int, int], dict[str, str]]] = {}
    for kind, (pattern, _, _) in _KINDS.items():
        for name, match in originals.matching(pattern.format(_TRIAL)):
            who, action, trial = (int(match[key]) for key in ("who", "action", "trial"))
            if not 1 <= action <= NUM_ACTIONS:
                raise DatasetFormatError(f"{originals.label}: {name}: got action {action}, "
                                         f"wanted 1 to {NUM_ACTIONS}")  # fmt: skip
            files.setdefault(who, {}).setdefault((trial, action), {})[kind] = name
    if not files:
        raise DatasetFormatError(
            f"{originals.label}: got no Inertial/aA_sS_tT_inertial.mat, wanted trials"
        )
    for who, trials in sorted(files.items()):
        present = {kind for names in trials.values() for kind in names}
        streams: dict[str, list[FloatArray]] = {kind: [] for kind in _KINDS if kind in present}
        actions = []
        for (_, action), names in sorted(trials.items()):
            if names.keys() != present:
                tally.add_skipped(next(iter(names.values())), 1)
                continue
            for kind, name in names.items():
                trial_T = _read_trial(originals, name, kind)
                tally.add_recording(rows=len(trial_T))
                streams[kind].append(_SAMPLE[kind](trial_T))
            actions.append(action - 1)
        if not actions:
            raise DomainEmptyError(f"{originals.label}: s{who}: got no trial of both sensors, "
                                   "wanted one at least")  # fmt: skip
        columns = {kind: np.stack(parts) for kind, parts in streams.items()}
        yield tally.of_rows(f"s{who}", Streams(columns), actions)


def _read_trial(originals: Originals, name: str, kind: str) -> npt.NDArray[np.float64]:
    """A trial's samples in the order of time, (T, 6) or (T, 20, 3)."""
    _, variable, axes = _KINDS[kind]
    label = f"{originals.label}: {name}"
    try:
        found: dict[str, Any] = scipy.io.loadmat(io.BytesIO(originals.read(name)))
        values = np.asarray(found[variable], np.float64)
    # scipy's reader of a damaged file raises whatever its parsing comes across.
    except Exception as error:
        raise DatasetFormatError(f"{label}: got {error!r:.80}, wanted {variable}") from error
    values = np.moveaxis(values, -1, 0) if kind == "skeleton" and values.ndim else values
    if values.ndim != 1 + len(axes) or values.shape[1:] != axes or len(values) < 2:
        raise DatasetFormatError(f"{label}: got {variable} of shape {values.shape}, "
                                 f"wanted two samples or more of {axes}")  # fmt: skip
    if not np.isfinite(values).all():
        raise DatasetFormatError(f"{label}: got NaN or infinity, wanted finite numbers")
    return values


def _evenly(trial_TK: npt.NDArray[np.float64], points: int) -> FloatArray:
    """The channels (K, P) at ``points`` even places from a trial's first to its last sample."""
    at_P = np.linspace(0, len(trial_TK) - 1, points)
    source_T = np.arange(len(trial_TK))
    return np.stack([np.interp(at_P, source_T, k) for k in trial_TK.T]).astype(np.float32)


def _inertial(trial_T6: npt.NDArray[np.float64]) -> FloatArray:
    return _evenly(trial_T6 * [1, 1, 1, _RADIANS, _RADIANS, _RADIANS], INERTIAL_POINTS)


def _skeleton(trial_TJ3: npt.NDArray[np.float64]) -> FloatArray:
    from_hip_TJ3 = trial_TJ3 - trial_TJ3[0, HIP_CENTRE]
    return _evenly(from_hip_TJ3.reshape(len(trial_TJ3), -1), SKELETON_POINTS)


_SAMPLE = {"inertial": _inertial, "skeleton": _skeleton}
