"""NYUv2 as MTAN's authors publish it: numbered .npy files in four folders a part.

``train/`` and ``val/`` each hold ``image/N.npy`` (H, W, 3), ``label/N.npy`` (H, W) with 13 classes
and -1 where there is no label, ``depth/N.npy`` (H, W, 1) in metres with 0 where the sensor saw
nothing, and ``normal/N.npy`` (H, W, 3). graft contains none of it.

Legend: H, W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from graft.core.records import FloatArray, IntArray
from graft.data.unpacking import check_array_header
from graft.errors import (
    DatasetFormatError,
    DomainClassError,
    DomainEmptyError,
    DomainShapeError,
    DomainValueError,
)

Part = Literal["train", "val"]
NUM_CLASSES = 13
# What each folder's arrays have behind (H, W).
_CHANNELS: dict[str, tuple[int, ...]] = {"image": (3,), "label": (), "depth": (1,), "normal": (3,)}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DenseSample:
    """One picture with its segmentation, depth and surface normals.

    ``image_3HW`` is 0 to 1; ``label_HW`` a class index, -1 where unknown; ``depth_HW`` in
    metres, 0 where unknown; ``normal_3HW`` unit vectors in the camera's frame, zero vectors
    where unknown.
    """

    image_3HW: FloatArray
    label_HW: IntArray
    depth_HW: FloatArray
    normal_3HW: FloatArray


class NyuV2(Sequence[DenseSample]):
    """One part of NYUv2; a sample is read and checked when it is asked for.

    Opening raises DatasetFormatError where a folder is missing, a file has no number, or the
    four folders do not hold the same files, and DomainEmptyError where they hold none.
    """

    def __init__(self, path: Path, part: Part) -> None:
        self._path = path / part
        self._numbers = _list_numbers(self._path)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> DenseSample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DenseSample]: ...
    def __getitem__(self, index: int | slice) -> DenseSample | Sequence[DenseSample]:
        """The sample at an index, in the order of the numbers.

        Raises DatasetFormatError for a file that cannot be read, DomainShapeError where its
        shape or dtype is not the layout's or unlike the image's, DomainValueError for NaN,
        infinity or a negative depth, DomainClassError for a label that is not -1 to 12.
        """
        if isinstance(index, slice):
            return [self._read(number) for number in self._numbers[index]]
        return self._read(self._numbers[index])

    def _read(self, number: int) -> DenseSample:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for folder in _CHANNELS:
            path = self._path / folder / f"{number}.npy"
            arrays[folder] = _read_array(path, folder)
            if arrays[folder].shape[:2] != arrays["image"].shape[:2]:
                raise DomainShapeError(
                    f"{path}: got {arrays[folder].shape[:2]} pixels, "
                    f"wanted the image's {arrays['image'].shape[:2]}"
                )
        depth_HW = arrays["depth"][:, :, 0]
        if (depth_HW < 0).any():
            raise DomainValueError(
                f"{self._path / 'depth'}/{number}.npy: got {depth_HW.min()}, wanted 0 or more"
            )
        return DenseSample(
            image_3HW=_channels_first(arrays["image"]),
            label_HW=_labels(self._path / "label" / f"{number}.npy", arrays["label"]),
            depth_HW=depth_HW.astype(np.float32),
            normal_3HW=_channels_first(arrays["normal"]),
        )


def _list_numbers(path: Path) -> tuple[int, ...]:
    names: dict[str, set[str]] = {}
    for folder in _CHANNELS:
        if not (path / folder).is_dir():
            raise DatasetFormatError(
                f"{path / folder}: got no such folder, wanted {list(_CHANNELS)} in {path}"
            )
        names[folder] = {found.stem for found in (path / folder).glob("*.npy")}
        odd = sorted(names[folder] ^ names["image"])
        if odd:
            raise DatasetFormatError(
                f"{path}: got {odd[0]}.npy in only one of image and {folder}, wanted it in both"
            )
    if not names["image"]:
        raise DomainEmptyError(f"{path}: got 0 samples, wanted at least 1")
    # The number's own text is the file's name: "007" would not be found again.
    unnumbered = sorted(name for name in names["image"] if not _is_number(name))
    if unnumbered:
        raise DatasetFormatError(
            f"{path / 'image'}: got {unnumbered[0]}.npy, wanted names like 0.npy, 1.npy"
        )
    return tuple(sorted(int(name) for name in names["image"]))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _read_array(path: Path, folder: str) -> npt.NDArray[Any]:
    try:
        # Pickles run code when they are read: a data file never needs one.
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                file.seek(0)
                check_array_header(str(path), file, path.stat().st_size)
            file.seek(0)
            array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DatasetFormatError(
            f"{path}: got a file that cannot be read ({error}), wanted a plain array"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DatasetFormatError(f"{path}: got an archive, wanted a single array")
    wanted = _CHANNELS[folder]
    if array.ndim != 2 + len(wanted) or array.shape[2:] != wanted or array.dtype.kind not in "fiu":
        raise DomainShapeError(
            f"{path}: got {array.dtype} of shape {array.shape}, "
            f"wanted numbers of shape {('H', 'W', *wanted)}"
        )
    if not np.isfinite(array).all():
        raise DomainValueError(f"{path}: got NaN or infinity, wanted finite numbers")
    return array


def _labels(path: Path, array_HW: npt.NDArray[Any]) -> IntArray:
    label_HW = array_HW.astype(np.int64)
    odd = (label_HW != array_HW) | (label_HW < -1) | (label_HW >= NUM_CLASSES)
    if odd.any():
        raise DomainClassError(
            f"{path}: got the label {array_HW[odd][0]}, "
            f"wanted whole numbers from -1 to {NUM_CLASSES - 1}"
        )
    return label_HW


def _channels_first(array_HW3: npt.NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(np.moveaxis(array_HW3, -1, 0), np.float32)
