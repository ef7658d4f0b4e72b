"""CSV recordings -> a domain folder: one rate, windows, blocks that never part a window.

Legend: L lines of a stretch, K channels, N windows, T samples of a window.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter1d

from graft.core.outputs import check_output, new_folder
from graft.core.records import FloatArray, Modality, Task
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import write_domain
from graft.data.importers.csv_recordings import (
    CsvColumns,
    LineTally,
    RowArray,
    Stretch,
    read_stretches,
)
from graft.data.public.recordings import cut_windows, natural_key
from graft.errors import ConfigError, DatasetFormatError, DomainEmptyError

# Times that lie further apart than so many usual intervals are a pause in the recording.
_PAUSE = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Windowing:
    """How recordings become samples: ``window`` samples at ``rate_hz``, each ``step`` samples
    after the one before, none across two blocks of ``block_s`` seconds or more.

    Blocks are the groups that a split keeps whole, so that windows which overlap stay together.
    """

    rate_hz: float
    window: int = 128
    step: int = 64
    block_s: float = 10.0

    def __post_init__(self) -> None:
        values = (self.rate_hz, self.window, self.step, self.block_s)
        for name, value in zip(("rate", "window", "step", "block"), values, strict=True):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}: got {value}, wanted more than 0")
        if round(self.block_s * self.rate_hz) < self.window:
            raise ConfigError(
                f"block: got {self.block_s:g} s, wanted at least the {self.window} samples of "
                f"a window: {self.window / self.rate_hz:g} s"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvReport:
    """What ``convert_csv`` wrote and what it left out, in words."""

    folder: Path
    classes: tuple[str, ...]
    domains: int
    windows: int
    blocks: int
    lines: int
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]


def convert_csv(
    source: Path,
    out: Path,
    columns: CsvColumns,
    windowing: Windowing,
    *,
    name: str,
    licence: str,
    modality: Modality = "imu",
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> CsvReport:
    """Write the domain folder ``out`` from a CSV file or a folder of them, all or nothing.

    A person with fewer than two classes of whole windows is left out and named. Raises
    DatasetFormatError where files, columns or most lines are of no use, ConfigError for a
    windowing that cannot be, DataError where ``out`` holds something already.
    """
    check_output(out, [source])
    tally = LineTally()
    stretches: dict[str, list[Stretch]] = {}
    for stretch in read_stretches(_csv_files(source), columns, tally, progress):
        stretches.setdefault(stretch.user, []).append(stretch)
    _check_share(source, tally)
    blocks = {user: _cut_user(found, windowing) for user, found in sorted(stretches.items())}
    found = {label for cut in blocks.values() for label, _ in cut}
    classes = tuple(sorted(found, key=natural_key))
    chosen, left_out = {}, []
    for user, cut in blocks.items():
        labels = sorted({label for label, _ in cut}, key=natural_key)
        if len(labels) >= 2:
            chosen[user] = cut
        else:
            windows = f"windows of {labels[0]!r} alone" if labels else "no whole window"
            left_out.append(f"{user}: {windows}, wanted two classes or more")
    if not chosen:
        raise DomainEmptyError(
            f"{source}: got nobody with windows of two classes, wanted at least one; a window "
            f"takes {windowing.window} lines in a row of one label. " + "; ".join(left_out[:5])
        )
    task = Task(
        name=name,
        modality=modality,
        sample_shape=(len(columns.sensors), windowing.window),
        classes=classes,
    )
    with new_folder(out, sources=[source], overwrite=overwrite) as folder:
        for user, cut in chosen.items():
            write_domain(folder, _domain(user, cut, classes))
        write_dataset(
            folder, task, channels=columns.sensors, rate_hz=windowing.rate_hz, licence=licence
        )
    return CsvReport(
        folder=out,
        classes=classes,
        domains=len(chosen),
        windows=sum(len(x) for cut in chosen.values() for _, x in cut),
        blocks=sum(len(cut) for cut in chosen.values()),
        lines=tally.lines,
        skipped=tuple(tally.words()),
        left_out=tuple(left_out),
    )


def even_rate(stretch: Stretch, rate_hz: float) -> Iterator[RowArray]:
    """A stretch's rows (L, K) at the rate, cut at pauses and where time runs back.

    Without times the lines are taken to be at the rate. Faster recordings are averaged over a
    sample's length first, for linear interpolation alone would fold high frequencies down.
    """
    if stretch.time_L is None:
        yield stretch.rows_LK
        return
    interval_s = np.diff(stretch.time_L)
    usual_s = float(np.median(interval_s[interval_s > 0])) if (interval_s > 0).any() else 0.0
    breaks = np.flatnonzero((interval_s < 0) | (interval_s > _PAUSE * usual_s)) + 1
    width = max(1, round(1 / (usual_s * rate_hz))) if usual_s else 1
    for time_L, rows_LK in zip(
        np.split(stretch.time_L, breaks), np.split(stretch.rows_LK, breaks), strict=True
    ):
        num_samples = int((time_L[-1] - time_L[0]) * rate_hz + 1e-6) + 1
        grid_L = time_L[0] + np.arange(num_samples) / rate_hz
        smooth_LK = uniform_filter1d(rows_LK, width, axis=0, mode="nearest")
        yield np.stack([np.interp(grid_L, time_L, channel) for channel in smooth_LK.T], axis=1)


def _cut_user(stretches: Sequence[Stretch], windowing: Windowing) -> list[tuple[str, FloatArray]]:
    """Label and windows (N, K, T) of each block, in the order of time."""
    block = round(windowing.block_s * windowing.rate_hz)
    cut = []
    for stretch in stretches:
        for rows_LK in even_rate(stretch, windowing.rate_hz):
            # Even parts: a short rest at the end would be lost.
            for part_LK in np.array_split(rows_LK, max(1, len(rows_LK) // block)):
                x = cut_windows(part_LK, windowing.window, windowing.step)
                if len(x):
                    cut.append((stretch.label, x))
    return cut


def _domain(
    user: str, cut: Sequence[tuple[str, FloatArray]], classes: tuple[str, ...]
) -> DomainData:
    return DomainData(
        domain_id=user,
        x=np.concatenate([x for _, x in cut]),
        y_N=np.repeat([classes.index(label) for label, _ in cut], [len(x) for _, x in cut]),
        group_N=np.repeat(np.arange(len(cut)), [len(x) for _, x in cut]),
    )


def _csv_files(source: Path) -> list[Path]:
    found = [source] if source.is_file() else list(source.rglob("*.csv"))
    if not found:
        raise DatasetFormatError(f"{source}: got no .csv file, wanted one or a folder of them")
    return sorted(found, key=lambda path: natural_key(str(path)))


def _check_share(source: Path, tally: LineTally) -> None:
    if 2 * tally.skipped > tally.lines or not tally.lines:
        raise DatasetFormatError(
            f"{source}: got {tally.lines - tally.skipped} of {tally.lines} lines that can be "
            "used, wanted at least half. " + "; ".join(tally.words()[:5])
        )
