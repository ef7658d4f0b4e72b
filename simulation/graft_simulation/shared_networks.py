"""Networks that simulated devices of one process share: each model is decoded and built once."""

from collections import OrderedDict

from graft.core.records import ModelCard, Precision
from graft.core.tasks import Task
from graft.models import Network, network_from
from graft.wire.transfer.transport import DeviceTransport

_Key = tuple[str, str, Precision, Task]


class _Kept:
    """A network, its tensors, and how often each of them was written when it was kept."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._parameters, self._buffers = list(network.parameters()), list(network.buffers())
        self._trained = [each.requires_grad for each in self._parameters]
        self._versions = self._written()
        self.num_bytes = sum(each.nbytes for each in (*self._parameters, *self._buffers))

    def _written(self) -> list[int]:
        return [each._version for each in (*self._parameters, *self._buffers)]

    def is_unchanged(self) -> bool:
        """Whether no tensor was written or changed its part in training since."""
        trained = [each.requires_grad for each in self._parameters]
        return self._written() == self._versions and trained == self._trained


class SharedNetworks:
    """The networks that were asked for last, of ``max_bytes`` together.

    A network is given again only where no tensor of it was written since: what a method changed,
    and even what it put back, is built anew. Networks with a backbone are not kept.
    """

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    def network(
        self, transport: DeviceTransport, task: Task, card: ModelCard, precision: Precision
    ) -> Network:
        """A model in eval mode, with the ledger rows of its transfer to this device; raises as
        ``WeightTransport.fetch`` and ``network_from``."""
        key = card.model_id, card.architecture, precision, task
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_bytes -= kept.num_bytes
            if kept.is_unchanged():
                transport.receive(card, precision)
                self._keep(key, kept)
                return kept.network.eval() if kept.network.training else kept.network
        network = network_from(card.architecture, task, transport.fetch(card, precision))
        if network.backbone is None:
            self._keep(key, _Kept(network))
        return network

    def _keep(self, key: _Key, kept: _Kept) -> None:
        self._kept[key] = kept
        self._num_bytes += kept.num_bytes
        while self._num_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.num_bytes
