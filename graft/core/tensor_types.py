"""Types and shapes of the tensors that a payload holds."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graft.core.records import BFLOAT16, FloatArray
from graft.errors import PayloadLimitError

Shapes = Mapping[str, tuple[int, ...]]
StoredArray = npt.NDArray[Any]


# Types by their names in safetensors, as numpy stores them (bfloat16 as its bits). The order is
# that of a payload's tensors, in which every tensor is aligned: 8, 4, 2, then 1 byte a value.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    name: np.dtype(stored)
    for name, stored in {
        "I64": "<i8", "I32": "<i4", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
        "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
    }.items()
}  # fmt: skip


# The types that a base approximates; tensors of the others are whole in it.
FLOAT_DTYPES: Final = ("F32", "F16", "BF16")
_ORDER: Final = {name: index for index, name in enumerate(DTYPES)}
_NAMES: Final = {
    BFLOAT16: "BF16",
    **{dtype: name for name, dtype in DTYPES.items() if name != "BF16"},
}


class Shape(tuple[int, ...]):
    """A tensor's shape with the name of its type; a plain tuple is that of a float32 tensor."""

    dtype: str

    def __new__(cls, sizes: Iterable[int], dtype: str) -> "Shape":
        self = super().__new__(cls, sizes)
        self.dtype = dtype
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.dtype

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and dtype_name(other) == self.dtype  # type: ignore[arg-type]

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        return f"{tuple(self)} {self.dtype}"


def dtype_name(shape: tuple[int, ...]) -> str:
    """The type of a tensor, as safetensors names it."""
    return getattr(shape, "dtype", "F32")


def shape_of(array: StoredArray) -> tuple[int, ...]:
    """An array's shape and type; raises PayloadLimitError for a type that no payload holds."""
    dtype = array.dtype.newbyteorder("=")
    if dtype == np.float32:
        return array.shape
    if dtype not in _NAMES:
        raise PayloadLimitError(f"tensor: got {array.dtype}, wanted one of {', '.join(DTYPES)}")
    return Shape(array.shape, _NAMES[dtype])


def in_order(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The tensors in the order of a payload."""
    names = sorted(shapes, key=lambda name: (_ORDER[dtype_name(shapes[name])], name))
    return {name: shapes[name] for name in names}


def to_float(stored: StoredArray, dtype: str) -> FloatArray:
    """Stored values of a float type as float32, exactly."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def from_float(values: FloatArray, dtype: str) -> StoredArray:
    """float32 values as they are stored, rounded to the nearest value of the type."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return values.astype(DTYPES[dtype], copy=False)


def num_elements(shape: tuple[int, ...]) -> int:
    """The number of values in a tensor of this shape; 1 for a scalar."""
    return math.prod(shape)


def num_values(shapes: Shapes) -> int:
    """The number of values in all tensors."""
    return sum(map(num_elements, shapes.values()))


def tensor_bytes(shape: tuple[int, ...]) -> int:
    """The bytes of a tensor's values."""
    return DTYPES[dtype_name(shape)].itemsize * num_elements(shape)


def data_bytes(shapes: Shapes) -> int:
    """The bytes of all tensors' values."""
    return sum(map(tensor_bytes, shapes.values()))
