"""Hypothesis strategies of every record: numbers from the table of ranges, extremes included."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graft.core import ranges
from graft.core.exchange import (
    Failure,
    FusionDiagnostics,
    GrowRequest,
    ProbeRequest,
    ProfileRequest,
    Selection,
    TrainRequest,
    TrainResult,
)
from graft.core.ranges import METRICS, OTHER_METRICS, Range, field_ranges
from graft.core.records import DOMAIN_ID, Candidate, DomainProfile, ModelCard

WANTED_METRICS = ("accuracy", "macro_f1", "num_test", "num_labelled", "num_unlabelled")


def within(hint: Any, **kind: Any) -> st.SearchStrategy[Any]:
    """Numbers of an annotated type of ``ranges``, or of a ``Range``."""
    allowed = hint if isinstance(hint, Range) else hint.__metadata__[0]
    if getattr(hint, "__origin__", float) is int or kind.pop("integers", False):
        whole = int(allowed.low), int(allowed.high)
        return st.integers(*whole) | st.sampled_from(whole)
    ends = float(allowed.low), float(allowed.high)
    return st.floats(*ends, **kind) | st.sampled_from(ends)


domain_ids = st.from_regex(DOMAIN_ID, fullmatch=True)
model_ids = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.text(max_size=40).filter(str.isprintable)
rounds = within(ranges.Index)
sizes = within(ranges.NumBytes)
seconds = within(ranges.Seconds)
distances = within(ranges.Distance)
scores = within(ranges.Score)
statistics = within(ranges.Statistics, width=32)
counts = within(ranges.ClassCounts, integers=True)
shares = within(ranges.Share, width=32)


def vectors(dtype: type, elements: st.SearchStrategy[Any], smallest: int) -> Any:
    return hnp.arrays(dtype, st.integers(smallest, 20), elements=elements)


profiles = st.builds(
    DomainProfile,
    domain_id=domain_ids,
    task=names,
    num_samples=within(ranges.Samples),
    statistics_D=vectors(np.float32, statistics, 0),
    class_counts_C=st.none() | vectors(np.int64, counts, 1),
)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    mask_C = draw(vectors(np.bool_, st.booleans(), 1))
    matrix = hnp.arrays(np.float32, (mask_C.size, draw(st.integers(1, 5))), elements=statistics)
    return ModelCard(
        model_id=draw(model_ids),
        domain_id=draw(domain_ids),
        architecture=draw(names),
        payload_bytes=draw(sizes),
        base_bytes=draw(sizes),
        residual_bytes=draw(sizes),
        class_mask_C=mask_C,
        round_index=draw(rounds),
        parents=draw(st.lists(model_ids, max_size=3).map(tuple)),
        profile=draw(st.none() | profiles),
        centroids_CF=draw(st.none() | matrix),
        signature=draw(st.binary(max_size=64)),
    )


@st.composite
def probe_requests(draw: st.DrawFn) -> ProbeRequest:
    candidates = tuple(draw(st.lists(cards(), max_size=3)))
    return ProbeRequest(
        domain_id=draw(domain_ids),
        round_index=draw(rounds),
        method=draw(names),
        candidates=candidates,
        coarse_distances=tuple(draw(distances) for _ in candidates),
    )


requests = st.one_of(
    st.builds(ProfileRequest, domain_id=domain_ids, round_index=rounds),
    probe_requests(),
    st.builds(
        TrainRequest,
        domain_id=domain_ids,
        round_index=rounds,
        method=names,
        sources=st.lists(cards(), max_size=3).map(tuple),
        register=st.booleans(),
        architecture_averages=st.lists(cards(), max_size=2).map(tuple),
    ),
    st.builds(
        GrowRequest,
        domain_id=domain_ids,
        round_index=rounds,
        method=names,
        model=cards(),
        register=st.booleans(),
        classes=st.lists(names, max_size=3).map(tuple),
    ),
)


# What the server wants of every result, and a few of a method's own.
metrics = st.tuples(
    st.fixed_dictionaries(
        {name: within(METRICS[name]) for name in WANTED_METRICS},
        optional={name: within(METRICS[name]) for name in METRICS if name not in WANTED_METRICS},
    ),
    st.dictionaries(
        names.filter(lambda name: name not in METRICS), within(OTHER_METRICS), max_size=3
    ),
).map(lambda both: both[1] | both[0])


@st.composite
def traced_reports(draw: st.DrawFn) -> TrainResult:
    sources = tuple(draw(st.lists(domain_ids, min_size=1, max_size=3)))
    epochs = (draw(st.integers(1, 32)), 4)
    return TrainResult(
        domain_id=draw(domain_ids),
        round_index=draw(rounds),
        method=draw(names),
        architecture=draw(names),
        device_class=draw(names),
        source_domains=sources,
        metrics=draw(metrics),
        compute_s=draw(seconds),
        peak_memory_bytes=draw(sizes),
        diagnostics=FusionDiagnostics(
            mixture_SQ=draw(hnp.arrays(np.float32, (len(sources), 6), elements=shares)),
            dictionary_E4=draw(st.none() | hnp.arrays(np.float32, epochs, elements=shares)),
        ),
    )


candidates = st.builds(
    Candidate, model_id=model_ids, coarse_distance=distances, joint_score=st.none() | scores
)
selections = st.builds(
    Selection,
    domain_id=domain_ids,
    candidates=st.lists(candidates, max_size=4).map(tuple),
    chosen=st.lists(model_ids, max_size=3).map(tuple),
)
results = st.builds(
    TrainResult,
    domain_id=domain_ids,
    round_index=rounds,
    method=names,
    architecture=names,
    device_class=names,
    source_domains=st.lists(domain_ids, max_size=3).map(tuple),
    metrics=metrics,
    compute_s=seconds,
    peak_memory_bytes=sizes,
    card=st.none() | cards(),
)
failures = st.builds(
    Failure,
    domain_id=domain_ids,
    round_index=rounds,
    method=names,
    error=names,
    message=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)
responses = st.one_of(profiles, selections, results, traced_reports(), failures)


def redrawn(record: Any, rng: np.random.Generator) -> Any:
    """The record with each of its numbers drawn anew from the table of ranges, ends included.

    Hypothesis needs milliseconds to draw a record; a million are drawn so, from some of its own.
    """
    ranges_of = {name: allowed for name, _, allowed in field_ranges(type(record))}
    anew = {}
    for name in (item.name for item in fields(record)):
        value = getattr(record, name)
        if name in ranges_of and value is not None:
            anew[name] = drawn_like(value, ranges_of[name], rng)
        elif isinstance(value, Mapping):
            anew[name] = {
                key: drawn_like(float(each), METRICS.get(key, OTHER_METRICS), rng)
                for key, each in value.items()
            }
        elif is_dataclass(value):
            anew[name] = redrawn(value, rng)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            anew[name] = tuple(redrawn(each, rng) for each in value)
    return replace(record, **anew)


def drawn_like(value: Any, allowed: Range, rng: np.random.Generator) -> Any:
    """A value of the same kind and shape: an end of the range, near zero, or anywhere in it."""
    if isinstance(value, np.ndarray):
        drawn = rng.uniform(allowed.low, allowed.high, value.shape)
        drawn *= 10.0 ** -rng.integers(0, 12, value.shape)
        ends = rng.choice([allowed.low, allowed.high], value.shape)
        chosen = np.where(rng.random(value.shape) < 1 / 3, ends, drawn)
        return chosen.clip(allowed.low, allowed.high).astype(value.dtype)
    if isinstance(value, tuple):
        return tuple(drawn_like(each, allowed, rng) for each in value)
    u = rng.random()
    if u < 1 / 3:
        got = allowed.low if u < 1 / 6 else allowed.high
    else:
        got = (allowed.low + rng.random() * (allowed.high - allowed.low)) * 10 ** -(9 * (u - 1 / 3))
    kind = int if isinstance(value, int) else float
    return kind(min(max(got, allowed.low), allowed.high))
