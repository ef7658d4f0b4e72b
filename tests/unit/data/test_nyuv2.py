"""The reader of NYUv2's layout, on a folder that the test writes."""

from pathlib import Path

import numpy as np
import pytest

from graft.data.public.nyuv2 import NyuV2
from graft.errors import (
    DataError,
    DatasetFormatError,
    DomainClassError,
    DomainEmptyError,
    DomainShapeError,
    DomainValueError,
)

HEIGHT, WIDTH = 4, 6


def arrays(number: int) -> dict[str, np.ndarray]:
    """A sample in which every array tells its sample's number and its pixel."""
    pixel_HW = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    normal_HW3 = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normal_HW3[:, :, number % 3] = -1
    return {
        "image": (pixel_HW[:, :, None] + np.array([0, 100, 200])).astype(np.float64) + number,
        "label": (pixel_HW.astype(np.int64) % 14) - 1,
        "depth": pixel_HW[:, :, None] + 10 * number,
        "normal": normal_HW3,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Samples 0, 1, 2 and 10 to train on, one to validate on."""
    for part, numbers in {"train": (0, 1, 2, 10), "val": (0,)}.items():
        for number in numbers:
            for name, array in arrays(number).items():
                path = tmp_path / part / name / f"{number}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)
    return tmp_path


def test_samples_come_in_the_order_of_their_numbers_with_channels_first(folder: Path) -> None:
    train = NyuV2(folder, "train")
    assert (len(train), len(NyuV2(folder, "val"))) == (4, 1)
    last = train[3]  # 10.npy: in the order of names it would stand behind 1.npy
    assert last.image_3HW.shape == last.normal_3HW.shape == (3, HEIGHT, WIDTH)
    assert last.image_3HW[1, 2, 3] == 100 + 2 * WIDTH + 3 + 10
    assert last.depth_HW[0, 5] == 5 + 100
    assert last.label_HW[0, 0] == -1
    assert last.label_HW[2, 1] == 12
    np.testing.assert_array_equal(last.normal_3HW[1], np.full((HEIGHT, WIDTH), -1))
    dtypes = [last.image_3HW.dtype, last.depth_HW.dtype, last.normal_3HW.dtype]
    assert dtypes == [np.float32] * 3
    assert last.label_HW.dtype == np.int64
    assert [int(sample.depth_HW[0, 0]) for sample in train] == [0, 10, 20, 100]
    assert [int(sample.depth_HW[0, 0]) for sample in train[1:3]] == [10, 20]


def test_whole_numbers_stored_as_floats_are_labels(folder: Path) -> None:
    path = folder / "train" / "label" / "0.npy"
    np.save(path, np.load(path).astype(np.float32))
    np.testing.assert_array_equal(NyuV2(folder, "train")[0].label_HW, arrays(0)["label"])


def test_nothing_is_read_until_it_is_asked_for(folder: Path) -> None:
    (folder / "train" / "depth" / "1.npy").write_bytes(b"broken")
    train = NyuV2(folder, "train")
    train[0]
    with pytest.raises(DatasetFormatError, match=r"1\.npy: got a file that cannot be read"):
        train[1]


def test_a_missing_folder_or_file_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="no such folder"):
        NyuV2(tmp_path / "elsewhere", "train")
    (folder / "train" / "normal" / "2.npy").unlink()
    with pytest.raises(DatasetFormatError, match=r"2\.npy in only one of image and normal"):
        NyuV2(folder, "train")


def test_a_file_without_a_plain_number_is_refused(folder: Path) -> None:
    for name, array in arrays(7).items():
        np.save(folder / "train" / name / "007.npy", array)
    with pytest.raises(DatasetFormatError, match="names like"):
        NyuV2(folder, "train")


def test_a_part_without_samples_is_empty(folder: Path) -> None:
    for path in (folder / "val").glob("*/*.npy"):
        path.unlink()
    with pytest.raises(DomainEmptyError, match="0 samples"):
        NyuV2(folder, "val")


def test_an_archive_is_no_array(folder: Path) -> None:
    with (folder / "train" / "image" / "0.npy").open("wb") as file:
        np.savez(file, image=arrays(0)["image"])
    with pytest.raises(DatasetFormatError, match="single array"):
        NyuV2(folder, "train")[0]


NAN_IMAGE = np.full((HEIGHT, WIDTH, 3), np.nan)
INFINITE_DEPTH = np.full((HEIGHT, WIDTH, 1), np.inf)
WRONG: dict[str, tuple[str, np.ndarray, type[DataError], str]] = {
    "grey image": ("image", np.zeros((HEIGHT, WIDTH)), DomainShapeError, "'H', 'W', 3"),
    "flat depth": ("depth", np.zeros((HEIGHT, WIDTH)), DomainShapeError, "'H', 'W', 1"),
    "small label": ("label", np.zeros((HEIGHT, 5), np.int64), DomainShapeError, "wanted the image's"),
    "text": ("label", np.full((HEIGHT, WIDTH), "chair"), DomainShapeError, "wanted numbers"),
    "nan": ("image", NAN_IMAGE, DomainValueError, "NaN"),
    "infinity": ("depth", INFINITE_DEPTH, DomainValueError, "infinity"),
    "behind": ("depth", np.full((HEIGHT, WIDTH, 1), -1.5), DomainValueError, r"got -1\.5"),
    "class 13": ("label", np.full((HEIGHT, WIDTH), 13), DomainClassError, "label 13"),
    "class -2": ("label", np.full((HEIGHT, WIDTH), -2), DomainClassError, "label -2"),
    "half": ("label", np.full((HEIGHT, WIDTH), 1.5), DomainClassError, r"label 1\.5"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_in_the_layout_is_refused_by_type(folder: Path, case: str) -> None:
    name, array, error, message = WRONG[case]
    np.save(folder / "train" / name / "0.npy", array)
    with pytest.raises(error, match=message):
        NyuV2(folder, "train")[0]
