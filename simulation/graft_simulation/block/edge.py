"""The block engine's edge: requests in fixed blocks, each block's result durable."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

from graft_server.request_log import join_entries, record_exchange, response_phase

from graft.core.exchange import ProfileRequest, Request, Response, TrainRequest, failure_of
from graft.core.ports import Progress
from graft.core.records import LedgerEntry
from graft.errors import ConfigError, NodesMissingError
from graft.methods import find_method
from graft.wire.messages.codec import encode_join, encode_request
from graft_simulation.block.checkpoints import Block, BlockCheckpoints, BlockResult
from graft_simulation.full_disk import FULL_DISK

# Small blocks share out the work evenly, lose little when a process dies and hold little in
# memory; large ones cost fewer messages between processes, and keep stacks full.
STACKED_REQUESTS = 32
LONE_REQUESTS = 4

# Runs blocks in any order and gives each result with the block's index.
RunBlocks = Callable[[Sequence[Block]], Iterator[tuple[int, BlockResult]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Domains:
    """The ids of a run's domains, and the architecture of a request's device."""

    ids: Sequence[str]
    architecture_of: Callable[[Request], str]


@dataclass(frozen=True, slots=True)
class BlockEdge:
    """``Edge`` whose requests ``run_blocks`` handles, block by block, in any order.

    A block's result is in ``checkpoints`` before it counts. The requests alone decide which of
    them make a block: one kind, method and architecture, in the order asked. ``record`` gets
    every ledger entry, those of the devices' own transfers too; wire bytes are modelled.
    ``stacked`` False: every model is trained by itself.
    """

    run: str
    domains: Domains
    run_blocks: RunBlocks
    checkpoints: BlockCheckpoints
    record: Callable[[LedgerEntry], None]
    progress: Progress
    _: KW_ONLY
    stacked: bool = True
    # The parts that each device has cached after its probe, by (domain, method).
    _cached: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def join(self) -> None:
        """Record the join of every domain, as of a node that answers with its name."""
        for domain_id in self.domains.ids:
            num_bytes = len(encode_join(domain_id))
            for entry in join_entries(domain_id, self.run, num_bytes):
                self.record(entry)
        self.progress("join", len(self.domains.ids), len(self.domains.ids))

    def ask(self, requests: Sequence[Request]) -> list[Response]:
        """See ``Edge.ask``: one response a request, in order; what fails is a ``Failure``."""
        known = frozenset(self.domains.ids)
        responses: dict[int, Response] = {}
        bodies: dict[int, bytes] = {}
        for number, request in enumerate(requests):
            if request.domain_id in known:
                bodies[number] = encode_request(request)
            else:
                error = NodesMissingError(f"domain {request.domain_id}: no node speaks for it")
                responses[number] = failure_of(request, error)
        groups = list(self._grouped({number: requests[number] for number in bodies}))
        blocks = [self._block(numbers, requests, bodies) for numbers in groups]
        if requests:
            self.progress(response_phase(requests[0]), len(responses), len(requests))
        for index, result in self._results(blocks):
            for number, body, cached in zip(
                groups[index], result.responses, result.cached, strict=True
            ):
                request = requests[number]
                responses[number], entries = record_exchange(
                    request, bodies[number], body, run=self.run
                )
                self._cached[request.domain_id, request.method] = cached
                for entry in entries:
                    self.record(entry)
            for entry in result.entries:
                self.record(entry)
            self.progress(response_phase(requests[0]), len(responses), len(requests))
        return [responses[number] for number in range(len(requests))]

    def _grouped(self, requests: dict[int, Request]) -> Iterator[list[int]]:
        """Numbers of the requests that make one block."""
        groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        sizes: dict[tuple[str, str, str], int] = {}
        for number, request in requests.items():
            stacks = self._stacks(request)
            architecture = self.domains.architecture_of(request) if stacks else ""
            key = (type(request).__name__, request.method, architecture)
            groups[key].append(number)
            many = stacks or isinstance(request, ProfileRequest)
            sizes[key] = STACKED_REQUESTS if many else LONE_REQUESTS
        for key, numbers in groups.items():
            for start in range(0, len(numbers), sizes[key]):
                yield numbers[start : start + sizes[key]]

    def _stacks(self, request: Request) -> bool:
        """Whether it is a training request of a method that can train many models at once."""
        if not self.stacked or not isinstance(request, TrainRequest):
            return False
        try:
            return find_method(request.method).fit_many is not None
        except ConfigError:  # the device fails by this name, and no other domain with it
            return False

    def _block(
        self, numbers: Sequence[int], requests: Sequence[Request], bodies: dict[int, bytes]
    ) -> Block:
        chosen = [requests[number] for number in numbers]
        return Block(
            requests=tuple(bodies[number] for number in numbers),
            cached=tuple(self._cached.get((r.domain_id, r.method), ()) for r in chosen),
            stacked=self._stacks(chosen[0]),
        )

    def _results(self, blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        """Every block's index and result; those that an earlier process finished come first."""
        missing: list[int] = []
        for index, block in enumerate(blocks):
            known = self.checkpoints.load(block)
            if known is None:
                missing.append(index)
            else:
                yield index, known
        for number, result in self.run_blocks([blocks[index] for index in missing]):
            index = missing[number]
            if not any(word.encode() in body for word in FULL_DISK for body in result.responses):
                self.checkpoints.save(blocks[index], result)  # else the resumed run does it again
            yield index, result
