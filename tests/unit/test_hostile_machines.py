"""Machines as people have them: addresses, proxies, full disks, terminals, devices that nothing fits."""

import errno
import io
import logging
import os
import sys
from pathlib import Path

import pytest
from graft_server.flower.superlink import flower_environment
from graft_simulation.engines import Engine, EngineSettings, check_engine
from torch import nn

from graft.cli.simulate import _by_reason
from graft.core.addresses import checked_host, is_own_machine, join_address, split_host
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.ending import known_error, make_printable, prepare_app, system_error
from graft.core.outputs import new_folder
from graft.core.tasks import InputSpec, Task
from graft.core.text import did_you_mean
from graft.devices import device_classes, equip_domain, fitting_architectures
from graft.errors import ArchitectureError, ConfigError, DataError, StorageError
from graft.models import Architecture, build_network


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


def test_a_traceback_in_flowers_log_is_a_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    logger = logging.getLogger("flwr")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logger, "handlers", [handler := logging.StreamHandler(io.StringIO())])
    prepare_app()
    prepare_app()
    for error in (ZeroDivisionError("of\n2"), ConfigError("key: got 1, wanted 2")):
        try:
            raise error
        except Exception as raised:
            logger.error("%s raised an\nexception", "App", exc_info=raised)
    defect, known = handler.stream.getvalue().splitlines()
    assert defect.startswith(
        "App raised an exception: ZeroDivisionError: of 2; the traceback is in"
    )
    assert known == "App raised an exception: ConfigError: key: got 1, wanted 2"
    (file,) = tmp_path.iterdir()
    assert "ZeroDivisionError: of\n2" in file.read_text("utf-8")


def test_pixels_reach_an_own_network_of_unknown_width_as_floats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = InputSpec(name="camera", kind="image", shape=(3, 32, 32), dtype="uint8")
    task = Task(name="t", modality="image", inputs=(spec,), classes=("a", "b"))
    own = Architecture(
        name="own", encoder=lambda shape: nn.Sequential(nn.Conv2d(3, 5, 32), nn.Flatten())
    )
    monkeypatch.setattr("graft.models.registry._added", {"own": own})
    assert build_network("own", task, seed=0).num_features == 5


def test_failing_domains_are_listed_by_their_reason() -> None:
    assert _by_reason({"a": "too large", "b": "broken", "c": "too large"}) == [
        "a, c: too large", "b: broken",
    ]  # fmt: skip


def test_a_device_or_pipe_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="pipe"), new_folder(pipe, overwrite=True):
        raise AssertionError("it would have been moved")
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
    assert pipe.is_fifo()
