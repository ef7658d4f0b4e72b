"""What a method is: a name, a way to fit, and which source models a device must be sent for it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from graft.core.config import ExpansionConfig
from graft.core.plugins import declare_section
from graft.core.records import Precision
from graft.errors import ConfigError
from graft.methods.cost import distilled_cost
from graft.training import TrainedModel, TrainingTask
from graft.training.cost import ComputeCost, WorkloadShape

SourcesNeeded = Literal["none", "selected", "same-architecture", "all", "centroids"]
# TrainingTasks of many devices at once, and the torch device to train them on.
FitMany = Callable[[Sequence[TrainingTask], str], list[TrainedModel]]
INITIAL = "initial"
# Names stand in messages, in file names and as sections of a TOML file.
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECTION = re.compile(r"[A-Za-z_]\w{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method: how a target domain's device turns a training task into a model.

    Parameters
    ----------
    name : str
        What the configuration, the ledger and the results call it.
    title : str
        What the report shows. It ends in "-style" where the method is written from a paper's text
        and reproduces no published number.
    fit : callable
        Trains on one device: ``TrainingTask`` to ``TrainedModel``. Equal tasks must give equal
        models: draw random numbers from ``task.seed`` alone.
    sources_needed : {"none", "selected", "same-architecture", "all", "centroids"}
        The source models that the device is sent: none; those of the two-stage selection; all of
        the target's own architecture; all; or, in place of models, the class centroids of those
        that rank nearest.
    fit_many : callable, optional
        Gives for many tasks what ``fit`` gives for each, up to rounding. A simulator trains the
        models of many devices side by side with it.
    initial_only : bool
        Leave models of later rounds out of its catalogue (A7).
    precision : {"exact", "base"}
        "base" where the int8 bases that the device probed are enough.
    warm_start : bool
        Select one source of the target's own architecture, wherever a candidate is.
    needs_average : bool
        Send also the average model of the initial domains of its architecture.
    cost : callable
        Compute cost of a task of this shape, for the simulated clock.
    reads : tuple of str
        Sections of ``ExpansionConfig`` that no other kind of method reads.
    section, settings : str and type, optional
        A section of the configuration of its own, and the dataclass or pydantic model that checks
        it. ``fit`` reads it as ``task.config.section(name, Settings)``.

    Raises
    ------
    ConfigError
        For a name that cannot stand in a file name, or a section that graft has itself.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from graft.methods import Method
    >>> from graft.methods.baselines import fit_label_only
    >>> @dataclass(frozen=True)
    ... class Settings:
    ...     alpha: float = 0.5
    >>> method = Method(
    ...     name="mine", title="Mine", fit=fit_label_only, sources_needed="none",
    ...     section="mine", settings=Settings,
    ... )
    >>> method.config_keys
    ('sections.mine',)
    """

    name: str
    title: str
    fit: Callable[[TrainingTask], TrainedModel]
    sources_needed: SourcesNeeded
    fit_many: FitMany | None = None
    initial_only: bool = False
    precision: Precision = "exact"
    warm_start: bool = False
    needs_average: bool = False
    cost: Callable[[WorkloadShape], ComputeCost] = distilled_cost
    reads: tuple[str, ...] = ()
    section: str = ""
    settings: type | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ConfigError(f"method name: got {self.name!r}, wanted {_NAME.pattern}")
        if bool(self.section) != (self.settings is not None):
            raise ConfigError(f"method {self.name!r}: wanted section and settings, or neither")
        if self.settings is not None:
            if self.section in ExpansionConfig.__dataclass_fields__ or not _SECTION.fullmatch(
                self.section
            ):
                raise ConfigError(f"section: got {self.section!r}, wanted a name of its own")
            declare_section(self.section, self.settings)

    @property
    def config_keys(self) -> tuple[str, ...]:
        """The keys of the configuration that only its kind of method reads."""
        return (*self.reads, f"sections.{self.section}") if self.section else self.reads
