"""Setting a deployment up: who may call itself what, and what lies where."""

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from flwr.cli.build import build_fab_from_disk
from graft_client.policy import load_policy
from graft_server.deployment.enrolment import (
    create_deployment,
    enrol_device,
    enrolled,
    renew_certificates,
    revoke_devices,
)
from graft_server.model_store import DirectoryStore
from graft_server.run_folder import RunFolder

from graft.core.config import ExpansionConfig
from graft.core.config_files import read_config
from graft.core.deployment import DeviceSettings, ServerSettings, read_device, read_server
from graft.data.dataset_table import write_dataset
from graft.data.folder import write_domain
from graft.data.synthetic.imu import CHANNELS, TASK, ImuWorld
from graft.errors import ConfigError, DatasetFormatError, MessageError, RunError
from graft.privacy import Cost
from graft.wire.messages.request_signature import UsedNonces


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_dataset(folder, TASK, channels=list(CHANNELS), rate_hz=50.0, licence="ours")
    return folder


def create(out: Path, dataset: Path, **changes: object) -> ServerSettings:
    options = {"host": "192.0.2.10", "flower_port": 1, "depot_port": 2} | changes
    config = ExpansionConfig(seed=4, comparisons=())
    return create_deployment(out, dataset=dataset, config=config, **options)  # type: ignore[arg-type]


@pytest.fixture
def out(tmp_path: Path, dataset: Path) -> Path:
    create(tmp_path / "field", dataset)
    return tmp_path / "field"


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_signed_the_server_and_each_device_by_name(out: Path) -> None:
    folder = enrol_device(out, "ann")
    authority = certificate(out / "ca" / "ca.pem")
    for path, name, usage in [
        (out / "server", "192.0.2.10", ExtendedKeyUsageOID.SERVER_AUTH),
        (folder, "ann", ExtendedKeyUsageOID.CLIENT_AUTH),
    ]:
        issued = certificate(path / "tls.pem")
        issued.verify_directly_issued_by(authority)
        (common,) = issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert common.value == name
        assert usage in issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        key = load_pem_private_key((path / "tls.key").read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.public_key() == issued.public_key()
    assert (
        not certificate(folder / "tls.pem")
        .extensions.get_extension_for_class(x509.BasicConstraints)
        .value.ca
    )


def test_the_server_is_known_by_its_host_and_by_loopback(out: Path) -> None:
    names = certificate(out / "server" / "tls.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    addresses = [str(a) for a in names.value.get_values_for_type(x509.IPAddress)]
    assert addresses == ["192.0.2.10", "127.0.0.1"]
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]


def test_private_keys_are_their_owners_alone(out: Path) -> None:
    enrol_device(out, "ann")
    keys = sorted(out.rglob("*.key"))
    assert [path.name for path in keys] == [
        "ca.key", "root.key", "node.key", "tls.key", "server.key", "tls.key",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    # The authority's key goes nowhere.
    assert {path.parent.name for path in keys if path.name == "ca.key"} == {"ca"}


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_only_the_owner_enters_what_is_made_whatever_the_umask(
    tmp_path: Path, dataset: Path
) -> None:
    out = tmp_path / "new" / "field"
    create(out, dataset)
    device = enrol_device(out, "ann")
    write_domain(device / "data", ImuWorld(2, 16, 0).load("user-000000"))
    UsedNonces(device / "state" / "nonces").use(b"0123456789abcdef")
    policy = load_policy(device / "policy.toml")
    policy.releases.spend("model", "key", Cost(epsilon=1, delta=1e-6))
    DirectoryStore(out / "server" / "models", shapes_of=lambda architecture: {})
    # What is in a folder that others cannot enter is beyond their reach.
    private = [out, out / "ca", out / "server", out / "server" / "models", device,
               device / "data" / "domains", device / "policy.spent",
               device / "state" / "nonces"]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o700}
    secret = [device / "data" / "domains" / "user-000000.npz", *device.rglob("spent.json"),
              *device.glob("state/nonces/*"), *out.rglob("*.key")]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}


@pytest.mark.parametrize("name", [".", "..", "-rf"])
def test_a_name_that_is_another_folder_or_an_option_is_refused(
    name: str, out: Path, dataset: Path
) -> None:
    with pytest.raises(MessageError, match="domain id"):
        enrol_device(out, name)
    settings = read_device(enrol_device(out, "ann"))
    for key in ("domain", "run"):
        with pytest.raises(ConfigError, match=f"{key}: got '{re.escape(name)}'"):
            replace(settings, **{key: name})
    with pytest.raises(ConfigError, match="run: got"):
        replace(read_server(out / "server"), run=name)
    if name == ".":  # pathlib drops it
        return
    with pytest.raises(RunError, match="run folder: got the name"):
        RunFolder(out / name).begin(ExpansionConfig(), ImuWorld(2, 16, 0))


