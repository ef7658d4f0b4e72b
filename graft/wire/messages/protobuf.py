"""Each record as its protobuf message and back; arrays as little-endian bytes.

Reading refuses what cannot be laid out as an array; all other rules are in ``checks``.
Legend: C classes, D statistics, F features.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from graft.core.records import (
    BoolArray,
    Candidate,
    DomainProfile,
    Failure,
    FloatArray,
    FusionDiagnostics,
    ModelCard,
    RejectedSource,
    Selection,
    TrainResult,
)
from graft.errors import MessageError
from graft.wire.stubs import messages_pb2 as pb

_MODEL_ID_BYTES: Final = 32


def profile_message(profile: DomainProfile) -> pb.DomainProfile:
    counts_C = profile.class_counts_C
    return pb.DomainProfile(
        domain_id=profile.domain_id,
        task=profile.task,
        num_samples=profile.num_samples,
        statistics=_float_bytes(profile.statistics_D),
        class_counts=None if counts_C is None else pb.Counts(values=counts_C.tolist()),
    )


def profile_record(message: pb.DomainProfile) -> DomainProfile:
    counts_C = None
    if message.HasField("class_counts"):
        values = list(message.class_counts.values)
        if max(values, default=0) >= 2**63:
            raise MessageError(f"class counts: got {max(values)}, wanted below 2**63")
        counts_C = np.array(values, dtype=np.int64)
    return DomainProfile(
        domain_id=message.domain_id,
        task=message.task,
        num_samples=message.num_samples,
        statistics_D=_float_array("statistics", message.statistics, None),
        class_counts_C=counts_C,
    )


def card_message(card: ModelCard) -> pb.ModelCard:
    mask_bytes = np.packbits(card.class_mask_C, bitorder="little").tobytes()
    return pb.ModelCard(
        model_id=bytes.fromhex(card.model_id),
        domain_id=card.domain_id,
        architecture=card.architecture,
        payload_bytes=card.payload_bytes,
        base_bytes=card.base_bytes,
        residual_bytes=card.residual_bytes,
        class_mask=pb.BitSet(size=card.class_mask_C.size, data=mask_bytes),
        round_index=card.round_index,
        parents=[bytes.fromhex(parent) for parent in card.parents],
        profile=None if card.profile is None else profile_message(card.profile),
        centroids=_matrix_message(card.centroids_CF),
        signature=card.signature,
    )


def card_record(message: pb.ModelCard) -> ModelCard:
    has_centroids = message.HasField("centroids")
    return ModelCard(
        model_id=_hex_id(message.model_id),
        domain_id=message.domain_id,
        architecture=message.architecture,
        payload_bytes=message.payload_bytes,
        base_bytes=message.base_bytes,
        residual_bytes=message.residual_bytes,
        class_mask_C=_mask(message.class_mask),
        round_index=message.round_index,
        parents=tuple(map(_hex_id, message.parents)),
        profile=profile_record(message.profile) if message.HasField("profile") else None,
        centroids_CF=_matrix("centroids", message.centroids) if has_centroids else None,
        signature=message.signature,
    )


def selection_message(selection: Selection) -> pb.Selection:
    candidates = [
        pb.Candidate(
            model_id=bytes.fromhex(candidate.model_id),
            coarse_distance=candidate.coarse_distance,
            joint_score=candidate.joint_score,
        )
        for candidate in selection.candidates
    ]
    chosen = [bytes.fromhex(model_id) for model_id in selection.chosen]
    return pb.Selection(
        domain_id=selection.domain_id,
        candidates=candidates,
        chosen=chosen,
        rejected=_rejection_messages(selection.rejected),
    )


def selection_record(message: pb.Selection) -> Selection:
    candidates = tuple(
        Candidate(
            model_id=_hex_id(candidate.model_id),
            coarse_distance=candidate.coarse_distance,
            joint_score=candidate.joint_score if candidate.HasField("joint_score") else None,
        )
        for candidate in message.candidates
    )
    chosen = tuple(map(_hex_id, message.chosen))
    return Selection(
        domain_id=message.domain_id,
        candidates=candidates,
        chosen=chosen,
        rejected=_rejection_records(message.domain_id, message.rejected),
    )


def report_message(report: TrainResult) -> pb.TrainResult:
    return pb.TrainResult(
        domain_id=report.domain_id,
        round_index=report.round_index,
        method=report.method,
        architecture=report.architecture,
        device_class=report.device_class,
        source_domains=report.source_domains,
        metrics={name: float(value) for name, value in report.metrics.items()},
        compute_s=report.compute_s,
        peak_memory_bytes=report.peak_memory_bytes,
        card=None if report.card is None else card_message(report.card),
        rejected=_rejection_messages(report.rejected),
        diagnostics=None if report.diagnostics is None else _trace_message(report.diagnostics),
    )


def report_record(message: pb.TrainResult) -> TrainResult:
    return TrainResult(
        domain_id=message.domain_id,
        round_index=message.round_index,
        method=message.method,
        architecture=message.architecture,
        device_class=message.device_class,
        source_domains=tuple(message.source_domains),
        metrics=dict(sorted(message.metrics.items())),
        compute_s=message.compute_s,
        peak_memory_bytes=message.peak_memory_bytes,
        card=card_record(message.card) if message.HasField("card") else None,
        rejected=_rejection_records(message.domain_id, message.rejected),
        diagnostics=_trace_record(message.diagnostics) if message.HasField("diagnostics") else None,
    )


def _trace_message(diagnostics: FusionDiagnostics) -> pb.FusionDiagnostics:
    return pb.FusionDiagnostics(
        mixture=_matrix_message(diagnostics.mixture_SQ),
        dictionary=_matrix_message(diagnostics.dictionary_E4),
    )


def _trace_record(message: pb.FusionDiagnostics) -> FusionDiagnostics:
    has_dictionary = message.HasField("dictionary")
    return FusionDiagnostics(
        mixture_SQ=_matrix("mixture", message.mixture),
        dictionary_E4=_matrix("dictionary", message.dictionary) if has_dictionary else None,
    )


def _rejection_messages(rejections: Iterable[RejectedSource]) -> list[pb.RejectedSource]:
    return [
        pb.RejectedSource(
            model_id=bytes.fromhex(d.model_id), domain_id=d.domain_id, reason=d.reason
        )
        for d in rejections
    ]


def _rejection_records(
    by: str, messages: Iterable[pb.RejectedSource]
) -> tuple[RejectedSource, ...]:
    return tuple(
        RejectedSource(by=by, domain_id=m.domain_id, model_id=_hex_id(m.model_id), reason=m.reason)
        for m in messages
    )


def failure_record(message: pb.Failure) -> Failure:
    return Failure(
        domain_id=message.domain_id,
        round_index=message.round_index,
        method=message.method,
        error=message.error,
        message=message.message,
    )


def _hex_id(raw: bytes) -> str:
    if len(raw) != _MODEL_ID_BYTES:
        raise MessageError(f"model id: got {len(raw)} bytes, wanted {_MODEL_ID_BYTES}")
    return raw.hex()


def _mask(message: pb.BitSet) -> BoolArray:
    if len(message.data) != (message.size + 7) // 8:
        raise MessageError(f"class mask: {len(message.data)} bytes for {message.size} classes")
    bits = np.unpackbits(np.frombuffer(message.data, np.uint8), bitorder="little")
    if bits[message.size :].any():
        raise MessageError(f"class mask: bits set behind its {message.size} classes")
    return bits[: message.size].astype(np.bool_)


def _matrix_message(array: FloatArray | None) -> pb.FloatMatrix | None:
    if array is None:
        return None
    rows, columns = array.shape
    return pb.FloatMatrix(rows=rows, columns=columns, data=_float_bytes(array))


def _matrix(what: str, message: pb.FloatMatrix) -> FloatArray:
    values = _float_array(what, message.data, message.rows * message.columns)
    return values.reshape(message.rows, message.columns)


def _float_bytes(array: FloatArray) -> bytes:
    return array.astype("<f4", copy=False).tobytes()


def _float_array(what: str, data: bytes, wanted: int | None) -> FloatArray:
    size, rest = divmod(len(data), 4)
    if rest or (wanted is not None and size != wanted):
        raise MessageError(f"{what}: got {len(data)} bytes, wanted 4 a value for {wanted} values")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
