"""Networks by the names of their architectures: how each is built, and what it costs a device."""

from graft.models.backbones import Backbone, Preprocess, Preprocessing, backbone_hash
from graft.models.building import build_network, network_from, parameter_shapes, parameters_of
from graft.models.cost import NetworkCost, network_cost
from graft.models.network import Features, Network
from graft.models.registry import (
    Architecture,
    add_architecture,
    added_architectures,
    offered_architectures,
)

__all__ = [
    "Architecture",
    "Backbone",
    "Features",
    "Network",
    "NetworkCost",
    "Preprocess",
    "Preprocessing",
    "add_architecture",
    "added_architectures",
    "backbone_hash",
    "build_network",
    "network_cost",
    "network_from",
    "offered_architectures",
    "parameter_shapes",
    "parameters_of",
]
