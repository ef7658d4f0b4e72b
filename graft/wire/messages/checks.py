"""What a record must satisfy to cross the network, checked before encoding and after decoding.

Legend: C classes, D statistics, F features.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from graft.core.ranges import check_metrics, check_ranges
from graft.core.records import (
    DOMAIN_ID,
    Candidate,
    DomainProfile,
    Failure,
    FloatArray,
    FusionDiagnostics,
    ModelCard,
    ProbeRequest,
    ProfileRequest,
    RejectedSource,
    Request,
    Response,
    Selection,
    TrainResult,
)
from graft.errors import MessageError

MAX_CLASSES: Final = 65_536
MAX_STATISTICS: Final = 1_048_576
MAX_LISTED: Final = 65_536
MAX_NAME_LENGTH: Final = 256
MAX_TEXT_LENGTH: Final = 16_384
MAX_SIGNATURE_BYTES: Final = 1_024
MAX_EPOCHS_REPORTED: Final = 32

_MODEL_ID: Final = re.compile(r"[0-9a-f]{64}")


def is_model_id(text: str) -> bool:
    """Whether ``text`` is 64 lowercase hex digits."""
    return _MODEL_ID.fullmatch(text) is not None


def check_domain_id(domain_id: str) -> None:
    """Raises MessageError unless the id is 1 to 128 of letters, digits and ``._@-``."""
    if not isinstance(domain_id, str) or DOMAIN_ID.fullmatch(domain_id) is None:
        raise MessageError(f"domain id {domain_id!r:.60}: wanted {DOMAIN_ID.pattern}")


def check_request(request: Request) -> None:
    """Raises MessageError for a request that may not travel."""
    check_domain_id(request.domain_id)
    check_ranges(request)
    if isinstance(request, ProfileRequest):
        return
    _check_name("method", request.method)
    cards = (
        request.candidates
        if isinstance(request, ProbeRequest)
        else (*request.sources, *request.architecture_averages)
    )
    _check_count("cards", len(cards))
    for card in cards:
        check_card(card)
    if isinstance(request, ProbeRequest) and len(request.coarse_distances) != len(cards):
        raise MessageError(
            f"coarse distances: got {len(request.coarse_distances)}, wanted {len(cards)}"
        )


def check_response(response: Response) -> None:
    """Raises MessageError for an answer that may not travel."""
    check_domain_id(response.domain_id)
    if isinstance(response, DomainProfile):
        _check_profile(response)
    elif isinstance(response, Selection):
        _check_count("candidates", len(response.candidates))
        _check_count("chosen", len(response.chosen))
        for candidate in response.candidates:
            _check_candidate(candidate)
        for model_id in response.chosen:
            _check_model_id(model_id)
        _check_rejections(response.rejected)
    elif isinstance(response, TrainResult):
        _check_report(response)
    else:
        _check_failure(response)


def _check_profile(profile: DomainProfile) -> None:
    check_domain_id(profile.domain_id)
    check_ranges(profile)
    _check_name("task", profile.task)
    _check_array("statistics", profile.statistics_D, 1)
    if profile.statistics_D.size > MAX_STATISTICS:
        raise MessageError(f"statistics: got {profile.statistics_D.size}, limit {MAX_STATISTICS}")
    counts_C = profile.class_counts_C
    if counts_C is None:
        return
    if counts_C.ndim != 1 or counts_C.dtype != np.int64 or not 1 <= counts_C.size <= MAX_CLASSES:
        raise MessageError(f"class counts: got {counts_C.dtype} of shape {counts_C.shape}")


def check_card(card: ModelCard) -> None:
    """Raises MessageError for a card that may not travel or be kept."""
    _check_model_id(card.model_id)
    check_domain_id(card.domain_id)
    _check_name("architecture", card.architecture)
    check_ranges(card)
    mask_C = card.class_mask_C
    if mask_C.ndim != 1 or mask_C.dtype != np.bool_ or not 1 <= mask_C.size <= MAX_CLASSES:
        raise MessageError(f"class mask: got {mask_C.dtype} of shape {mask_C.shape}")
    _check_count("parents", len(card.parents))
    for parent in card.parents:
        _check_model_id(parent)
    if card.profile is not None:
        _check_profile(card.profile)
    if card.centroids_CF is not None:
        _check_array("centroids", card.centroids_CF, 2)
        if card.centroids_CF.shape[0] != mask_C.size:
            raise MessageError(
                f"centroids: got shape {card.centroids_CF.shape}, wanted {mask_C.size} rows"
            )
    if not isinstance(card.signature, bytes) or len(card.signature) > MAX_SIGNATURE_BYTES:
        raise MessageError(f"signature: wanted at most {MAX_SIGNATURE_BYTES} bytes")


def _check_candidate(candidate: Candidate) -> None:
    _check_model_id(candidate.model_id)
    check_ranges(candidate)


def _check_report(report: TrainResult) -> None:
    check_ranges(report)
    _check_name("method", report.method)
    _check_name("architecture", report.architecture)
    _check_name("device class", report.device_class)
    _check_count("source domains", len(report.source_domains))
    for domain_id in report.source_domains:
        check_domain_id(domain_id)
    _check_count("metrics", len(report.metrics))
    for name in report.metrics:
        _check_name("metric", name)
    check_metrics(report.metrics)
    if report.card is not None:
        check_card(report.card)
    _check_rejections(report.rejected)
    if report.diagnostics is not None:
        _check_trace(report.diagnostics, len(report.source_domains))


def _check_trace(diagnostics: FusionDiagnostics, num_sources: int) -> None:
    _check_array("mixture", diagnostics.mixture_SQ, 2)
    if diagnostics.mixture_SQ.shape != (num_sources, 6):
        raise MessageError(
            f"mixture: got shape {diagnostics.mixture_SQ.shape}, wanted ({num_sources}, 6)"
        )
    shares = [diagnostics.mixture_SQ]
    if diagnostics.dictionary_E4 is not None:
        _check_array("dictionary", diagnostics.dictionary_E4, 2)
        epochs, columns = diagnostics.dictionary_E4.shape
        if columns != 4 or epochs > MAX_EPOCHS_REPORTED:
            raise MessageError(
                f"dictionary: got shape {(epochs, columns)}, wanted at most "
                f"({MAX_EPOCHS_REPORTED}, 4)"
            )
        if diagnostics.dictionary_E4[:, 0].min() < 0:
            raise MessageError("dictionary: got an epoch below 0")
        shares.append(diagnostics.dictionary_E4[:, 1:])
    for part in shares:
        if part.min() < 0 or part.max() > 1:
            raise MessageError(f"fusion trace: got {part.min()} to {part.max()}, wanted 0 to 1")


def _check_rejections(rejections: Sequence[RejectedSource]) -> None:
    _check_count("demotions", len(rejections))
    for rejection in rejections:
        _check_model_id(rejection.model_id)
        check_domain_id(rejection.domain_id)
        _check_name("reason", rejection.reason)


def _check_failure(failure: Failure) -> None:
    check_ranges(failure)
    _check_name("method", failure.method)
    _check_name("error", failure.error)
    if len(failure.message) > MAX_TEXT_LENGTH:
        raise MessageError(f"failure message: {len(failure.message)} characters")


def _check_model_id(model_id: str) -> None:
    if not isinstance(model_id, str) or not is_model_id(model_id):
        raise MessageError(f"model id {model_id!r:.80}: wanted 64 lowercase hex digits")


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise MessageError(f"{what} {name!r:.60}: wanted at most {MAX_NAME_LENGTH} printables")


def _check_array(what: str, array: FloatArray, num_axes: int) -> None:
    if array.ndim != num_axes or array.dtype != np.float32:
        raise MessageError(f"{what}: got {array.dtype} with {array.ndim} axes")
    if num_axes > 1 and not array.size:
        raise MessageError(f"{what}: got empty shape {array.shape}")
    if not np.isfinite(array).all():
        raise MessageError(f"{what}: holds NaN or infinity")


def _check_count(what: str, count: int) -> None:
    if count > MAX_LISTED:
        raise MessageError(f"{what}: got {count}, limit {MAX_LISTED}")
