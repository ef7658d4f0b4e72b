"""The configuration of an expansion: every key with its default, its bounds and its meaning.

Every default of the methods is the project's own unless its description names a paper.
"""

import dataclasses
import math
from typing import Any, Final, Literal

from graft.core.plugins import Kind, is_library, is_reference
from graft.core.settings import (
    RENAMED_METHODS,
    Count,
    Fraction,
    Names,
    NonNegative,
    Positive,
    ProperFraction,
    build_settings,
    key,
    settings,
)
from graft.errors import ConfigError

# The join and a refusal always fit in a limit of bytes.
_BYTES: Final = {"ge": 1024, "le": 2**46}


def _check_sum(section: str, *fractions: float) -> None:
    if not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ConfigError(f"{section} shares: got {fractions}, wanted fractions that sum to 1")


@settings("world.")
class WorldConfig:
    """Where the domains come from."""

    kind: Literal["imu", "digits", "wearables", "folder"] = key(
        "imu", "Embedded and seeded, or a folder"
    )
    path: str = key("", "The domain folder that kind `folder` reads")
    domains: int = key(100, "Domains of an embedded world", ge=2)
    windows_per_domain: int = key(160, "Samples a domain of an embedded world", ge=20)
    max_domains: int | None = key(None, "Use at most so many domains, drawn by the seed", ge=2)
    output: str | None = key(None, "The output of a folder to train; its first by default")

    def __post_init__(self) -> None:
        if self.kind == "folder" and not self.path:
            raise ConfigError(f"world.path: got {self.path!r}, wanted a domain folder")


@settings("split.")
class SplitConfig:
    """How a domain's rows become test, labelled and unlabelled, and which domains are initial."""

    test_fraction: ProperFraction = key(0.3, "Fraction of each class's time blocks, the latest")
    gamma: ProperFraction = key(0.1, "Labelled fraction of the rest (HaT), at least a row a class")
    initial_fraction: ProperFraction = key(0.4, "Fraction of the domains that train in round 0")


@settings("devices.")
class DeviceConfig:
    """The devices of the domains. Each one's class and architecture are drawn from (seed, domain);
    the fractions sum to 1."""

    microcontroller_fraction: Fraction = key(0.2, "Fraction that are microcontrollers")
    phone_fraction: Fraction = key(0.5, "Fraction that are phones")
    gateway_fraction: Fraction = key(0.3, "Fraction that are gateways")
    architectures: Names = key((), "Architectures to draw from; empty: all that fit the task")
    classes_file: str | None = key(None, "TOML file of device classes in place of graft's own")
    backbone: Literal["installed", "shipped"] = key(
        "installed", "Simulated devices have a public backbone, or are sent it once"
    )

    def __post_init__(self) -> None:
        _check_sum(
            "devices", self.microcontroller_fraction, self.phone_fraction, self.gateway_fraction
        )


@settings("selection.")
class SelectionConfig:
    """Two-stage selection of source models (A1, A2)."""

    num_sources: Count = key(5, "Source models that a target domain keeps, N_p")
    num_candidates: int | None = key(None, "Models that it probes; not set: max(2 N_p, 8)", ge=1)
    score: str = key("joint", "What ranks probed sources: joint (A2), another score, or random")
    score_mix: Fraction = key(0.5, "joint: weight of labelled accuracy beside feature similarity")

    @property
    def candidates_wanted(self) -> int:
        """How many models a target domain probes."""
        return self.num_candidates or max(2 * self.num_sources, 8)


@settings("training.")
class TrainingConfig:
    """Local training (A6), with Adam."""

    epochs: Count = key(100, "Passes over a domain's rows, at most")
    max_steps: Count = key(300, "Optimiser steps, at most")
    batch_size: Count = key(32, "Rows a step")
    learning_rate: Positive = key(1e-3, "Learning rate of the model")
    source_learning_rate: Positive = key(1e-2, "Learning rate of heads that weigh or move sources")
    weight_decay: float = key(1e-4, "Weight decay")
    autocast: Literal["none", "bfloat16"] = key(
        "none", "Precision in which encoders compute where torch's autocast allows it"
    )
    fedavg_rounds: Count = key(5, "FedAvg: rounds in which initial domains push and average")


@settings("hat.")
class HatConfig:
    """Mixer, knowledge dictionary and injection of the method `hat` (A3 to A5)."""

    mixer_width: int = key(64, "Width of the mixer's common space")
    mixer_temperature: float = key(1.0, "Temperature of its softmax over sources, at the start")
    holdout_fraction: Fraction = key(0.2, "Fraction of the labelled rows that measure quality")
    insert_quality: Fraction = key(0.2, "Least quality of a prediction to enter the dictionary")
    dictionary_momentum: Fraction = key(0.7, "Weight of an entry's former prediction in an update")
    keep_quality: Fraction = key(0.9, "Least quality of an update, as a fraction of the entry's")
    max_injection: float = key(2.0, "Largest weight of the dictionary in the target's loss")
    knowledge_temperature: float = key(0.5, "Temperature that sharpens the dictionary")


