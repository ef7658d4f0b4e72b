"""The two parts of a model by the format's formulas, on whole arrays: slow in memory, plain.

Written apart from ``graft.wire.payload.parts``, which works in blocks and must give these bytes.
"""

import json
import struct
import zlib

import numpy as np

from graft.core.records import FloatArray


def section(raw: bytes, strategy: int | None) -> bytes:
    packed = raw
    if strategy is not None:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, 9, strategy)
        packed = packer.compress(raw) + packer.flush()
    mode, body = (1, packed) if len(packed) < len(raw) else (0, raw)
    return struct.pack("<BI", mode, len(body)) + body


def plane(raw: bytes) -> bytes:
    counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256)
    is_noise = 256 * int(counts @ counts) < 1.05 * int(counts.sum()) ** 2
    return section(raw, None if is_noise else zlib.Z_RLE)


def planes(words: np.ndarray, first: int = 0) -> bytes:
    as_bytes = words.view("<u4").view(np.uint8).reshape(-1, 4)
    return b"".join(plane(as_bytes[:, i].tobytes()) for i in range(first, 4))


def line(values: FloatArray) -> np.ndarray:
    """Positions of float32 patterns in numeric order."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(0x80000000))


def reference_parts(architecture: str, model: dict[str, FloatArray]) -> tuple[bytes, bytes]:
    codes, scales, halves, predicted, groups, true = ([] for _ in range(6))
    shapes = {name: model[name].shape for name in sorted(model)}
    for name in shapes:
        values = model[name]
        true.append(values.ravel())
        if values.ndim < 2:
            half = (values.ravel().view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            halves.append(half)
            predicted.append(half)
            groups.append(np.full(half.size, 128))
            continue
        rows = values.reshape(len(values), -1)
        scale = np.abs(rows).max(axis=1) / np.float32(127)
        divisor = np.where(scale > 0, scale, np.float32(1))[:, None]
        code = np.clip(np.rint(rows / divisor), -127, 127).astype(np.int8)
        codes.append(code.ravel())
        scales.append(scale)
        predicted.append((code * scale[:, None]).ravel())
        groups.append(np.abs(code).ravel())

    def joined(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)

    header = json.dumps([architecture, shapes], separators=(",", ":")).encode("ascii")
    base = (
        b"GRB1"
        + section(header, zlib.Z_DEFAULT_STRATEGY)
        + plane(joined(codes, np.int8).tobytes())
        + planes(joined(scales, np.float32))
        + planes(joined(halves, np.float32), first=2)
    )
    order = np.argsort(np.concatenate(groups), kind="stable")
    far = line(np.concatenate(true)) - line(np.concatenate(predicted))
    distance = far[order].view(np.int32)
    folded = ((distance << 1) ^ (distance >> 31)).view(np.uint32)
    return base, b"GRR1" + planes(folded)
