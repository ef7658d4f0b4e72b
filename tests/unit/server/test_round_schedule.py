"""Rounds that somebody decides, one after another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graft_server.round_schedule import (
    plan_growth,
    plan_round,
    read_growth,
    read_nodes,
    read_rounds,
    write_node,
)

from graft.core.exchange import Growth
from graft.core.records import ModelCard, SystemState
from graft.errors import RunError

EMPTY = SystemState()


def after(round_index: int, *owners: str) -> SystemState:
    cards = tuple(
        ModelCard(
            model_id=f"{number:064x}", domain_id=domain_id, architecture="mlp", payload_bytes=1,
            base_bytes=1, residual_bytes=1, class_mask_C=np.ones(2, bool), round_index=0,
        )
        for number, domain_id in enumerate(owners)
    )  # fmt: skip
    return replace(EMPTY, round_index=round_index, catalogue=cards)


def test_rounds_follow_one_another(tmp_path: Path) -> None:
    assert read_rounds(tmp_path) == ()
    plan_round(tmp_path, ["ann", "bob"], EMPTY)
    assert plan_round(tmp_path, ["eve"], after(1, "ann", "bob")) == (("ann", "bob"), ("eve",))
    assert read_rounds(tmp_path) == (("ann", "bob"), ("eve",))


def test_an_unfinished_round_comes_first(tmp_path: Path) -> None:
    plan_round(tmp_path, ["ann"], EMPTY)
    with pytest.raises(RunError, match="round 0: is unfinished"):
        plan_round(tmp_path, ["bob"], EMPTY)
    assert read_rounds(tmp_path) == (("ann",),)


def test_who_is_in_the_system_does_not_arrive_again_but_who_failed_may(tmp_path: Path) -> None:
    plan_round(tmp_path, ["ann", "bob"], EMPTY)
    state = after(1, "ann")  # bob failed
    with pytest.raises(RunError, match="ann: has its model in the system"):
        plan_round(tmp_path, ["ann"], state)
    assert plan_round(tmp_path, ["bob"], state)[1] == ("bob",)


def test_domains_of_the_system_come_back_in_a_round_of_their_own(tmp_path: Path) -> None:
    plan_round(tmp_path, ["ann"], EMPTY)
    growths = [Growth(domain_id="ann", classes=("row", "sit"))]
    assert read_growth(tmp_path) == {}
    with pytest.raises(RunError, match="round 0: is unfinished"):
        plan_growth(tmp_path, growths, replace(after(1, "ann"), round_index=0))
    assert read_growth(tmp_path) == {}
    with pytest.raises(RunError, match="bob: has no model"):
        plan_growth(tmp_path, [Growth(domain_id="bob", classes=("row",))], after(1, "ann"))
    assert plan_growth(tmp_path, growths, after(1, "ann")) == (("ann",), ())
    assert read_growth(tmp_path) == {1: tuple(growths)}


def test_node_ids_of_64_bits_come_back_whole(tmp_path: Path) -> None:
    write_node(tmp_path, "a.nn", {"node_id": "18446744073709551615"})
    write_node(tmp_path, "bob", {"node_id": 7})
    assert read_nodes(tmp_path) == {"a.nn": 2**64 - 1, "bob": 7}
