"""A network of machines on one: namespaces, links that can be made bad, and what they carried.

Wants root on Linux, iproute2, ethtool and util-linux; ``unavailable`` says what is missing.
"""

from lab.counter import InterfaceCounter
from lab.network import Lab, unavailable
from lab.node import Node
from lab.shape import LinkShape

__all__ = ["InterfaceCounter", "Lab", "LinkShape", "Node", "unavailable"]
