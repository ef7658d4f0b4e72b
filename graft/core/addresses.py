"""Hosts and addresses: how they are written, which are this machine's own, and proxies between."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Final

import psutil

from graft.errors import ConfigError

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PROXIES: Final = (
    "http_proxy",
    "https_proxy",
    "grpc_proxy",
    "all_proxy",
    "no_proxy",
    "no_grpc_proxy",
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_HOST_RULE = (
    "a host name (labels of 1 to 63 letters, digits and -; at most 253 in all) or an address"
)


def checked_host(host: str) -> str:
    """A host as certificates and addresses want it: an IPv6 address bare, a name in ASCII.

    Raises ConfigError for what is neither a host name nor an address.
    """
    bare = host.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if getattr(address, "scope_id", None):
            raise ConfigError(f"host: got {host!r}, wanted an address without a zone")
        if address.is_unspecified or address.is_multicast:
            raise ConfigError(f"host: got {host!r}, wanted an address that devices can call")
        return str(address)
    try:
        name = bare.removesuffix(".").encode("idna").decode("ascii") if bare else ""
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ConfigError(f"host: got {host!r}, wanted {_HOST_RULE}")
    return name.lower()


def join_address(host: str, port: int) -> str:
    """ "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host(address: str) -> str:
    """The host of "host:port", without brackets."""
    return address.rpartition(":")[0].strip("[]")


def is_own_machine(host: str) -> bool:
    """Whether a host is this machine, by its name, loopback or an address of an interface."""
    if host.lower() in _LOOPBACK or host.lower() == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    own = (each.address for cards in psutil.net_if_addrs().values() for each in cards)
    return address.is_loopback or str(address) in {each.partition("%")[0] for each in own}


def direct_environment(environment: Mapping[str, str], *hosts: str) -> dict[str, str]:
    """The environment of a child process whose calls to this machine use no proxy.

    ``hosts``: that the process calls; those that are this machine's own are called directly, too.
    """
    own = [*_LOOPBACK, *(host for host in hosts if is_own_machine(host))]
    direct = dict(environment)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        before = environment.get(name) or environment.get("no_proxy") or environment.get("NO_PROXY")
        if "*" not in (before or ""):
            direct[name] = ",".join(dict.fromkeys([*filter(None, [before]), *own]))
    return direct


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process that calls this machine only."""
    return {name: value for name, value in environment.items() if name.lower() not in _PROXIES}
