"""What a record must satisfy to cross the network, checked before encoding and after decoding.

Legend: C classes, D statistics, E epochs, F features, Q mean and quantiles, S sources.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from typing import Any, Final, get_args, get_type_hints

import numpy as np

from graft.core.exchange import FusionDiagnostics, ProbeRequest, TrainResult
from graft.core.ranges import Range, check_metrics, check_ranges, field_ranges
from graft.core.records import DOMAIN_ID, NAME_RULE, ModelCard
from graft.errors import MessageError

MAX_CLASSES: Final = 65_536
MAX_STATISTICS: Final = 1_048_576
MAX_LISTED: Final = 65_536
MAX_NAME_LENGTH: Final = 256
MAX_TEXT_LENGTH: Final = 16_384
MAX_SIGNATURE_BYTES: Final = 1_024
MAX_EPOCHS_REPORTED: Final = 32

_MODEL_ID: Final = re.compile(r"[0-9a-f]{64}")


def check_record(record: object) -> None:
    """Raises MessageError for a request, an answer or a card that may not travel."""
    check_ranges(record)
    kind: Any = type(record)
    for name, check, optional in _checks_of(kind):
        value = getattr(record, name)
        if value is not None or not optional:
            check(value)
    for record_type, check_whole in _WHOLE.items():
        if isinstance(record, record_type):
            check_whole(record)


def is_model_id(text: str) -> bool:
    """Whether ``text`` is 64 lowercase hex digits."""
    return _MODEL_ID.fullmatch(text) is not None


def check_domain_id(domain_id: str) -> None:
    """Raises MessageError unless the id is one by ``NAME_RULE``."""
    if not isinstance(domain_id, str) or DOMAIN_ID.fullmatch(domain_id) is None:
        raise MessageError(f"domain id {domain_id!r:.60}: wanted {NAME_RULE}")


def _check_model_id(model_id: str) -> None:
    if not isinstance(model_id, str) or not is_model_id(model_id):
        raise MessageError(f"model id {model_id!r:.80}: wanted 64 lowercase hex digits")


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise MessageError(f"{what} {name!r:.60}: wanted at most {MAX_NAME_LENGTH} printables")


def _check_each(what: str, check: Callable[[Any], None], values: Any) -> None:
    if len(values) > MAX_LISTED:
        raise MessageError(f"{what}: got {len(values)}, limit {MAX_LISTED}")
    for value in values:
        check(value)


def _check_array(what: str, num_axes: int, array: Any) -> None:
    if array.ndim != num_axes or array.dtype != np.float32:
        raise MessageError(f"{what}: got {array.dtype} with {array.ndim} axes")
    if num_axes > 1 and not array.size:
        raise MessageError(f"{what}: got empty shape {array.shape}")
    if not np.isfinite(array).all():
        raise MessageError(f"{what}: holds NaN or infinity")
    if num_axes == 1 and array.size > MAX_STATISTICS:
        raise MessageError(f"{what}: got {array.size}, limit {MAX_STATISTICS}")


def _check_classes(what: str, dtype: type, values_C: Any) -> None:
    if values_C.ndim != 1 or values_C.dtype != dtype or not 1 <= values_C.size <= MAX_CLASSES:
        raise MessageError(f"{what}: got {values_C.dtype} of shape {values_C.shape}")


def _check_metrics(metrics: Any) -> None:
    _check_each("metrics", partial(_check_name, "metric"), metrics)
    check_metrics(metrics)


def _check_signature(signature: bytes) -> None:
    if not isinstance(signature, bytes) or len(signature) > MAX_SIGNATURE_BYTES:
        raise MessageError(f"signature: wanted at most {MAX_SIGNATURE_BYTES} bytes")


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT_LENGTH:
        raise MessageError(f"failure message: {len(text)} characters")


def _check_probe(request: ProbeRequest) -> None:
    got, wanted = len(request.coarse_distances), len(request.candidates)
    if got != wanted:
        raise MessageError(f"coarse distances: got {got}, wanted {wanted}")


def _check_card(card: ModelCard) -> None:
    if card.centroids_CF is not None and card.centroids_CF.shape[0] != card.class_mask_C.size:
        raise MessageError(
            f"centroids: got shape {card.centroids_CF.shape}, wanted {card.class_mask_C.size} rows"
        )


def _check_result(result: TrainResult) -> None:
    if result.diagnostics is None:
        return
    shape, num_sources = result.diagnostics.mixture_SQ.shape, len(result.source_domains)
    if shape != (num_sources, 6):
        raise MessageError(f"mixture: got shape {shape}, wanted ({num_sources}, 6)")


def _check_diagnostics(diagnostics: FusionDiagnostics) -> None:
    if (dictionary_E4 := diagnostics.dictionary_E4) is None:
        return
    epochs, columns = dictionary_E4.shape
    if columns != 4 or epochs > MAX_EPOCHS_REPORTED:
        wanted = f"wanted at most ({MAX_EPOCHS_REPORTED}, 4)"
        raise MessageError(f"dictionary: got shape {(epochs, columns)}, {wanted}")
    if dictionary_E4[:, 0].min() < 0:
        raise MessageError("dictionary: got an epoch below 0")
    Range(0, 1).check("dictionary", dictionary_E4[:, 1:])


@cache
def _checks_of(record_type: type) -> tuple[tuple[str, Callable[[Any], None], bool], ...]:
    """Each field's name, its check, and whether it may be None; only a range is check enough."""
    hints = get_type_hints(record_type)
    ranged = {name for name, _, _ in field_ranges(record_type)} - _CHECKS.keys()
    names = [field.name for field in fields(record_type) if field.name not in _UNCHECKED | ranged]
    return tuple((name, _CHECKS[name], type(None) in get_args(hints[name])) for name in names)


