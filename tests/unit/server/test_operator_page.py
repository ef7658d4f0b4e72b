"""The operator's page: what it shows, whom it shows it to, and that it does nothing else."""

import base64
import inspect
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from graft_server.page.app import page_app
from graft_server.page.login import Login, write_login
from graft_server.page.remedies import _REMEDIES, remedy
from small_deployment import make_server, one_round
from starlette.testclient import TestClient
from typer.testing import CliRunner

from graft import errors
from graft.cli.main import app
from graft.errors import ConfigError

HOSTS = ["testserver"]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment whose round 0 is over; bob failed, with words that a page must not believe."""
    server = make_server(tmp_path_factory.mktemp("page"), "ann", "bob")
    hostile = "</p><script>alert(1)</script>\x1b[31m\u202e"
    one_round(server, {"ann": None, "bob": "NodesMissingError"}, {"bob": hostile})
    return server


@pytest.fixture
def client(server: Path) -> TestClient:
    return TestClient(page_app(server, hosts=HOSTS, login=None, depot=lambda: False))


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_it_names_devices_rounds_bytes_and_failures_with_what_to_do(client: TestClient) -> None:
    page = client.get("/").text
    wanted = ("1 of 1", "NodesMissingError", remedy("NodesMissingError"), "served in round 0")
    assert [words for words in wanted if words not in page] == []


def test_the_words_of_devices_are_text(client: TestClient) -> None:
    page = client.get("/").text
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


@pytest.mark.parametrize("path", ["/", "/live", "/files/page.js", "/files/page.css", "/nothing"])
def test_every_answer_has_a_strict_policy_and_nothing_is_inline(
    client: TestClient, path: str
) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    if "html" in answer.headers["content-type"]:
        assert not re.search(r"<script(?![^>]* src=\"/)|<style| style=| on\w+=", answer.text)
        assert not re.search(r"(src|href)=\"(?!/|data:,)", answer.text)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/live", "/report/x"])
def test_it_changes_nothing(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "host", ["evil.example", "testserver.evil.example", "", "127.0.0.1.nip.io"]
)
def test_another_hosts_name_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/live", headers={"host": host}).status_code == 400


def test_the_browser_is_told_where_nothing_changed(client: TestClient, server: Path) -> None:
    first = client.get("/live")
    assert client.get("/live", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    (server / "nodes" / "cid.pub").touch()
    time.sleep(1.1)  # it is read once a second
    again = client.get("/live", headers={"if-none-match": first.headers["etag"]})
    (server / "nodes" / "cid.pub").unlink()
    assert "cid" in again.text


def test_only_the_operator_gets_through(tmp_path: Path, server: Path) -> None:
    write_login(tmp_path, "olga", PASSWORD)
    assert (tmp_path / "operator.json").stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in (tmp_path / "operator.json").read_text()
    login = Login(tmp_path, wrong_wait_s=0.0)
    with TestClient(page_app(server, hosts=HOSTS, login=login, depot=lambda: True)) as client:
        right = client.get("/", headers=basic("olga", PASSWORD))
        assert right.status_code == 200
        wrong = [
            {}, basic("olga", "wrong"), basic("anna", PASSWORD), basic("", ""),
            {"authorization": "Basic !!"}, {"authorization": "Bearer x"},
            {"authorization": "Basic"}, basic("olga", PASSWORD + "\0"), basic("olga", "x" * 2000),
        ]  # fmt: skip
        for headers in wrong:
            for path in ("/live",) if headers else ("/", "/live", "/files/page.js", "/report/x"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401, headers
                assert "ann" not in answer.text
                assert answer.headers["www-authenticate"].startswith("Basic")
        assert client.get("/live", headers=basic("olga", PASSWORD)).status_code == 200


def test_guesses_are_checked_one_at_a_time(tmp_path: Path, server: Path) -> None:
    write_login(tmp_path, "olga", PASSWORD)
    login = Login(tmp_path, wrong_wait_s=0.1)
    with TestClient(page_app(server, hosts=HOSTS, login=login, depot=lambda: True)) as client:
        begun_s = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            found = list(
                pool.map(lambda n: client.get("/", headers=basic("olga", str(n))), range(4))
            )
        assert [each.status_code for each in found] == [401] * 4
        assert time.monotonic() - begun_s > 0.4


@pytest.mark.parametrize(
    ("name", "password"), [("", PASSWORD), ("a:b", PASSWORD), ("olga", "short")]
)
def test_a_login_that_is_none_is_refused(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(ConfigError):
        write_login(tmp_path, name, password)
    with pytest.raises(ConfigError, match="operator"):
        Login(tmp_path)


@pytest.mark.parametrize("name", ["%2e%2e%2fca", "..%2f..%2fca", "none", "run.toml"])
def test_only_finished_runs_have_a_report(client: TestClient, name: str) -> None:
    assert client.get(f"/report/{name}").status_code == 404


def test_elsewhere_than_on_loopback_it_wants_a_login(server: Path) -> None:
    done = CliRunner().invoke(app, ["deploy", "page", str(server), "--host", "0.0.0.0"])
    assert isinstance(done.exception, ConfigError)
    assert "graft deploy operator" in str(done.exception)


def test_every_error_has_a_remedy() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    names = {kind.__name__ for kind in kinds if issubclass(kind, errors.GraftError)}
    assert set(_REMEDIES) <= names
    assert remedy("DomainEmptyError") == _REMEDIES["DataError"]
    assert remedy("KeyError") == remedy("") == remedy("__name__") == _REMEDIES["GraftError"]