@settings("graft.")
class GraftConfig:
    """The project's own method, `graft`."""

    head_steps: Count = key(100, "Adam's steps for the sources' heads")
    head_learning_rate: Positive = key(1e-2, "Adam's learning rate for the heads")
    head_l2_sp: NonNegative = key(1e-2, "L2-SP penalty towards the head that was sent")
    num_neighbours: Count = key(5, "Neighbours of a sample in the graph")
    propagation_alpha: float = key(0.8, "Weight of the neighbours' predictions", ge=0, le=0.99)
    agreement_iterations: int = key(2, "Times that sources are reweighted by agreement", ge=0)
    agreement_weight: NonNegative = key(10.0, "Factor of the agreement in a source's log weight")
    architecture_margin: Fraction = key(
        1.0,
        "The target takes the architecture of a source that agrees by more than this more than "
        "those of its own; 1: never",
    )
    steps_fraction: Fraction = key(1 / 3, "Fraction of the usual steps that the target trains")
    learning_rate: Positive = key(5e-3, "Peak learning rate of the target")
    distillation_weight: NonNegative = key(2.0, "Weight of the soft targets in the target's loss")
    knowledge_temperature: Positive = key(0.5, "Temperature that sharpens the soft targets")
    rotation_degrees: NonNegative = key(7.0, "Augmentation: deviation of a sensor's rotation")
    shift_fraction: float = key(1 / 16, "Augmentation: largest shift of a window", ge=0, le=0.5)


@settings("policy.")
class PolicyConfig:
    """What a domain applies before statistics leave it: a simulated one by the run's configuration,
    a real site by its own `policy.toml`."""

    min_class_count: Count = key(10, "A class with fewer rows gives neither centroid nor count")
    withhold_class_counts: bool = key(False, "Give no class counts")
    withhold_centroids: bool = key(False, "Give no class centroids")
    epsilon: float | None = key(None, "Gaussian noise: epsilon a release; not set: none", gt=0)
    delta: ProperFraction = key(1e-6, "Gaussian noise: delta a release")
    total_epsilon: float | None = key(None, "Epsilon that all releases may spend", gt=0)
    total_delta: float | None = key(None, "Delta that all releases may spend", gt=0, lt=1)
    composition: Literal["sum", "joint"] = key(
        "sum", "Releases together cost the sum, or the epsilon at total_delta of all their noise"
    )
    probes_per_round: Count = key(4, "With noise, different probes that are answered in a round")
    noisy_metrics: bool = key(
        False, "With noise, a test's scores are a release as well, paid from the budget"
    )
    train_epsilon: float | None = key(
        None, "Train privately (DP-SGD): epsilon a training; not set: plain training", gt=0
    )
    train_clip: Positive = key(1.0, "For it, the length of a row's gradient is clipped to it")
    train_head_only: bool = key(
        False, "For it, the head alone learns; the encoder stays as it came"
    )
    max_down_bytes: int | None = key(None, "Most bytes down to this device", **_BYTES)
    max_up_bytes: int | None = key(None, "Most bytes up from it", **_BYTES)
    max_device_s: float | None = key(None, "Most seconds that it computes", gt=0, le=1e9)
    max_memory_bytes: int | None = key(None, "Most memory that its learning uses", **_BYTES)
    value_bound: Positive = key(4.0, "For noise, each number of a sample is clipped to it")
    feature_bound: Positive = key(10.0, "For noise, the length of a feature row is clipped to it")

    def __post_init__(self) -> None:
        noise = self.epsilon is not None or self.train_epsilon is not None
        if noise and self.total_epsilon is None:
            raise ConfigError("policy.total_epsilon: got None, wanted a total to spend from")
        if self.noisy_metrics and self.epsilon is None:
            raise ConfigError("policy.noisy_metrics: got no policy.epsilon, wanted one")
        if self.composition == "joint" and self.total_delta is None:
            raise ConfigError("policy.total_delta: got None, wanted one for joint composition")


@settings("budget.")
class BudgetConfig:
    """What serving one target domain by one method in a round may cost. Where its device has limits
    of its own (`policy.max_*`, the keys of its class), the smaller one holds. Bytes are the
    ledger's payload bytes, of every message and transfer, the join included."""

    down_bytes: int | None = key(None, "Most bytes down to its device; not set: any", **_BYTES)
    up_bytes: int | None = key(None, "Most bytes up from its device; not set: any", **_BYTES)
    device_s: float | None = key(
        None, "Most seconds that its device computes, by the cost model", gt=0, le=1e9
    )
    memory_bytes: int | None = key(None, "Most memory, by the memory model", **_BYTES)


@settings("trust.")
class TrustConfig:
    """What target domains check of the sources that they are offered. A target domain that rejects
    a source is offered one replacement, once."""

    verify: bool = key(True, "Reject a source whose card and model contradict each other")
    chance: bool = key(False, "Reject a source that is no better than chance on the labels")
    min_reports: Count = key(2, "Confirmed reports that rank a source behind all others")
    report_rounds: Count = key(10, "Rounds until a report expires; half of them at full weight")
    max_source_weight: float = key(1.0, "Most that a source weighs in a prediction", gt=0, le=1)
    disagreement: bool = key(
        False, "Reject a source that neither the others nor the labels support"
    )