def test_a_device_finds_its_server_its_key_and_the_only_bundle_it_runs(out: Path) -> None:
    folder = enrol_device(out, "ann")
    bundle = hashlib.sha256(build_fab_from_disk(out / "server" / "app")).hexdigest()
    assert read_device(folder) == DeviceSettings(
        domain="ann", run=read_server(out / "server").run, superlink="192.0.2.10:1",
        depot="192.0.2.10:2", bundle=bundle,
    )  # fmt: skip
    private = load_ssh_private_key((folder / "node.key").read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == load_ssh_public_key((folder / "node.pub").read_bytes())
    assert private.curve.name == "secp384r1"  # what Flower asks for
    keys = out / "server" / "runs" / read_server(out / "server").run / "keys"
    assert (folder / "server.pub").read_bytes() == (keys / "server.pub").read_bytes()


def test_a_device_may_import_the_plug_ins_of_the_configuration(
    tmp_path: Path, dataset: Path
) -> None:
    # They are imported on the devices, not here.
    config = ExpansionConfig(method="not_here.at_all:METHOD", comparisons=("label-only",))
    ports = {"flower_port": 1, "depot_port": 2}
    create_deployment(tmp_path / "f", host="192.0.2.10", dataset=dataset, config=config, **ports)  # type: ignore[arg-type]
    assert read_device(enrol_device(tmp_path / "f", "ann")).plug_ins == ("not_here.at_all:METHOD",)


def test_the_bundle_holds_no_code(out: Path) -> None:
    files = [path.name for path in (out / "server" / "app").rglob("*") if path.is_file()]
    assert files == ["pyproject.toml"]


def test_the_server_knows_the_configuration_and_who_is_enrolled(out: Path) -> None:
    assert read_config(out / "server" / "expansion.toml") == ExpansionConfig(seed=4, comparisons=())
    assert enrolled(out / "server") == ()
    for domain_id in ("bob", "a.nn"):
        enrol_device(out, domain_id)
    assert enrolled(out / "server") == ("a.nn", "bob")


def test_nothing_is_set_up_twice(out: Path, dataset: Path) -> None:
    enrol_device(out, "ann")
    before = (out / "devices" / "ann" / "tls.pem").read_bytes()
    with pytest.raises(RunError, match="enrolled already"):
        enrol_device(out, "ann")
    with pytest.raises(RunError, match="holds a deployment already"):
        create(out, dataset)
    assert (out / "devices" / "ann" / "tls.pem").read_bytes() == before


def test_a_revoked_device_is_enrolled_no_more_and_its_name_is_never_given_again(out: Path) -> None:
    for domain_id in ("ann", "bob"):
        enrol_device(out, domain_id)
    with pytest.raises(RunError, match="carol: is not enrolled"):
        revoke_devices(out / "server", ["bob", "carol"])
    assert enrolled(out / "server") == ("ann", "bob")
    revoke_devices(out / "server", ["bob", "bob"])
    assert enrolled(out / "server") == ("ann",)
    with pytest.raises(RunError, match="bob: was revoked"):
        enrol_device(out, "bob")
    for stranger in ("bob", "carol"):
        with pytest.raises(RunError, match="not enrolled"):
            revoke_devices(out / "server", [stranger])


def test_a_renewed_certificate_bears_the_same_name_and_another_key(out: Path) -> None:
    ann = enrol_device(out, "ann")
    node = (ann / "node.key").read_bytes()
    for folder, domain_ids in [(ann, ["ann"]), (out / "server", [])]:
        before = certificate(folder / "tls.pem")
        assert renew_certificates(out, domain_ids) == [folder]
        after = certificate(folder / "tls.pem")
        after.verify_directly_issued_by(certificate(out / "ca" / "ca.pem"))
        assert after.subject == before.subject
        assert after.public_key() != before.public_key()
        key = load_pem_private_key((folder / "tls.key").read_bytes(), password=None)
        assert key.public_key() == after.public_key()
        for extension in (x509.ExtendedKeyUsage, x509.BasicConstraints):
            assert (
                after.extensions.get_extension_for_class(extension).value
                == before.extensions.get_extension_for_class(extension).value
            )
    names = certificate(out / "server" / "tls.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost"]
    assert (ann / "node.key").read_bytes() == node
    with pytest.raises(RunError, match="carol: is not enrolled"):
        renew_certificates(out, ["carol"])


@pytest.mark.parametrize("domain_id", ["", "a b", "../x", "x" * 65, "x" * 129])
def test_an_unfit_name_is_refused(out: Path, domain_id: str) -> None:
    with pytest.raises(MessageError):
        enrol_device(out, domain_id)
    assert enrolled(out / "server") == ()


def test_without_a_dataset_there_is_no_deployment(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError):
        create(tmp_path / "field", tmp_path)
    assert not (tmp_path / "field").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cache_bytes": "much"}, "cache_bytes"),
        ({"colour": 1}, "colour"),
        ({"domain": "a b"}, "domain"),
        ({"run": None}, "run"),
    ],
)
def test_a_device_file_that_was_edited_wrongly_is_named(
    out: Path, change: dict[str, object], said: str
) -> None:
    folder = enrol_device(out, "ann")
    table = tomllib.loads((folder / "device.toml").read_text("utf-8")) | change
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    (folder / "device.toml").write_text("\n".join(lines), "utf-8")
    with pytest.raises(ConfigError, match=said):
        read_device(folder)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
