"""Profiles and cards as columns: Parquet in and out, readable by any data frame library."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graft.core.catalogue import CardsInMemory, Catalogue, Part, Rows, Statistics
from graft.core.files import AnyPath, make_folder, place_file, working_file
from graft.core.records import DomainProfile, ModelCard, RejectedSource
from graft.core.tables import read_table, write_table
from graft.errors import EdgeError, MessageError, RunError
from graft.wire.messages.codec import decode_card, encode_card

_TYPES = {"round_index": pa.int64(), "confirmed": pa.bool_()}
_CARDS = pa.schema(
    {
        "model_id": pa.string(),
        "domain_id": pa.string(),
        "architecture": pa.string(),
        "round_index": pa.int64(),
        "payload_bytes": pa.int64(),
        "shipped_bytes": pa.int64(),
        "class_mask": pa.list_(pa.bool_()),
        "parents": pa.list_(pa.string()),
        "statistics": pa.list_(pa.float32()),
        "card": pa.binary(),
    }
)
# pyarrow has a kind for each fault.
_UNREADABLE = (OSError, ValueError, pa.ArrowException)
_PART = {"graft": "part"}
_GROUP, _GROUPS = 512, 64  # cards that are read together, and groups whose statistics are
MANY = 4096  # from here on the cards of a file stay there
_REJECTIONS = pa.schema(
    [(f.name, _TYPES.get(f.name, pa.string())) for f in dataclasses.fields(RejectedSource)]
)


def write_cards(cards: Iterable[ModelCard], path: AnyPath, *, is_part: bool = False) -> None:
    """Write cards atomically; ``is_part``: they follow those of the round before.

    The column of each card's own encoding is read back; ids, rounds and statistics are what is
    looked up without it, and the others are for readers.
    """
    schema = _CARDS.with_metadata(_PART if is_part else None)
    make_folder(path.parent)
    nearby = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    with working_file(nearby, ".partial-") as (temporary, file):
        with pq.ParquetWriter(file, schema) as writer:
            for some in _batches(cards):
                writer.write_table(_card_table(some, schema))
        file.flush()
        temporary.chmod(0o644)
        place_file(temporary, path, durable=False)


def read_cards(path: AnyPath) -> Catalogue:
    """The cards of ``write_cards``, profiles included; raises RunError where it cannot be read.

    A local file of many cards stays on the disk: a card is read when it is used.
    """
    return read_catalogue([path])


def read_catalogue(paths: Sequence[AnyPath]) -> Catalogue:
    """The cards of several rounds' files, the first one's first; raises as ``read_cards``."""
    parts: list[Part] = []
    in_memory: list[ModelCard] = []
    for path in paths:
        try:
            if (stored := _open_part(path)) is not None:
                parts += [CardsInMemory(in_memory)] * bool(in_memory)
                parts.append(stored)
                in_memory = []
                continue
            column = read_table(path)["card"]
            if column.type != pa.binary() or column.null_count:
                raise pa.ArrowInvalid(f"column card: got {column.type}, wanted bytes in every row")
            in_memory += [decode_card(row) for row in column.to_pylist()]
        except (KeyError, MessageError, *_UNREADABLE) as error:
            raise RunError(f"catalogue {path}: {error}") from error
    return Catalogue([*parts, *[CardsInMemory(in_memory)] * bool(in_memory)])


def is_part(path: AnyPath) -> bool:
    """Whether a file has a round's own cards alone, and not the whole catalogue."""
    try:
        with path.open("rb") as file:
            return (pq.read_schema(file).metadata or {}).get(b"graft") == b"part"
    except _UNREADABLE as error:
        raise RunError(f"catalogue {path}: {error}") from error


