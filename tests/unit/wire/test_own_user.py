"""Whose connection it is, and a server for one user alone."""

import os
import socket
from pathlib import Path

import pytest
import uvicorn

from graft.wire import own_user


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_user_of_a_connection_is_known_until_it_closes(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {host} on this machine")
    with listening, socket.create_connection(listening.getsockname()[:2]) as client:
        accepted, peer = listening.accept()
        with accepted:
            assert own_user.user_of(peer, accepted.getsockname()) == os.getuid()
            client.close()
            assert own_user.user_of(peer, accepted.getsockname()) is None


def test_where_the_system_does_not_report_it_one_line_warns(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(own_user, "_TABLES", {socket.AF_INET: tmp_path / "absent"})
    load = uvicorn.Config.load
    own_user.serve_own_user_alone("SuperLink")
    assert uvicorn.Config.load is load
    said = capfd.readouterr().err
    assert said.startswith("SuperLink: other users of this machine can use its port")
    assert said.count("\n") == 1
