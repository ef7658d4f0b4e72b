"""What server and domains ask and answer: requests, selections, results and failures.

Legend: Q quantiles, S sources, E epochs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from graft.core.ending import system_error
from graft.core.ranges import Distances, Index, NumBytes, Seconds, Shares
from graft.core.records import (
    Allowance,
    Candidate,
    DomainProfile,
    FloatArray,
    ModelCard,
    RejectedSource,
)
from graft.core.text import short_repr

SHORT_TEXT = 200


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
    """What a domain that is in the system comes back with: new ``classes`` of its output."""

    domain_id: str
    classes: tuple[str, ...] = ()


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


# With arrays, or with as many parts as there are models.
for _record in (FusionDiagnostics, TrainResult):
    _record.__repr__ = short_repr  # type: ignore[method-assign]
