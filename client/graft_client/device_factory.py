"""The one factory of devices, and the devices of a node that ``flwr run`` started.

A simulator and a SuperNode build their devices alike and differ in what they put in: the link to
the models, the cache, the clock.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graft.core.config import ExpansionConfig
from graft.core.config_files import RunSource, read_run_settings
from graft.core.exchange import ProfileRequest, Request
from graft.core.ports import Clock
from graft.core.records import NO_LIMITS, LedgerEntry, ModelCard, Precision
from graft.core.tasks import Task
from graft.data.domain import World, inputs_of
from graft.data.worlds import open_world
from graft.devices import equip_domain
from graft.errors import ConfigError
from graft.models import Network, parameter_shapes
from graft.models.backbones import PREFIX, find_backbone, hold_backbone, tensors_of
from graft.models.building import backbone_shapes
from graft.models.registry import find_architecture
from graft.privacy import SitePolicy
from graft.rounds import Device, configured_policy
from graft.rounds.device import device_limits
from graft.rounds.exchange_cost import memory_limit
from graft.training import Source
from graft.wire.messages.card_signature import verify_card
from graft.wire.sizes import EncodedSizes
from graft.wire.transfer.attempts import DEFAULT_ATTEMPTS
from graft.wire.transfer.cache import FolderCache, MemoryCache, PartCache
from graft.wire.transfer.link import Link
from graft.wire.transfer.transfer_log import JournalMeter
from graft.wire.transfer.transport import DeviceTransport, TransferLabel
from graft_client.depot_client import GrpcLink, growing_wait, open_channel

if TYPE_CHECKING:
    from flwr.app import Context  # a block of simulated devices does without


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeviceFactory:
    """What the devices of one run have in common.

    Parameters
    ----------
    config : ExpansionConfig
        The run's configuration.
    world : World
        The domains' data; ``world.load`` is called once a request.
    run : str
        The run's name, which card signatures and ledger entries bear.
    public_key : bytes
        The server's, as PEM: a device refuses a model card without its signature.
    link : Link
        The way to the model store.
    clock : Clock
        Times computing and transfers, in seconds.
    policy : SitePolicy, optional
        The site's own (``graft_client.policy.load_policy``). Without one the run's configuration
        decides what a domain releases, as for a simulated domain.
    simulated : bool
        Whether ``devices.backbone`` says what the devices have of a backbone, and not this machine.
    accelerator : str
        The torch device that encoders compute on.
    features_folder : Path, optional
        Where features of a frozen backbone outlive the process.
    compiled : bool
        Of a simulation: training takes a method's ``fit_many``, where it has one.
    pooled : callable, optional
        Of a simulation: gives references a model of all initial domains' rows, by architecture.
    networks : callable, optional
        Of a simulation: gives models that its devices share, once a device has received them.
    wait_before_retry, wait_out, max_attempts
        See ``DeviceTransport``.
    """

    config: ExpansionConfig
    world: World
    run: str
    public_key: bytes
    link: Link
    clock: Clock
    policy: SitePolicy | None = None
    simulated: bool = False
    compiled: bool = False
    accelerator: str = "cpu"
    features_folder: Path | None = None
    pooled: Callable[[str], Source] | None = None
    networks: Callable[[DeviceTransport, Task, ModelCard, Precision], Network] | None = None
    wait_before_retry: Callable[[int], None] = lambda attempts: None
    wait_out: Callable[[float], None] = lambda seconds: None
    max_attempts: int = DEFAULT_ATTEMPTS

    def device(
        self, request: Request, cache: PartCache, record: Callable[[LedgerEntry], None]
    ) -> Device:
        """The device that a request is for.

        Parameters
        ----------
        request : Request
            Names the domain, the round and the method.
        cache : PartCache
            What the device already has of models.
        record : callable
            Gets a ledger entry for each of the device's transfers.

        Raises
        ------
        GraftError
            Where the domain's data cannot be loaded, or no architecture fits its device.
        """
        domain_id, task = request.domain_id, self.world.task
        policy = self.policy or configured_policy(request, self.config)
        memory = memory_limit(self.config, policy.settings, request.round_index)
        data = self.world.load(domain_id)
        device_class, architecture = equip_domain(
            domain_id, self.config.seed, task, self.config.devices, data.inputs, memory
        )
        own = device_limits(policy.settings, device_class) if request.round_index else None
        limits = (request.allowance or NO_LIMITS).least(own or NO_LIMITS)
        transport = self._transport(request, cache, record, limits.down_bytes)
        self._bring_backbone(architecture, transport, request)
        return Device(
            task=task,
            data=data,
            device_class=device_class,
            architecture=architecture,
            config=self.config,
            transport=transport,
            clock=self.clock,
            policy=policy,
            compiled=self.compiled,
            accelerator=self.accelerator,
            pooled=self.pooled,
            networks=self.networks and partial(self.networks, transport, task),
            features_folder=self.features_folder,
            sizes=EncodedSizes(),
            own_limits=own,
            limits=limits,
        )

    def _transport(
        self,
        request: Request,
        cache: PartCache,
        record: Callable[[LedgerEntry], None],
        max_down_bytes: int | None = None,
    ) -> DeviceTransport:
        task, domain_id = self.world.task, request.domain_id
        transport = DeviceTransport(
            link=self.link,
            cache=cache,
            before_fetch=lambda name: self._bring_backbone(name, transport, request),
            verify=partial(verify_card, self.run, public_key=self.public_key),
            shapes_of=lambda architecture: parameter_shapes(architecture, task),
            label=TransferLabel(
                run=self.run,
                round_index=request.round_index,
                method=request.method,
                domain_id=domain_id,
            ),
            record=record,
            clock=self.clock,
            wait_before_retry=self.wait_before_retry,
            wait_out=self.wait_out,
            max_attempts=self.max_attempts,
            max_down_bytes=max_down_bytes,
        )
        return transport

    def _bring_backbone(
        self, architecture: str, transport: DeviceTransport, request: Request
    ) -> None:
        """Bring the backbone of an architecture, where it has one that the device lacks.

        A simulated device that is sent its backbone gets its own with its profile request, which
        is its first, and another one with the first model that needs it.
        """
        task = self.world.task
        backbone = find_architecture(architecture, task).backbone
        if backbone is None or backbone.sha256 is None:
            return
        name, sha256 = PREFIX + backbone.name, backbone.sha256
        shapes = backbone_shapes(architecture, task)
        if self.simulated and self.config.devices.backbone == "shipped":
            domain_id, devices = request.domain_id, self.config.devices
            inputs = inputs_of(self.world, domain_id)
            _, own = equip_domain(domain_id, self.config.seed, task, devices, inputs)
            is_own = architecture == own
            if isinstance(request, ProfileRequest) or not (is_own or transport.holds(sha256)):
                transport.fetch_backbone(name, sha256, shapes)
        if find_backbone(backbone) is None:
            if self.simulated:  # the devices of this process have it; what was sent is counted
                transport = self._transport(request, MemoryCache(), lambda entry: None)
            hold_backbone(backbone, tensors_of(transport.fetch_backbone(name, sha256, shapes)))


@contextmanager
def open_journal(run_folder: Path, request: Request) -> Iterator[JournalMeter]:
    """The journal of a device's transfers: each is on the disk before the next begins.

    One file a domain and method, because the methods of a domain may run side by side.
    """
    name = f"{request.domain_id}.{request.method or 'profile'}.jsonl"
    with closing(JournalMeter(run_folder / "journal" / name)) as journal:
        yield journal


def domain_of_partition(world: World, context: "Context") -> str:
    """The domain of a node, by its partition id; raises ConfigError without one."""
    partition = context.node_config.get("partition-id")
    if not isinstance(partition, int) or not 0 <= partition < len(world.domain_ids):
        raise ConfigError(
            f"node {context.node_id}: got partition-id {partition!r}, "
            f"wanted 0 to {len(world.domain_ids) - 1}"
        )
    return world.domain_ids[partition]


def domain_of_node(context: "Context") -> str:
    """The domain of a node that ``flwr run`` started."""
    config = _run_source(context).config
    return domain_of_partition(open_world(config.world, config.seed), context)


@contextmanager
def node_device(context: "Context", request: Request) -> Iterator[Device]:
    """The device of a node that ``flwr run`` started: models come from the depot on loopback."""
    source = _run_source(context)
    config, run_folder = source.config, source.folder
    address = (run_folder / "depot.address").read_text("utf-8")
    with (
        open_channel(address, insecure=True) as channel,
        open_journal(run_folder, request) as journal,
    ):
        factory = DeviceFactory(
            config=config,
            world=open_world(config.world, config.seed),
            run=run_folder.name,
            public_key=(run_folder / "keys" / "server.pub").read_bytes(),
            link=GrpcLink(channel),
            clock=time.perf_counter,
            wait_before_retry=growing_wait(time.sleep),
            wait_out=time.sleep,
        )
        cache = FolderCache(run_folder / "devices" / request.domain_id / request.method)
        yield factory.device(request, cache, journal.record)


def _run_source(context: "Context") -> RunSource:
    return read_run_settings(context.run_config, f"{context.run_id:x}")