@settings("growth.")
class GrowthConfig:
    """Task growth in a simulation: domains that are in the system come back with new classes, and
    retrain their models without forgetting the old ones."""

    classes: Names = key((), "Classes that no domain has before `growth.round`; empty: no growth")
    round: Count = key(2, "Round in which domains come back")
    fraction: Fraction = key(0.5, "Fraction of the domains of earlier rounds that come back")
    method: Literal["had", "lwf", "ewc", "naive", "joint"] = key(
        "had", "How old outputs are kept, by the models that join the catalogue"
    )
    comparisons: Names = key((), "Other ways, for comparison")
    strength: float | None = key(None, "Weight of keeping; not set: the way's own", ge=0)

    @property
    def methods(self) -> tuple[str, ...]:
        """The main way first, then those that it is compared with."""
        return tuple(dict.fromkeys((self.method, *self.comparisons)))


@settings("forget.")
class ForgetConfig:
    """Forgetting of domains."""

    descendants: Literal["keep", "quarantine", "retrain"] = key(
        "quarantine", "Models that learned from a forgotten domain: stay, stay unoffered, or anew"
    )


@settings("network.")
class NetworkConfig:
    """What connects devices and server, for the simulated clock. By default every device is always
    available. The fractions of the link classes sum to 1."""

    broadband_fraction: Fraction = key(0.4, "Fraction of the domains on broadband")
    lte_fraction: Fraction = key(0.4, "Fraction of the domains on LTE")
    lte_m_fraction: Fraction = key(0.15, "Fraction of the domains on LTE-M")
    nb_iot_fraction: Fraction = key(0.05, "Fraction of the domains on NB-IoT")
    classes_file: str | None = key(None, "TOML file of link classes in place of graft's own")
    server_up_bits_per_s: Positive = key(1e9, "Uplink of the server, shared by all transfers")
    server_down_bits_per_s: Positive = key(1e9, "Downlink of the server, shared likewise")
    mean_on_s: Positive = key(3600.0, "Mean of a device's exponential times on")
    mean_off_s: NonNegative = key(0.0, "Mean of its exponential times off; 0: always on")
    straggler_fraction: Fraction = key(0.0, "Fraction of stragglers, drawn each round")
    straggler_slowdown: float = key(4.0, "Factor of a straggler's compute time", ge=1)
    dropout_rate: Fraction = key(0.0, "Chance that a round loses a domain; changes the results")
    patience_s: NonNegative = key(60.0, "Wait for lost domains after a phase's last response")
    deadline_s: float | None = key(None, "A domain that ends a round later is late", gt=0)

    def __post_init__(self) -> None:
        mobile = (self.lte_fraction, self.lte_m_fraction, self.nb_iot_fraction)
        _check_sum("network", self.broadband_fraction, *mobile)


@settings()
class ExpansionConfig:
    """Everything that decides the results of a run; workers and folders are not in it."""

    seed: int = key(0, "Every random stream derives from it", ge=0)
    rounds: Count = key(3, "Rounds of target domains after round 0")
    method: str = key("graft", "The method whose models join the catalogue")
    comparisons: Names = key(
        (
            "graft-initial",
            "hat",
            "label-only",
            "all-labels",
            "best-source",
            "finetuned-any",
            "finetuned-same",
            "average-kd-selected",
            "average-kd-all",
        ),
        "Methods that serve the same target domains beside it",
    )
    world: WorldConfig = WorldConfig()
    split: SplitConfig = SplitConfig()
    devices: DeviceConfig = DeviceConfig()
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()
    hat: HatConfig = HatConfig()
    graft: GraftConfig = GraftConfig()
    policy: PolicyConfig = PolicyConfig()
    budget: BudgetConfig = BudgetConfig()
    trust: TrustConfig = TrustConfig()
    growth: GrowthConfig = GrowthConfig()
    forget: ForgetConfig = ForgetConfig()
    network: NetworkConfig = NetworkConfig()
    # What methods of other packages and of scripts read, by section and key.
    sections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in self.methods:
            if name in RENAMED_METHODS:
                raise ConfigError(
                    f"method: got the former name {name!r}, wanted {RENAMED_METHODS[name]!r}"
                )
        if self.method in self.comparisons:
            raise ConfigError(
                f"comparisons: got {self.comparisons!r}, "
                f"wanted methods other than the main method {self.method!r}"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The main method first, then those that it is compared with."""
        return (self.method, *self.comparisons)

    @property
    def plug_ins(self) -> tuple[str, ...]:
        """Methods, architectures and the score, where named "package.module:attribute"."""
        named = (*self.methods, *self.devices.architectures, self.selection.score)
        return tuple(name for name in named if is_reference(name) or is_library(name))

    def section(self, name: str, cls: type[Kind]) -> Kind:
        """A method's own section, as its settings class ``cls``."""
        return build_settings(cls, self.sections.get(name, {}), f"{name}.")
