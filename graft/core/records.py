"""Frozen records that every package shares; no torch, no flwr, no input or output here.

Legend: C classes, D statistics, F features, N samples, S sources.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from graft.core.ending import system_error
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
    Sizes,
    Statistics,
)
from graft.core.text import short_repr
from graft.errors import ConfigError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Arrays by tensor name, float32 or another type that a payload holds (``graft.core.payload``).
Parameters = Mapping[str, npt.NDArray[Any]]
# numpy has no bfloat16: an array of it holds the bits, under a type of their own.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])
SensorModality = Literal["imu", "emg", "audio", "pen", "image", "sequence"]
Modality = SensorModality | Literal["text", "vector", "mixed"]
InputKind = Literal["window", "image", "audio", "tokens", "vector"]
OutputKind = Literal["classes", "labels", "amount"]
Precision = Literal["base", "exact"]
# Ids of domains and names of runs travel in messages, and become names of files and folders and
# arguments of commands: no separators, spaces or controls, no other folder, no option.
RESERVED_NAME = re.compile(r"-|\.{1,2}\Z")
DOMAIN_ID = re.compile(rf"(?!{RESERVED_NAME.pattern})[A-Za-z0-9._@-]{{1,128}}")
# An architecture that reads a part of a world's streams names them: "cnn-small[acc+gyro]".
_READ_STREAMS = re.compile(r"(?P<name>.+)\[(?P<streams>[A-Za-z]\w*(\+[A-Za-z]\w*)*)\]")
SHORT_TEXT = 200
NAME_RULE = "letters, digits and signs . _ @ -, 1 to 128, no - first, neither . nor .."


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """One named stream of a sample.

    Parameters
    ----------
    name
        Of the stream; "x" where a domain has one stream and does not name it.
    kind
        "window" and "audio": (channels, length); "image": (channels, height, width); "tokens":
        (length,); "vector": (size,).
    shape
        Of one sample.
    dtype
        As numpy names it. An image is "uint8" (0 to 255) or "float32"; tokens are "uint8" for
        text, its UTF-8 bytes with zeros behind them, or "int64" for token ids, 0 where there is
        none. All else is "float32".
    rate_hz
        Samples a second, where the last axis is time.
    modality
        What measured it; augmentation and figures depend on it.

    Examples
    --------
    >>> InputSpec(name="camera", kind="image", shape=(3, 64, 64), dtype="uint8").is_text
    False
    """

    name: str
    kind: InputKind
    shape: tuple[int, ...]
    dtype: str = "float32"
    rate_hz: float | None = None
    modality: Modality = "sequence"

    @property
    def is_text(self) -> bool:
        """Whether a sample is text: its UTF-8 bytes."""
        return self.kind == "tokens" and self.dtype == "uint8"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """One named output of a model.

    Parameters
    ----------
    name
        Of the output; "y" where a domain has one and does not name it.
    kind
        "classes": one of them is right, and a label is its index; "labels": each is right or not
        by itself, (N, C) of 0 and 1; "amount": a number each, (N, C) of float32.
    classes
        The names of the classes, labels or amounts: a head has one output for each.
    """

    name: str
    kind: OutputKind
    classes: tuple[str, ...]


Limit = TypeVar("Limit", int, float)


def least(one: Limit | None, other: Limit | None) -> Limit | None:
    """The smaller of two limits, of which None is no limit."""
    return min((each for each in (one, other) if each is not None), default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a model must do: the streams of one sample, and what to tell of it.

    Parameters
    ----------
    name, modality
        Of the data; the modality of several streams is "mixed".
    sample_shape
        Of the only stream: (channels, length) for windows and (channels, height, width) for
        images; () where there are several.
    classes
        Those of the first output; a label is an index into them.
    inputs
        The streams. By default the one that ``sample_shape`` describes.
    outputs
        The outputs, of which the first is trained. By default ``classes``.
    """

    name: str
    modality: Modality
    sample_shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()

    def __post_init__(self) -> None:
        inputs = self.inputs
        if not inputs:
            inputs = (_only_input(self.modality, self.sample_shape),)
        elif len(inputs) == 1 and self.sample_shape:  # as after replace(task, sample_shape=...)
            same = inputs[0].modality, len(inputs[0].shape)
            if same != (self.modality, len(self.sample_shape)):
                inputs = (_only_input(self.modality, self.sample_shape),)
            inputs = (replace(inputs[0], shape=self.sample_shape),)
        first = (
            self.outputs[0] if self.outputs else OutputSpec(name="y", kind="classes", classes=())
        )
        classes = self.classes or first.classes
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "inputs", inputs)
        set_field(self, "sample_shape", inputs[0].shape if len(inputs) == 1 else ())
        set_field(self, "outputs", (replace(first, classes=classes), *self.outputs[1:]))
        set_field(self, "classes", classes)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The streams' names."""
        return tuple(spec.name for spec in self.inputs)

    def reading(self, names: Collection[str]) -> "Task":
        """The task of a model that reads these streams alone, or all where none is named."""
        inputs = tuple(spec for spec in self.inputs if spec.name in names)
        if not names or inputs == self.inputs:
            return self
        modality = inputs[0].modality if len(inputs) == 1 else self.modality
        return replace(self, inputs=inputs, modality=modality, sample_shape=())

    def telling(self, output: str) -> "Task":
        """The task with this output first, which is the one that is trained; raises ConfigError."""
        named = [spec for spec in self.outputs if spec.name == output]
        if not named:
            raise ConfigError(
                f"output: got {output!r}, wanted one of {[spec.name for spec in self.outputs]}"
            )
        others = tuple(spec for spec in self.outputs if spec.name != output)
        return replace(self, outputs=(named[0], *others), classes=named[0].classes)


