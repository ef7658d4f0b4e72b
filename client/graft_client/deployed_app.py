"""The ClientApp of a real device: its own folder, its own data, its own policy.

A device trusts only its own folder; of what Flower brings it accepts the requests that its server
signed, and the configuration of the training.
"""

import fcntl
import logging
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from graft.core.config import ExpansionConfig
from graft.core.config_files import config_from_dict
from graft.core.deployment import DeviceSettings, read_device
from graft.core.ending import known_error, prepare_app
from graft.core.exchange import Failure, ProfileRequest, Request
from graft.core.files import make_folder, remove_tree
from graft.core.plugins import load_references
from graft.data.folder import FolderWorld
from graft.errors import ConfigError, EdgeError, GraftError, TransportError
from graft.rounds import Device
from graft.wire.messages.codec import (
    MESSAGE_BODY,
    MESSAGE_RECORD,
    MESSAGE_SESSION,
    decode_request,
    encode_response,
)
from graft.wire.messages.replies import (
    MESSAGE_TRANSFERS,
    Reply,
    ReplyFolder,
    encode_transfers,
    request_digest,
)
from graft.wire.messages.request_signature import (
    MESSAGE_SIGNATURE,
    UsedNonces,
    order_digest,
    sign_answer,
    verify_request,
)
from graft.wire.messages.snapshot import (
    MESSAGE_KEY,
    MESSAGE_SNAPSHOT,
    Seen,
    TrustFile,
    check_snapshot,
    key_pem,
    verify_key,
)
from graft.wire.transfer.transfer_log import JournalMeter, read_journal
from graft_client.app import attach, refusal, request_bytes, respond_with
from graft_client.depot_client import (
    GrpcLink,
    device_cache,
    growing_wait,
    open_deployed_channel,
    remove_missing,
)
from graft_client.device_factory import DeviceFactory
from graft_client.policy import load_policy
from graft_client.sessions import answer_orders

