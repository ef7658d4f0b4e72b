"""What a method is, and every method by name.

A module of this package that has ``METHODS`` is a method's file. Other packages list theirs under
the entry point group ``graft.methods``; the configuration may name one by its reference,
"package.module:attribute"; a script adds its own with ``add_method``.
"""

import importlib
import logging
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import entry_points
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import graft.methods
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.plugins import declare_section, loaded_references
from graft.core.records import Precision
from graft.core.tasks import OutputKind, Task
from graft.core.text import did_you_mean
from graft.errors import ConfigError
from graft.methods.cost import distilled_cost
from graft.training import TrainedModel, TrainingTask
from graft.training.cost import ComputeCost, WorkloadShape

SourcesNeeded = Literal["none", "selected", "same-architecture", "all", "centroids"]
# TrainingTasks of many devices at once, and the torch device to train them on.
FitMany = Callable[[Sequence[TrainingTask], str], list[TrainedModel]]
INITIAL = "initial"
OUTPUTS: tuple[OutputKind, ...] = ("classes", "labels", "amount")
_added: dict[str, "Method"] = {}
_LOG = logging.getLogger("graft")
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
    is_reference : bool
        It uses what no deployed device has (``task.pooled``): a comparison of simulations alone.
    trains_privately : bool
        Its training honours ``task.private``, and nothing else that it does with rows mixes them.
    reads : tuple of str
        Sections of ``ExpansionConfig`` that no other kind of method reads.
    outputs : tuple of str
        The kinds of outputs that it learns: "classes", "labels", "amount".
    section, settings : str and type, optional
        A section of the configuration of its own, and the dataclass or pydantic model that checks
        it. ``fit`` reads it as ``task.config.section(name, Settings)``.

    Raises
    ------
    ConfigError
        For a name that cannot stand in a file name, or a section that graft has itself.

    Examples
    --------
    >>> from dataclasses import dataclass, replace
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
    is_reference: bool = False
    trains_privately: bool = False
    reads: tuple[str, ...] = ()
    outputs: tuple[OutputKind, ...] = ("classes",)
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


def each_compiled(fit: Callable[[TrainingTask], TrainedModel]) -> FitMany:
    """The ``fit_many`` of a method whose ``fit`` heeds ``task.compiled``."""

    def fit_many(tasks: Sequence[TrainingTask], device: str) -> list[TrainedModel]:
        return [fit(replace(task, compiled=True)) for task in tasks]

    return fit_many


# Most methods are sent the sources of the two-stage selection.
selected = partial(Method, sources_needed="selected")


def methods_by_name() -> Mapping[str, Method]:
    """Every method: of graft, installed, added or loaded by its reference.

    Raises ConfigError where two installed ones have one name.
    """
    return MappingProxyType({**_installed(), **_added, **loaded_references(Method)})


def find_method(name: str) -> Method:
    """The method of that name; raises ConfigError for an unknown one."""
    known = methods_by_name()
    if name not in known:
        raise ConfigError(
            f"method: got {name!r}, wanted one of {sorted(known)}, or for one of a script or "
            f"notebook its Method object (graft.simulate, graft.resume){did_you_mean(name, known)}"
        )
    return known[name]


def add_method(method: Method) -> None:
    """Make a script's method known in this process; one added before under its name is replaced.

    Raises ConfigError for the name of an installed method.
    """
    if method.name in _installed():
        raise ConfigError(f"method {method.name!r}: got two, wanted one of each name")
    _added[method.name] = method


def added_methods() -> tuple[Method, ...]:
    """What ``add_method`` was given: processes that work for this one need it too."""
    return tuple(_added.values())


def require_deployable(config: ExpansionConfig) -> None:
    """Raise ConfigError where the main method is a reference, whose models nothing may use."""
    if find_method(config.method).is_reference:
        raise ConfigError(
            f"method: got the reference {config.method!r}, wanted one that a device can carry out"
        )


def with_method_sections(config: ExpansionConfig) -> ExpansionConfig:
    """The configuration with the whole sections of its methods, defaults included.

    Raises ConfigError for a value that a method's settings class refuses, and for a method that
    cannot train privately where the policy asks for it.
    """
    if config.policy.train_epsilon is not None:
        for name in config.methods:
            require_private_training(name)
    own: dict[str, Any] = {m.section: {} for m in map(find_method, config.methods) if m.section}
    return with_settings(config, own) if own else config


def for_output(config: ExpansionConfig, task: Task) -> ExpansionConfig:
    """The configuration without the comparisons that do not learn the task's output, which are
    named in the log; raises ConfigError as ``require_output`` does."""
    kind = task.outputs[0].kind
    left_out = [n for n in config.comparisons if kind not in find_method(n).outputs]
    kept = tuple(name for name in config.comparisons if name not in left_out)
    config = config if not left_out else replace(config, comparisons=kept)
    require_output(config, task)
    if left_out:
        _LOG.warning("left out, because they learn no %s: %s", kind, ", ".join(left_out))
    return config


def require_output(config: ExpansionConfig, task: Task) -> None:
    """Raise ConfigError where a run on the task's output cannot do what its configuration says."""
    spec = task.outputs[0]
    what = f"world.output: got {spec.name!r} of kind {spec.kind!r}"
    for name in config.methods:
        if spec.kind not in find_method(name).outputs:
            able = sorted(n for n, each in methods_by_name().items() if spec.kind in each.outputs)
            raise ConfigError(f"{what} for method {name!r}, wanted a method of {able}")
    if spec.kind != "classes" and config.policy.train_epsilon is not None:
        raise ConfigError(f"{what} with policy.train_epsilon, wanted an output of kind 'classes'")
    if spec.kind != "classes" and config.growth.classes:
        raise ConfigError(f"{what} with growth.classes, wanted an output of kind 'classes'")


def require_private_training(name: str) -> None:
    """Raise ConfigError for a method that cannot train privately."""
    if not find_method(name).trains_privately:
        able = sorted(n for n, method in methods_by_name().items() if method.trains_privately)
        raise ConfigError(f"policy.train_epsilon: got method {name!r}, wanted one of {able}")


@cache
def _installed() -> Mapping[str, Method]:
    known: dict[str, Method] = {}
    for module in _modules():
        for method in getattr(module, "METHODS", ()):
            if method.name in known:
                raise ConfigError(f"method {method.name!r}: got two, wanted one of each name")
            known[method.name] = method
    return known


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(graft.methods.__path__, "graft.methods."):
        yield importlib.import_module(found.name)
    for entry in entry_points(group="graft.methods"):
        yield entry.load()
