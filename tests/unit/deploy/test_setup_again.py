"""``graft deploy init --if-missing``: a service that starts a hundred times sets up once."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.deployment import read_device, read_server
from graft.data import ImuWorld, write_dataset
from graft.data.synthetic.imu import CHANNELS
from graft.errors import RunError

runner = CliRunner()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    task = ImuWorld(2, 40, seed=0).task
    write_dataset(folder, task, channels=CHANNELS, rate_hz=None, licence="synthetic")
    return folder


def init(out: Path, dataset: Path, *more: str) -> dict[str, object]:
    arguments = ["deploy", "init", str(out), "--host", "server", "--dataset", str(dataset)]
    done = runner.invoke(app, [*arguments, *more, "--format", "json"])
    if done.exception is not None:
        raise done.exception
    told: dict[str, object] = json.loads(done.stdout)
    return told


def files(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_second_time_nothing_changes_and_who_is_new_is_added(
    tmp_path: Path, dataset: Path
) -> None:
    out = tmp_path / "field"
    first = init(out, dataset, "--device", "ann", "--if-missing")
    before = files(out)
    again = init(out, dataset, "--device", "ann", "--device", "bob", "--if-missing")
    assert (again["run"], again["devices"]) == (first["run"], [str(out / "devices" / "bob")])
    after = files(out)
    assert {path: after[path] for path in before} == before
    with pytest.raises(RunError, match="holds a deployment already"):
        init(out, dataset)


def test_a_setup_that_was_killed_before_its_end_is_finished_with_its_own_authority(
    tmp_path: Path, dataset: Path
) -> None:
    out = tmp_path / "field"
    init(out, dataset)
    certificate = (out / "ca" / "ca.pem").read_bytes()
    (out / "server" / "server.toml").unlink()  # what is written last
    init(out, dataset, "--device", "ann", "--if-missing")
    assert (out / "devices" / "ann" / "ca.pem").read_bytes() == certificate


def test_a_depot_of_its_own_is_named_to_devices_and_in_the_certificate(
    tmp_path: Path, dataset: Path
) -> None:
    from cryptography import x509

    out = tmp_path / "field"
    init(out, dataset, "--device", "ann", "--depot-host", "models.example")
    assert read_device(out / "devices" / "ann").depot == "models.example:9444"
    assert read_device(out / "devices" / "ann").superlink == "server:9443"
    assert read_server(out / "server").depot_host == "models.example"
    certificate = x509.load_pem_x509_certificate((out / "server" / "tls.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {
        "server", "models.example", "localhost"
    }  # fmt: skip
