"""What a model reads of a sample and tells of it: streams, outputs, and the task of a world."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from graft.errors import ConfigError

SensorModality = Literal["imu", "emg", "audio", "pen", "image", "sequence"]
Modality = SensorModality | Literal["text", "vector", "mixed"]
InputKind = Literal["window", "image", "audio", "tokens", "vector"]
OutputKind = Literal["classes", "labels", "amount"]


# An architecture that reads a part of a world's streams names them: "cnn-small[acc+gyro]".
_READ_STREAMS = re.compile(r"(?P<name>.+)\[(?P<streams>[A-Za-z]\w*(\+[A-Za-z]\w*)*)\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """One named stream of a sample.

    Parameters
    ----------
    name
        Of the stream; "x" where a domain has one stream and does not name it.
    kind
        "window" and "audio": (channels, length); "image": (channels, height, width); "tokens":
        (length,); "vector": (size,).
    shape
        Of one sample.
    dtype
        As numpy names it. An image is "uint8" (0 to 255) or "float32"; tokens are "uint8" for
        text, its UTF-8 bytes with zeros behind them, or "int64" for token ids, 0 where there is
        none. All else is "float32".
    rate_hz
        Samples a second, where the last axis is time.
    modality
        What measured it; augmentation and figures depend on it.

    Examples
    --------
    >>> InputSpec(name="camera", kind="image", shape=(3, 64, 64), dtype="uint8").is_text
    False
    """

    name: str
    kind: InputKind
    shape: tuple[int, ...]
    dtype: str = "float32"
    rate_hz: float | None = None
    modality: Modality = "sequence"

    @property
    def is_text(self) -> bool:
        """Whether a sample is text: its UTF-8 bytes."""
        return self.kind == "tokens" and self.dtype == "uint8"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """One named output of a model.

    Parameters
    ----------
    name
        Of the output; "y" where a domain has one and does not name it.
    kind
        "classes": one of them is right, and a label is its index; "labels": each is right or not
        by itself, (N, C) of 0 and 1; "amount": a number each, (N, C) of float32.
    classes
        The names of the classes, labels or amounts: a head has one output for each.
    """

    name: str
    kind: OutputKind
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a model must do: the streams of one sample, and what to tell of it.

    Parameters
    ----------
    name, modality
        Of the data; the modality of several streams is "mixed".
    sample_shape
        Of the only stream: (channels, length) for windows and (channels, height, width) for
        images; () where there are several.
    classes
        Those of the first output; a label is an index into them.
    inputs
        The streams. By default the one that ``sample_shape`` describes.
    outputs
        The outputs, of which the first is trained. By default ``classes``.
    """

    name: str
    modality: Modality
    sample_shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()

    def __post_init__(self) -> None:
        inputs = self.inputs
        if not inputs:
            inputs = (_only_input(self.modality, self.sample_shape),)
        elif len(inputs) == 1 and self.sample_shape:  # as after replace(task, sample_shape=...)
            same = inputs[0].modality, len(inputs[0].shape)
            if same != (self.modality, len(self.sample_shape)):
                inputs = (_only_input(self.modality, self.sample_shape),)
            inputs = (replace(inputs[0], shape=self.sample_shape),)
        first = (
            self.outputs[0] if self.outputs else OutputSpec(name="y", kind="classes", classes=())
        )
        classes = self.classes or first.classes
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "inputs", inputs)
        set_field(self, "sample_shape", inputs[0].shape if len(inputs) == 1 else ())
        set_field(self, "outputs", (replace(first, classes=classes), *self.outputs[1:]))
        set_field(self, "classes", classes)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The streams' names."""
        return tuple(spec.name for spec in self.inputs)

    def reading(self, names: Collection[str]) -> "Task":
        """The task of a model that reads these streams alone, or all where none is named."""
        inputs = tuple(spec for spec in self.inputs if spec.name in names)
        if not names or inputs == self.inputs:
            return self
        modality = inputs[0].modality if len(inputs) == 1 else self.modality
        return replace(self, inputs=inputs, modality=modality, sample_shape=())

    def telling(self, output: str) -> "Task":
        """The task with this output first, which is the one that is trained; raises ConfigError."""
        named = [spec for spec in self.outputs if spec.name == output]
        if not named:
            raise ConfigError(
                f"output: got {output!r}, wanted one of {[spec.name for spec in self.outputs]}"
            )
        others = tuple(spec for spec in self.outputs if spec.name != output)
        return replace(self, outputs=(named[0], *others), classes=named[0].classes)


def with_streams(architecture: str, inputs: Sequence[str]) -> str:
    """The name of an architecture that reads these streams alone, or all where none is named."""
    return f"{architecture}[{'+'.join(inputs)}]" if inputs else architecture


def without_streams(architecture: str) -> tuple[str, tuple[str, ...]]:
    """The name and the streams of ``with_streams``; no streams where it reads all."""
    found = _READ_STREAMS.fullmatch(architecture)
    return (found["name"], tuple(found["streams"].split("+"))) if found else (architecture, ())


def _only_input(modality: Modality, shape: tuple[int, ...]) -> InputSpec:
    kinds: Mapping[int, InputKind] = {1: "vector", 2: "window", 3: "image"}
    kind = kinds.get(len(shape), "window")
    return InputSpec(name="x", kind=kind, shape=shape, modality=modality)
