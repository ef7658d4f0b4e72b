"""From a column of a domain's files to a stream or an output: checked, decoded, never rescaled.

Legend: N rows of a domain, C classes, labels or amounts.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.streams import Column, Lazy
from graft.core.tasks import InputSpec, OutputSpec
from graft.data.columns import EAGER_BYTES, AnyArray
from graft.errors import DomainClassError, DomainShapeError, DomainValueError, missing_extra

# float32 holds every integer up to here exactly; a larger one would be changed in silence.
_LARGEST_EXACT = 2**24
# A picture that unpacks to more is refused before it does.
_LARGEST_PICTURE = 1 << 27
_NUMBERS = {"float32": "fiu", "uint8": "iub", "int64": "iu"}


def stream_column(where: str, spec: InputSpec, parts: Sequence[Any]) -> Column:
    """A stream's values as its spec has them: an array, or Lazy where it is large or memory-mapped.

    Parameters
    ----------
    where
        The file and the stream, for errors.
    spec
        Kind, shape and dtype of a sample.
    parts
        Of each shard, an array of numbers, texts, or encoded pictures.

    Raises
    ------
    DomainShapeError, DomainValueError
        Values that are no such samples.
    """
    if spec.is_text and not isinstance(parts[0], np.ndarray):
        return text_bytes(where, _joined(parts), spec.shape[0])
    if spec.kind == "image" and not isinstance(parts[0], np.ndarray):
        encoded = _joined(parts)
        return _picture_column(where, spec, len(encoded), lambda row: encoded[row])
    arrays = [_sample_array(where, spec, part) for part in parts]
    if sum(array.nbytes for array in arrays) <= EAGER_BYTES:
        whole = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        return _values(where, spec, whole, np.arange(len(whole)))
    ends = np.cumsum([len(array) for array in arrays])

    def read(rows_N: AnyArray) -> AnyArray:
        out = np.empty((len(rows_N), *spec.shape), arrays[0].dtype)
        part_N = np.searchsorted(ends, rows_N, side="right")
        for index, array in enumerate(arrays):
            here = part_N == index
            out[here] = array[rows_N[here] - (ends[index] - len(array))]
        return _values(where, spec, out, rows_N)

    return Lazy(read, np.arange(ends[-1]), spec.shape, np.dtype(spec.dtype))


def file_column(where: str, spec: InputSpec, root: Path, folder: Path, paths: Any) -> Column:
    """A stream whose samples are files: pictures, or texts.

    ``paths`` start from ``folder`` and may not leave ``root``, the domain folder's own.
    """
    files = []
    for row, name in enumerate(paths):
        path = folder / name if isinstance(name, str) else None
        if path is None or not path.resolve().is_relative_to(root.resolve()):
            raise DomainValueError(
                f"{where}: row {row}: got {name!r}, wanted the path of a file below {root}"
            )
        files.append(path)

    def read(row: int) -> bytes:
        try:
            return files[row].read_bytes()
        except OSError as error:
            raise DomainValueError(f"{where}: row {row}: {error}, wanted a file") from error

    if spec.is_text:
        return text_bytes(where, [read(row) for row in range(len(files))], spec.shape[0])
    if spec.kind == "image":
        return _picture_column(where, spec, len(files), read)
    raise DomainShapeError(f"{where}: got paths of {spec.kind} samples, wanted images or text")


def text_bytes(where: str, texts: Sequence[Any], length: int) -> AnyArray:
    """Texts as their UTF-8 bytes with zeros behind them, (N, length) of uint8.

    A longer text is cut between two characters. Raises DomainValueError for what is no text or no
    UTF-8.
    """
    rows = np.zeros((len(texts), length), np.uint8)
    for row, text in enumerate(texts):
        try:
            encoded = text.encode("utf-8") if isinstance(text, str) else bytes(text)
            encoded.decode("utf-8")
        except UnicodeError as error:
            raise DomainValueError(f"{where}: row {row}: got {error}, wanted UTF-8") from error
        except TypeError as error:
            raise DomainValueError(f"{where}: row {row}: got {text!r:.40}, wanted text") from error
        if len(encoded) > length:
            encoded = encoded[:length].decode("utf-8", "ignore").encode("utf-8")
        rows[row, : len(encoded)] = np.frombuffer(encoded, np.uint8)
    return rows


def texts_of(bytes_NT: AnyArray) -> list[str]:
    """The texts of rows of UTF-8 bytes, as ``text_bytes`` gives them."""
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "replace") for row in bytes_NT]


def decode_picture(where: str, encoded: Any, shape: tuple[int, ...]) -> AnyArray:
    """An encoded picture as uint8 (channels, height, width), turned as its camera says, cut to the
    shape's proportions about its centre and resized.

    Raises DomainValueError where it does not decode.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise missing_extra("pillow", "images") from error
    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if math.prod(opened.size) > _LARGEST_PICTURE:
                raise ValueError(f"{opened.size[0]} x {opened.size[1]} pixels")
            side = max(height, width)  # whichever side the camera turned
            opened.draft("RGB", (side, side))  # a JPEG is decoded no larger than is needed
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # 16 bits a pixel, which a conversion would cut at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
            picture = upright.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
            if picture.size != (width, height):
                picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
            return np.asarray(picture, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    # A damaged file may fail in any of Pillow's decoders, in any way.
    except Exception as error:
        raise DomainValueError(f"{where}: got {error}, wanted a picture that decodes") from error


def output_column(where: str, spec: OutputSpec, parts: Sequence[Any]) -> AnyArray:
    """An output's values: classes (N,) int64; labels (N, C) of 0 and 1, or amounts (N, C), float32.

    Classes may be indices or names; labels rows of 0 and 1, or lists of names. Raises
    DomainShapeError or DomainClassError.
    """
    values = _joined(parts)
    if not isinstance(values, np.ndarray):
        values = _by_name(where, spec, values)
    if spec.kind == "classes":
        return _classes(where, values, len(spec.classes))
    width = len(spec.classes)
    if values.ndim == 1 and width == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != width or values.dtype.kind not in "fiub":
        raise DomainShapeError(
            f"{where}: got {values.dtype} of shape {values.shape}, wanted numbers (N, {width})"
        )
    y_NC: AnyArray = values.astype(np.float32)
    if spec.kind == "labels":
        sound_N = ((y_NC == 0) | (y_NC == 1)).all(1)
    else:
        sound_N = np.isfinite(y_NC).all(1)
    if not sound_N.all():
        row = int(np.argmin(sound_N))
        wanted = "0 or 1 for each label" if spec.kind == "labels" else "finite numbers"
        raise DomainClassError(f"{where}: row {row}: got {values[row].tolist()}, wanted {wanted}")
    return y_NC


def _classes(where: str, values: AnyArray, num_classes: int) -> AnyArray:
    y_N = integers(where, values)
    outside = np.flatnonzero((y_N < 0) | (y_N >= num_classes))
    if len(outside):
        raise DomainClassError(
            f"{where}: row {outside[0]}: got label {y_N[outside[0]]}, wanted 0 to {num_classes - 1}"
        )
    num_present = len(np.unique(y_N))
    if num_present < 2:
        raise DomainClassError(f"{where}: got {num_present} class, wanted at least 2")
    return y_N


def integers(where: str, array: Any) -> AnyArray:
    """Integers (N,) as int64; raises DomainShapeError for anything else."""
    given: AnyArray = np.asarray(array)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise DomainShapeError(
            f"{where}: got {given.dtype} of shape {given.shape}, wanted integers (N,)"
        )
    return given.astype(np.int64)


def _by_name(where: str, spec: OutputSpec, values: Sequence[Any]) -> AnyArray:
    index = {name: number for number, name in enumerate(spec.classes)}
    try:
        if spec.kind == "classes":
            return np.array([index[value] for value in values], np.int64)
        rows = np.zeros((len(values), len(index)), np.int64)
        for row, names in enumerate(values):
            rows[row, [index[name] for name in names]] = 1
        return rows
    except (KeyError, TypeError) as error:
        raise DomainClassError(
            f"{where}: got {error}, wanted one of {list(spec.classes)}"
        ) from error


def _joined(parts: Sequence[Any]) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    return [value for part in parts for value in part]


def _sample_array(where: str, spec: InputSpec, part: Any) -> AnyArray:
    """An array of samples (N, *shape), its values still unchecked."""
    array = part if isinstance(part, np.ndarray) else np.array(part, object)
    if array.dtype.kind == "O":
        kind = type(array.flat[0]).__name__
        raise DomainShapeError(
            f"{where}: got {kind} values or rows of unlike lengths, wanted rows of {spec.shape}"
        )
    if array.shape[1:] != spec.shape and array.shape[1:] == (math.prod(spec.shape),):
        array = array.reshape(-1, *spec.shape)  # a table's cell is one flat list
    if array.shape[1:] != spec.shape:
        raise DomainShapeError(f"{where}: got rows of shape {array.shape[1:]}, wanted {spec.shape}")
    if array.dtype.kind not in _NUMBERS[spec.dtype]:
        wanted = "floats or integers" if spec.dtype == "float32" else "integers"
        raise DomainShapeError(f"{where}: got dtype {array.dtype}, wanted {wanted}")
    return array


def _values(where: str, spec: InputSpec, x: AnyArray, rows_N: AnyArray) -> AnyArray:
    """The samples in the stream's dtype; raises DomainValueError where one would be changed."""
    if spec.dtype == "float32":
        if x.dtype.kind in "iu" and x.size and (
            x.max() > _LARGEST_EXACT or x.min() < -_LARGEST_EXACT
        ):  # fmt: skip
            raise DomainValueError(
                f"{where}: got an integer beyond {_LARGEST_EXACT}, "
                "wanted what float32 holds exactly"
            )
        with np.errstate(over="ignore"):  # a float64 too large for float32 is found below
            converted: AnyArray = x.astype(np.float32, copy=False)
        sound_N, wanted = np.isfinite(converted).reshape(len(x), -1).all(1), "finite float32"
        got = "NaN or infinity"
    else:
        most = 255 if spec.dtype == "uint8" else np.iinfo(np.int64).max
        sound_N = ((x >= 0) & (x <= most)).reshape(len(x), -1).all(1)
        converted, got, wanted = (
            x.astype(spec.dtype, copy=False),
            "a number outside",
            f"0 to {most}",
        )
    if not sound_N.all():
        row = int(rows_N[np.argmin(sound_N)])
        raise DomainValueError(f"{where}: row {row}: got {got}, wanted {wanted}")
    return converted


def _picture_column(
    where: str, spec: InputSpec, num_rows: int, encoded: Callable[[int], Any]
) -> Column:
    """Pictures, decoded at once where they take little memory, and when they are indexed else."""
    if spec.dtype != "uint8":
        raise DomainShapeError(f"{where}: got encoded pictures, wanted an array of {spec.dtype}")

    def read(rows_N: AnyArray) -> AnyArray:
        out = np.empty((len(rows_N), *spec.shape), np.uint8)
        for index, row in enumerate(rows_N.tolist()):
            out[index] = decode_picture(f"{where}: row {row}", encoded(row), spec.shape)
        return out

    column = Lazy(read, np.arange(num_rows), spec.shape, np.dtype(np.uint8))
    return column[:] if num_rows * math.prod(spec.shape) <= EAGER_BYTES else column
