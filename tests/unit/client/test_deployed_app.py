"""A real device: what it takes from Flower, and what it does twice or not at all."""

import os
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from graft_client.app import attach, handle_with
from graft_client.deployed_app import app, domain_of, handle
from graft_server.deployment.authority import node_keys
from graft_server.signing import Signer, open_key, open_signer, public_pem
from spoiled import CARD

from graft.core.config import ExpansionConfig
from graft.core.config_files import config_toml
from graft.core.deployment import DeviceSettings, read_device, write_device
from graft.core.exchange import Failure, ProfileRequest, Response, TrainRequest, TrainResult
from graft.core.files import lock_file
from graft.core.memory import usable_memory
from graft.core.records import DomainProfile, ModelCard
from graft.data.dataset_table import write_dataset
from graft.data.folder import write_domain
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.errors import ConfigError, RunError, StorageError, TransportError
from graft.wire.messages.codec import (
    MESSAGE_BODY,
    MESSAGE_RECORD,
    MESSAGE_SESSION,
    decode_response,
    encode_request,
    encode_response,
)
from graft.wire.messages.replies import MESSAGE_TRANSFERS
from graft.wire.messages.request_signature import MESSAGE_SIGNATURE, order_digest, verify_answer
from graft.wire.messages.snapshot import MESSAGE_KEY, MESSAGE_SNAPSHOT, encode_snapshot, sign_key
from graft.wire.stubs import depot_pb2 as pb

WORLD = ImuWorld(2, 40, seed=0)
ME, OTHER = WORLD.domain_ids
RUN = "run-1"
EXPANSION = config_toml(ExpansionConfig())
REQUEST = encode_request(ProfileRequest(domain_id=ME, round_index=0))


class Site:
    """One device's folders, and its server's key."""

    def __init__(self, path: Path) -> None:
        self.folder, self.data = path / "device", path / "data"
        self.signer: Signer = open_signer(path / "keys", RUN)
        settings = DeviceSettings(
            domain=ME, run=RUN, superlink="localhost:1", depot="localhost:2", bundle=""
        )
        write_device(self.folder, settings)
        (self.folder / "server.pub").write_bytes(self.signer.public_key)
        (self.folder / "policy.toml").write_text("min_class_count = 10\n", "utf-8")
        private, self.node_public = node_keys()
        (self.folder / "node.key").write_bytes(private)
        write_dataset(self.data, WORLD.task, channels=list(CHANNELS), rate_hz=50.0, licence="ours")
        write_domain(self.data, WORLD.load(ME))

    def context(self) -> Context:
        return Context(
            run_id=1, node_id=2, state=RecordDict(),
            node_config={"device-folder": str(self.folder), "data-folder": str(self.data)},
            run_config={"expansion": EXPANSION},
        )  # fmt: skip

    def snapshot(self, *cards: ModelCard, version: int = 1, left_s: float = 60.0) -> bytes:
        expires_s = int(time.time() + left_s)
        return encode_snapshot(RUN, cards, version=version, expires_s=expires_s)

    def record(
        self, request: bytes = REQUEST, snapshot: bytes | None = None, **others: bytes
    ) -> ConfigRecord:
        """A request as the server sends it."""
        snapshot = self.snapshot() if snapshot is None else snapshot
        signature = self.signer.sign_request(request, expansion=EXPANSION, snapshot=snapshot)
        parts = {MESSAGE_BODY: request, MESSAGE_SIGNATURE: signature, MESSAGE_SNAPSHOT: snapshot}
        return ConfigRecord(parts | others)

    def handle(self, record: ConfigRecord, **context: Any) -> Response:
        """The answer to a request, after its signature was verified."""
        reply = handle(replace(self.context(), **context), record)
        assert set(reply) == {MESSAGE_BODY, MESSAGE_TRANSFERS, MESSAGE_SIGNATURE}
        body, signature = (record.get(key) for key in (MESSAGE_BODY, MESSAGE_SIGNATURE))
        verify_answer(
            RUN,
            ME,
            order_digest(*(each if isinstance(each, bytes) else b"" for each in (body, signature))),
            response=reply[MESSAGE_BODY],
            transfers=reply[MESSAGE_TRANSFERS],
            signature=reply[MESSAGE_SIGNATURE],
            node_key=self.node_public,
        )
        return decode_response(reply[MESSAGE_BODY])

    def ask(self, request: bytes = REQUEST, signature: bytes | None = None) -> Response:
        others = {} if signature is None else {MESSAGE_SIGNATURE: signature}
        return self.handle(self.record(request, **others))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    # A profile opens no connection, so there need be no depot.
    monkeypatch.setattr(
        "graft_client.deployed_app.open_deployed_channel",
        lambda address, folder, insecure: grpc.insecure_channel(address),
    )
    return Site(tmp_path)


