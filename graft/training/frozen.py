"""Features of a frozen encoder, computed once for a device's rows and used by all that follows.

A probe of ten candidates and every method's training read one backbone: its features depend on
the architecture, the backbone's hash and the rows alone. They are kept in memory and, on a real
device, in a folder.

Legend: N all rows of a domain, F features.
"""

import hashlib
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from graft.core.files import make_folder, replace_file
from graft.core.streams import Streams, as_rows, in_batches
from graft.models import Features, Network
from graft.models.backbones import backbone_key

_MEMORY_BYTES: Final = 256 * 2**20
_FILES: Final = 8
_memory: OrderedDict[str, torch.Tensor] = OrderedDict()


def rows_digest(x: Any) -> str:
    """SHA-256 of a domain's rows."""
    digest = hashlib.sha256()
    for batch in in_batches(as_rows(x), 256):
        columns = [column for _, column in batch.items()] if isinstance(batch, Streams) else [batch]
        for column in columns:
            digest.update(str((tuple(column.shape), column.dtype)).encode())
            digest.update(np.ascontiguousarray(column.numpy()).data.cast("B"))
    return digest.hexdigest()


def frozen_features(
    network: Network, architecture: str, x: Any, digest: str, folder: Path | None = None
) -> Features | None:
    """Features (N, F) of a domain's rows by a network's frozen encoder; None where it is trained.

    Parameters
    ----------
    network, architecture
        The network, whose backbone and name decide what its encoder computes.
    x
        All rows of the domain, as its data has them.
    digest
        ``rows_digest`` of them.
    folder
        Where features outlive the process.
    """
    if network.backbone is None or not network.has_frozen_encoder:
        return None
    of = f"{architecture} {backbone_key(network.backbone)} {digest}"
    if network.placement.autocast != "none":
        of += f" {network.placement.autocast}"
    key = hashlib.sha256(of.encode()).hexdigest()
    if key in _memory:
        _memory.move_to_end(key)
    else:
        path = None if folder is None else folder / f"{key}.npy"
        _memory[key] = _read(path) if path is not None and path.exists() else _compute(network, x)
        if path is not None and not path.exists():
            _write(_memory[key], path)
        while len(_memory) > 1 and sum(each.nbytes for each in _memory.values()) > _MEMORY_BYTES:
            _memory.popitem(last=False)
    return _memory[key].as_subclass(Features)


@torch.no_grad()
def _compute(network: Network, x: Any) -> torch.Tensor:
    network.eval()
    return torch.cat([network.features(batch) for batch in in_batches(as_rows(x), 256)])


def _read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _write(features_NF: torch.Tensor, path: Path) -> None:
    make_folder(path.parent, private=True)
    sink = BytesIO()
    np.save(sink, features_NF.numpy(), allow_pickle=False)
    replace_file(path, sink.getvalue(), mode=0o600, durable=False)
    for old in sorted(path.parent.glob("*.npy"), key=lambda p: -p.stat().st_mtime_ns)[_FILES:]:
        old.unlink(missing_ok=True)
