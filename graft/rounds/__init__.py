"""The algorithm, once for the simulator and the field: the cloud half and the device half."""

from graft.rounds.admissible import AdmittingEdge, digest
from graft.rounds.architecture_averages import Averaging, average_by_architecture
from graft.rounds.device import Device, configured_policy
from graft.rounds.growth import beside, grow_domains
from graft.rounds.requests import handle_request, handle_together
from graft.rounds.server import Admission, Round, expand_system, train_initial_domains

__all__ = [
    "Admission",
    "AdmittingEdge",
    "Averaging",
    "Device",
    "Round",
    "average_by_architecture",
    "beside",
    "configured_policy",
    "digest",
    "expand_system",
    "grow_domains",
    "handle_request",
    "handle_together",
    "train_initial_domains",
]
