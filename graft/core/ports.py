"""The seams between the algorithm and the world: small protocols, many implementations."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from graft.core.records import ModelCard, Parameters, Precision, Request, Response


class Edge(Protocol):
    """The server's way to its domains. One answer a request, in the order of the requests."""

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """Carry every request to its domain and wait, bounded, for the answers.

        A domain that fails, is lost or never answers is a ``Failure``, never missing.
        """
        ...


class ModelStore(Protocol):
    """The server's durable, content-addressed store of payloads."""

    def put(self, payload: bytes, architecture: str) -> str:
        """Check and keep a payload; returns its model id (SHA-256 hex). Idempotent."""
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
    """A device's way to the model store; what it fetched before is not sent again."""

    def fetch(self, card: ModelCard, precision: Precision) -> Parameters:
        """The model's parameters: "base" is the int8 approximation, "exact" the model itself.

        Arrays of a large model may be private views of a file; writing to them changes no file.
        Raises PayloadError where bytes and card disagree, TransportError where they do not come.
        """
        ...

    def push(self, architecture: str, parameters: Parameters) -> tuple[str, int, int, int]:
        """Send a finished model up; returns (model id, exact, base and residual bytes)."""
        ...


class Tracker(Protocol):
    """Where a run's figures go while it runs, beside the run's own folder."""

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        """A run begins or goes on; ``settings`` are all keys of its configuration, as texts."""
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
    """Monotonic time in seconds, brought in from outside."""

    def __call__(self) -> float: ...
