"""The algorithm, once for the simulator and the field: the cloud half and the device half."""

from graft.rounds.answers import answer_order, answer_together
from graft.rounds.cloud import Admission, Round, expand_system, found_system
from graft.rounds.device import Device, configured_policy
from graft.rounds.groups import Averaging, found_groups

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