# Bools; the answering domain, which is checked itself; and what does not travel.
_UNCHECKED: Final = {
    "register",
    "base_only",
    "by",
    "confirmed",
    "probe_signature",
    "fusion_signature",
}
# One check a field name, whatever the record, beside its range.
_CHECKS: Final[dict[str, Callable[[Any], None]]] = {
    "domain_id": check_domain_id,
    "inputs": partial(_check_each, "inputs", partial(_check_name, "stream")),
    "model_id": _check_model_id,
    "parents": partial(_check_each, "parents", _check_model_id),
    "chosen": partial(_check_each, "chosen", _check_model_id),
    "source_domains": partial(_check_each, "source domains", check_domain_id),
    "candidates": partial(_check_each, "candidates", check_record),
    "sources": partial(_check_each, "sources", check_record),
    "architecture_averages": partial(_check_each, "architecture averages", check_record),
    "rejected": partial(_check_each, "rejections", check_record),
    "card": check_record,
    "model": check_record,
    "allowance": check_record,
    "limits": check_record,
    "left_out": partial(_check_each, "left out", partial(_check_name, "left out")),
    "profile": check_record,
    "diagnostics": check_record,
    **{
        name: partial(_check_name, name.replace("_", " "))
        for name in ["method", "task", "architecture", "device_class", "error", "reason", "output"]
    },
    "classes": partial(_check_each, "classes", partial(_check_name, "class")),
    "message": _check_text,
    "metrics": _check_metrics,
    "statistics_D": partial(_check_array, "statistics", 1),
    "class_counts_C": partial(_check_classes, "class counts", np.int64),
    "class_mask_C": partial(_check_classes, "class mask", np.bool_),
    "centroids_CF": partial(_check_array, "centroids", 2),
    "mixture_SQ": partial(_check_array, "mixture", 2),
    "dictionary_E4": partial(_check_array, "dictionary", 2),
    "signature": _check_signature,
}
# What the fields of one record say about one another.
_WHOLE: Final[dict[type, Callable[[Any], None]]] = {
    ProbeRequest: _check_probe,
    ModelCard: _check_card,
    TrainResult: _check_result,
    FusionDiagnostics: _check_diagnostics,
}
