"""Which rows a matrix has, which of them are missing, and what decides a row's numbers."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Final

from graft.bench.rows import BenchmarkRow, RowKey, is_ablation
from graft.core.config import ExpansionConfig, WorldConfig
from graft.core.config_files import config_to_dict, with_settings
from graft.core.records import DOMAIN_ID
from graft.data.domain import World
from graft.data.splits import schedule_rounds
from graft.data.worlds import EMBEDDED, open_world
from graft.errors import ConfigError
from graft.methods import INITIAL, find_method, methods_by_name
from graft.methods.federated import FEDAVG_LOCAL

# What the main method is compared with unless other methods are asked for.
COMPARISONS: Final = (
    "hat", "label-only", "all-labels", "best-source", "finetuned-any", "finetuned-same",
    "average-kd-selected", "average-kd-all", "soft-kd", "camkd", "aekd", "hmkd", "kacfl",
    "decision", "shot", "fedproto", "fedavg", "feddf", "label-only-recipe", "pseudo-label",
    "fixmatch", "mean-teacher", "fedavg-fixmatch", "fedavg-shot", "label-spreading",
    "pooled-reference",
)  # fmt: skip
# There are 1,797 digits in all: more domains would have too few each to test on.
_DIGITS_DOMAINS: Final = 20
# The key's own columns, what says where the data lies, and what the simulated clock alone reads:
# none of them is part of a digest.
_KEY_SETTINGS: Final = (
    "seed", "rounds", "method", "comparisons", "world", "split.gamma", "selection.num_sources",
    "network",
)  # fmt: skip
# Settings that came after rows had been computed, and at their default change none: they are part
# of a digest where they have another value.
_LATER_SETTINGS: Final = (
    "trust.verify", "trust.chance", "trust.min_reports", "trust.max_source_weight",
    "trust.disagreement", "trust.report_rounds", "policy.withhold_class_counts",
    "policy.withhold_centroids", "policy.delta", "policy.value_bound", "policy.feature_bound",
    "policy.composition", "policy.probes_per_round", "policy.train_clip", "policy.train_head_only",
    "policy.noisy_metrics",
    "forget.descendants", "selection.score", "devices.backbone", "graft.architecture_margin",
    "growth.classes", "growth.round", "growth.fraction", "growth.method", "growth.comparisons",
    "training.autocast",
)  # fmt: skip
# Initial domains hold all their labels and select nothing.
_TARGET_SETTINGS: Final = ("selection", "hat", "graft")


def default_methods(main: str) -> tuple[str, ...]:
    """The main method, the methods it is compared with, and its ablations. A variant that differs
    in its catalogue alone is none: target domains have no other here."""
    ablations = sorted(
        name
        for name, method in methods_by_name().items()
        if is_ablation(name, main) and not method.initial_only
    )
    return tuple(dict.fromkeys((main, *COMPARISONS, *ablations)))


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialTraining:
    """The initial domains of one data set and seed: trained once, for every gamma and N_p.

    For methods that start from an average model they also make that; ``config.method`` says so.
    ``compiled``: they and the target domains train in the compiled trainer, where it has a form.
    """

    data: str
    config: ExpansionConfig
    initial_domains: tuple[str, ...]
    folder: Path
    data_digest: str
    compiled: bool = False

    @property
    def title(self) -> str:
        return f"{self.data}, seed {self.config.seed}: initial domains"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """The target domains of one data set, seed, gamma and N_p that one method has yet to serve."""

    initial_training: InitialTraining
    config: ExpansionConfig
    domain_ids: tuple[str, ...]
    scratch: Path
    config_digest: str

    @property
    def title(self) -> str:
        data, seed, gamma, num_sources, method, _ = self.key("")
        return f"{data}, seed {seed}, gamma {gamma:g}, {num_sources} sources: {method}"

    def key(self, domain_id: str) -> RowKey:
        """The key of one target domain's row."""
        config = self.config
        return RowKey(
            self.initial_training.data,
            config.seed,
            config.split.gamma,
            config.selection.num_sources,
            config.method,
            domain_id,
        )


Job = InitialTraining | Expansion


