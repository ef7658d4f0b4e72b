"""Frozen records that every room shares; no torch, no flwr, no input or output here.

Legend: C classes, D statistics, F features, N samples, S sources.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from graft.core.ranges import (
    ClassCounts,
    Distance,
    Distances,
    Index,
    NumBytes,
    Samples,
    Score,
    Seconds,
    Shares,
    Statistics,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Parameters = Mapping[str, FloatArray]
Modality = Literal["imu", "emg", "audio", "pen", "image", "sequence"]
Precision = Literal["base", "exact"]
# Domain ids travel in messages and become file names: no separators, spaces or controls.
DOMAIN_ID = re.compile(r"[A-Za-z0-9._@-]{1,128}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a model must do: the shape of one sample and the classes to tell apart.

    ``sample_shape`` is (channels, length) for windows and (channels, height, width) for
    images; a label is an index into ``classes``.
    """

    name: str
    modality: Modality
    sample_shape: tuple[int, ...]
    classes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DomainProfile:
    """All that a domain tells about its data: a few kilobytes of statistics.

    Computed on the device; the site's policy is already applied.
    ``class_counts_C`` is None where the policy withholds it.
    """

    domain_id: str
    task: str
    num_samples: Samples
    statistics_D: Statistics
    class_counts_C: ClassCounts | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelCard:
    """What the catalogue knows of one finished model.

    ``model_id`` is the SHA-256 (hex) of the exact safetensors payload. ``base_bytes`` and
    ``residual_bytes`` are the encoded lengths of the two parts that ship; ``payload_bytes``
    that of the exact payload itself. ``class_mask_C`` marks the classes its head knows;
    ``centroids_CF`` are class means in its own feature space, zero rows where the class is
    unknown or withheld. ``profile`` and ``centroids_CF`` are None on cards sent to a device
    that has no use for them.
    """

    model_id: str
    domain_id: str
    architecture: str
    payload_bytes: NumBytes
    base_bytes: NumBytes
    residual_bytes: NumBytes
    class_mask_C: BoolArray
    round_index: Index
    parents: tuple[str, ...] = ()
    profile: DomainProfile | None = None
    centroids_CF: Statistics | None = None
    signature: bytes = b""

    @property
    def shipped_bytes(self) -> int:
        """Bytes that bring the exact model to a device: both progressive parts."""
        return self.base_bytes + self.residual_bytes

    def for_probe(self) -> "ModelCard":
        """The card without its profile, which only the server ranks by."""
        return replace(self, profile=None)

    def for_fusion(self) -> "ModelCard":
        """The card without profile and centroids, once the choice is made."""
        return replace(self, profile=None, centroids_CF=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One source model's two scores for one target domain; ``joint_score`` is None until probed."""

    model_id: str
    coarse_distance: Distance
    joint_score: Score | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedSource:
    """A source that the domain ``by`` found out, and in a word why (``selection.trust``)."""

    by: str
    domain_id: str
    model_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which of the candidates a domain keeps, best first, with every candidate's scores.

    ``rejected`` are candidates that did not stand up to what the domain checked; they have no
    joint score and are not chosen.
    """

    domain_id: str
    candidates: tuple[Candidate, ...]
    chosen: tuple[str, ...]
    rejected: tuple[RejectedSource, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileRequest:
    """Ask a domain for its profile."""

    domain_id: str
    round_index: Index

    @property
    def method(self) -> str:
        """A profile serves every method and is charged to none."""
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRequest:
    """Ask a domain to probe the candidates and keep a few."""

    domain_id: str
    round_index: Index
    method: str
    candidates: tuple[ModelCard, ...]
    coarse_distances: Distances


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """Ask a domain to train its own model with ``method`` from ``sources``.

    ``register``: push the finished model and answer with its card. ``architecture_averages``:
    average models, one an architecture, of which the device takes that of its own.
    """

    domain_id: str
    round_index: Index
    method: str
    sources: tuple[ModelCard, ...]
    register: bool
    architecture_averages: tuple[ModelCard, ...] = ()


Request = ProfileRequest | ProbeRequest | TrainRequest


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FusionDiagnostics:
    """How a fusion went, in a few hundred bytes and without a single sample of its own.

    ``mixture_SQ`` (S, 6): of each source that was used, its weight's mean and 5, 25, 50, 75 and
    95 % quantiles over the domain's samples. ``dictionary_E4`` (at most 32, 4), of a method that
    keeps one: epochs done, share of U held, mean quality of that, and accuracy of the fused
    sources on held-out rows. All but the epochs lie between 0 and 1.
    """

    mixture_SQ: Shares
    dictionary_E4: FloatArray | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainResult:
    """What a domain answers to a TrainRequest.

    ``metrics`` holds numbers only: accuracy and macro_f1 (0 to 1, on the domain's test
    block), num_test, num_labelled, num_unlabelled, and what the method adds.
    ``compute_s`` is measured on the device and stays out of every hash. ``rejected`` are sources
    that were sent and had no share in what was learnt. ``diagnostics`` has a row a source domain;
    it is None where the method has none or the site's policy tells nothing without noise.
    """

    domain_id: str
    round_index: Index
    method: str
    architecture: str
    device_class: str
    source_domains: tuple[str, ...]
    metrics: Mapping[str, float]
    compute_s: Seconds
    peak_memory_bytes: NumBytes
    card: ModelCard | None = None
    rejected: tuple[RejectedSource, ...] = ()
    diagnostics: FusionDiagnostics | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A domain's named failure to carry out a request."""

    domain_id: str
    round_index: Index
    method: str
    error: str
    message: str


Response = DomainProfile | Selection | TrainResult | Failure


def failure_of(request: Request | TrainResult, error: Exception) -> Failure:
    """The failure of a request (or of what it reported), named by the error's class."""
    return Failure(
        domain_id=request.domain_id,
        round_index=request.round_index,
        method=request.method,
        error=type(error).__name__,
        message=str(error),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemState:
    """The catalogue after ``round_index`` rounds; a new state is made, none is changed.

    ``architecture_averages`` are the initial domains' average models, one an architecture; they
    stand apart from the catalogue, because no domain owns them and no method may select them.
    ``rejections`` are all that target domains found out of sources so far, each once.
    """

    round_index: Index = 0
    catalogue: tuple[ModelCard, ...] = field(default=())
    architecture_averages: tuple[ModelCard, ...] = ()
    rejections: tuple[RejectedSource, ...] = ()

    def reported_sources(self, min_reports: int) -> frozenset[str]:
        """Domains whose models at least so many others rejected: one alone may lie itself."""
        accusers = {(rejection.domain_id, rejection.by) for rejection in self.rejections}
        counts = Counter(domain_id for domain_id, _ in accusers)
        return frozenset(d for d, count in counts.items() if count >= min_reports)

    def note(self, rejections: Iterable[RejectedSource]) -> "SystemState":
        """The state with these rejections as well, in one request whatever order they came in."""
        every = {*self.rejections, *rejections}
        ordered = sorted(every, key=lambda d: (d.domain_id, d.by, d.model_id, d.reason))
        return replace(self, rejections=tuple(ordered))

    def admit(self, cards: tuple[ModelCard, ...]) -> "SystemState":
        """The state one round later, with ``cards`` in the catalogue ordered by domain id."""
        ordered = tuple(sorted(cards, key=lambda card: card.domain_id))
        return replace(self, round_index=self.round_index + 1, catalogue=self.catalogue + ordered)


Phase = Literal["join", "profile", "probe", "ship", "report", "register", "acknowledge"]
Outcome = Literal["ok", "failed", "refused", "lost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
    """One message, one attempt.

    ``payload_bytes`` is the length of the encoded object; ``wire_bytes`` what the link
    carries, measured in deployment and modelled in simulation, as ``wire_source`` says.
    ``measured_s`` is host time and ``simulated_s`` the simulated clock's; None: not timed.
    ``method`` names the method that the bytes are charged to ("" for the system's own).
    """

    run: str
    round_index: Index
    phase: Phase
    method: str
    domain_id: str
    sender: str
    receiver: str
    message: str
    attempt: Index = 0
    payload_bytes: NumBytes
    wire_bytes: NumBytes
    wire_source: Literal["measured", "modelled"]
    measured_s: Seconds | None = None
    simulated_s: Seconds | None = None
    cached: bool = False
    outcome: Outcome = "ok"
