"""Networks by the names of their architectures: how each is built, and what it costs a device."""

from graft.models.cost import NetworkCost, network_cost
from graft.models.network import (
    Network,
    build_network,
    network_from,
    parameter_shapes,
    parameters_of,
)
from graft.models.registry import Architecture, offered_architectures

__all__ = [
    "Architecture",
    "Network",
    "NetworkCost",
    "build_network",
    "network_cost",
    "network_from",
    "offered_architectures",
    "parameter_shapes",
    "parameters_of",
]
