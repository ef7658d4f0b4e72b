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
