"""Links are drawn by share from (seed, domain); a user's own table replaces the shipped one."""

from collections import Counter
from pathlib import Path

import pytest

from graft.core.config import DeviceConfig, NetworkConfig
from graft.devices import assign_device, assign_link, device_classes, link_classes
from graft.errors import ConfigError

DOMAINS = [f"user-{index:06d}" for index in range(1_000)]
OWN = """
[satellite]
up_bits_per_s = 1e6
down_bits_per_s = 5e6
latency_s = 0.3
loss = 0.05
source = "made up"
share = 3

[wire]
up_bits_per_s = 1e9
down_bits_per_s = 1e9
latency_s = 0.0
loss = 0.0
source = "made up"
"""


def test_every_link_says_where_its_figures_come_from() -> None:
    for name, link in link_classes().items():
        assert link.name == name
        assert link.source


def test_the_shares_of_the_links_are_met() -> None:
    config = NetworkConfig(
        broadband_fraction=0.5, lte_fraction=0.5, lte_m_fraction=0.0, nb_iot_fraction=0.0
    )
    counts = Counter(assign_link(d, 0, config).name for d in DOMAINS)
    # The deviation of a half over 1,000 draws is 0.016; four of them.
    assert counts["broadband"] == pytest.approx(500, abs=64)
    assert sum(counts.values()) == counts["broadband"] + counts["lte"]


def test_a_table_of_ones_own_brings_its_own_shares(tmp_path: Path) -> None:
    path = tmp_path / "links.toml"
    path.write_text(OWN, "utf-8")
    config = NetworkConfig(classes_file=str(path))
    counts = Counter(assign_link(d, 0, config).name for d in DOMAINS)
    assert counts["satellite"] == pytest.approx(750, abs=56)
    assert counts["wire"] == 1_000 - counts["satellite"]


def test_devices_of_ones_own_keep_their_measured_pace(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(
        '[mine]\nmemory_bytes = 1000000000\nflops_per_s = 1e9\nsource = "measured"\n'
        "[mine.architectures.mlp]\ntraining = 0.5\ninference = 0.25\nstep_s = 0.001\n",
        "utf-8",
    )
    device = assign_device("ann", 0, DeviceConfig(classes_file=str(path)))
    assert (device.name, device.pace("mlp").training, device.pace("mlp").step_s) == (
        "mine",
        0.5,
        0.001,
    )
    assert device.pace("gru").inference == device.efficiency


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "got none"),
        ("[wire]\nlatency_s = 1.0\n", "wire"),
        (OWN.replace("loss = 0.05", "loss = 1.0"), "loss"),
        (OWN.replace("latency_s = 0.3", 'latency_s = "long"'), "latency_s"),
        (OWN.replace("share = 3", "colour = 3"), "colour"),
        ("wire = 3\n", "wire"),
        ("[wire", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "links.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=named):
        link_classes(str(path))
    with pytest.raises(ConfigError, match="nowhere"):
        device_classes("nowhere.toml")
