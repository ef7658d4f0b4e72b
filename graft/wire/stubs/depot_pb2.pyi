from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Part(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PART_UNSPECIFIED: _ClassVar[Part]
    PART_BASE: _ClassVar[Part]
    PART_RESIDUAL: _ClassVar[Part]
    PART_EXACT: _ClassVar[Part]
PART_UNSPECIFIED: Part
PART_BASE: Part
PART_RESIDUAL: Part
PART_EXACT: Part

class FetchRequest(_message.Message):
    __slots__ = ("model_id", "part", "offset")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    part: Part
    offset: int
    def __init__(self, model_id: _Optional[str] = ..., part: _Optional[_Union[Part, str]] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class PushHeader(_message.Message):
    __slots__ = ("exact_bytes", "base_bytes", "residual_bytes", "model_id", "offset")
    EXACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    exact_bytes: int
    base_bytes: int
    residual_bytes: int
    model_id: str
    offset: int
    def __init__(self, exact_bytes: _Optional[int] = ..., base_bytes: _Optional[int] = ..., residual_bytes: _Optional[int] = ..., model_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class PushState(_message.Message):
    __slots__ = ("received_bytes", "stored")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    stored: ModelStat
    def __init__(self, received_bytes: _Optional[int] = ..., stored: _Optional[_Union[ModelStat, _Mapping]] = ...) -> None: ...

class PushChunk(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: PushHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[PushHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class StatRequest(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class ModelStat(_message.Message):
    __slots__ = ("model_id", "payload_bytes", "base_bytes", "residual_bytes")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    payload_bytes: int
    base_bytes: int
    residual_bytes: int
    def __init__(self, model_id: _Optional[str] = ..., payload_bytes: _Optional[int] = ..., base_bytes: _Optional[int] = ..., residual_bytes: _Optional[int] = ...) -> None: ...

class AttendHeader(_message.Message):
    __slots__ = ("session", "answered", "answer_bytes", "domain")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    ANSWER_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    session: str
    answered: str
    answer_bytes: int
    domain: str
    def __init__(self, session: _Optional[str] = ..., answered: _Optional[str] = ..., answer_bytes: _Optional[int] = ..., domain: _Optional[str] = ...) -> None: ...

class AttendChunk(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: AttendHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[AttendHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("parts",)
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.ScalarMap[str, bytes]
    def __init__(self, parts: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("order_id", "is_over", "parts")
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    IS_OVER_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    is_over: bool
    parts: _containers.ScalarMap[str, bytes]
    def __init__(self, order_id: _Optional[str] = ..., is_over: _Optional[bool] = ..., parts: _Optional[_Mapping[str, bytes]] = ...) -> None: ...
