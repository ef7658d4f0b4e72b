"""Blocks of requests, their results, and the folder in which each result is durable."""

import hashlib
import io
from dataclasses import dataclass

import pyarrow as pa

from graft.core.files import AnyPath, remove_tree, replace_file
from graft.core.records import LedgerEntry
from graft.core.tables import LEDGER_SCHEMA, ledger_entries, ledger_table

_RESPONSES = pa.schema([("answer", pa.binary()), ("held", pa.list_(pa.string()))])


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Encoded requests that one task handles, and the parts that each one's device has cached.

    ``stacked``: training requests of one method, whose models train as one stack.
    """

    requests: tuple[bytes, ...]
    cached: tuple[tuple[str, ...], ...]
    stacked: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides the result, beside the run's configuration."""
        digest = hashlib.sha256(b"together" if self.stacked else b"alone")
        for request, names in zip(self.requests, self.cached, strict=True):
            for part in (request, "\n".join(names).encode()):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockResult:
    """Encoded responses in the order of the requests, the parts that each device has cached now,
    and the devices' transfers."""

    responses: tuple[bytes, ...]
    cached: tuple[tuple[str, ...], ...]
    entries: tuple[LedgerEntry, ...]


class BlockCheckpoints:
    """Results of the running round's finished blocks, each in a file named by the block's digest.

    A run that was killed goes on from them; ``clear`` them when the round is written.
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
            cached=tuple(map(tuple, responses["held"].to_pylist())),
            entries=tuple(ledger_entries(entries)),
        )

    def save(self, block: Block, result: BlockResult) -> None:
        """Write the result of a finished block, atomically."""
        sink = io.BytesIO()
        responses = pa.table(
            [list(result.responses), list(map(list, result.cached))], schema=_RESPONSES
        )
        with pa.ipc.new_stream(sink, _RESPONSES) as stream:
            stream.write_table(responses)
        with pa.ipc.new_stream(sink, LEDGER_SCHEMA) as stream:
            stream.write_table(ledger_table(result.entries))
        replace_file(self._path / block.digest, sink.getvalue())

    def clear(self) -> None:
        """Remove every result."""
        remove_tree(self._path)
