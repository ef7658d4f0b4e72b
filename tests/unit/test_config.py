"""A configuration is what its TOML says, or an error that names the key."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    HatConfig,
    PolicyConfig,
    SelectionConfig,
    SplitConfig,
    TrainingConfig,
    WorldConfig,
)
from graft.core.config_files import (
    config_from_dict,
    config_to_dict,
    config_toml,
    read_config,
    read_run_settings,
    with_settings,
)
from graft.core.settings import RENAMED_KEYS
from graft.errors import ConfigError

SHARE = st.floats(0.01, 0.99)
COUNT = st.integers(1, 10_000)
NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def configs(draw: st.DrawFn) -> ExpansionConfig:
    phone = draw(SHARE)
    return ExpansionConfig(
        seed=draw(st.integers(0, 2**63 - 1)),
        rounds=draw(COUNT),
        method="hat",
        comparisons=tuple(draw(st.lists(NAME.filter(lambda name: name != "hat"), max_size=3))),
        world=WorldConfig(
            kind=draw(st.sampled_from(["imu", "digits", "folder"])),
            path=draw(NAME),
            domains=draw(st.integers(2, 10**6)),
            max_domains=draw(st.none() | st.integers(2, 99)),
        ),
        split=SplitConfig(gamma=draw(SHARE), test_fraction=draw(SHARE)),
        devices=DeviceConfig(
            microcontroller_fraction=0.0,
            phone_fraction=phone,
            gateway_fraction=1 - phone,
            architectures=tuple(draw(st.lists(NAME, max_size=2))),
        ),
        selection=SelectionConfig(
            num_sources=draw(COUNT), num_candidates=draw(st.none() | COUNT), score_mix=draw(SHARE)
        ),
        training=TrainingConfig(epochs=draw(COUNT), learning_rate=draw(SHARE)),
        hat=HatConfig(keep_quality=draw(SHARE)),
        policy=PolicyConfig(min_class_count=draw(COUNT)),
    )


@settings(max_examples=50, deadline=None)
@given(configs())
def test_a_configuration_goes_through_toml_unchanged(
    tmp_path_factory: pytest.TempPathFactory, config: ExpansionConfig
) -> None:
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(config_toml(config), "utf-8")
    assert read_config(path) == config


def test_an_empty_table_is_the_default_configuration() -> None:
    assert config_from_dict({}) == ExpansionConfig()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"sede": 1}, "'sede'"),
        ({"split": {"gama": 0.1}}, r"'split\.gama'"),
        ({"training": {"epochs": 3, "step": 3}}, r"'training\.step'"),
    ],
)
def test_an_unknown_key_is_refused_by_its_full_name(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config_from_dict(table)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"seed": "1"}, "seed: got '1', wanted int"),
        ({"seed": True}, "seed: got True, wanted int"),
        ({"rounds": 2.0}, r"rounds: got 2\.0, wanted int"),
        ({"method": 3}, "method: got 3, wanted str"),
        ({"split": 0.5}, "split: got 0.5, wanted a table"),
        ({"split": {"gamma": "0.1"}}, r"split\.gamma: got '0\.1', wanted float"),
        ({"comparisons": "label-only"}, "comparisons: got 'label-only', wanted a list"),
        ({"comparisons": [1]}, "comparisons: .* wanted a list of names"),
        ({"world": {"kind": "moon"}}, r"world\.kind: got 'moon', wanted one of"),
        ({"world": {"max_domains": "all"}}, r"world\.max_domains: got 'all', wanted int"),
    ],
)
def test_a_wrong_type_is_refused_with_what_it_got_and_wanted(
    table: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        config_from_dict(table)


def test_a_whole_number_serves_where_a_float_is_wanted() -> None:
    config = config_from_dict({"training": {"learning_rate": 1}})
    assert type(config.training.learning_rate) is float
    assert config.training.learning_rate == 1.0


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("seed", -1),
        ("rounds", 0),
        ("comparisons", ["label-only", "graft"]),  # graft is the main method
        ("world.domains", 1),
        ("world.windows_per_domain", 19),
        ("world.kind", "folder"),  # with no path
        ("split.gamma", 0.0),
        ("split.gamma", float("nan")),
        ("split.test_fraction", 1.0),
        ("split.initial_fraction", -0.1),
        ("devices.phone_fraction", 0.6),  # the shares then sum to 1.1
        ("network.lte_fraction", 0.5),  # as do these
        ("network.server_up_bits_per_s", 0.0),
        ("network.mean_on_s", float("inf")),
        ("network.mean_off_s", -1.0),
        ("network.straggler_slowdown", 0.5),
        ("network.dropout_rate", 1.1),
        ("network.deadline_s", 0.0),
        ("selection.num_sources", 0),
        ("selection.num_candidates", -1),
        ("selection.score_mix", 1.5),
        ("training.epochs", 0),
        ("training.max_steps", 0),
        ("training.batch_size", 0),
        ("training.learning_rate", 0.0),
        ("training.source_learning_rate", -1e-4),
        ("hat.holdout_fraction", 1.1),
        ("hat.insert_quality", -0.1),
        ("hat.dictionary_momentum", 2.0),
        ("hat.keep_quality", -1.0),
        ("policy.min_class_count", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(key: str, bad: object) -> None:
    named = "devices shares" if key.startswith("devices") else key
    named = "network shares" if key.endswith("lte_fraction") else named
    named = "world.path" if key == "world.kind" else named
    with pytest.raises(ConfigError, match=named):
        with_settings(ExpansionConfig(), {key: bad})


def test_dotted_settings_replace_what_they_name_and_nothing_else() -> None:
    before = ExpansionConfig(seed=3)
    after = with_settings(before, {"split.gamma": 0.05, "rounds": 2, "world.max_domains": 9})
    assert (after.split.gamma, after.rounds, after.world.max_domains) == (0.05, 2, 9)
    assert with_settings(after, {"split.gamma": before.split.gamma, "rounds": 3}) == (
        dataclasses.replace(before, world=dataclasses.replace(before.world, max_domains=9))
    )
    assert before == ExpansionConfig(seed=3)


@pytest.mark.parametrize("key", ["splitt.gamma", "split.gama", "seed.x", "comparisons.x", ""])
def test_a_setting_that_names_nothing_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="key"):
        with_settings(ExpansionConfig(), {key: 1})


def test_candidates_are_twice_the_sources_and_at_least_eight() -> None:
    assert SelectionConfig(num_sources=3).candidates_wanted == 8
    assert SelectionConfig(num_sources=5).candidates_wanted == 10
    assert SelectionConfig(num_sources=5, num_candidates=6).candidates_wanted == 6


def test_the_main_method_stands_first() -> None:
    config = ExpansionConfig(method="hat", comparisons=("label-only", "best-source"))
    assert config.methods == ("hat", "label-only", "best-source")


def test_a_missing_or_malformed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_config(tmp_path / "none.toml")
    path = tmp_path / "bad.toml"
    for content in (b"seed = ", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not TOML"):
            read_config(path)


def test_no_setting_at_all_is_the_default_in_a_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = read_run_settings({}, "run-7")
    assert source.config == ExpansionConfig()
    assert source.folder == tmp_path / ".graft" / "runs" / "run-7"


def test_a_run_setting_wins_over_the_file_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 5\nrounds = 2\n", "utf-8")
    settings = {"config-file": str(path), "run-folder": str(tmp_path / "out"), "seed": 6}
    source = read_run_settings({**settings, "join-timeout-s": 7}, "x")
    assert (source.config.seed, source.config.rounds) == (6, 2)
    assert source.folder == tmp_path / "out"
    assert source.join_timeout_s == 7.0


@pytest.mark.parametrize(
    ("table", "named"), [({"sede": 1}, "'sede'"), ({"join-timeout-s": "soon"}, "join-timeout-s")]
)
def test_an_unknown_or_unusable_run_setting_is_refused(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_run_settings(table, "x")


def test_what_is_unset_is_left_out_of_the_table() -> None:
    assert "max_domains" not in config_to_dict(ExpansionConfig())["world"]


OLD_KEYS = [
    ("growth.trust", "graft.agreement_weight"),
    ("growth.num_neighbours", "graft.num_neighbours"),
    ("fusion.holdout_share", "hat.holdout_fraction"),
    ("fusion.mixer_width", "hat.mixer_width"),
    ("split.founders_share", "split.initial_fraction"),
    ("devices.phone_share", "devices.phone_fraction"),
    ("network.lte_m_share", "network.lte_m_fraction"),
    ("training.group_rounds", "training.fedavg_rounds"),
    ("trust.demoted_by", "trust.min_reports"),
]


@pytest.mark.parametrize(("old", "new"), OLD_KEYS)
def test_a_former_key_is_refused_with_its_present_name(old: str, new: str, tmp_path: Path) -> None:
    told = f"^{old}: got the former name of a key, wanted {new}$".replace(".", r"\.")
    section, leaf = old.split(".")
    path = tmp_path / "old.toml"
    path.write_text(f"[{section}]\n{leaf} = 1\n", "utf-8")
    with pytest.raises(ConfigError, match=told):
        with_settings(ExpansionConfig(), {old: 1})
    with pytest.raises(ConfigError, match=told):
        read_config(path)
    with pytest.raises(ConfigError, match=told):
        read_run_settings({old: 1}, "x")
    with pytest.raises(ConfigError, match=told):
        read_run_settings({"config-file": str(path)}, "x")


@pytest.mark.parametrize(
    ("old", "new"), [("graft-founders", "graft-initial"), ("hat-founders", "hat-initial")]
)
def test_a_former_method_is_refused_with_its_present_name(old: str, new: str) -> None:
    for table in ({"method": old}, {"comparisons": [old]}):
        with pytest.raises(ConfigError, match=f"former name '{old}', wanted '{new}'"):
            config_from_dict(table)


def test_every_former_name_leads_to_a_key_that_there_is() -> None:
    table = config_to_dict(ExpansionConfig())
    for new in RENAMED_KEYS.values():
        section, _, leaf = new.partition(".")
        assert not leaf or leaf in table[section], new


def test_a_section_made_in_python_is_checked_and_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^split\.gamma: got 1\.5, wanted below 1$"):
        SplitConfig(gamma=1.5)
    with pytest.raises(ConfigError, match=r"^training\.epochs: got '3', wanted int$"):
        dataclasses.replace(TrainingConfig(), epochs="3")  # type: ignore[arg-type]
    assert type(TrainingConfig(learning_rate=1).learning_rate) is float


def test_a_configuration_travels_and_serves_as_a_key() -> None:
    config = ExpansionConfig(seed=3)
    assert pickle.loads(pickle.dumps(config)) == config
    assert len({config, ExpansionConfig(seed=3), ExpansionConfig(seed=4)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 4  # type: ignore[misc]