def with_streams(architecture: str, inputs: Sequence[str]) -> str:
    """The name of an architecture that reads these streams alone, or all where none is named."""
    return f"{architecture}[{'+'.join(inputs)}]" if inputs else architecture


def without_streams(architecture: str) -> tuple[str, tuple[str, ...]]:
    """The name and the streams of ``with_streams``; no streams where it reads all."""
    found = _READ_STREAMS.fullmatch(architecture)
    return (found["name"], tuple(found["streams"].split("+"))) if found else (architecture, ())


def _only_input(modality: Modality, shape: tuple[int, ...]) -> InputSpec:
    kinds: Mapping[int, InputKind] = {1: "vector", 2: "window", 3: "image"}
    kind = kinds.get(len(shape), "window")
    return InputSpec(name="x", kind=kind, shape=shape, modality=modality)


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """What may still be spent on one target domain by one method; None: no limit.

    Bytes are payload bytes of the ledger, down to the device and up from it; ``device_s`` are
    seconds of the cost model, ``memory_bytes`` the most that is in use at once.
    """

    down_bytes: NumBytes | None = None
    up_bytes: NumBytes | None = None
    device_s: Seconds | None = None
    memory_bytes: NumBytes | None = None

    def least(self, other: "Allowance") -> "Allowance":
        """The smaller of each limit."""
        return Allowance(
            down_bytes=least(self.down_bytes, other.down_bytes),
            up_bytes=least(self.up_bytes, other.up_bytes),
            device_s=least(self.device_s, other.device_s),
            memory_bytes=least(self.memory_bytes, other.memory_bytes),
        )


