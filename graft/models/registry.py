"""Architectures by name: those of this package, of installed packages, and by reference.

A reference is "package.module:attribute" in ``devices.architectures``.

Only an architecture's name ever travels, so every machine of a run has the package installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from torch import nn

from graft.core.plugins import loaded_references
from graft.core.records import Task, without_streams
from graft.core.text import did_you_mean
from graft.errors import ArchitectureError, ConfigError
from graft.models.encoders import Encoder
from graft.models.fused import ENCODERS, FUSED, fused_encoder, scaled

# Offered only where they are asked for: one ResNetLSTMaN costs as much as forty of the others,
# and the dense student needs windows whose phase is not random. So are installed architectures:
# what else is on a machine must not change which ones its domains draw.
_ON_REQUEST = ("mlp-500", "resnetlstman")


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An encoder under a name, as the entry points of ``graft.architectures`` list them.

    Parameters
    ----------
    name
        What configurations, cards and payloads call it.
    takes
        ``"windows"`` for samples (K, T), ``"images"`` for samples (K, H, W).
    encoder
        From a sample's shape to the module that gives features (B, F), and F.

    Examples
    --------
    >>> from torch import nn
    >>> flat = Architecture(
    ...     name="flat", takes="windows",
    ...     encoder=lambda shape: (nn.Flatten(), shape[0] * shape[1]),
    ... )
    >>> flat.encoder((6, 64))[1]
    384
    """

    name: str
    takes: Literal["windows", "images"]
    encoder: Encoder


def known_architectures() -> tuple[Architecture, ...]:
    """Those of installed packages, and those that the configuration names by reference."""
    return (*installed_architectures(), *loaded_references(Architecture).values())


@cache
def installed_architectures() -> tuple[Architecture, ...]:
    """What installed modules list as ARCHITECTURES; raises ConfigError where two share a name."""
    found: dict[tuple[str, str], Architecture] = {}
    for entry in entry_points(group="graft.architectures"):
        for architecture in entry.load().ARCHITECTURES:
            key = (architecture.takes, architecture.name)
            if key in found:
                raise ConfigError(
                    f"architecture {architecture.name!r} for {architecture.takes}: got two, "
                    "wanted one of each name"
                )
            found[key] = architecture
    return tuple(found.values())


def offered_architectures(task: Task, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the architectures for a task.

    Parameters
    ----------
    task
        Its sample's shape decides between windows (K, T) and images (K, H, W).
    wanted
        The names asked for. None: this package's own without the very large ones.

    Raises
    ------
    ArchitectureError
        A wanted name has no architecture for this kind of input.
    ConfigError
        An installed architecture takes a name that is in use.
    """
    for name in wanted:
        find_encoder(name, task)
    return wanted or tuple(name for name in _own_encoders(task) if name not in _ON_REQUEST)


def build_encoder(name: str, task: Task) -> tuple[nn.Module, int]:
    """The encoder of an architecture for the streams of ``task_read``, and its features F.

    Raises as ``offered_architectures`` does.
    """
    own, encoder = task_read(name, task), find_encoder(name, task)
    if encoder is None:
        return fused_encoder(without_streams(name)[0], own.inputs)
    return scaled(own.inputs[0], encoder(own.inputs[0].shape))


def task_read(name: str, task: Task) -> Task:
    """The task with the streams alone that an architecture reads, "name[stream+stream]".

    Raises ArchitectureError for a stream that the task does not have.
    """
    streams = without_streams(name)[1]
    unknown = [stream for stream in streams if stream not in task.input_names]
    if unknown:
        raise ArchitectureError(
            f"architecture {name!r}: got the stream {unknown[0]!r}, "
            f"wanted some of {list(task.input_names)}"
        )
    return task.reading(streams)


def find_encoder(name: str, task: Task) -> Encoder | None:
    """The encoder of an architecture that reads one stream; None for one of several streams.

    Raises as ``offered_architectures`` does.
    """
    own, base = task_read(name, task), without_streams(name)[0]
    known = _encoders(own)
    if base in FUSED and (base in known or own is not task):
        return None
    if base not in known:
        hint = did_you_mean(base, known)
        raise ArchitectureError(f"architecture: got {base!r}, wanted one of {list(known)}{hint}")
    return known[base]


def _encoders(task: Task) -> Mapping[str, Encoder | None]:
    """Every architecture for the task's streams; None for those of several."""
    own = _own_encoders(task)
    kind = task.inputs[0].kind if len(task.inputs) == 1 else ""
    takes = {"window": "windows", "image": "images"}.get(kind, kind)
    installed = {each.name: each.encoder for each in known_architectures() if each.takes == takes}
    taken = sorted(own.keys() & installed.keys())
    if taken:
        raise ConfigError(f"architecture {taken[0]!r}: got two, wanted one of each name")
    return {**own, **installed}


def _own_encoders(task: Task) -> Mapping[str, Encoder | None]:
    return ENCODERS[task.inputs[0].kind] if len(task.inputs) == 1 else dict.fromkeys(FUSED)
