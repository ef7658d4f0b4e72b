"""Which domains arrive in which round of a deployment, and who its nodes are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from graft.errors import RunError
from graft.files import replace_file

Rounds = tuple[tuple[str, ...], ...]


def read_rounds(server: Path) -> Rounds:
    """The domains of each round so far, round 0 first; the last may be unfinished."""
    path = server / "rounds.json"
    return tuple(map(tuple, json.loads(path.read_text("utf-8")))) if path.exists() else ()


def plan_round(server: Path, domain_ids: Sequence[str], finished: int) -> Rounds:
    """Add a round; raises RunError where one is unfinished, or a domain was in one before.

    ``finished`` counts the rounds that are over.
    """
    rounds = read_rounds(server)
    if finished < len(rounds):
        raise RunError(f"round {finished} is unfinished; go on with it first: graft deploy expand")
    again = sorted({d for arriving in rounds for d in arriving} & set(domain_ids))
    if again:
        raise RunError(f"domain {again[0]}: has arrived in a round already, wanted a new one")
    rounds = (*rounds, tuple(domain_ids))
    replace_file(server / "rounds.json", json.dumps(rounds).encode())
    return rounds


def read_nodes(server: Path) -> dict[int, str]:
    """Which domain each of Flower's node ids was enrolled for."""
    nodes = {}
    for path in (server / "state" / "nodes").glob("*.json"):
        nodes[int(json.loads(path.read_text("utf-8"))["node_id"])] = path.stem
    return nodes


def write_node(server: Path, domain_id: str, facts: Mapping[str, object]) -> None:
    """Keep the node id that Flower gave a domain's key."""
    path = server / "state" / "nodes" / f"{domain_id}.json"
    replace_file(path, json.dumps(dict(facts)).encode())
