"""Frozen records that every package shares; no torch, no flwr, no input or output here.

Legend: C classes, D statistics, F features, N samples, S sources.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from graft.core.catalogue import Catalogue, as_catalogue
from graft.core.ranges import (
    ClassCounts,
    Distance,
    Index,
    NumBytes,
    Samples,
    Score,
    Seconds,
    Sizes,
    Statistics,
)
from graft.core.tasks import without_streams
from graft.core.text import short_repr

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Arrays by tensor name, float32 or another type that a payload holds (``graft.core.payload``).
Parameters = Mapping[str, npt.NDArray[Any]]
# numpy has no bfloat16: an array of it holds the bits, under a type of their own.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])
Precision = Literal["base", "exact"]
# Ids of domains and names of runs travel in messages, and become names of files and folders and
# arguments of commands: no separators, spaces or controls, no other folder, no option.
RESERVED_NAME = re.compile(r"-|\.{1,2}\Z")
DOMAIN_ID = re.compile(rf"(?!{RESERVED_NAME.pattern})[A-Za-z0-9._@-]{{1,128}}")
NAME_RULE = "letters, digits and signs . _ @ -, 1 to 128, no - first, neither . nor .."


Limit = TypeVar("Limit", int, float)


def least(one: Limit | None, other: Limit | None) -> Limit | None:
    """The smaller of two limits, of which None is no limit."""
    return min((each for each in (one, other) if each is not None), default=None)


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
class SystemState:
    """The catalogue after ``round_index`` rounds; a new state is made, none is changed.

    ``architecture_averages`` are the initial domains' average models, one an architecture; no
    domain owns them and no method may select them. ``rejections`` are those of all target domains
    so far, each once.
    """

    round_index: Index = 0
    catalogue: Catalogue = field(default_factory=Catalogue)
    architecture_averages: tuple[ModelCard, ...] = ()
    rejections: tuple[RejectedSource, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "catalogue", as_catalogue(self.catalogue))

    @property
    def owned(self) -> Catalogue:
        """``Catalogue.owned``."""
        return self.catalogue.owned

    @property
    def latest(self) -> Catalogue:
        """``Catalogue.latest``: the models that domains may learn from."""
        return self.catalogue.latest

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
for _record in (DomainProfile, ModelCard, SystemState):
    _record.__repr__ = short_repr  # type: ignore[method-assign]