@dataclass(frozen=True, kw_only=True)
class MatrixPlan:
    """A matrix: ``config`` has all that the axes do not set.

    ``targets``: how many of the schedule's target domains each seed serves; ``sources``: the values
    of N_p for methods that select; ``compiled``: train in the compiled trainer, whose rows are
    equal up to rounding and have no device time. Raises ConfigError for an empty axis or an
    unknown method.
    """

    worlds: Mapping[str, WorldConfig]
    config: ExpansionConfig
    methods: tuple[str, ...]
    gammas: tuple[float, ...]
    seeds: tuple[int, ...]
    targets: int
    work: Path
    sources: tuple[int, ...] | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        for axis in ("worlds", "methods", "gammas", "seeds"):
            if not getattr(self, axis):
                raise ConfigError(f"{axis}: got none, wanted at least one")
        if self.targets < 1:
            raise ConfigError(f"target domains: got {self.targets}, wanted at least 1")
        for name in self.methods:
            find_method(name)
            if name in (INITIAL, FEDAVG_LOCAL):
                raise ConfigError(f"methods: got {name!r}, wanted what serves a target domain")

    def config_digest(self, method: str) -> str:
        """What the settings of a method's rows must agree on: all but the key's own, and but
        the sections that only other methods read."""
        private = {key for known in methods_by_name().values() for key in known.config_keys}
        foreign = private - set(find_method(method).config_keys)
        return _digest(_without(_settings(self.config), (*_KEY_SETTINGS, *foreign)))

    @cached_property
    def data_digests(self) -> Mapping[str, str]:
        """What a data set's rows must agree on: its bytes, or the embedded world's size."""
        return {name: _data_digest(world) for name, world in self.worlds.items()}

    @property
    def scratch(self) -> Path:
        """Where jobs keep what they need while they run."""
        return self.work / "scratch"

    @property
    def initial_domains(self) -> Path:
        """A run folder each data set, seed and configuration of initial domains."""
        return self.work / "initial domains"

    def expansions(self, rows: Iterable[BenchmarkRow]) -> Iterator[Expansion]:
        """The jobs for every row that is missing or failed: seed by seed, so that few seeds of
        everything come before all seeds of a part."""
        finished = {row.key for row in rows if row.error is None}
        for expansion in self._expansions():
            missing = tuple(d for d in expansion.domain_ids if expansion.key(d) not in finished)
            if missing:
                yield replace(expansion, domain_ids=missing)

    def row_keys(self) -> set[RowKey]:
        """The key of every row that is wanted."""
        return {e.key(domain_id) for e in self._expansions() for domain_id in e.domain_ids}

    def _expansions(self) -> Iterator[Expansion]:
        for seed, (name, world) in product(self.seeds, self.worlds.items()):
            config = replace(self.config, seed=seed, world=world, rounds=1)
            initial, arriving = self._schedule(name, open_world(world, seed), config)
            for gamma, method in product(self.gammas, self.methods):
                for num_sources in self._sources_of(method):
                    yield Expansion(
                        initial_training=self._initial_training(name, config, method, initial),
                        config=_row_config(config, gamma, num_sources, method),
                        domain_ids=arriving[: self.targets],
                        scratch=self.scratch,
                        config_digest=self.config_digest(method),
                    )

    def _schedule(
        self, name: str, world: World, config: ExpansionConfig
    ) -> tuple[tuple[str, ...], ...]:
        """Initial domains, then target domains, of a set and a seed."""
        return schedule_rounds(world, config.split, 1, config.seed)

    def _initial_training(
        self, name: str, config: ExpansionConfig, method: str, initial_domains: tuple[str, ...]
    ) -> InitialTraining:
        """Its run folder is named by everything that decides the initial domains' models."""
        asked = FEDAVG_LOCAL if find_method(method).needs_average else INITIAL
        settings = _without(_settings(config), (*_KEY_SETTINGS, *_TARGET_SETTINGS))
        digest = _digest([asked, settings, self.data_digests[name]])
        kind = "-compiled" if self.compiled else ""
        return InitialTraining(
            data=name,
            config=replace(config, method=asked, comparisons=()),
            initial_domains=initial_domains,
            folder=self.initial_domains / f"{name}-seed{config.seed}-{digest}{kind}",
            data_digest=self.data_digests[name],
            compiled=self.compiled,
        )

    def _sources_of(self, method: str) -> tuple[int, ...]:
        """Values of N_p; a method that asks for no number of sources has one row for all."""
        configured = (self.config.selection.num_sources,)
        if find_method(method).sources_needed in ("none", "all", "same-architecture"):
            return configured
        return self.sources or configured


def name_world(text: str, config: WorldConfig) -> tuple[str, WorldConfig]:
    """The data set that an option names: NAME=FOLDER, or an embedded world by its own name.

    ``config`` sizes embedded worlds. Raises ConfigError for anything else.
    """
    name, equals, folder = text.partition("=")
    if equals and folder and DOMAIN_ID.fullmatch(name):  # it becomes the name of files
        return name, replace(config, kind="folder", path=str(Path(folder).absolute()))
    if text not in EMBEDDED:
        raise ConfigError(f"data: got {text!r}, wanted NAME=FOLDER or one of {EMBEDDED}")
    domains = min(config.domains, _DIGITS_DOMAINS) if text == "digits" else config.domains
    return text, replace(config, kind=text, path="", domains=domains)  # type: ignore[arg-type]


def _row_config(
    config: ExpansionConfig, gamma: float, num_sources: int, method: str
) -> ExpansionConfig:
    """The method alone in its system: every byte is its own, whatever else is compared."""
    axes = {"split.gamma": gamma, "selection.num_sources": num_sources}
    return with_settings(config, {**axes, "method": method, "comparisons": []})


def _data_digest(world: WorldConfig) -> str:
    if world.kind != "folder":
        return _digest([world.kind, world.domains, world.windows_per_domain, world.max_domains])
    whole = hashlib.sha256(repr(world.max_domains).encode() + (world.output or "").encode())
    folder = Path(world.path)
    for path in sorted([folder / "dataset.toml", *folder.glob("domains/**/*")]):
        if path.is_file():  # opening the world says in words what is missing
            whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:12]


def _settings(config: ExpansionConfig) -> dict[str, Any]:
    """The configuration as tables, without later settings that are at their default."""
    table, usual = config_to_dict(config), config_to_dict(ExpansionConfig())
    later = (key.split(".") for key in _LATER_SETTINGS)
    return _without(table, (f"{s}.{leaf}" for s, leaf in later if table[s][leaf] == usual[s][leaf]))


def _without(table: dict[str, Any], dotted: Iterable[str]) -> dict[str, Any]:
    """A copy of tables without some keys, "name" or "section.name", and without empty sections."""
    copied: dict[str, Any] = json.loads(json.dumps(table))
    for key in dotted:
        section, _, leaf = key.rpartition(".")
        inner = copied.get(section, {}) if section else copied
        inner.pop(leaf, None)
        if section and not inner:
            copied.pop(section, None)
    return copied


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