def test_an_order_of_its_own_server_is_carried_out(site: Site) -> None:
    assert domain_of(site.context()) == ME
    response = site.ask()
    assert isinstance(response, DomainProfile)
    assert response.domain_id == ME


def test_torchs_threads_are_as_before_after_a_request_and_after_a_failure(site: Site) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # another number than a device's one
        assert isinstance(site.ask(), DomainProfile)
        assert torch.get_num_threads() == 2
        (site.data / "domains" / f"{ME}.npz").write_bytes(b"damaged")
        assert isinstance(
            site.ask(encode_request(ProfileRequest(domain_id=ME, round_index=5))), Failure
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_thousand_replays_are_refused(site: Site) -> None:
    record = site.record()
    assert isinstance(site.handle(record), DomainProfile)
    for _ in range(1000):
        response = decode_response(handle(site.context(), record)[MESSAGE_BODY])
        assert isinstance(response, Failure)
        assert (response.error, response.domain_id) == ("RequestForgedError", ME)


def test_the_same_order_asked_anew_gets_the_kept_answer(site: Site) -> None:
    first = site.ask()
    # What it would work out now is another thing: the answer can only be the kept one.
    data = WORLD.load(ME)
    write_domain(site.data, replace(data, x=data.x * 2))
    again = site.ask()
    assert encode_response(again) == encode_response(first)
    later = site.ask(encode_request(ProfileRequest(domain_id=ME, round_index=1)))
    assert encode_response(later) != encode_response(first)
    # A new round has begun: the old one's answers are forgotten.
    assert encode_response(site.ask()) == encode_response(later)


def test_a_strangers_order_is_refused(site: Site, tmp_path: Path) -> None:
    stranger = open_signer(tmp_path / "stranger", RUN)
    for signature in (b"", bytes(80), stranger.sign_request(REQUEST)):
        response = site.ask(signature=signature)
        assert isinstance(response, Failure)
        assert response.error == "RequestForgedError"


def test_another_domains_order_is_refused(site: Site) -> None:
    response = site.ask(encode_request(ProfileRequest(domain_id=OTHER, round_index=0)))
    assert isinstance(response, Failure)
    assert f"this is {ME}" in response.message


def test_a_method_by_reference_is_imported_only_where_the_device_lists_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "method_of_a_site.py").write_text(
        "from graft.methods import Method\n"
        "from graft.methods.baselines import fit_label_only\n"
        "M = Method(name='m', title='M', fit=fit_label_only, sources_needed='none')\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("graft.core.plugins._loaded", {})
    reference = "method_of_a_site:M"
    request = encode_request(
        TrainRequest(domain_id=ME, round_index=1, method=reference, sources=(), register=False)
    )
    refused = site.ask(request)
    assert isinstance(refused, Failure)
    assert (refused.error, "method_of_a_site" in sys.modules) == ("ConfigError", False)
    write_device(site.folder, replace(read_device(site.folder), plug_ins=(reference,)))
    result = site.ask(request)
    assert isinstance(result, TrainResult)
    assert result.method == reference


def test_a_failure_is_worked_out_again(site: Site) -> None:
    path = site.data / "domains" / f"{ME}.npz"
    content = path.read_bytes()
    path.write_bytes(b"damaged")
    assert isinstance(site.ask(), Failure)
    path.write_bytes(content)
    assert isinstance(site.ask(), DomainProfile)


def test_a_node_that_graft_did_not_start_is_named(site: Site) -> None:
    context = site.context()
    context.node_config = {"partition-id": 0}
    with pytest.raises(ConfigError, match="wanted device-folder"):
        domain_of(context)


def test_nothing_is_decoded_before_its_signature_is_checked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "graft_client.deployed_app.decode_request", lambda body: pytest.fail("decoded")
    )
    for body in (REQUEST, b"not a request", b""):
        response = site.ask(body, signature=bytes(80))
        assert isinstance(response, Failure)
        assert (response.error, response.domain_id) == ("RequestForgedError", ME)


