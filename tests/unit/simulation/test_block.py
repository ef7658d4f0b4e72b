"""The block engine in one process: which requests make a block, and that each is a durable step."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from graft_server.signing import Signer, open_signer
from graft_simulation.block.checkpoints import Block, BlockCheckpoints, BlockResult
from graft_simulation.block.edge import BlockEdge, Domains
from graft_simulation.block.engine import run_inline
from graft_simulation.block.worker import WorkerContext

from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.exchange import Failure, ProfileRequest, Request, Response, TrainRequest
from graft.core.records import LedgerEntry
from graft.data.synthetic.imu import ImuWorld
from graft.wire.messages.codec import decode_request, encode_response

WORLD = ImuWorld(70, 40, seed=0)
CONFIG = with_settings(
    ExpansionConfig(),
    {"world.domains": 70, "world.windows_per_domain": 40, "training.max_steps": 2},
)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return open_signer(tmp_path / "keys", "run")


class Carrier:
    """Carries blocks out here and remembers them; breaks down before the block ``breaks_at``."""

    def __init__(self, path: Path, signer: Signer, breaks_at: int | None = None) -> None:
        place = WorkerContext(
            config=CONFIG, run="run", models=path / "models", public_key=signer.public_key
        )
        self._carry = run_inline(place)
        self._breaks_at = breaks_at
        self.blocks: list[list[Request]] = []

    def __call__(self, blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        for number, block in enumerate(blocks):
            if number == self._breaks_at:
                raise KeyboardInterrupt
            self.blocks.append([decode_request(body) for body in block.requests])
            ((_, result),) = self._carry([block])
            yield number, result


def edge_of(
    path: Path, carrier: Carrier, entries: list[LedgerEntry], architecture: str = "cnn-small"
) -> BlockEdge:
    domains = Domains(ids=WORLD.domain_ids, architecture_of=lambda domain_id: architecture)
    steps = BlockCheckpoints(path / "steps")
    return BlockEdge("run", domains, carrier, steps, entries.append, lambda *news: None)


def initial_domains(count: int) -> list[Request]:
    return [
        TrainRequest(domain_id=d, round_index=0, method="initial", sources=(), register=True)
        for d in list(WORLD.domain_ids)[:count]
    ]


def bytes_of(responses: Sequence[Response]) -> list[bytes]:
    """The answers' bytes; none of them may be a failure."""
    assert not [response for response in responses if isinstance(response, Failure)]
    return [encode_response(response) for response in responses]


def test_profiles_travel_in_blocks_of_one_kind(tmp_path: Path, signer: Signer) -> None:
    carrier = Carrier(tmp_path, signer)
    entries: list[LedgerEntry] = []
    requests: list[Request] = [ProfileRequest(domain_id=d, round_index=0) for d in WORLD.domain_ids]
    responses = edge_of(tmp_path, carrier, entries).ask(requests)
    assert [len(block) for block in carrier.blocks] == [32, 32, 6]
    assert [response.domain_id for response in responses] == list(WORLD.domain_ids)
    assert len(entries) == 2 * 70


def test_a_finished_block_is_not_carried_out_again(tmp_path: Path, signer: Signer) -> None:
    requests = [ProfileRequest(domain_id=d, round_index=0) for d in WORLD.domain_ids]
    with pytest.raises(KeyboardInterrupt):
        edge_of(tmp_path, Carrier(tmp_path, signer, breaks_at=2), []).ask(requests)
    again = Carrier(tmp_path, signer)
    entries: list[LedgerEntry] = []
    responses = edge_of(tmp_path, again, entries).ask(requests)
    assert [len(block) for block in again.blocks] == [6]
    fresh: list[LedgerEntry] = []
    untouched = tmp_path / "untouched"
    wanted = edge_of(untouched, Carrier(untouched, signer), fresh).ask(requests)
    assert bytes_of(responses) == bytes_of(wanted)
    assert sorted(map(repr, entries)) == sorted(map(repr, fresh))


def test_a_step_keeps_answers_held_parts_and_transfers(tmp_path: Path, signer: Signer) -> None:
    carrier = Carrier(tmp_path, signer)
    entries: list[LedgerEntry] = []
    edge_of(tmp_path, carrier, entries).ask(initial_domains(2))
    (path,) = (tmp_path / "steps").iterdir()
    assert {entry.phase for entry in entries} == {"ship", "report", "register", "acknowledge"}
    steps = BlockCheckpoints(tmp_path / "steps")
    steps.clear()
    assert not path.exists()
    block = Block(requests=(b"one", b"two"), cached=((), ("a.base",)))
    result = BlockResult(
        responses=(b"x", b""), cached=(("a.base", "b.base"), ()), entries=tuple(entries)
    )
    assert steps.load(block) is None
    steps.save(block, result)
    assert steps.load(block) == result


def test_what_decides_a_result_decides_its_digest() -> None:
    block = Block(requests=(b"one", b"two"), cached=((), ("a.base",)))
    others = [
        Block(requests=(b"onet", b"wo"), cached=((), ("a.base",))),
        Block(requests=(b"one", b"two"), cached=(("a.base",), ())),
        Block(requests=(b"one", b"two"), cached=((), ("a.base", "b.base"))),
        Block(requests=(b"one", b"two"), cached=((), ("a.base",)), stacked=True),
    ]
    assert len({block.digest, *(other.digest for other in others)}) == 5
