"""Orders and answers of a deployment: what a man in the middle, a copy or an old server may not do."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from graft_server.deployment.authority import certificate_ends, node_keys
from graft_server.deployment.enrolment import create_deployment, enrol_device
from graft_server.deployment.order_trust import OrderTrust, rotate_key
from graft_server.flower.deployed_app import run_folder
from graft_server.flower.edge import Answer
from graft_server.flower.superlink import SuperLink, new_superlink, open_superlink
from graft_server.forgetting import read_forgotten
from graft_server.round_schedule import read_nodes, write_node
from graft_server.run_folder import RunFolder

from graft.core.config import ExpansionConfig
from graft.core.files import lock_file
from graft.core.records import SystemState
from graft.data.dataset_table import write_dataset
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.errors import (
    EdgeError,
    RequestForgedError,
    ResponseForgedError,
    RunError,
    StaleTrustError,
)
from graft.wire.messages.replies import Reply
from graft.wire.messages.request_signature import (
    MESSAGE_SIGNATURE,
    order_digest,
    sign_answer,
    verify_request,
)
from graft.wire.messages.snapshot import (
    MESSAGE_KEY,
    MESSAGE_SNAPSHOT,
    Seen,
    TrustFile,
    key_pem,
    verify_key,
)
from graft.wire.stubs import messages_pb2 as pb

BODY = b"an encoded order"


class Field:
    """A deployment with two enrolled devices."""

    def __init__(self, out: Path) -> None:
        self.out, self.server = out / "field", out / "field" / "server"
        write_dataset(
            out, ImuWorld(2, 40, seed=0).task, channels=list(CHANNELS), rate_hz=50.0, licence="ours"
        )
        settings = create_deployment(
            self.out, host="localhost", dataset=out, config=ExpansionConfig(),
            flower_port=1, depot_port=2,
        )  # fmt: skip
        self.run = settings.run
        self.devices = {name: enrol_device(self.out, name) for name in ("ann", "bob")}
        (self.server / "runs" / self.run / "run.toml").touch()

    def trust(self) -> OrderTrust:
        return OrderTrust(self.server, run_folder(self.server), "the configuration")

    def key(self, record: bytes, seen: int = 0, now_s: float | None = None) -> pb.SigningKey:
        root = (self.devices["ann"] / "root.pub").read_bytes()
        return verify_key(self.run, record, root, seen=seen, now_s=now_s or time.time())

    def answer(self, order: bytes, device: str = "ann") -> Answer:
        response, key = b"a response", (self.devices[device] / "node.key").read_bytes()
        signature = sign_answer(self.run, "ann", order, response, b"rows", key)
        return Answer(reply=Reply(response=response, transfers=b"rows"), signature=signature)


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return Field(tmp_path)


def test_an_order_is_verified_by_what_an_enrolled_device_has(field: Field) -> None:
    parts = field.trust().sign(BODY)
    public = key_pem(field.key(parts[MESSAGE_KEY]))
    assert public == (field.devices["ann"] / "server.pub").read_bytes()
    given = {"expansion": "the configuration", "snapshot": parts[MESSAGE_SNAPSHOT]}
    verify_request(field.run, BODY, parts[MESSAGE_SIGNATURE], public, **given)
    for key, value in (("expansion", "the configuration "), ("snapshot", b"")):
        with pytest.raises(RequestForgedError):
            verify_request(
                field.run, BODY, parts[MESSAGE_SIGNATURE], public, **given | {key: value}
            )


def test_an_answer_holds_for_its_order_and_device_alone(field: Field) -> None:
    trust = field.trust()
    order, later = (order_digest(BODY, trust.sign(BODY)[MESSAGE_SIGNATURE]) for _ in range(2))
    answer = field.answer(order)
    trust.verify("ann", order, answer)
    another_body = replace(answer, reply=Reply(response=b"!", transfers=b"rows"))
    other_rows = replace(answer, reply=replace(answer.reply, transfers=b""))
    for domain_id, digest, forged in [
        ("ann", later, answer),  # another order's, or replayed
        ("ann", order, field.answer(order, "bob")),
        ("bob", order, answer),
        ("eve", order, answer),  # not enrolled
        ("ann", order, another_body),
        ("ann", order, other_rows),
    ]:
        with pytest.raises(ResponseForgedError):
            trust.verify(domain_id, digest, forged)


def test_a_device_of_before_is_named_with_its_version(field: Field) -> None:
    answer = replace(field.answer(b"order"), signature=b"")
    with pytest.raises(ResponseForgedError, match=r"before 0\.3 .*update graft on the device"):
        field.trust().verify("ann", b"order", answer)


def test_a_rotated_key_is_the_roots_and_no_earlier_one_comes_back(field: Field) -> None:
    first = field.trust().sign(BODY)[MESSAGE_KEY]
    before = certificate_ends(field.server)["signing key"]
    assert before > datetime.now(UTC) + timedelta(days=1)
    assert rotate_key(field.server, field.out / "ca") == 2
    assert certificate_ends(field.server)["signing key"] >= before
    second = field.trust().sign(BODY)[MESSAGE_KEY]
    assert field.key(first).public_key != field.key(second).public_key
    assert field.key(second, seen=2).version == 2
    with pytest.raises(StaleTrustError, match="got version 1, wanted 2"):
        field.key(first, seen=2)
    with pytest.raises(StaleTrustError, match="expired"):
        field.key(second, now_s=time.time() + 1e9)
    with pytest.raises(RequestForgedError):
        field.key(bytes(64) + second[64:])
    assert [path.name for path in (field.server / "runs" / field.run / "keys" / "former").iterdir()]
    assert read_forgotten(field.server / "runs" / field.run) is not None


def test_the_root_key_is_needed_for_a_rotation_only(field: Field) -> None:
    (field.out / "ca" / "root.key").rename(field.out / "root.key")
    field.trust().sign(BODY)
    with pytest.raises(RunError, match=r"root\.key"):
        rotate_key(field.server, field.out / "ca")


def test_the_catalogues_version_goes_up_with_each_change_and_never_down(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spoiled import CARD

    states = [SystemState(), SystemState(catalogue=(CARD,)), SystemState()]
    versions = []
    for state in states:
        folder = run_folder(field.server)
        monkeypatch.setattr(type(folder), "read_state", lambda self, state=state: state)
        for _ in range(2):
            snapshot = pb.Snapshot.FromString(field.trust().snapshot())
            versions.append(snapshot.version)
            assert len(snapshot.cards) == len(state.catalogue)
    assert versions == [1, 1, 2, 2, 3, 3]


def test_a_damaged_note_of_what_was_seen_is_not_taken_for_none(tmp_path: Path) -> None:
    note = TrustFile(tmp_path / "trust.json")
    assert note.read() == Seen()
    note.write(Seen(key=2, snapshot=7))
    assert TrustFile(tmp_path / "trust.json").read() == Seen(key=2, snapshot=7)
    (tmp_path / "trust.json").write_bytes(b"{")
    with pytest.raises(RunError, match="accepted last"):
        note.read()


def test_a_folder_in_use_names_the_process(tmp_path: Path) -> None:
    folders = [RunFolder(tmp_path / "run") for _ in range(2)]
    with folders[0].locked(), pytest.raises(RunError, match=f"got process {os.getpid()} in it"):
        folders[1].locked().__enter__()
    with folders[1].locked():
        pass
    with lock_file(tmp_path / "lock", "the device's folder"):  # by another process, killed
        other = "from graft.core.files import lock_file; from pathlib import Path\n"
        other += f"with lock_file(Path({str(tmp_path / 'lock')!r}), 'folder'): pass"
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, check=False)
        assert f"RunError: folder: got process {os.getpid()} in it".encode() in done.stderr


def test_a_second_server_leaves_the_first_ones_address(field: Field) -> None:
    from graft.cli.deploy.services import server

    first = new_superlink(field.server)
    with (
        lock_file(field.server / "state" / "server.lock", "x"),
        pytest.raises(RunError, match=f"got process {os.getpid()} in it"),
    ):
        server(field.server)
    assert open_superlink(field.server).port == first.port


def test_a_registration_that_failed_notes_no_other_devices_node(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob's id is not recorded; Ann's registration fails because the SuperLink is busy."""
    superlink = SuperLink.__new__(SuperLink)
    object.__setattr__(superlink, "folder", field.server)
    (field.server / "nodes" / "bob.pub").rename(field.server / "bob.pub")
    reason = "SuperLink: deadline exceeded"

    def flwr(self: SuperLink, *arguments: str) -> dict[str, object]:
        if arguments[:2] == ("supernode", "list"):
            return {"nodes": [{"node-id": "22", "status": "online"}]}
        raise EdgeError(reason)

    monkeypatch.setattr(SuperLink, "flwr", flwr)
    with pytest.raises(EdgeError, match="deadline"):
        superlink.register_nodes()
    assert read_nodes(field.server) == {}
    reason = "SuperLink: Public key already in use."
    assert superlink.register_nodes() == ["ann"]
    assert read_nodes(field.server) == {"ann": 22}
    write_node(field.server, "bob", {"node_id": 22})


def test_another_deployments_root_is_refused(field: Field, tmp_path: Path) -> None:
    assert node_keys()  # a device's own key signs no order
    other = Field(tmp_path / "other")
    with pytest.raises(RequestForgedError, match="the root's"):
        field.key(other.trust().sign(BODY)[MESSAGE_KEY])
