"""Networks that simulated devices of one process share: each model is decoded and built once."""

from collections import OrderedDict

from graft.core.records import ModelCard, Precision
from graft.core.tasks import Task
from graft.models import Network, network_from
from graft.wire.transfer.transport import DeviceTransport

_Key = tuple[str, str, Precision, Task]


class SharedNetworks:
    """The networks that were asked for last, of ``max_bytes`` together.

    A network is given again only where no tensor of it was written since: what a method changed,
    and even what it put back, is built anew. Networks with a backbone are not kept.
    """

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._kept: OrderedDict[_Key, tuple[Network, tuple[int, ...], int]] = OrderedDict()

    def network(
        self, transport: DeviceTransport, task: Task, card: ModelCard, precision: Precision
    ) -> Network:
        """A model in eval mode, with the ledger rows of its transfer to this device; raises as
        ``WeightTransport.fetch`` and ``network_from``."""
        key = card.model_id, card.architecture, precision, task
        kept = self._kept.pop(key, None)
        if kept is not None:
            network, versions, num_bytes = kept
            self._num_bytes -= num_bytes
            if _versions(network) == versions:
                transport.receive(card, precision)
                self._keep(key, network.eval(), num_bytes)
                return network
        network = network_from(card.architecture, task, transport.fetch(card, precision))
        if network.backbone is None:
            num_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
            self._keep(key, network, num_bytes)
        return network

    def _keep(self, key: _Key, network: Network, num_bytes: int) -> None:
        self._kept[key] = network, _versions(network), num_bytes
        self._num_bytes += num_bytes
        while self._num_bytes > self._max_bytes:
            _, (_, _, freed) = self._kept.popitem(last=False)
            self._num_bytes -= freed


def _versions(network: Network) -> tuple[int, ...]:
    """How often each tensor was written, and whether it is trained."""
    parameters = (2 * each._version + each.requires_grad for each in network.parameters())
    return (*parameters, *(buffer._version for buffer in network.buffers()))
