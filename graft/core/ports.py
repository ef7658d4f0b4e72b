"""The seams between the algorithm and the world: small protocols, many implementations."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from graft.core.exchange import Request, Response
from graft.core.records import ModelCard, Parameters, Precision


class Edge(Protocol):
    """The server's way to its domains: Flower, a block of simulated devices, or this process.

    Examples
    --------
    >>> from graft.core.exchange import ProfileRequest, failure_of
    >>> from graft.errors import DomainLostError
    >>> class LostEdge:
    ...     def ask(self, requests):
    ...         return [failure_of(each, DomainLostError("no connection")) for each in requests]
    >>> edge: Edge = LostEdge()
    >>> edge.ask([ProfileRequest(domain_id="ann", round_index=1)])[0].error
    'DomainLostError'
    """

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """Send every request to its domain and wait, bounded, for the responses.

        Returns
        -------
        list of Response
            One a request, in their order; a domain that fails or is lost has a ``Failure``.
        """
        ...


class ModelStore(Protocol):
    """The server's durable, content-addressed store of payloads.

    Examples
    --------
    >>> import graft
    >>> from graft_server.model_store import open_store
    >>> model = graft.open_run("runs/example").model("user-000000")
    >>> store: ModelStore = open_store(Path("runs/example/models"), model.task)
    >>> store.put(model.payload, model.card.architecture) == model.card.model_id
    True
    >>> store.num_bytes(model.card.model_id, "exact") == len(model.payload)
    True
    """

    def put(self, payload: bytes, architecture: str) -> str:
        """Check and store a payload; returns its model id (SHA-256 hex). Idempotent.

        Raises PayloadError where it does not fit the architecture.
        """
        ...

    def part(self, model_id: str, part: str) -> bytes:
        """The bytes of part "base", "residual" or "exact".

        Raises ModelMissingError for an unknown id.
        """
        ...

    def num_bytes(self, model_id: str, part: str) -> int:
        """The length of a part, without reading it; raises as ``part`` does."""
        ...

    def __contains__(self, model_id: str) -> bool: ...


class WeightTransport(Protocol):
    """A device's way to the model store; what it fetched before is not sent again.

    Examples
    --------
    >>> class EmptyTransport:
    ...     def fetch(self, card, precision):
    ...         raise ModelMissingError(card.model_id)
    ...     def push(self, architecture, parameters, max_bytes=None):
    ...         return "0" * 64, 0, 0, 0
    >>> transport: WeightTransport = EmptyTransport()
    >>> transport.push("mlp", {})[1:]
    (0, 0, 0)
    """

    def fetch(self, card: ModelCard, precision: Precision) -> Parameters:
        """The model's parameters.

        Parameters
        ----------
        card : ModelCard
            The model, as the server signed it.
        precision : {"base", "exact"}
            The int8 approximation, or the model itself.

        Returns
        -------
        mapping of str to array
            Those of a large model may be private views of a file; writing changes no file.

        Raises
        ------
        PayloadError
            Where bytes and card disagree.
        TransportError
            Where they do not arrive.
        BudgetError
            Where they are more than the request allows.
        """
        ...

    def push(
        self, architecture: str, parameters: Parameters, max_bytes: int | None = None
    ) -> tuple[str, int, int, int]:
        """Send a finished model up; returns (model id, exact, base and residual bytes).

        Raises BudgetError, before anything is sent, where that takes more than ``max_bytes``.
        """
        ...


class MessageSizes(Protocol):
    """How many payload bytes of the ledger a message is.

    Examples
    --------
    >>> from graft.core.exchange import ProfileRequest
    >>> from graft.wire.sizes import EncodedSizes
    >>> sizes: MessageSizes = EncodedSizes()
    >>> sizes.request_bytes(ProfileRequest(domain_id="ann", round_index=1))
    11
    """

    def request_bytes(self, request: Request) -> int:
        """The length of the request."""
        ...

    def response_bytes(self, response: Response) -> int:
        """The length of the response."""
        ...

    def join_bytes(self, domain_id: str) -> int:
        """The length of a node's first answer, which names its domain."""
        ...

    def acknowledgement_bytes(self) -> int:
        """The greatest length of the depot's answer to a finished model."""
        ...


class Tracker(Protocol):
    """Where a run's figures go while it runs, beside the run's own folder.

    An error of a tracker is logged and never ends a run.

    Examples
    --------
    >>> class Accuracies:
    ...     def begin(self, run, settings):
    ...         self.of_round = {}
    ...     def log(self, figures, round_index):
    ...         self.of_round[round_index] = figures.get("label-only/accuracy")
    ...     def close(self, *, failed):
    ...         self.failed = failed
    >>> tracker = Accuracies()
    >>> _ = graft.simulate(
    ...     "imu", method="label-only", comparisons=[], domains=6, rounds=1, track=[tracker],
    ...     settings={"world.windows_per_domain": 40, "training.max_steps": 2},
    ...     engine="block", workers=0, out="runs/tracked",
    ... )
    >>> tracker.failed, sorted(tracker.of_round)
    (False, [0, 1])
    """

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        """A run begins or continues; ``settings`` has every key of its configuration, dotted."""
        ...

    def log(self, figures: Mapping[str, float], round_index: int) -> None:
        """The figures of a finished round, by ``<method>/<what>``."""
        ...

    def close(self, *, failed: bool) -> None:
        """The run is over."""
        ...


class Progress(Protocol):
    """Gets how far a task is: ``done`` of ``wanted`` in the stage of that name."""

    def __call__(self, stage: str, done: int, wanted: int, /) -> None: ...


class Clock(Protocol):
    """Monotonic time in seconds.

    Examples
    --------
    >>> import time
    >>> clock: Clock = time.monotonic
    >>> clock() <= clock()
    True
    """

    def __call__(self) -> float: ...