log = logging.getLogger("graft")
# A quarter of an hour with waits that grow to eight seconds: a depot that was moved, or a link
# that is down, may come back.
_MAX_ATTEMPTS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A device's folder, its data's folder, and its settings."""

    folder: Path
    data: Path
    settings: DeviceSettings
    link: GrpcLink | None = None  # of a session, which has one connection for all its requests

    @property
    def nonces(self) -> UsedNonces:
        """The nonces of the requests accepted so far."""
        return UsedNonces(self.folder / "state" / "request_nonces")


def open_site(context: Context) -> Site:
    """The site in the folders that ``graft deploy device`` passed to the node.

    Raises ConfigError for a node without them.
    """
    folder, data = (context.node_config.get(key) for key in ("device-folder", "data-folder"))
    if not isinstance(folder, str) or not isinstance(data, str):
        raise ConfigError(f"node: got {context.node_config}, wanted device-folder and data-folder")
    place = Path(unquote(folder))
    settings = read_device(place)
    if isinstance(accelerator := context.node_config.get("accelerator"), str):
        settings = replace(settings, accelerator=accelerator)
    return Site(folder=place, data=Path(unquote(data)), settings=settings)


def domain_of(context: Context) -> str:
    """The domain of a real device."""
    return open_site(context).settings.domain


def handle(
    context: Context, record: ConfigRecord, link: GrpcLink | None = None
) -> dict[str, bytes]:
    """Handle a request of the device's own server, once; a saved reply is given again.

    ``link``: an open one to the depot, or None for one of its own.
    """
    prepare_app()
    site = replace(open_site(context), link=link)
    reply = _reply(context, site, record)
    parts = {MESSAGE_BODY: reply.response, MESSAGE_TRANSFERS: reply.transfers}
    if site.settings.insecure:
        return parts
    arrived = (record.get(key) for key in (MESSAGE_BODY, MESSAGE_SIGNATURE))
    order = order_digest(*(part if isinstance(part, bytes) else b"" for part in arrived))
    parts[MESSAGE_SIGNATURE] = sign_answer(
        site.settings.run,
        site.settings.domain,
        order,
        response=reply.response,
        transfers=reply.transfers,
        node_key=(site.folder / "node.key").read_bytes(),
    )
    return parts


def _reply(context: Context, site: Site, record: ConfigRecord) -> Reply:
    try:
        body = request_bytes(record)
        public_key = (site.folder / "server.pub").read_bytes()
        if site.settings.insecure:
            request = decode_request(body)
        else:
            with _one_at_a_time(site, "trust.lock"):
                request, public_key = _accepted(context, site, record, body)
        if request.domain_id != site.settings.domain:
            raise EdgeError(f"request for {request.domain_id}: this is {site.settings.domain}")
    except GraftError as error:
        return Reply(response=refusal(site.settings.domain, error)[MESSAGE_BODY])
    with _one_at_a_time(site, "lock"):
        return _saved_or_new_reply(context, site, request, body, public_key)


def _accepted(
    context: Context, site: Site, record: ConfigRecord, body: bytes
) -> tuple[Request, bytes]:
    """The request, and the key that signed it; nothing is parsed before its signature was verified.

    What the device has seen, and may not see again or older, is on the disk when this returns.
    """
    run, trust, now_s = (
        site.settings.run,
        TrustFile(site.folder / "state" / "trust.json"),
        time.time(),
    )
    seen, public_key = trust.read(), (site.folder / "server.pub").read_bytes()
    if (root := site.folder / "root.pub").exists():
        key_record = record.get(MESSAGE_KEY)
        key = verify_key(run, key_record, root.read_bytes(), seen=seen.key, now_s=now_s)
        if key.version > seen.key:
            seen = Seen(key=key.version)  # a new key counts the catalogue's versions anew
        public_key = key_pem(key)
    snapshot = record.get(MESSAGE_SNAPSHOT, b"")
    snapshot = snapshot if isinstance(snapshot, bytes) else b""
    nonce = verify_request(
        run,
        body,
        record.get(MESSAGE_SIGNATURE),
        public_key,
        expansion=str(context.run_config.get("expansion", "")),
        snapshot=snapshot,
    )
    site.nonces.use(nonce)
    request = decode_request(body)
    version = check_snapshot(run, snapshot, request, seen=seen.snapshot, now_s=now_s)
    trust.write(replace(seen, snapshot=version))
    return request, public_key


def _saved_or_new_reply(
    context: Context, site: Site, request: Request, body: bytes, public_key: bytes
) -> Reply:
    replies = ReplyFolder(site.folder / "state" / "replies" / str(request.round_index))
    reply = replies.load(body)
    if reply is not None:
        return reply
    _forget_other_rounds(site.folder / "state" / "replies", request.round_index)
    # A killed process left here the rows of what it had moved for this very request.
    journal = site.folder / "state" / "journal" / f"{request_digest(body)}.jsonl"
    open_device = partial(deployed_device, site=site, journal=journal, public_key=public_key)
    response = respond_with(context, request, open_device)
    entries = read_journal(journal) if journal.exists() else []
    reply = Reply(response=encode_response(response), transfers=encode_transfers(entries))
    if not isinstance(response, Failure):  # a failure may be temporary
        replies.save(body, reply)
    journal.unlink(missing_ok=True)
    return reply


@contextmanager
def deployed_device(
    context: Context, request: Request, site: Site, journal: Path, public_key: bytes
) -> Iterator[Device]:
    """The device of a site: models come from the depot over TLS."""
    settings, folder = site.settings, site.folder
    load_references(settings.plug_ins)
    with (
        _torch_threads(settings.threads),
        closing(JournalMeter(journal)) as meter,
        nullcontext(site.link) if site.link else _own_link(site) as link,
    ):
        cache = device_cache(folder, settings)
        if isinstance(request, ProfileRequest):  # a round's first
            with suppress(TransportError):
                remove_missing(cache, link)
        factory = DeviceFactory(
            config=_expansion(context),
            world=FolderWorld(site.data),
            run=settings.run,
            public_key=public_key,
            link=link,
            clock=time.perf_counter,
            policy=load_policy(folder / "policy.toml"),
            wait_before_retry=growing_wait(time.sleep),
            wait_out=time.sleep,
            max_attempts=_MAX_ATTEMPTS,
            features_folder=folder / "state" / "features",
            accelerator=settings.accelerator,
        )
        try:
            yield factory.device(request, cache, meter.record)
        except Exception as error:
            if known_error(error) is None:  # the reply has its name alone
                log.error("a defect", exc_info=error)
            raise


@contextmanager
def _own_link(site: Site) -> Iterator[GrpcLink]:
    insecure = site.settings.insecure
    with open_deployed_channel(site.settings.depot, site.folder, insecure=insecure) as channel:
        yield GrpcLink(channel)


def attend(message: Message, context: Context) -> Message:
    """Stay for a round: requests come from the depot, over one connection, until it is over."""
    site, record = open_site(context), message.content.config_records[MESSAGE_RECORD]
    session = record.get(MESSAGE_SESSION)
    name = session.decode("ascii") if isinstance(session, bytes) else ""
    prepare_app()
    with _one_at_a_time(site, "session.lock"), _own_link(site) as link:
        answer_orders(
            link,
            name,
            site.settings.domain,
            lambda parts: handle(context, ConfigRecord(dict(parts)), link),
        )
    return Message(RecordDict(), reply_to=message)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Torch computes on ``count`` threads, and afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _expansion(context: Context) -> ExpansionConfig:
    """The configuration that the run brings; raises ConfigError for none."""
    text = context.run_config.get("expansion", "")
    try:
        return config_from_dict(tomllib.loads(str(text)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"run configuration: got {error}, wanted TOML") from error


def _forget_other_rounds(replies: Path, round_index: int) -> None:
    """Remove the replies of other rounds: in a new round the server asks for none of them."""
    for path in replies.glob("*"):
        if path.name != str(round_index):
            remove_tree(path)


@contextmanager
def _one_at_a_time(site: Site, name: str) -> Iterator[None]:
    """Flower may give a node several requests at once; a small device handles one."""
    path = site.folder / "state" / name
    make_folder(path.parent, private=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when its process is killed, too
        yield


app = ClientApp()
attach(app, domain_of, handle)
app.query("attend")(attend)
