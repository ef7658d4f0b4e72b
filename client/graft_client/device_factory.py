"""A device's own side of a conversation: its data, its way to the models, its clock.

``make_device`` makes the library's Device from what a machine has; the simulator calls it with
other parts, a SuperNode's ClientApp with those of its node and run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flwr.app import Context

from graft.core.config import ExpansionConfig, RunSource, read_run_settings
from graft.core.ports import Clock
from graft.core.records import LedgerEntry, ModelCard, Request
from graft.data.domain import World
from graft.data.worlds import open_world
from graft.devices.classes import equip_domain
from graft.errors import ConfigError
from graft.models.zoo import parameter_shapes
from graft.privacy.gaussian import SitePolicy
from graft.rounds import Device, configured_policy
from graft.wire.messages.card_signature import verify_card
from graft.wire.transfer.cache import FolderCache, PartCache
from graft.wire.transfer.journal import JournalMeter
from graft.wire.transfer.link import Link
from graft.wire.transfer.retries import DEFAULT_ATTEMPTS
from graft.wire.transfer.transport import DeviceTransport, TransferLabel
from graft_client.depot_client import GrpcLink, growing_wait, open_channel


def make_device(
    request: Request,
    *,
    config: ExpansionConfig,
    world: World,
    run: str,
    link: Link,
    cache: PartCache,
    verify: Callable[[ModelCard], None],
    record: Callable[[LedgerEntry], None],
    clock: Clock,
    wait_before_retry: Callable[[int], None] = lambda attempts: None,
    wait_out: Callable[[float], None] = lambda seconds: None,
    max_attempts: int = DEFAULT_ATTEMPTS,
    policy: SitePolicy | None = None,
) -> Device:
    """The device that a request is for; ``record`` gets its transfers.

    ``verify`` refuses a card that the run's server did not sign (``verify_card`` with its
    public key). ``policy`` is the site's own (``graft_client.policy.load_policy``); without one the
    run's configuration says what leaves, as for a simulated domain.
    """
    domain_id, task = request.domain_id, world.task
    device_class, architecture = equip_domain(domain_id, config.seed, task, config.devices)
    return Device(
        task=task,
        data=world.load(domain_id),
        device_class=device_class,
        architecture=architecture,
        config=config,
        transport=DeviceTransport(
            link=link,
            cache=cache,
            verify=verify,
            shapes_of=lambda architecture: parameter_shapes(architecture, task),
            label=TransferLabel(
                run=run, round_index=request.round_index, method=request.method, domain_id=domain_id
            ),
            record=record,
            clock=clock,
            wait_before_retry=wait_before_retry,
            wait_out=wait_out,
            max_attempts=max_attempts,
        ),
        clock=clock,
        policy=policy or configured_policy(request, config),
    )


@contextmanager
def open_journal(run_folder: Path, request: Request) -> Iterator[JournalMeter]:
    """Where a device's transfers are kept at once.

    One journal a domain and method: the methods of a domain may run side by side.
    """
    name = f"{request.domain_id}.{request.method or 'profile'}.jsonl"
    journal = JournalMeter(run_folder / "journal" / name)
    try:
        yield journal
    finally:
        journal.close()


def domain_of_partition(world: World, context: Context) -> str:
    """Which domain a node speaks for, by its partition id; raises ConfigError without one."""
    partition = context.node_config.get("partition-id")
    if not isinstance(partition, int) or not 0 <= partition < len(world.domain_ids):
        raise ConfigError(
            f"node {context.node_id}: got partition-id {partition!r}, "
            f"wanted 0 to {len(world.domain_ids) - 1}"
        )
    return world.domain_ids[partition]


# --- what ``flwr run`` brings: one machine, the depot on loopback ---------------------------


def _run_source(context: Context) -> RunSource:
    return read_run_settings(context.run_config, f"{context.run_id:x}")


def domain_of_node(context: Context) -> str:
    """The domain of a node that ``flwr run`` started."""
    config = _run_source(context).config
    return domain_of_partition(open_world(config.world, config.seed), context)


@contextmanager
def node_device(context: Context, request: Request) -> Iterator[Device]:
    """The device of a node that ``flwr run`` started: models come from the depot over gRPC."""
    source = _run_source(context)
    config, run_folder = source.config, source.folder
    address = (run_folder / "depot.address").read_text("utf-8")
    public_key = (run_folder / "keys" / "server.pub").read_bytes()
    with (
        open_channel(address, insecure=True) as channel,
        open_journal(run_folder, request) as journal,
    ):
        yield make_device(
            request,
            config=config,
            world=open_world(config.world, config.seed),
            run=run_folder.name,
            link=GrpcLink(channel),
            cache=FolderCache(run_folder / "devices" / request.domain_id / request.method),
            verify=partial(verify_card, run_folder.name, public_key=public_key),
            record=journal.record,
            clock=time.perf_counter,
            wait_before_retry=growing_wait(time.sleep),
            wait_out=time.sleep,
        )
