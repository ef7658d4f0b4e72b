from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FloatMatrix(_message.Message):
    __slots__ = ("rows", "columns", "data")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    data: bytes
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class BitSet(_message.Message):
    __slots__ = ("size", "data")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    size: int
    data: bytes
    def __init__(self, size: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Counts(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class Allowance(_message.Message):
    __slots__ = ("down_bytes", "up_bytes", "device_s", "memory_bytes")
    DOWN_BYTES_FIELD_NUMBER: _ClassVar[int]
    UP_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    down_bytes: int
    up_bytes: int
    device_s: float
    memory_bytes: int
    def __init__(self, down_bytes: _Optional[int] = ..., up_bytes: _Optional[int] = ..., device_s: _Optional[float] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class DomainProfile(_message.Message):
    __slots__ = ("domain_id", "task", "num_samples", "statistics", "class_counts", "inputs", "limits", "num_labelled", "input_sizes")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    CLASS_COUNTS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELLED_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZES_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    task: str
    num_samples: int
    statistics: bytes
    class_counts: Counts
    inputs: _containers.RepeatedScalarFieldContainer[str]
    limits: Allowance
    num_labelled: int
    input_sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, domain_id: _Optional[str] = ..., task: _Optional[str] = ..., num_samples: _Optional[int] = ..., statistics: _Optional[bytes] = ..., class_counts: _Optional[_Union[Counts, _Mapping]] = ..., inputs: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Allowance, _Mapping]] = ..., num_labelled: _Optional[int] = ..., input_sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class ModelCard(_message.Message):
    __slots__ = ("model_id", "domain_id", "architecture", "payload_bytes", "base_bytes", "residual_bytes", "class_mask", "round_index", "parents", "profile", "centroids", "signature")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLASS_MASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CENTROIDS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    model_id: bytes
    domain_id: str
    architecture: str
    payload_bytes: int
    base_bytes: int
    residual_bytes: int
    class_mask: BitSet
    round_index: int
    parents: _containers.RepeatedScalarFieldContainer[bytes]
    profile: DomainProfile
    centroids: FloatMatrix
    signature: bytes
    def __init__(self, model_id: _Optional[bytes] = ..., domain_id: _Optional[str] = ..., architecture: _Optional[str] = ..., payload_bytes: _Optional[int] = ..., base_bytes: _Optional[int] = ..., residual_bytes: _Optional[int] = ..., class_mask: _Optional[_Union[BitSet, _Mapping]] = ..., round_index: _Optional[int] = ..., parents: _Optional[_Iterable[bytes]] = ..., profile: _Optional[_Union[DomainProfile, _Mapping]] = ..., centroids: _Optional[_Union[FloatMatrix, _Mapping]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("model_id", "coarse_distance", "joint_score")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    COARSE_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    JOINT_SCORE_FIELD_NUMBER: _ClassVar[int]
    model_id: bytes
    coarse_distance: float
    joint_score: float
    def __init__(self, model_id: _Optional[bytes] = ..., coarse_distance: _Optional[float] = ..., joint_score: _Optional[float] = ...) -> None: ...

class ProfileRequest(_message.Message):
    __slots__ = ("domain_id", "round_index", "allowance")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCE_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    round_index: int
    allowance: Allowance
    def __init__(self, domain_id: _Optional[str] = ..., round_index: _Optional[int] = ..., allowance: _Optional[_Union[Allowance, _Mapping]] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("domain_id", "round_index", "method", "candidates", "coarse_distances", "allowance")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    COARSE_DISTANCES_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCE_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    round_index: int
    method: str
    candidates: _containers.RepeatedCompositeFieldContainer[ModelCard]
    coarse_distances: _containers.RepeatedScalarFieldContainer[float]
    allowance: Allowance
    def __init__(self, domain_id: _Optional[str] = ..., round_index: _Optional[int] = ..., method: _Optional[str] = ..., candidates: _Optional[_Iterable[_Union[ModelCard, _Mapping]]] = ..., coarse_distances: _Optional[_Iterable[float]] = ..., allowance: _Optional[_Union[Allowance, _Mapping]] = ...) -> None: ...

class TrainRequest(_message.Message):
    __slots__ = ("domain_id", "round_index", "method", "sources", "register", "architecture_averages", "allowance", "base_only", "max_steps")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_AVERAGES_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCE_FIELD_NUMBER: _ClassVar[int]
    BASE_ONLY_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    round_index: int
    method: str
    sources: _containers.RepeatedCompositeFieldContainer[ModelCard]
    register: bool
    architecture_averages: _containers.RepeatedCompositeFieldContainer[ModelCard]
    allowance: Allowance
    base_only: bool
    max_steps: int
    def __init__(self, domain_id: _Optional[str] = ..., round_index: _Optional[int] = ..., method: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[ModelCard, _Mapping]]] = ..., register: _Optional[bool] = ..., architecture_averages: _Optional[_Iterable[_Union[ModelCard, _Mapping]]] = ..., allowance: _Optional[_Union[Allowance, _Mapping]] = ..., base_only: _Optional[bool] = ..., max_steps: _Optional[int] = ...) -> None: ...

class GrowRequest(_message.Message):
    __slots__ = ("domain_id", "round_index", "method", "model", "register", "classes")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    round_index: int
    method: str
    model: ModelCard
    register: bool
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, domain_id: _Optional[str] = ..., round_index: _Optional[int] = ..., method: _Optional[str] = ..., model: _Optional[_Union[ModelCard, _Mapping]] = ..., register: _Optional[bool] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class RejectedSource(_message.Message):
    __slots__ = ("model_id", "domain_id", "reason")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model_id: bytes
    domain_id: str
    reason: str
    def __init__(self, model_id: _Optional[bytes] = ..., domain_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("domain_id", "candidates", "chosen", "rejected")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    chosen: _containers.RepeatedScalarFieldContainer[bytes]
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedSource]
    def __init__(self, domain_id: _Optional[str] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., chosen: _Optional[_Iterable[bytes]] = ..., rejected: _Optional[_Iterable[_Union[RejectedSource, _Mapping]]] = ...) -> None: ...

class FusionDiagnostics(_message.Message):
    __slots__ = ("mixture", "dictionary")
    MIXTURE_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    mixture: FloatMatrix
    dictionary: FloatMatrix
    def __init__(self, mixture: _Optional[_Union[FloatMatrix, _Mapping]] = ..., dictionary: _Optional[_Union[FloatMatrix, _Mapping]] = ...) -> None: ...

class TrainResult(_message.Message):
    __slots__ = ("domain_id", "round_index", "method", "architecture", "device_class", "source_domains", "metrics", "compute_s", "peak_memory_bytes", "card", "rejected", "diagnostics", "left_out")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSTICS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    round_index: int
    method: str
    architecture: str
    device_class: str
    source_domains: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.ScalarMap[str, float]
    compute_s: float
    peak_memory_bytes: int
    card: ModelCard
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedSource]
    diagnostics: FusionDiagnostics
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, domain_id: _Optional[str] = ..., round_index: _Optional[int] = ..., method: _Optional[str] = ..., architecture: _Optional[str] = ..., device_class: _Optional[str] = ..., source_domains: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., compute_s: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., card: _Optional[_Union[ModelCard, _Mapping]] = ..., rejected: _Optional[_Iterable[_Union[RejectedSource, _Mapping]]] = ..., diagnostics: _Optional[_Union[FusionDiagnostics, _Mapping]] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("domain_id", "round_index", "method", "error", "message")
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_INDEX_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    round_index: int
    method: str
    error: str
    message: str
    def __init__(self, domain_id: _Optional[str] = ..., round_index: _Optional[int] = ..., method: _Optional[str] = ..., error: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("domain_id",)
    DOMAIN_ID_FIELD_NUMBER: _ClassVar[int]
    domain_id: str
    def __init__(self, domain_id: _Optional[str] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("phase", "message", "attempt", "payload_bytes", "wire_bytes", "measured_s", "cached", "outcome")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    WIRE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEASURED_S_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    phase: str
    message: str
    attempt: int
    payload_bytes: int
    wire_bytes: int
    measured_s: float
    cached: bool
    outcome: str
    def __init__(self, phase: _Optional[str] = ..., message: _Optional[str] = ..., attempt: _Optional[int] = ..., payload_bytes: _Optional[int] = ..., wire_bytes: _Optional[int] = ..., measured_s: _Optional[float] = ..., cached: _Optional[bool] = ..., outcome: _Optional[str] = ...) -> None: ...

class Transfers(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Transfer]
    def __init__(self, rows: _Optional[_Iterable[_Union[Transfer, _Mapping]]] = ...) -> None: ...

class KeptReply(_message.Message):
    __slots__ = ("response", "transfers")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    response: bytes
    transfers: bytes
    def __init__(self, response: _Optional[bytes] = ..., transfers: _Optional[bytes] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("version", "expires_s", "cards")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    CARDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    expires_s: int
    cards: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, version: _Optional[int] = ..., expires_s: _Optional[int] = ..., cards: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SigningKey(_message.Message):
    __slots__ = ("version", "expires_s", "public_key")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    version: int
    expires_s: int
    public_key: bytes
    def __init__(self, version: _Optional[int] = ..., expires_s: _Optional[int] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("version", "profile_request", "probe_request", "train_request", "domain_profile", "selection", "train_result", "failure", "join_reply", "grow_request")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROFILE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    PROBE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    TRAIN_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_PROFILE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    TRAIN_RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    JOIN_REPLY_FIELD_NUMBER: _ClassVar[int]
    GROW_REQUEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    profile_request: ProfileRequest
    probe_request: ProbeRequest
    train_request: TrainRequest
    domain_profile: DomainProfile
    selection: Selection
    train_result: TrainResult
    failure: Failure
    join_reply: JoinReply
    grow_request: GrowRequest
    def __init__(self, version: _Optional[int] = ..., profile_request: _Optional[_Union[ProfileRequest, _Mapping]] = ..., probe_request: _Optional[_Union[ProbeRequest, _Mapping]] = ..., train_request: _Optional[_Union[TrainRequest, _Mapping]] = ..., domain_profile: _Optional[_Union[DomainProfile, _Mapping]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ..., train_result: _Optional[_Union[TrainResult, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., join_reply: _Optional[_Union[JoinReply, _Mapping]] = ..., grow_request: _Optional[_Union[GrowRequest, _Mapping]] = ...) -> None: ...