class StoredCards:
    """The cards of a local file, of which ids, rounds and statistics are in memory."""

    def __init__(self, path: Path, change: Callable[[ModelCard], ModelCard] | None = None) -> None:
        self._path, self._change = path, change
        self._file = pq.ParquetFile(path)
        table = self._file.read(["model_id", "domain_id", "round_index"])
        self.model_ids = np.array(table["model_id"].to_pylist(), np.bytes_)
        self.domain_ids = np.array(table["domain_id"].to_pylist(), np.bytes_)
        self.round_indices = table["round_index"].to_numpy()
        self._statistics = _by_size(self._file)
        groups = range(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._starts = np.cumsum([0, *sizes])

    def cards(self, rows: Rows) -> list[ModelCard]:
        """As ``Part`` says; each of the file's groups of rows is read once.

        Raises RunError for a card that cannot be decoded.
        """
        group_of = np.searchsorted(self._starts, rows, "right") - 1
        found: dict[int, ModelCard] = {}
        for group in np.unique(group_of):
            try:
                column = self._file.read_row_group(int(group), ["card"])["card"]
                for row in rows[group_of == group].tolist():
                    card = decode_card(column[row - int(self._starts[group])].as_py())
                    found[row] = card if self._change is None else self._change(card)
            except (MessageError, *_UNREADABLE) as error:
                raise RunError(f"catalogue {self._path}: {error}") from error
        return [found[row] for row in rows.tolist()]

    def statistics(self) -> Mapping[int, tuple[Rows, Statistics]]:
        """As ``Part`` says."""
        if 0 in self._statistics:
            raise EdgeError(f"catalogue {self._path}: got a card without a profile to rank by")
        return self._statistics

    def changed(self, change: Callable[[ModelCard], ModelCard]) -> "StoredCards":
        """As ``Part`` says: a card is changed when it is read."""
        part = copy(self)
        part._change = change
        return part


def _open_part(path: AnyPath) -> StoredCards | None:
    """The cards of a file that stay on the disk; None for those that are read at once: few, on a
    remote file system, or written before the column of statistics."""
    if not isinstance(path, Path):
        return None
    metadata = pq.read_metadata(path)
    names = metadata.schema.to_arrow_schema().names
    return StoredCards(path) if metadata.num_rows >= MANY and "statistics" in names else None


def _by_size(file: pq.ParquetFile) -> Mapping[int, tuple[Rows, Statistics]]:
    """The statistics as ``Part`` has them; read twice, so that they are in memory once."""

    def batches() -> Iterator[pa.ListArray]:
        groups = range(file.num_row_groups)
        for start in range(0, len(groups), _GROUPS):  # iter_batches keeps the whole column
            some = file.read_row_groups(list(groups[start : start + _GROUPS]), ["statistics"])
            yield some["statistics"].combine_chunks()

    sizes = np.concatenate([np.diff(lists.offsets.to_numpy()) for lists in batches()])
    rows_of = {int(size): np.flatnonzero(sizes == size) for size in np.unique(sizes)}
    found = {
        size: (rows, np.empty((len(rows), size), np.float32)) for size, rows in rows_of.items()
    }
    done = dict.fromkeys(found, 0)
    for lists in batches():
        ends, values = lists.offsets.to_numpy(), lists.values.to_numpy()
        for size in np.unique(np.diff(ends)).tolist():
            begins = ends[:-1][np.diff(ends) == size]
            filled = slice(done[size], done[size] + len(begins))
            found[size][1][filled] = values[begins[:, None] + np.arange(size)]
            done[size] = filled.stop
    pa.default_memory_pool().release_unused()
    return found


def _batches(cards: Iterable[ModelCard]) -> Iterator[list[ModelCard]]:
    rest = iter(cards)
    while some := list(islice(rest, _GROUP)):
        yield some


def _card_table(cards: Sequence[ModelCard], schema: pa.Schema) -> pa.Table:
    columns = {
        "model_id": [card.model_id for card in cards],
        "domain_id": [card.domain_id for card in cards],
        "architecture": [card.architecture for card in cards],
        "round_index": [card.round_index for card in cards],
        "payload_bytes": [card.payload_bytes for card in cards],
        "shipped_bytes": [card.shipped_bytes for card in cards],
        "class_mask": [card.class_mask_C.tolist() for card in cards],
        "parents": [list(card.parents) for card in cards],
        "statistics": [card.profile.statistics_D if card.profile else None for card in cards],
        "card": [encode_card(card) for card in cards],
    }
    return pa.table(columns, schema=schema)


def write_profiles(profiles: Sequence[DomainProfile], path: AnyPath) -> None:
    """Write profiles atomically, a row a domain."""
    columns = {
        "domain_id": [profile.domain_id for profile in profiles],
        "task": [profile.task for profile in profiles],
        "num_samples": pa.array([profile.num_samples for profile in profiles], pa.int64()),
        "statistics": pa.array(
            [profile.statistics_D for profile in profiles], pa.list_(pa.float32())
        ),
        "class_counts": pa.array(
            [profile.class_counts_C for profile in profiles], pa.list_(pa.int64())
        ),
    }
    write_table(pa.table(columns), path)


def write_rejections(rejections: Sequence[RejectedSource], path: AnyPath) -> None:
    """Write atomically which target domain rejected which source, and why."""
    rows = [dataclasses.asdict(rejection) for rejection in rejections]
    write_table(pa.Table.from_pylist(rows, schema=_REJECTIONS), path)


def read_rejections(path: AnyPath) -> tuple[RejectedSource, ...]:
    """What ``write_rejections`` wrote; none of a run from before there were any.

    Raises RunError where it cannot be read.
    """
    if not path.exists():
        return ()
    try:
        return tuple(RejectedSource(**row) for row in read_table(path).to_pylist())
    except (TypeError, pa.ArrowInvalid) as error:
        raise RunError(f"rejections {path}: {error}") from error
