"""Architectures by name: this package's own, and those that people bring.

``devices.architectures`` names an architecture in one of these ways, the same in a simulation, in
Python and in a deployment:

- a name of this package, or of an installed package (entry points ``graft.architectures``);
- a reference "package.module:attribute": an ``Architecture``, or a callable that returns an
  ``nn.Module``;
- "timm:NAME", "torchvision:NAME" or "transformers:FOLDER" (``graft.models.libraries``);
- the name of an ``Architecture`` that a script made and passed to ``graft.simulate``.

Only an architecture's name ever travels, so every machine of a run has its code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from graft.core.plugins import is_library, is_loaded, loaded_references, loaded_values
from graft.core.tasks import Task, without_streams
from graft.core.text import did_you_mean
from graft.errors import ArchitectureError, ConfigError
from graft.models.backbones import Backbone
from graft.models.fused import ENCODERS, FUSED, fused_encoder
from graft.models.libraries import library_architecture

# Offered only where they are asked for: one ResNetLSTMaN costs as much as forty of the others,
# and the dense student needs windows whose phase is not random. So are installed architectures:
# what else is on a machine must not change which ones its domains draw.
_ON_REQUEST = ("mlp-500", "resnetlstman")
_GROUPS: Mapping[str, str] = {"windows": "window", "images": "image"}
KINDS = ("window", "image", "audio", "tokens", "vector")
_added: "dict[str, Architecture]" = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An encoder under a name, with what else a network of it needs.

    Parameters
    ----------
    name : str
        What configurations, cards and payloads call it; a reference's is the reference.
    takes : str or tuple of str
        Kinds of input that it reads: "window", "image", "audio", "tokens", "vector"; "windows"
        and "images" are former names.
    encoder : callable
        From a sample's shape (of several streams: a mapping of their shapes) to the module that
        gives features (B, F) of a batch, and F. Where it returns the module alone, F is the
        module's ``num_features``, or is measured.
    head : callable, optional
        From F and the number of classes C to the module that gives logits (B, C); a linear layer.
    inputs : tuple of str, optional
        Names of the streams that it reads; all of the domain's.
    trained : tuple of str, optional
        What is trained beside the head: "norms", "biases", "lora" or "lora<rank>" (by `peft`), or
        patterns of tensor names ("encoder.blocks.11.*"); "whole" is everything. Without a
        backbone all is trained by default, with one the head alone.
    backbone : Backbone, optional
        The public weights that the encoder starts from. Only trained tensors travel then, and of
        a "whole" encoder the difference from these weights.

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

    name: str = ""
    takes: str | tuple[str, ...] = KINDS
    encoder: Callable[[Any], tuple[nn.Module, int] | nn.Module]
    head: Callable[[int, int], nn.Module] = nn.Linear
    inputs: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    backbone: Backbone | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of input that it reads."""
        takes = (self.takes,) if isinstance(self.takes, str) else self.takes
        return tuple(_GROUPS.get(each, each) for each in takes)

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """``trained`` with its default."""
        return self.trained or (("head",) if self.backbone else ("whole",))

    def reads(self, task: Task) -> bool:
        """Whether it has a network for the task's inputs."""
        read = task.reading(self.inputs).inputs
        return bool(read) and all(spec.kind in self.kinds for spec in read)


def add_architecture(architecture: Architecture) -> None:
    """Make a script's architecture known in this process; a new one of its name replaces it."""
    _added[architecture.name] = architecture


def added_architectures() -> tuple[Architecture, ...]:
    """Those that scripts of this process made."""
    return tuple(_added.values())


def known_architectures() -> tuple[Architecture, ...]:
    """Those of installed packages and scripts, and those that the configuration references."""
    called = {
        name: Architecture(name=name, encoder=each)
        for name, each in loaded_values().items()
        if callable(each)
    }
    references = {**called, **loaded_references(Architecture)}
    return (*installed_architectures(), *_added.values(), *references.values())


@cache
def installed_architectures() -> tuple[Architecture, ...]:
    """What installed modules list as ARCHITECTURES; raises ConfigError where two share a name."""
    found: dict[tuple[str, str], Architecture] = {}
    for entry in entry_points(group="graft.architectures"):
        for architecture in entry.load().ARCHITECTURES:
            for kind in architecture.kinds:
                key = (kind, architecture.name)
                if key in found:
                    raise ConfigError(
                        f"architecture {architecture.name!r} for {kind}s: got two, "
                        "wanted one of each name"
                    )
                found[key] = architecture
    return tuple(dict.fromkeys(found.values()))


def offered_architectures(task: Task, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the architectures for a task.

    Parameters
    ----------
    task
        The kinds of its inputs decide.
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
        find_architecture(name, task)
    return wanted or tuple(name for name in _own_encoders(task) if name not in _ON_REQUEST)


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


def find_architecture(name: str, task: Task) -> Architecture:
    """An architecture of that name for a task; raises as ``offered_architectures`` does."""
    own, base = task_read(name, task), without_streams(name)[0]
    if base in FUSED and (len(own.inputs) > 1 or own is not task):
        return Architecture(name=base, encoder=partial(_fused, base, own))
    encoders = _own_encoders(own)
    others = {each.name: each for each in known_architectures() if each.reads(own)}
    if is_library(base) and is_loaded(base):
        others[base] = _library(base)
    taken = sorted(encoders.keys() & others.keys())
    if taken:
        raise ConfigError(f"architecture {taken[0]!r}: got two, wanted one of each name")
    if base in others:
        return others[base]
    if base not in encoders:
        known = [*encoders, *others]
        hint = did_you_mean(base, known)
        raise ArchitectureError(f"architecture: got {base!r}, wanted one of {known}{hint}")
    return Architecture(name=base, encoder=encoders[base])


@cache
def _library(name: str) -> Architecture:
    return Architecture(name=name, **library_architecture(name))


def _own_encoders(task: Task) -> Mapping[str, Callable[[Any], tuple[nn.Module, int]]]:
    if len(task.inputs) > 1:
        return {name: partial(_fused, name, task) for name in FUSED}
    return ENCODERS[task.inputs[0].kind]


def _fused(name: str, task: Task, _: Any) -> tuple[nn.Module, int]:
    return fused_encoder(name, task.inputs)
