"""Profiles and cards as columns: Parquet in and out, readable by any data frame library."""

import dataclasses
from collections.abc import Sequence

import pyarrow as pa

from graft.core.files import AnyPath, read_table, write_table
from graft.core.records import DomainProfile, ModelCard, RejectedSource
from graft.errors import MessageError, RunError
from graft.wire.messages.codec import decode_card, encode_card

_TYPES = {"round_index": pa.int64(), "confirmed": pa.bool_()}
_REJECTIONS = pa.schema(
    [(f.name, _TYPES.get(f.name, pa.string())) for f in dataclasses.fields(RejectedSource)]
)


def write_cards(cards: Sequence[ModelCard], path: AnyPath) -> None:
    """Write a catalogue atomically.

    The column of each card's own encoding is read back; the others are for readers.
    """
    columns = {
        "model_id": [card.model_id for card in cards],
        "domain_id": [card.domain_id for card in cards],
        "architecture": [card.architecture for card in cards],
        "round_index": [card.round_index for card in cards],
        "payload_bytes": [card.payload_bytes for card in cards],
        "shipped_bytes": [card.shipped_bytes for card in cards],
        "class_mask": pa.array(
            [card.class_mask_C.tolist() for card in cards], pa.list_(pa.bool_())
        ),
        "parents": pa.array([list(card.parents) for card in cards], pa.list_(pa.string())),
        "card": pa.array([encode_card(card) for card in cards], pa.binary()),
    }
    write_table(pa.table(columns), path)


def read_cards(path: AnyPath) -> tuple[ModelCard, ...]:
    """The cards of ``write_cards``, profiles included; raises RunError where it cannot be read."""
    try:
        column = read_table(path)["card"]
        if column.type != pa.binary() or column.null_count:
            raise pa.ArrowInvalid(f"column card: got {column.type}, wanted bytes in every row")
        return tuple(decode_card(row) for row in column.to_pylist())
    except (FileNotFoundError, KeyError, pa.ArrowInvalid, MessageError) as error:
        raise RunError(f"catalogue {path}: {error}") from error


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
