"""The block engine's edge: orders in fixed blocks, each block a durable step."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from graft_server.request_log import Progress, answer_phase, join_entries, settle

from graft.core.records import Answer, LearnOrder, LedgerEntry, Order, ProfileOrder, failure_of
from graft.errors import NodesMissingError
from graft.methods import methods_by_name
from graft.wire.messages.codec import encode_join, encode_order
from graft_simulation.block.checkpoints import Block, BlockResult, StepFolder

# Small blocks share out the work evenly, lose little when a process dies and hold little in
# memory; large ones cost fewer messages between processes, and keep stacks full.
STACKED_ORDERS = 32
LONE_ORDERS = 4

Carry = Callable[[Sequence[Block]], Iterator[tuple[int, BlockResult]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Domains:
    """Who takes part: the domains' ids, and which architecture each one's device runs."""

    ids: Sequence[str]
    architecture_of: Callable[[str], str]


class BlockEdge:
    """``Edge`` whose orders are carried out by ``carry``, block by block, in any order.

    What one block gave is in ``steps`` before it counts. Which orders make a block is decided
    by the orders alone: one kind, method and architecture, in the order asked. ``record`` gets
    every ledger entry, those of the devices' own transfers too; wire bytes are modelled.
    ``stacked`` False: every model is trained by itself.
    """

    def __init__(
        self,
        run: str,
        domains: Domains,
        carry: Carry,
        steps: StepFolder,
        record: Callable[[LedgerEntry], None],
        progress: Progress,
        *,
        stacked: bool = True,
    ) -> None:
        self._run = run
        self._domains = domains
        self._known = frozenset(domains.ids)
        self._carry = carry
        self._steps = steps
        self._record = record
        self._progress = progress
        self._stacked = stacked
        # What each device holds after its probe, by (domain, method).
        self._held: dict[tuple[str, str], tuple[str, ...]] = {}

    def join(self) -> None:
        """Every domain says its name, as a node does; nobody has to be waited for."""
        for domain_id in self._domains.ids:
            told = len(encode_join(domain_id))
            for entry in join_entries(domain_id, self._run, told):
                self._record(entry)
        self._progress("join", len(self._domains.ids), len(self._domains.ids))

    def ask(self, orders: Sequence[Order]) -> list[Answer]:
        """See ``Edge.ask``: one answer an order, in order; what fails is a ``Failure``."""
        answers: dict[int, Answer] = {}
        bodies: dict[int, bytes] = {}
        for number, order in enumerate(orders):
            if order.domain_id in self._known:
                bodies[number] = encode_order(order)
            else:
                error = NodesMissingError(f"domain {order.domain_id}: no node speaks for it")
                answers[number] = failure_of(order, error)
        groups = list(self._grouped({number: orders[number] for number in bodies}))
        blocks = [self._block(numbers, orders, bodies) for numbers in groups]
        if orders:
            self._progress(answer_phase(orders[0]), len(answers), len(orders))
        for place, result in self._results(blocks):
            for number, body, held in zip(groups[place], result.answers, result.held, strict=True):
                order = orders[number]
                answers[number], messages = settle(order, bodies[number], body, run=self._run)
                self._held[order.domain_id, order.method] = held
                for entry in messages:
                    self._record(entry)
            for entry in result.entries:
                self._record(entry)
            self._progress(answer_phase(orders[0]), len(answers), len(orders))
        return [answers[number] for number in range(len(orders))]

    def _grouped(self, orders: dict[int, Order]) -> Iterator[list[int]]:
        """Numbers of the orders that make one block."""
        groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        sizes: dict[tuple[str, str, str], int] = {}
        for number, order in orders.items():
            stacks = self._stacks(order)
            architecture = self._domains.architecture_of(order.domain_id) if stacks else ""
            key = (type(order).__name__, order.method, architecture)
            groups[key].append(number)
            many = stacks or isinstance(order, ProfileOrder)
            sizes[key] = STACKED_ORDERS if many else LONE_ORDERS
        for key, numbers in groups.items():
            for start in range(0, len(numbers), sizes[key]):
                yield numbers[start : start + sizes[key]]

    def _stacks(self, order: Order) -> bool:
        """Whether the order is one to learn, by a method that can train many models at once."""
        method = methods_by_name().get(order.method)
        learns = self._stacked and isinstance(order, LearnOrder)
        return learns and method is not None and method.fit_many is not None

    def _block(
        self, numbers: Sequence[int], orders: Sequence[Order], bodies: dict[int, bytes]
    ) -> Block:
        chosen = [orders[number] for number in numbers]
        return Block(
            orders=tuple(bodies[number] for number in numbers),
            held=tuple(self._held.get((o.domain_id, o.method), ()) for o in chosen),
            together=self._stacks(chosen[0]),
        )

    def _results(self, blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        """Every block's result, those that an earlier process finished first."""
        missing: list[int] = []
        for place, block in enumerate(blocks):
            known = self._steps.load(block)
            if known is None:
                missing.append(place)
            else:
                yield place, known
        for number, result in self._carry([blocks[place] for place in missing]):
            place = missing[number]
            self._steps.save(blocks[place], result)
            yield place, result
