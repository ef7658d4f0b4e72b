"""The domains that arrive in each round of a deployment, its open orders, and its nodes' ids."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from graft.core.exchange import Growth
from graft.core.files import replace_file
from graft.core.records import SystemState
from graft.errors import RunError

Rounds = tuple[tuple[str, ...], ...]


def read_rounds(server: Path) -> Rounds:
    """The domains of each round so far, round 0 first; the last may be unfinished."""
    path = server / "rounds.json"
    return tuple(map(tuple, json.loads(path.read_text("utf-8")))) if path.exists() else ()


def plan_round(
    server: Path, domain_ids: Sequence[str], state: SystemState, again: Collection[str] = ()
) -> Rounds:
    """Add a round; raises RunError where one is unfinished, or a domain is part of the system.

    A domain that failed in an earlier round may arrive again, and those in ``again``.
    """
    rounds = read_rounds(server)
    if state.round_index < len(rounds):
        raise RunError(f"round {state.round_index}: is unfinished; graft deploy expand goes on")
    there = sorted({card.domain_id for card in state.catalogue} & set(domain_ids) - set(again))
    if there:
        raise RunError(f"domain {there[0]}: has its model in the system already, wanted a new one")
    rounds = (*rounds, tuple(domain_ids))
    replace_file(server / "rounds.json", json.dumps(rounds).encode())
    return rounds


def write_served(server: Path, index: int, domain_id: str) -> None:
    """Name the domain of a round that ends now, having been served by itself."""
    rounds = (*read_rounds(server)[:index], (domain_id,))
    replace_file(server / "rounds.json", json.dumps(rounds).encode())


def read_growth(server: Path) -> Mapping[int, tuple[Growth, ...]]:
    """By round, what domains of the system come back with."""
    path = server / "growth.json"
    planned = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        int(index): tuple(Growth(**{**g, "classes": tuple(g["classes"])}) for g in growths)
        for index, growths in planned.items()
    }


def plan_growth(server: Path, growths: Sequence[Growth], state: SystemState) -> Rounds:
    """Add a round in which domains of the system come back; raises RunError as ``plan_round``
    does, and for a domain that has no model to grow."""
    owners = {card.domain_id for card in state.catalogue}
    if strangers := [each.domain_id for each in growths if each.domain_id not in owners]:
        raise RunError(f"domain {strangers[0]}: has no model in the system, wanted one to grow")
    if state.round_index == len(read_rounds(server)):
        planned = {**read_growth(server), state.round_index: growths}
        table = {index: [asdict(each) for each in some] for index, some in planned.items()}
        replace_file(server / "growth.json", json.dumps(table).encode())
    return plan_round(server, (), state)


def order_of(domain_id: str, round_index: int) -> str:
    """How an order to register a model is named."""
    return f"{domain_id} {round_index}"


def write_orders(server: Path, round_index: int, domain_ids: Sequence[str]) -> None:
    """Replace the orders to register a model by one for each of these domains."""
    orders = {domain_id: order_of(domain_id, round_index) for domain_id in domain_ids}
    replace_file(server / "state" / "orders.json", json.dumps(orders).encode())


def set_order(server: Path, domain_id: str, round_index: int | None) -> None:
    """Open a domain's order to register a model, or close it (None); others' stay."""
    path = server / "state" / "orders.json"
    orders: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    orders.pop(domain_id, None)
    if round_index is not None:
        orders[domain_id] = order_of(domain_id, round_index)
    replace_file(path, json.dumps(orders).encode())


def open_order(server: Path, domain_id: str) -> str | None:
    """The order of a domain to register a model, as ``order_of`` names it; None without one."""
    path = server / "state" / "orders.json"
    orders: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return orders.get(domain_id)


def read_nodes(server: Path) -> dict[str, int]:
    """The node id that Flower gave each enrolled domain's key."""
    nodes = {}
    for path in (server / "state" / "nodes").glob("*.json"):
        nodes[path.stem] = int(json.loads(path.read_text("utf-8"))["node_id"])
    return nodes


def write_node(server: Path, domain_id: str, facts: Mapping[str, object]) -> None:
    """Store the node id that Flower gave a domain's key."""
    path = server / "state" / "nodes" / f"{domain_id}.json"
    replace_file(path, json.dumps(dict(facts)).encode())


def forget_node(server: Path, domain_id: str) -> None:
    """Remove a domain's node id."""
    (server / "state" / "nodes" / f"{domain_id}.json").unlink(missing_ok=True)
