"""How a deployment's SuperLink is started, and found again."""

import tomllib
from pathlib import Path

import pytest
from graft_server.flower.superlink import new_superlink, open_superlink

from graft.core.deployment import ServerSettings, write_server
from graft.errors import EdgeError


def folder(path: Path, **changes: bool) -> Path:
    write_server(path, ServerSettings(run="run-1", host="server.example", **changes))
    return path


def test_it_listens_on_loopback_over_tls_and_knows_its_nodes_by_their_keys(tmp_path: Path) -> None:
    superlink = new_superlink(folder(tmp_path))
    words = superlink.command
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--database") + 1] == str(tmp_path / "state" / "superlink.db")
    assert "--enable-supernode-auth" in words
    assert "--insecure" not in words
    for option, name in {"certfile": "tls.pem", "keyfile": "tls.key"}.items():
        assert words[words.index(f"--ssl-{option}") + 1] == str(tmp_path / name)
    told = tomllib.loads((superlink.home / "config.toml").read_text("utf-8"))["superlink"]["graft"]
    assert told == {
        "address": f"127.0.0.1:{superlink.port}", "root-certificates": str(tmp_path / "ca.pem"),
    }  # fmt: skip


def test_without_tls_only_where_somebody_said_so(tmp_path: Path) -> None:
    superlink = new_superlink(folder(tmp_path, insecure=True))
    assert "--insecure" in superlink.command
    assert "--enable-supernode-auth" not in superlink.command


def test_the_one_that_was_started_last_is_found(tmp_path: Path) -> None:
    ports = {new_superlink(folder(tmp_path)).port for _ in range(3)}
    assert open_superlink(tmp_path).port in ports
    assert open_superlink(tmp_path) == open_superlink(tmp_path)


def test_where_none_was_started_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="no server was started"):
        open_superlink(folder(tmp_path))


def test_its_processes_send_nothing_to_flowers_makers_and_install_nothing(tmp_path: Path) -> None:
    environment = new_superlink(folder(tmp_path)).environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_HOME"] == str(tmp_path / "state" / "flwr")
    assert environment["GRAFT_SERVER_FOLDER"] == str(tmp_path)


def test_a_server_that_does_not_answer_is_an_error_by_name(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"SuperLink: .*unavailable"):
        new_superlink(folder(tmp_path, insecure=True)).nodes()
