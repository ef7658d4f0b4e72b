"""A domain's own machine, as the device half of a round sees it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from graft.core.config import ExpansionConfig, PolicyConfig
from graft.core.exchange import GrowRequest, ProbeRequest, ProfileRequest, Request, Response
from graft.core.ports import Clock, MessageSizes, WeightTransport
from graft.core.records import NO_LIMITS, Allowance, ModelCard, Precision, least
from graft.core.tasks import OutputKind, Task
from graft.data.domain import DomainData
from graft.data.splits import DomainSplit, split_rows
from graft.devices import DeviceClass
from graft.errors import ConfigError
from graft.methods import find_method
from graft.models import Features, Network, network_from
from graft.models.placement import Placement
from graft.privacy import NOTHING, SeededReleases, SitePolicy, release_cost
from graft.training import Source, frozen_features, rows_digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Device:
    """One domain's machine, made for one request. ``data`` never leave it, ``architecture`` is of
    the domain's own model, and ``clock`` times its training. ``pooled`` gives references their
    model by its architecture; no real device has it. ``networks`` gives models that other devices
    of a simulation have read. ``own_limits`` are its own beside a run's budget, ``limits`` what the
    request may cost; ``sizes`` measures its answers. A simulated one may be ``compiled``: its
    training is then the method's ``fit_many``, where it has one. ``accelerator`` is its encoders'
    torch device."""

    task: Task
    data: DomainData
    device_class: DeviceClass
    architecture: str
    config: ExpansionConfig
    transport: WeightTransport
    clock: Clock
    policy: SitePolicy
    pooled: Callable[[str], Source] | None = None

    def answer_bytes(self, response: Response) -> int:
        """What the answer weighs; raises ConfigError where nothing measures it."""
        if self.sizes is None:
            raise ConfigError(f"device of {self.data.domain_id}: got no sizes, wanted some")
        return self.sizes.response_bytes(response)

    compiled: bool = False
    networks: Callable[[ModelCard, Precision], Network] | None = None
    features_folder: Path | None = None
    sizes: MessageSizes | None = None
    own_limits: Allowance | None = None
    limits: Allowance = NO_LIMITS
    accelerator: str = "cpu"

    @property
    def placement(self) -> Placement:
        """Where its encoders compute, and in which precision."""
        return Placement(self.accelerator, self.config.training.autocast)

    def frozen_features(self, network: Network, architecture: str) -> Features | None:
        """Features of all its rows by a frozen encoder, computed once; None of a trained one."""
        if network.backbone is None or not network.has_frozen_encoder:
            return None
        folder = self.features_folder
        return frozen_features(network, architecture, self.data.x, self._rows_digest, folder)

    def network(self, card: ModelCard, precision: Precision) -> Network:
        """A model in eval mode, not to be changed; raises TransportError or PayloadError where it
        does not come."""
        if self.networks is not None:
            return self.networks(card, precision)
        return network_from(card.architecture, self.task, self.transport.fetch(card, precision))

    @property
    def output(self) -> OutputKind:
        """The kind of the output that is trained."""
        return self.task.outputs[0].kind

    @property
    def lacks_streams(self) -> bool:
        """Whether its domain has fewer streams than its task."""
        return bool(self.data.inputs) and self.data.inputs != self.task.input_names

    @cached_property
    def _rows_digest(self) -> str:
        return rows_digest(self.data.x)

    @cached_property
    def _split(self) -> DomainSplit:
        # A bound for one row holds where no row's label moves another row.
        by_labels = not self.policy.bounds_rows
        return split_rows(self.data, self.config.split, self.config.seed, by_labels=by_labels)

    def rows(self, request: Request) -> DomainSplit:
        """The domain's split. An initial domain is fully labelled (A7), also when it comes back.

        Rows of the classes of ``growth.classes`` are not there before ``growth.round``.
        """
        split, growth = self._split, self.config.growth
        if growth.classes and request.round_index < growth.round:
            growing_C = np.isin(self.task.classes, growth.classes)
            split = split.without(growing_C[self.data.y_N])
        begun = request.model if isinstance(request, GrowRequest) else request
        return replace(split, labelled_N=split.train_N) if begun.round_index == 0 else split


def device_limits(settings: PolicyConfig, device: DeviceClass) -> Allowance | None:
    """The device's own limits, of its site's policy and of its class; None where it has none."""
    limits = Allowance(
        down_bytes=least(settings.max_down_bytes, device.down_bytes),
        up_bytes=least(settings.max_up_bytes, device.up_bytes),
        device_s=least(settings.max_device_s, device.device_s),
        memory_bytes=settings.max_memory_bytes,
    )
    return None if limits == NO_LIMITS else limits


def configured_policy(request: Request, config: ExpansionConfig) -> SitePolicy:
    """The policy of a simulated domain: the run's, with noise from (seed, domain, round).

    A domain releases its profile first, what each method's probe found next, then the scores of
    its model, where they have noise, and its centroids; the scores of other methods last.
    """
    before = 0 if isinstance(request, ProfileRequest) else 1
    if request.round_index and before:
        methods = list(dict.fromkeys((config.method, *config.comparisons)))
        selecting = [name for name in methods if find_method(name).sources_needed == "selected"]
        is_probe = isinstance(request, ProbeRequest) and request.method in selecting
        before += selecting.index(request.method) if is_probe else len(selecting)
        if config.policy.noisy_metrics and not is_probe and request.method in methods[1:]:
            before += 1 + methods.index(request.method)
    releases = SeededReleases(
        config.policy,
        keys=(config.seed, request.domain_id, request.round_index),
        spent=sum([release_cost(config.policy) or NOTHING] * before, NOTHING),
    )
    return SitePolicy(config.policy, releases)
