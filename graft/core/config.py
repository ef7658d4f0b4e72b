"""The configuration of an expansion: frozen dataclasses, TOML in and out, unknown keys refused.

Every default of the methods is *ours* unless the comment beside it names a paper.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from graft.errors import ConfigError


def _require(condition: bool, what: str, got: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{what}: got {got!r}, wanted {wanted}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldConfig:
    """Where the domains come from.

    ``kind`` "imu" and "digits" are embedded and seeded; "folder" reads ``path``.
    ``domains`` and ``windows_per_domain`` size the embedded worlds only.
    """

    kind: Literal["imu", "digits", "folder"] = "imu"
    path: str = ""
    domains: int = 100
    windows_per_domain: int = 160
    max_domains: int | None = None

    def __post_init__(self) -> None:
        _require(self.domains >= 2, "world.domains", self.domains, "at least 2")
        _require(
            self.windows_per_domain >= 20,
            "world.windows_per_domain",
            self.windows_per_domain,
            "at least 20",
        )
        _require(
            self.kind != "folder" or bool(self.path), "world.path", self.path, "a domain folder"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """How a domain's rows become test, labelled and unlabelled.

    ``test_fraction`` of each class's time blocks, the latest ones, test. ``gamma`` is the
    labelled share of the rest (HaT), at least one row per class that the domain has.
    ``initial_fraction`` of the domains are round 0.
    """

    test_fraction: float = 0.3
    gamma: float = 0.1
    initial_fraction: float = 0.4

    def __post_init__(self) -> None:
        for name in ("test_fraction", "gamma", "initial_fraction"):
            value = getattr(self, name)
            _require(0 < value < 1, f"split.{name}", value, "between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceConfig:
    """Which devices the domains have: the share of each class, and the architectures offered.

    Each domain's class and architecture are drawn from (seed, domain). An empty
    ``architectures`` offers every one that the zoo has for the task. ``classes_file``: a TOML
    file of classes, with a share each, in place of those that graft knows.
    """

    microcontroller_fraction: float = 0.2
    phone_fraction: float = 0.5
    gateway_fraction: float = 0.3
    architectures: tuple[str, ...] = ()
    classes_file: str | None = None

    def __post_init__(self) -> None:
        shares = (self.microcontroller_fraction, self.phone_fraction, self.gateway_fraction)
        _require(
            min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6,
            "devices shares",
            shares,
            "shares of at least 0 that sum to 1",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """Two-stage selection (A1, A2). ``num_candidates`` None is max(2 N_p, 8)."""

    num_sources: int = 5
    num_candidates: int | None = None
    score_mix: float = 0.5

    def __post_init__(self) -> None:
        _require(self.num_sources >= 1, "selection.num_sources", self.num_sources, "at least 1")
        _require(
            self.num_candidates is None or self.num_candidates >= 1,
            "selection.num_candidates",
            self.num_candidates,
            "at least 1",
        )
        _require(0 <= self.score_mix <= 1, "selection.score_mix", self.score_mix, "0 to 1")

    @property
    def candidates_wanted(self) -> int:
        return self.num_candidates or max(2 * self.num_sources, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Local training (A6). Learning rates are per step of Adam.

    ``fedavg_rounds``: how often FedAvg's initial domains push and the server averages.
    """

    epochs: int = 100
    max_steps: int = 300
    batch_size: int = 32
    learning_rate: float = 1e-3
    source_learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    fedavg_rounds: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "max_steps", "batch_size", "fedavg_rounds"):
            _require(
                getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1"
            )
        for name in ("learning_rate", "source_learning_rate"):
            _require(getattr(self, name) > 0, f"training.{name}", getattr(self, name), "above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class HatConfig:
    """Mixer, dictionary and injection (A3-A5)."""

    mixer_width: int = 64
    mixer_temperature: float = 1.0
    holdout_fraction: float = 0.2
    insert_quality: float = 0.2
    dictionary_momentum: float = 0.7
    keep_quality: float = 0.9
    max_injection: float = 2.0
    knowledge_temperature: float = 0.5

    def __post_init__(self) -> None:
        for name in ("holdout_fraction", "insert_quality", "dictionary_momentum", "keep_quality"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"hat.{name}", value, "0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraftConfig:
    """The project's own method, ``graft``.

    Heads: Adam's steps and rate on cached features, and the pull towards the head that came.
    Graph: neighbours a sample, and the share of a prediction that comes from them. Agreement:
    how often sources are weighed by it, and how much (0: not at all). Target:
    the share of the usual steps, the peak learning rate, the weight of what the sources teach
    and the temperature that sharpens it. Augmentation: deviation of a sensor's turn in degrees,
    largest shift as a share of a window.
    """

    head_steps: int = 100
    head_learning_rate: float = 1e-2
    head_l2_sp: float = 1e-2
    num_neighbours: int = 5
    propagation_alpha: float = 0.8
    agreement_iterations: int = 2
    agreement_weight: float = 10.0
    steps_fraction: float = 1 / 3
    learning_rate: float = 5e-3
    distillation_weight: float = 2.0
    knowledge_temperature: float = 0.5
    rotation_degrees: float = 7.0
    shift_fraction: float = 1 / 16

    def __post_init__(self) -> None:
        for name in ("head_steps", "num_neighbours"):
            _require(getattr(self, name) >= 1, f"graft.{name}", getattr(self, name), "at least 1")
        for name in ("head_learning_rate", "learning_rate", "knowledge_temperature"):
            _require(getattr(self, name) > 0, f"graft.{name}", getattr(self, name), "above 0")
        for name in (
            "agreement_iterations",
            "head_l2_sp",
            "agreement_weight",
            "distillation_weight",
            "rotation_degrees",
        ):
            _require(getattr(self, name) >= 0, f"graft.{name}", getattr(self, name), "0 or above")
        for name, most in (
            ("propagation_alpha", 0.99),
            ("steps_fraction", 1),
            ("shift_fraction", 0.5),
        ):
            value = getattr(self, name)
            _require(0 <= value <= most, f"graft.{name}", value, f"0 to {most}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """What a domain applies before statistics leave it. In a run's configuration: what every
    simulated domain applies; a real site's own stands in a file on its disk.

    A class with fewer rows than ``min_class_count`` gives neither its centroid nor, with any
    other class, its count. ``withhold_*``: never give any. ``epsilon``: Gaussian noise on
    statistics, counts and centroids, so much and ``delta`` a release (None: no noise), out of
    ``total_epsilon`` and ``total_delta`` for all of them. Bounds that rows are clipped to for
    it: ``value_bound`` each number of a window or image, ``feature_bound`` the length of a row
    of features.
    """

    min_class_count: int = 10
    withhold_class_counts: bool = False
    withhold_centroids: bool = False
    epsilon: float | None = None
    delta: float = 1e-6
    total_epsilon: float | None = None
    total_delta: float | None = None
    value_bound: float = 4.0
    feature_bound: float = 10.0

    def __post_init__(self) -> None:
        _require(
            self.min_class_count >= 1, "policy.min_class_count", self.min_class_count, "at least 1"
        )
        _require(0 < self.delta < 1, "policy.delta", self.delta, "between 0 and 1")
        for name in ("value_bound", "feature_bound"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"policy.{name}", value, "above 0, finite")
        for name in ("epsilon", "total_epsilon", "total_delta"):
            value = getattr(self, name)
            _require(
                value is None or 0 < value < math.inf, f"policy.{name}", value, "above 0, finite"
            )
        _require(
            self.epsilon is None or self.total_epsilon is not None,
            "policy.total_epsilon",
            self.total_epsilon,
            "a total to spend epsilon from",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustConfig:
    """What targets check of the sources that they are offered, and what the server keeps of it.

    ``verify``: a source whose card and model contradict each other is rejected, which is never
    chosen by who found it out and, once ``min_reports`` target domains did, is ranked behind all
    others; who rejects is offered the next nearest in its place, once. ``chance``: a source that
    is no better than chance on the target domain's rows is rejected too. ``max_source_weight``: the
    most that one source has of a fused prediction, 1 is no cap. ``disagreement``: a source that
    agrees with the others no more than chance, and is not right on the target domain's labels, is
    rejected and has no share.
    """

    verify: bool = True
    chance: bool = False
    min_reports: int = 2
    max_source_weight: float = 1.0
    disagreement: bool = False

    def __post_init__(self) -> None:
        _require(self.min_reports >= 1, "trust.min_reports", self.min_reports, "at least 1")
        _require(
            0 < self.max_source_weight <= 1,
            "trust.max_source_weight",
            self.max_source_weight,
            "above 0, at most 1",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """What lies between devices and the cloud, for the simulated clock.

    By default every device is always there and none is lost. ``*_share``: the share of the
    domains that has each link class; ``classes_file``: a TOML file of classes, with a share
    each, in their place. ``server_*``: the server's own connection, shared by all that
    transfer at once. ``mean_on_s`` and ``mean_off_s``: of exponential on and off times of a
    device; 0 off is always there. Stragglers, drawn by round, compute so many times slower.
    ``dropout_rate`` is the chance that a domain is lost in a round, which alone changes what
    comes of a run. ``patience_s``: how long after a phase's last answer the server gives up those
    that are lost. ``deadline_s``: who ends a round later than that is reported as late.
    """

    broadband_fraction: float = 0.4
    lte_fraction: float = 0.4
    lte_m_fraction: float = 0.15
    nb_iot_fraction: float = 0.05
    classes_file: str | None = None
    server_up_bits_per_s: float = 1e9
    server_down_bits_per_s: float = 1e9
    mean_on_s: float = 3600.0
    mean_off_s: float = 0.0
    straggler_fraction: float = 0.0
    straggler_slowdown: float = 4.0
    dropout_rate: float = 0.0
    patience_s: float = 60.0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        shares = (
            self.broadband_fraction,
            self.lte_fraction,
            self.lte_m_fraction,
            self.nb_iot_fraction,
        )
        _require(
            min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6,
            "network shares",
            shares,
            "shares of at least 0 that sum to 1",
        )
        for name in ("server_up_bits_per_s", "server_down_bits_per_s", "mean_on_s"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"network.{name}", value, "above 0, finite")
        for name in ("mean_off_s", "patience_s"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"network.{name}", value, "0 or above, finite")
        for name in ("straggler_fraction", "dropout_rate"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"network.{name}", value, "0 to 1")
        slowdown = self.straggler_slowdown
        _require(
            1 <= slowdown < math.inf, "network.straggler_slowdown", slowdown, "at least 1, finite"
        )
        _require(
            self.deadline_s is None or self.deadline_s > 0,
            "network.deadline_s",
            self.deadline_s,
            "above 0",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpansionConfig:
    """Everything that decides an expansion's outcome; workers and paths do not stand here."""

    seed: int = 0
    rounds: int = 3
    method: str = "graft"
    comparisons: tuple[str, ...] = (
        "graft-initial",
        "hat",
        "label-only",
        "all-labels",
        "best-source",
        "finetuned-any",
        "finetuned-same",
        "average-kd-selected",
        "average-kd-all",
    )
    world: WorldConfig = field(default_factory=WorldConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    devices: DeviceConfig = field(default_factory=DeviceConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    hat: HatConfig = field(default_factory=HatConfig)
    graft: GraftConfig = field(default_factory=GraftConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        _require(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or above")
        _require(
            self.method not in self.comparisons,
            "comparisons",
            self.comparisons,
            f"methods other than the main method {self.method!r}",
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The main method first, then what it is compared with."""
        return (self.method, *self.comparisons)


def config_from_dict(table: dict[str, Any]) -> ExpansionConfig:
    """Build the configuration; raises ConfigError naming any unknown key or wrong type."""
    return typing.cast(ExpansionConfig, build_settings(ExpansionConfig, table))


def config_to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain tables; unset (None) keys are left out."""
    table: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            table[item.name] = config_to_dict(value)
        elif isinstance(value, tuple):
            table[item.name] = list(value)
        elif value is not None:
            table[item.name] = value
    return table


def read_config(path: Path) -> ExpansionConfig:
    """Read a TOML file; raises ConfigError where it is missing, malformed or has unknown keys."""
    return config_from_dict(read_toml(path, "configuration"))


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; raises ConfigError, which calls the file ``what``."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path}: no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path}: not TOML: {error}") from error


def config_toml(config: ExpansionConfig) -> str:
    """The whole configuration as TOML text; ``read_config`` gives back an equal one."""
    return tomli_w.dumps(config_to_dict(config))


def with_settings(config: ExpansionConfig, settings: dict[str, Any]) -> ExpansionConfig:
    """A copy with dotted keys replaced, e.g. {"split.gamma": 0.05}."""
    table = config_to_dict(config)
    for dotted, value in settings.items():
        *parents, leaf = dotted.split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
            _require(isinstance(place, dict), f"setting {dotted!r}", value, "a known key")
        place[leaf] = value
    return config_from_dict(table)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSource:
    """What a Flower run config names: a configuration, a run folder, the wait for nodes."""

    config: ExpansionConfig
    folder: Path
    join_timeout_s: float


def read_run_settings(settings: Mapping[str, Any], run_name: str) -> RunSource:
    """Read a Flower run config.

    Its keys are ``run-folder`` (empty: ``~/.graft/runs/<run_name>``), ``config-file`` (empty:
    the defaults), ``join-timeout-s``, and any dotted key of ExpansionConfig, which wins over
    the file. Raises ConfigError for any other.
    """
    table = dict(settings)
    folder = table.pop("run-folder", "") or Path.home() / ".graft" / "runs" / run_name
    config_file = table.pop("config-file", "")
    join_timeout_s = _convert(float, table.pop("join-timeout-s", 120.0), "join-timeout-s")
    config = read_config(Path(config_file)) if config_file else ExpansionConfig()
    return RunSource(
        config=with_settings(config, table),
        folder=Path(folder).absolute(),
        join_timeout_s=join_timeout_s,
    )


def build_settings(cls: type, table: dict[str, Any], prefix: str = "") -> Any:
    """The dataclass ``cls`` of a table; raises ConfigError naming an unknown key or wrong type."""
    hints = typing.get_type_hints(cls)
    known = {item.name for item in dataclasses.fields(cls)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"unknown configuration key {prefix + unknown[0]!r}, wanted one of {sorted(known)}"
        )
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in table.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: got {value!r}, wanted a table")
        return build_settings(typing.cast(type, hint), value, name + ".")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:  # every optional key is written "T | None"
        return _convert(
            next(arg for arg in typing.get_args(hint) if arg is not type(None)), value, name
        )
    if origin is Literal:
        options = typing.get_args(hint)
        _require(value in options, name, value, f"one of {list(options)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{name}: got {value!r}, wanted a list of names")
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    _require(type(value) is hint, name, value, hint.__name__)
    return value