def test_a_signed_body_that_is_no_request_is_a_failure(site: Site) -> None:
    response = site.ask(b"not a request")
    assert isinstance(response, Failure)
    assert (response.error, response.domain_id) == ("MessageError", ME)


@pytest.mark.parametrize("body", [None, "text", 7, [b"x"]])
@pytest.mark.parametrize("signature", [None, "text", 1.5])
def test_a_record_of_other_types_is_a_failure(site: Site, body: Any, signature: Any) -> None:
    given = {MESSAGE_BODY: body, MESSAGE_SIGNATURE: signature}
    record = ConfigRecord({key: value for key, value in given.items() if value is not None})
    response = decode_response(handle(site.context(), record)[MESSAGE_BODY])
    assert isinstance(response, Failure)
    assert (response.error, response.domain_id) == ("MessageError", ME)
    record = ConfigRecord(
        {MESSAGE_BODY: REQUEST} | ({} if signature is None else {MESSAGE_SIGNATURE: signature})
    )
    response = decode_response(handle(site.context(), record)[MESSAGE_BODY])
    assert isinstance(response, Failure)
    assert response.error == "RequestForgedError"


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({MESSAGE_RECORD: ConfigRecord({MESSAGE_BODY: "text"})})]
)
def test_a_node_of_a_simulation_answers_a_message_without_a_request(
    content: RecordDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    app = ClientApp()
    attach(app, lambda context: ME, handle_with(lambda context, request: pytest.fail("opened")))
    message = Message(content, dst_node_id=1, message_type="query.profile")
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    reply = app(message, context)
    response = decode_response(reply.content.config_records[MESSAGE_RECORD][MESSAGE_BODY])
    assert isinstance(response, Failure)
    assert (response.error, response.domain_id) == ("MessageError", ME)


def refused(response: Response, error: str, words: str) -> None:
    assert isinstance(response, Failure)
    assert response.error == error
    assert words in response.message


@pytest.mark.parametrize("key", ["min_class_count", "seed"])
def test_a_man_in_the_middle_cannot_change_one_key_of_the_configuration(
    site: Site, key: str
) -> None:
    """Whether the device would use the key or not: the order was signed for another text."""
    lines = EXPANSION.splitlines()
    (line,) = [each for each in lines if each.startswith(f"{key} = ")]
    changed = EXPANSION.replace(line, f"{key} = 1")
    assert changed != EXPANSION
    for text in (changed, EXPANSION + "\n", ""):
        response = site.handle(site.record(), run_config={"expansion": text})
        refused(response, "RequestForgedError", "configuration: got one of SHA-256")
    assert not list((site.folder / "state").glob("replies/*"))
    assert isinstance(site.ask(), DomainProfile)


def train(*cards: ModelCard) -> bytes:
    return encode_request(
        TrainRequest(domain_id=ME, round_index=1, method="none", sources=cards, register=False)
    )


def test_only_models_of_the_snapshot_are_accepted(site: Site) -> None:
    listed, other = CARD.for_fusion(), replace(CARD.for_fusion(), round_index=2)
    response = site.handle(site.record(train(listed), site.snapshot(CARD)))
    assert "version" not in response.message  # it got as far as its method
    for snapshot in (site.snapshot(), site.snapshot(other)):  # mixed and matched
        response = site.handle(site.record(train(listed), snapshot))
        refused(response, "RequestForgedError", "wanted one in version 1 of the catalogue")


def test_an_older_or_expired_catalogue_is_refused_after_a_restart_too(site: Site) -> None:
    assert isinstance(site.handle(site.record(snapshot=site.snapshot(version=5))), DomainProfile)
    response = site.handle(site.record(snapshot=site.snapshot(version=4)))
    refused(response, "StaleTrustError", "catalogue: got version 4, wanted 5")
    response = site.handle(site.record(snapshot=site.snapshot(version=6, left_s=-60)))
    refused(response, "StaleTrustError", "got version 6, expired 6")
    response = site.handle(site.record(snapshot=b""))
    refused(response, "StaleTrustError", "got version 0")
    assert isinstance(site.handle(site.record(snapshot=site.snapshot(version=5))), DomainProfile)


def test_a_snapshot_of_another_order_is_refused(site: Site) -> None:
    record = site.record()
    record[MESSAGE_SNAPSHOT] = site.snapshot(version=2)
    response = site.handle(record)
    refused(response, "RequestForgedError", "got another's")


def test_a_device_that_pins_the_root_accepts_the_roots_newest_key_alone(
    site: Site, tmp_path: Path
) -> None:
    root, new = Ed25519PrivateKey.generate(), Signer(RUN, key := Ed25519PrivateKey.generate())
    (site.folder / "root.pub").write_bytes(public_pem(root))
    old = site.signer

    def record(root: Ed25519PrivateKey, key: Ed25519PrivateKey, version: int) -> ConfigRecord:
        expires_s = int(time.time() + 60)
        signed = sign_key(root, RUN, key.public_key(), version=version, expires_s=expires_s)
        return site.record(**{MESSAGE_KEY: signed})

    refused(site.ask(), "RequestForgedError", "signing key: got no record")
    site.signer = new
    refused(site.handle(record(key, key, 2)), "RequestForgedError", "wanted the root's")
    assert isinstance(site.handle(record(root, key, 2)), DomainProfile)
    site.signer = old  # the key of before, stolen, with its own sound record
    old_key = open_key(tmp_path / "keys" / "server.key")
    refused(site.handle(record(root, old_key, 1)), "StaleTrustError", "got version 1, wanted 2")
    refused(site.handle(record(root, key, 2)), "RequestForgedError", "got another's")


def test_a_folder_in_use_is_not_opened_by_a_second_process(site: Site) -> None:
    from graft.cli.deploy.services import device

    write_dataset(site.folder, WORLD.task, channels=list(CHANNELS), rate_hz=50.0, licence="ours")
    with (
        lock_file(site.folder / "state" / "device.lock", "x"),
        pytest.raises(RunError, match=f"got process {os.getpid()} in it"),
    ):
        device(site.folder, site.data, 9094)


def test_a_device_with_too_little_memory_is_refused_before_it_starts(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from graft.cli.deploy import services

    (tmp_path / "memory" / "small").mkdir(parents=True)
    (tmp_path / "memory" / "small" / "memory.limit_in_bytes").write_text("268435456\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cgroup").write_text("0::/\n7:memory:/small\n")
    usable = usable_memory(tmp_path, tmp_path / "cgroup")
    assert usable == 268435456
    monkeypatch.setattr(services, "usable_memory", lambda: usable)
    with pytest.raises(StorageError, match="memory: got 268 MB, wanted 500 MB or more"):
        services.device(site.folder, site.data, 9094)


class FakeDepot:
    """A link that breaks off once and then has two orders."""

    wire_source = "measured"

    def __init__(self, orders: list[pb.Order]) -> None:
        self.orders, self.calls = orders, list[tuple[str, str, dict[str, bytes]]]()

    def attend(
        self, session: str, domain_id: str, answered: str, parts: dict[str, bytes]
    ) -> pb.Order:
        self.calls.append((session, answered, dict(parts)))
        if len(self.calls) == 2:
            raise TransportError("broke off")
        return self.orders.pop(0) if self.orders else pb.Order(is_over=True)


def test_a_device_attends_over_one_connection_until_its_session_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    orders = [
        pb.Order(order_id=str(number), parts=dict(site.record().items()))  # type: ignore[arg-type]
        for number in (1, 2)
    ]
    depot = FakeDepot([orders[0], pb.Order(), orders[1]])
    monkeypatch.setattr("graft_client.deployed_app._own_link", lambda site: nullcontext(depot))
    message = Message(
        RecordDict({MESSAGE_RECORD: ConfigRecord({MESSAGE_SESSION: b"s"})}),
        dst_node_id=2, message_type="query.attend",
    )  # fmt: skip
    app(message, site.context())
    assert [(session, answered) for session, answered, _ in depot.calls] == [
        ("s", ""), ("s", "1"), ("s", "1"), ("s", ""), ("s", "2"),
    ]  # fmt: skip
    assert depot.calls[1][2] == depot.calls[2][2]  # what broke off is delivered again
    for _, answered, parts in depot.calls:
        assert bool(parts) == bool(answered)
        if answered:
            assert isinstance(decode_response(parts[MESSAGE_BODY]), DomainProfile)
            assert parts[MESSAGE_SIGNATURE]
