"""Machines as people have them: addresses, proxies, full disks, terminals, devices that nothing fits."""

import errno
import io
import sys

import pytest
from graft_server.flower.superlink import flower_environment
from graft_simulation.engines import Engine, EngineSettings, check_engine

from graft.core.addresses import checked_host, is_own_machine, join_address, split_host
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.ending import known_error, make_printable, system_error
from graft.core.tasks import Task
from graft.core.text import did_you_mean
from graft.devices import device_classes, equip_domain, fitting_architectures
from graft.errors import ArchitectureError, ConfigError, StorageError


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("::1", "::1"), ("[2001:db8::10]", "2001:db8::10"), ("192.0.2.10", "192.0.2.10"),
        ("münchen.example", "xn--mnchen-3ya.example"), ("Server.Example.", "server.example"),
        (".".join(["x" * 60] * 4), ".".join(["x" * 60] * 4)),
    ],
)  # fmt: skip
def test_a_host_is_kept_as_certificates_want_it(host: str, kept: str) -> None:
    assert checked_host(host) == kept
    assert split_host(join_address(kept, 9443)) == kept


@pytest.mark.parametrize("host", ["", "a b", "x" * 64, "host:9443", "fe80::1%eth0", "::", "1.2.3"])
def test_what_no_device_can_call_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="host"):
        checked_host(host)


def test_no_proxy_stands_between_own_processes(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "grpc_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert not [name for name in flower_environment(tmp_path) if "proxy" in name.lower()]
    device = flower_environment(tmp_path, "192.0.2.10:9443")
    assert device["http_proxy"] == "http://127.0.0.1:9"
    assert {"127.0.0.1", "::1", "localhost"} <= set(device["no_proxy"].split(","))
    assert is_own_machine("127.0.0.1")
    assert not is_own_machine("192.0.2.10")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_what_a_place_refuses_is_named_with_what_helps(number: int) -> None:
    error = system_error(OSError(number, "no", "/there"))
    assert isinstance(error, StorageError)
    assert str(error).startswith("/there: got ")
    assert isinstance(system_error(RuntimeError(f"I/O error (os error {number})")), StorageError)
    assert known_error(ZeroDivisionError()) is None


def test_a_terminal_without_a_sign_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    make_printable()
    print("\u22124 … ü", flush=True)
    assert raw.getvalue() == b"-4 ... \\xfc\n"


def test_a_device_that_nothing_fits_is_drawn_again() -> None:
    task = Task(name="t", modality="image", sample_shape=(3, 32, 32), classes=("a", "b"))
    config = ExpansionConfig().devices
    with pytest.raises(ArchitectureError):
        fitting_architectures(task, device_classes()["microcontroller"])
    drawn = {equip_domain(f"d{n}", 0, task, config)[0].name for n in range(30)}
    assert drawn == {"phone", "gateway"}


def test_an_accelerator_that_is_not_there_is_refused() -> None:
    for engine, name in ((Engine.BLOCK, "nonsense"), (Engine.FLOWER, "cuda")):
        with pytest.raises(ConfigError, match="accelerator"):
            check_engine(EngineSettings(engine=engine, accelerator=name))


def test_a_mistyped_name_has_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'split.gamma'"):
        with_settings(ExpansionConfig(), {"split.gama": 0.1})
    assert did_you_mean("zzz", ["graft", "hat"]) == ""
