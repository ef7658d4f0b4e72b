"""The algorithm, once for the simulator and the field: the cloud half and the device half."""

from graft.rounds.architecture_averages import Averaging, found_groups
from graft.rounds.device import Device, configured_policy
from graft.rounds.requests import answer_order, answer_together
from graft.rounds.server import Admission, Round, expand_system, found_system

__all__ = [
    "Admission",
    "Averaging",
    "Device",
    "Round",
    "answer_order",
    "answer_together",
    "configured_policy",
    "expand_system",
    "found_groups",
    "found_system",
]
