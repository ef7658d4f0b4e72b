"""Splitting and joining payload files with a block of values in memory, whatever their size.

The parts are those of ``parts``, to the byte. What the format requests as a whole (planes behind
one another, distances by their group) lies in nameless working files: of a base its sections, of a
residual its four planes. Every value's place in a plane follows from counting its group first.
"""

# V values of one block

import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from graft.core.records import FloatArray
from graft.wire.payload.encoding import Shapes, check_shapes, num_elements
from graft.wire.payload.parts import (
    BASE_MAGIC,
    NUM_PLANES,
    RESIDUAL_MAGIC,
    byte_planes,
    from_planes,
    ordered_bits,
    parse_base_header,
    unordered_bits,
)
from graft.wire.payload.payload_file import (
    PayloadFacts,
    PayloadWriter,
    map_values,
    payload_bytes_of,
    value_blocks,
)
from graft.wire.payload.raw_base import Places, RawBase, predicted_blocks, quantise, raw_base
from graft.wire.payload.regions import PartReader, cut_regions, open_work, pack_region
from graft.wire.payload.sections import pack_text


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFile:
    """A part in a file that stands at its first byte."""

    file: BinaryIO
    num_bytes: int

    def content(self) -> bytes:
        """The whole part; for small models only."""
        return self.file.read(self.num_bytes)


def split_file(
    facts: PayloadFacts, payload: BinaryIO, base: BinaryIO, residual: BinaryIO, folder: Path
) -> None:
    """Write both parts of a checked payload file; working files lie in ``folder``."""
    with open_work(folder) as raw_file, open_work(folder) as plane_file:
        raw = raw_base(raw_file, facts.shapes)
        payload.seek(facts.data_at)
        quantise(payload, raw)
        header = json.dumps([facts.architecture, facts.shapes], separators=(",", ":"))
        base.write(BASE_MAGIC + pack_text(header.encode("ascii")))
        for region in raw.sections:
            pack_region(region, base, folder)
        planes = cut_regions(plane_file, *[facts.num_values] * NUM_PLANES)
        payload.seek(facts.data_at)
        places = Places(raw)
        for (_, predicted_V, group_V), (_, true_V) in zip(
            predicted_blocks(raw), value_blocks(payload, facts.shapes), strict=True
        ):
            order = np.argsort(group_V, kind="stable")
            distance = (ordered_bits(true_V) - ordered_bits(predicted_V))[order].view(np.int32)
            folded = ((distance << 1) ^ (distance >> 31)).view(np.uint32)
            columns = [np.frombuffer(plane, np.uint8) for plane in byte_planes(folded)]
            for at, start, end in places.runs(group_V):
                for plane, column in zip(planes, columns, strict=True):
                    plane.write(at, column[start:end])
        residual.write(RESIDUAL_MAGIC)
        for plane in planes:
            pack_region(plane, residual, folder)
    base.flush()
    residual.flush()


def join_files(
    base: PartFile, residual: PartFile, sink: BinaryIO, folder: Path, expected_shapes: Shapes | None
) -> PayloadFacts:
    """Write the exact payload that was split; the caller compares its id.

    Raises PayloadTruncatedError, PayloadChangedError or PayloadLimitError, and nothing else.
    """
    with open_work(folder) as raw_file, open_work(folder) as plane_file:
        architecture, raw = _unpack_base(base, raw_file, expected_shapes)
        writer = PayloadWriter(sink, architecture, raw.shapes)
        num_values = sum(map(num_elements, raw.shapes.values()))
        reader = PartReader(residual.file, residual.num_bytes, RESIDUAL_MAGIC)
        planes = cut_regions(plane_file, *[num_values] * NUM_PLANES)
        for plane in planes:
            reader.section(plane)
        reader.finish()
        places = Places(raw)
        for name, predicted_V, group_V in predicted_blocks(raw):
            runs = places.runs(group_V)
            folded = from_planes(
                [
                    np.concatenate(
                        [plane.read(at, end - start) for at, start, end in runs]
                    ).tobytes()
                    for plane in planes
                ]
            )
            distance_V = np.empty_like(folded)
            distance_V[np.argsort(group_V, kind="stable")] = (folded >> 1) ^ (
                np.uint32(0) - (folded & 1)
            )
            writer.append(name, unordered_bits(ordered_bits(predicted_V) + distance_V))
        return writer.finish()


def read_base(
    base: PartFile, sink: BinaryIO, folder: Path, expected_shapes: Shapes | None
) -> tuple[str, dict[str, FloatArray]]:
    """What ``decode_base`` gives, its values written to ``sink`` and mapped from there."""
    with open_work(folder) as raw_file:
        architecture, raw = _unpack_base(base, raw_file, expected_shapes)
        for _, predicted_V, _ in predicted_blocks(raw):
            sink.write(predicted_V.astype("<f4", copy=False).data.cast("B"))
    sink.flush()
    return architecture, map_values(sink, raw.shapes, 0)


def read_base_head(base: PartFile) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Architecture and shapes that a base claims, before any tensor is inflated."""
    return parse_base_header(PartReader(base.file, base.num_bytes, BASE_MAGIC).header())


def _unpack_base(
    base: PartFile, file: BinaryIO, expected_shapes: Shapes | None
) -> tuple[str, RawBase]:
    reader = PartReader(base.file, base.num_bytes, BASE_MAGIC)
    architecture, shapes = parse_base_header(reader.header())
    check_shapes(architecture, shapes, expected_shapes)
    payload_bytes_of(architecture, shapes)
    raw = raw_base(file, shapes)
    for region in raw.sections:
        reader.section(region)
    reader.finish()
    return architecture, raw