NO_LIMITS = Allowance()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DomainProfile:
    """Statistics of a domain's data, a few kilobytes, as its site's policy releases them.

    Parameters
    ----------
    domain_id, task : str
        The domain, and the name of its task.
    num_samples : int
        Rows that the domain trains on.
    statistics_D : array of float32
        Means, then deviations over its samples, of each statistic of a sample.
    class_counts_C : array of int64 or None
        Labelled rows of each class; None where the policy withholds them.
    inputs : tuple of str
        The streams that the domain has, whose statistics follow one another, where its task has
        several.
    limits : Allowance or None
        The device's own, beside the run's budget; None: it has none.
    num_labelled : int or None
        How many of the rows bear labels; None where nothing limits the domain.
    input_sizes : tuple of int
        The number of statistics of each stream.
    """

    domain_id: str
    task: str
    num_samples: Samples
    statistics_D: Statistics
    class_counts_C: ClassCounts | None
    inputs: tuple[str, ...] = ()
    limits: Allowance | None = None
    num_labelled: Samples | None = None
    input_sizes: Sizes = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelCard:
    """A finished model in the catalogue.

    Parameters
    ----------
    model_id : str
        SHA-256 (hex) of the exact safetensors payload.
    domain_id, architecture, round_index
        The domain that trained it, its architecture, and the round.
    payload_bytes : int
        Length of the exact payload.
    base_bytes, residual_bytes : int
        Encoded lengths of the two parts that are sent.
    class_mask_C : array of bool
        The classes that its head knows.
    parents : tuple of str
        The model ids of its sources.
    profile : DomainProfile or None
        The domain's; None on cards for a device.
    centroids_CF : array of float32 or None
        Class means in its feature space, zero rows where the class is unknown or withheld; None
        on cards for a device that does not need them.
    signature : bytes
        The server's, over everything else that this card has.
    probe_signature, fusion_signature : bytes
        Those of ``for_probe`` and ``for_fusion``, which the server alone has.
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
    probe_signature: bytes = b""
    fusion_signature: bytes = b""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The streams that the model reads; none named: all of its task."""
        return without_streams(self.architecture)[1]

    @property
    def shipped_bytes(self) -> int:
        """Bytes that bring the exact model to a device: both progressive parts."""
        return self.base_bytes + self.residual_bytes

    def for_probe(self) -> "ModelCard":
        """The card without its profile, which only the server ranks by."""
        if self.profile is None:
            return self
        return replace(
            self,
            profile=None,
            signature=self.probe_signature,
            probe_signature=b"",
            fusion_signature=b"",
        )

    def for_fusion(self) -> "ModelCard":
        """The card without profile and centroids, once the choice is made."""
        if self.profile is None and self.centroids_CF is None:
            return self
        return replace(
            self,
            profile=None,
            centroids_CF=None,
            signature=self.fusion_signature,
            probe_signature=b"",
            fusion_signature=b"",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One source model's two scores for one target domain; ``joint_score`` is None until probed."""

    model_id: str
    coarse_distance: Distance
    joint_score: Score | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedSource:
    """A source that the domain ``by`` rejected, and the reason (``graft.selection.Reason``).

    The server adds the round, and ``confirmed`` where it found a fault of the source itself.
    """

    by: str
    domain_id: str
    model_id: str
    reason: str
    round_index: Index = 0
    confirmed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which of the candidates a domain keeps, best first, with every candidate's scores.

    ``rejected`` are candidates that failed a check of the domain's; they have no joint score and
    are not chosen.
    """

    domain_id: str
    candidates: tuple[Candidate, ...]
    chosen: tuple[str, ...]
    rejected: tuple[RejectedSource, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFindings:
    """What the target domains of one round found when they probed a model.

    ``probed``, ``chosen`` and ``rejected`` count domains; ``joint_score`` is the mean of their
    scores, which are 0 for a candidate like the others, or None where all rejected it.
    """

    model_id: str
    domain_id: str
    round_index: Index
    probed: Samples
    chosen: Samples
    rejected: Samples
    joint_score: Score | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileRequest:
    """Ask a domain for its profile. Every request's ``allowance`` is what its answer, and the
    transfers between the two, may cost; None: no budget."""

    domain_id: str
    round_index: Index
    allowance: Allowance | None = None

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
    allowance: Allowance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """Ask a domain to train its own model with ``method`` from ``sources``.

    ``register``: push the finished model and answer with its card. ``architecture_averages``:
    average models, one an architecture, of which the device takes that of its own. To stay within
    a budget: ``base_only`` brings no exact source, ``max_steps`` fewer steps (0: as configured).
    """

    domain_id: str
    round_index: Index
    method: str
    sources: tuple[ModelCard, ...]
    register: bool
    architecture_averages: tuple[ModelCard, ...] = ()
    allowance: Allowance | None = None
    base_only: bool = False
    max_steps: Index = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What a domain that is in the system comes back with: new ``classes`` of its output, or a new
    ``output`` by name."""

    domain_id: str
    classes: tuple[str, ...] = ()
    output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowRequest:
    """Ask a domain to grow ``model``, which is its own, by what ``Growth`` has.

    ``method`` is one of ``graft.lifelong.growth.METHODS`` with the prefix "grow-"; ``register`` as
    in a ``TrainRequest``.
    """

    domain_id: str
    round_index: Index
    method: str
    model: ModelCard
    register: bool
    classes: tuple[str, ...] = ()

    @property
    def allowance(self) -> None:
        """No budget: the domain has its model already."""
        return None


Request = ProfileRequest | ProbeRequest | TrainRequest | GrowRequest


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FusionDiagnostics:
    """How a fusion went, in a few hundred bytes and without a single sample of its own.

    ``mixture_SQ`` (S, 6): of each source that was used, its weight's mean and 5, 25, 50, 75 and
    95 % quantiles over the domain's samples. ``dictionary_E4`` (at most 32, 4), of a method that
    has one: epochs done, share of U in it, its mean quality, and accuracy of the fused sources on
    rows that none was trained on. All but the epochs lie between 0 and 1.
    """

    mixture_SQ: Shares
    dictionary_E4: FloatArray | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainResult:
    """A domain's response to a ``TrainRequest`` or ``GrowRequest``.

    Parameters
    ----------
    source_domains : tuple of str
        The domains whose models it learned from.
    metrics : mapping
        accuracy and macro_f1 (0 to 1, on the domain's test block), num_test, num_labelled,
        num_unlabelled, and what the method adds: reported by the device.
    compute_s : float
        Measured on the device; it is part of no hash.
    peak_memory_bytes : int
        Of the memory model.
    card : ModelCard or None
        The model that was pushed, where the request asked for it.
    rejected : tuple of RejectedSource
        Sources that were sent and not used.
    diagnostics : FusionDiagnostics or None
        None where the method has none, or the site's policy releases nothing without noise.
    left_out : tuple of str
        What was left out to stay within the budget, and which limit it would have passed.
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
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A request that a domain did not fulfil: the error's class name and its message."""

    domain_id: str
    round_index: Index
    method: str
    error: str
    message: str


Response = DomainProfile | Selection | TrainResult | Failure


def failure_of(request: Request | TrainResult, error: Exception) -> Failure:
    """The failure of a request (or of what it reported), named by the error's class.

    What the system refused is named as graft's commands name it. Within a budget its texts are cut
    to ``SHORT_TEXT`` bytes each.
    """
    error = system_error(error) or error
    name, message = type(error).__name__, str(error)
    if getattr(request, "allowance", None) is not None:
        name, message = (
            text.encode("utf-8", "replace")[:SHORT_TEXT].decode("utf-8", "ignore")
            for text in (name, message)
        )
    return Failure(
        domain_id=request.domain_id,
        round_index=request.round_index,
        method=request.method,
        error=name,
        message=message,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemState:
    """The catalogue after ``round_index`` rounds; a new state is made, none is changed.

    ``architecture_averages`` are the initial domains' average models, one an architecture; no
    domain owns them and no method may select them. ``rejections`` are those of all target domains
    so far, each once.
    """

    round_index: Index = 0
    catalogue: tuple[ModelCard, ...] = field(default=())
    architecture_averages: tuple[ModelCard, ...] = ()
    rejections: tuple[RejectedSource, ...] = ()

    @property
    def owned(self) -> tuple[ModelCard, ...]:
        """Each model once, with its first card: a method may keep a source as it is, and then its
        domain has a card of that model too."""
        first: dict[str, ModelCard] = {}
        for card in self.catalogue:
            first.setdefault(card.model_id, card)
        return tuple(first.values())

    @property
    def latest(self) -> tuple[ModelCard, ...]:
        """``owned`` without the models that their own domain has grown into later ones."""
        former = {(card.domain_id, parent) for card in self.catalogue for parent in card.parents}
        return tuple(c for c in self.owned if (c.domain_id, c.model_id) not in former)

    def reported_sources(self, min_reports: int, report_rounds: int = 10) -> frozenset[str]:
        """Domains whose confirmed reports by others weigh ``min_reports`` or more.

        Each domain has one vote, its latest report; one that is itself reported has none. A vote
        weighs 1 for half of ``report_rounds``, and from then on less until it expires.
        """
        confirmed = [each for each in self.rejections if each.confirmed]
        accused = {each.domain_id for each in confirmed}
        votes: dict[tuple[str, str], float] = {}
        for each in confirmed:
            age = self.round_index - 1 - each.round_index
            weight = min(1.0, max(0.0, 2 - 2 * age / report_rounds))
            if each.by not in accused:
                pair = each.domain_id, each.by
                votes[pair] = max(votes.get(pair, 0.0), weight)
        weights: dict[str, float] = defaultdict(float)
        for (domain_id, _), weight in votes.items():
            weights[domain_id] += weight
        return frozenset(d for d, weight in weights.items() if weight >= min_reports)

    def note(self, rejections: Iterable[RejectedSource]) -> "SystemState":
        """The state with these rejections as well, in one order whatever order they came in."""
        every = {*self.rejections, *rejections}
        ordered = sorted(
            every, key=lambda d: (d.domain_id, d.by, d.model_id, d.reason, d.round_index)
        )
        return replace(self, rejections=tuple(ordered))

    def admit(self, cards: tuple[ModelCard, ...]) -> "SystemState":
        """The state one round later, with ``cards`` in the catalogue ordered by domain id."""
        ordered = tuple(sorted(cards, key=lambda card: card.domain_id))
        return replace(self, round_index=self.round_index + 1, catalogue=self.catalogue + ordered)


Phase = Literal[
    "join", "profile", "backbone", "probe", "ship", "report", "grow", "register", "acknowledge"
]
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


# With arrays, or with as many parts as there are models.
for _record in (DomainProfile, ModelCard, FusionDiagnostics, TrainResult, SystemState):
    _record.__repr__ = short_repr  # type: ignore[method-assign]
