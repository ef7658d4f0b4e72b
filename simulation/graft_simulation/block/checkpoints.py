"""A block of requests, what it gave, and the folder that makes each one a durable step."""

import hashlib
import io
from dataclasses import dataclass

import pyarrow as pa

from graft.core.files import AnyPath, remove_tree, replace_file
from graft.core.ledger import LEDGER_SCHEMA, ledger_entries, ledger_table
from graft.core.records import LedgerEntry

_RESPONSES = pa.schema([("answer", pa.binary()), ("held", pa.list_(pa.string()))])


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Encoded requests that one task carries out, and what each one's device holds already.

    ``together``: they are one method's to learn, and their models train as stacks.
    """

    requests: tuple[bytes, ...]
    held: tuple[tuple[str, ...], ...]
    together: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides the result, beside the run's configuration."""
        digest = hashlib.sha256(b"together" if self.together else b"alone")
        for order, held in zip(self.requests, self.held, strict=True):
            for part in (order, "\n".join(held).encode()):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockResult:
    """Encoded answers in the order of the requests, what each device holds now, its transfers."""

    responses: tuple[bytes, ...]
    held: tuple[tuple[str, ...], ...]
    entries: tuple[LedgerEntry, ...]


class BlockCheckpoints:
    """Finished blocks of the round that is running, each a file named by its block's digest.

    A process that was killed finds here what it had finished; ``clear`` when the round is kept.
    """

    def __init__(self, path: AnyPath) -> None:
        self._path = path

    def load(self, block: Block) -> BlockResult | None:
        """The block's result, or None where it is not finished."""
        path = self._path / block.digest
        if not path.exists():
            return None
        file = pa.BufferReader(path.read_bytes())
        responses = pa.ipc.open_stream(file).read_all()
        entries = pa.ipc.open_stream(file).read_all()
        return BlockResult(
            responses=tuple(responses["answer"].to_pylist()),
            held=tuple(map(tuple, responses["held"].to_pylist())),
            entries=tuple(ledger_entries(entries)),
        )

    def save(self, block: Block, result: BlockResult) -> None:
        """Keep a finished block, whole or not at all."""
        sink = io.BytesIO()
        responses = pa.table(
            [list(result.responses), list(map(list, result.held))], schema=_RESPONSES
        )
        with pa.ipc.new_stream(sink, _RESPONSES) as stream:
            stream.write_table(responses)
        with pa.ipc.new_stream(sink, LEDGER_SCHEMA) as stream:
            stream.write_table(ledger_table(result.entries))
        replace_file(self._path / block.digest, sink.getvalue())

    def clear(self) -> None:
        """Forget every step."""
        remove_tree(self._path)
