"""Records as the protobuf messages of the same names, and back.

A record's field is the message's field of the same name, without the shape that ends it. Reading
refuses what cannot be laid out as an array; all other rules are in ``checks``.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

from graft.core import exchange, records
from graft.core.records import BoolArray, FloatArray, IntArray, RejectedSource
from graft.errors import MessageError
from graft.wire.stubs import messages_pb2 as pb

_MODEL_ID_BYTES: Final = 32
_SHAPE_SUFFIX: Final = re.compile(r"_[A-Z][A-Z0-9]*$")

# Messages have the names of their records.
_RECORDS = {**vars(records), **vars(exchange)}


class _Field(NamedTuple):
    """How a record's field ``name`` crosses: as the message's field ``key``."""

    name: str
    key: str
    write: Callable[[Any], Any]
    read: Callable[..., Any]
    optional: bool
    nested: bool


def message_of(record: object) -> Any:
    """The message of a record."""
    kind: Any = type(record)
    values: dict[str, Any] = {}
    for field in _layout(kind):
        if (value := getattr(record, field.name)) is not None:
            values[field.key] = field.write(value)
    return getattr(pb, kind.__name__)(**values)


def record_of(message: Any, by: str = "") -> Any:
    """The record of a message; raises MessageError for bytes that are no array.

    ``by``: the domain that answers, which the rejections in its answer do not repeat.
    """
    record_type = _RECORDS[type(message).__name__]
    values: dict[str, Any] = {"by": by} if record_type is RejectedSource else {}
    for field in _layout(record_type):
        if field.optional and not message.HasField(field.key):
            values[field.name] = None
        elif field.nested:
            values[field.name] = field.read(getattr(message, field.key), message.domain_id)
        else:
            values[field.name] = field.read(getattr(message, field.key))
    return record_type(**values)


@cache
def _layout(record_type: type) -> tuple[_Field, ...]:
    """The fields of a record that its message has."""
    hints = get_type_hints(record_type)
    wire_fields = getattr(pb, record_type.__name__).DESCRIPTOR.fields_by_name
    layout = []
    for name in (field.name for field in fields(record_type)):
        key = _SHAPE_SUFFIX.sub("", name)
        if (wire_field := wire_fields.get(key)) is None:
            continue
        repeated = get_origin(hints[name]) is tuple
        nested = getattr(wire_field.message_type, "name", "") in _RECORDS
        write: Callable[[Any], Any] = _messages_of if repeated else message_of
        read: Callable[..., Any] = _records_of if repeated else record_of
        if not nested:
            plain = list if repeated else _as_it_is, tuple if repeated else _as_it_is
            write, read = _FORMS.get(name, plain)
        layout.append(_Field(name, key, write, read, type(None) in get_args(hints[name]), nested))
    return tuple(layout)


def _messages_of(several: tuple[Any, ...]) -> list[Any]:
    return list(map(message_of, several))


def _records_of(messages: Any, by: str) -> tuple[Any, ...]:
    return tuple(record_of(message, by) for message in messages)


def _as_it_is(value: Any) -> Any:
    return value


def _hex_id(raw: bytes) -> str:
    if len(raw) != _MODEL_ID_BYTES:
        raise MessageError(f"model id: got {len(raw)} bytes, wanted {_MODEL_ID_BYTES}")
    return raw.hex()


def _counts(message: pb.Counts) -> IntArray:
    if max(message.values, default=0) >= 2**63:
        raise MessageError(f"class counts: got {max(message.values)}, wanted below 2**63")
    return np.array(message.values, dtype=np.int64)


def _mask_message(mask: BoolArray) -> pb.BitSet:
    return pb.BitSet(size=mask.size, data=np.packbits(mask, bitorder="little").tobytes())


def _mask(message: pb.BitSet) -> BoolArray:
    if len(message.data) != (message.size + 7) // 8:
        raise MessageError(f"class mask: {len(message.data)} bytes for {message.size} classes")
    bits = np.unpackbits(np.frombuffer(message.data, np.uint8), bitorder="little")
    if bits[message.size :].any():
        raise MessageError(f"class mask: bits set behind its {message.size} classes")
    return bits[: message.size].astype(np.bool_)


def _matrix_message(array: FloatArray) -> pb.FloatMatrix:
    rows, columns = array.shape
    return pb.FloatMatrix(rows=rows, columns=columns, data=_float_bytes(array))


def _matrix(what: str, message: pb.FloatMatrix) -> FloatArray:
    values = _float_array(what, message.data, message.rows * message.columns)
    return values.reshape(message.rows, message.columns)


def _float_bytes(array: FloatArray) -> bytes:
    return array.astype("<f4", copy=False).tobytes()


def _float_array(what: str, data: bytes, wanted: int | None = None) -> FloatArray:
    size, rest = divmod(len(data), 4)
    if rest or (wanted is not None and size != wanted):
        raise MessageError(f"{what}: got {len(data)} bytes, wanted 4 a value for {wanted} values")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _hex_ids(raws: Any) -> tuple[str, ...]:
    return tuple(map(_hex_id, raws))


def _raw_ids(model_ids: tuple[str, ...]) -> list[bytes]:
    return list(map(bytes.fromhex, model_ids))


# What does not cross as it is: to the message's value, and back.
_FORMS: Final[dict[str, tuple[Callable[[Any], Any], Callable[..., Any]]]] = {
    "model_id": (bytes.fromhex, _hex_id),
    "parents": (_raw_ids, _hex_ids),
    "chosen": (_raw_ids, _hex_ids),
    "metrics": (
        lambda each: {n: float(each[n]) for n in each},
        lambda each: dict(sorted(each.items())),
    ),
    "class_mask_C": (_mask_message, _mask),
    "class_counts_C": (lambda counts: pb.Counts(values=counts.tolist()), _counts),
    "statistics_D": (_float_bytes, partial(_float_array, "statistics")),
    "centroids_CF": (_matrix_message, partial(_matrix, "centroids")),
    "mixture_SQ": (_matrix_message, partial(_matrix, "mixture")),
    "dictionary_E4": (_matrix_message, partial(_matrix, "dictionary")),
}
