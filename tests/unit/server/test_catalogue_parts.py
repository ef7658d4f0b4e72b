"""The catalogue in parts: a card that is read when it is used is the card that was written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import graft_server.catalogue as stored
import numpy as np
import pyarrow.parquet as pq
import pytest
from graft_server.run_folder import RunFolder
from hypothesis import given
from hypothesis import strategies as st

import graft.selection.coarse as coarse
from graft.core.catalogue import Catalogue, as_catalogue
from graft.core.config import SelectionConfig
from graft.core.records import DomainProfile, ModelCard, SystemState
from graft.errors import RunError
from graft.wire.messages.codec import encode_card

SELECTION = SelectionConfig(num_sources=2, num_candidates=3)


def profile(domain_id: str, seed: int, size: int = 20) -> DomainProfile:
    statistics_D = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    return DomainProfile(
        domain_id=domain_id, task="t", num_samples=7, statistics_D=statistics_D, class_counts_C=None
    )


def card(
    number: int, round_index: int = 0, parents: Sequence[int] = (), owner: int | None = None
) -> ModelCard:
    domain_id = f"d{number if owner is None else owner:04d}"
    return ModelCard(
        model_id=f"{number:064x}",
        domain_id=domain_id,
        architecture="mlp",
        payload_bytes=100,
        base_bytes=30,
        residual_bytes=60,
        class_mask_C=np.array([True, False]),
        round_index=round_index,
        parents=tuple(f"{parent:064x}" for parent in parents),
        profile=profile(domain_id, number),
    )


def encoded(cards: Sequence[ModelCard]) -> list[bytes]:
    return [encode_card(each) for each in cards]


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file's cards stay on the disk, in small groups, and sources are ranked four at once."""
    monkeypatch.setattr(stored, "MANY", 1)
    monkeypatch.setattr(stored, "_GROUP", 3)
    monkeypatch.setattr(coarse, "_SOURCES", 4)


@pytest.mark.usefixtures("on_disk")
def test_cards_on_the_disk_are_those_in_memory(tmp_path: Path) -> None:
    cards = [card(number) for number in range(20)]
    stored.write_cards(cards[:11], tmp_path / "one.parquet")
    stored.write_cards(cards[11:], tmp_path / "two.parquet")
    found = stored.read_catalogue([tmp_path / "one.parquet", tmp_path / "two.parquet"])
    assert all(isinstance(part, stored.StoredCards) for part in found.parts)
    assert encoded(found) == encoded(cards)
    assert encoded(found[7:13]) == encoded(cards[7:13])
    assert encoded([found[-1]]) == encoded(cards[-1:])
    assert encoded(found.cards(np.array([15, 2, 10, 2]))) == encoded(
        [cards[i] for i in (15, 2, 10, 2)]
    )
    assert encoded(found.__add__([card(99)])[19:]) == encoded([cards[19], card(99)])
    signed = found.changed(lambda each: replace(each, signature=b"s"))
    assert {each.signature for each in signed} == {b"s"}


def test_ranking_reads_the_nearest_cards_alone_and_ranks_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: None
) -> None:
    cards = [card(number) for number in range(40)]
    targets = [profile(f"t{number}", 1000 + number) for number in range(3)] + [profile("d0005", 5)]
    wanted = coarse.rank_catalogue(targets, cards, SELECTION)
    stored.write_cards(cards, tmp_path / "cards.parquet")
    read: list[int] = []
    cards_of = stored.StoredCards.cards
    monkeypatch.setattr(
        stored.StoredCards,
        "cards",
        lambda self, rows: read.extend(rows.tolist()) or cards_of(self, rows),
    )
    ranked = coarse.rank_catalogue(
        targets, stored.read_cards(tmp_path / "cards.parquet"), SELECTION
    )
    assert [[(c.model_id, d) for c, d in near] for near in ranked] == [
        [(c.model_id, d) for c, d in near] for near in wanted
    ]
    assert len(read) <= len(targets) * 3


def test_blocks_rank_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [card(number) for number in range(50)]
    cards[7] = replace(
        cards[7], profile=replace(cards[7].profile, statistics_D=np.full(20, 3e30, np.float32))
    )
    targets = [profile(f"t{number}", 1000 + number) for number in range(5)]
    whole = coarse.rank_catalogue(targets, cards, SELECTION)
    monkeypatch.setattr(coarse, "_SOURCES", 7)
    monkeypatch.setattr(coarse, "_COLUMNS", 3)
    blocks = coarse.rank_catalogue(targets, cards, SELECTION)
    for near, again in zip(whole, blocks, strict=True):
        assert [c.model_id for c, _ in near] == [c.model_id for c, _ in again]
        assert [d for _, d in near] == pytest.approx([d for _, d in again], rel=1e-12)


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 3), st.lists(st.integers(0, 6), max_size=2)),
        max_size=12,
    )
)
def test_owned_and_latest_are_as_defined(drawn: list[tuple[int, int, list[int]]]) -> None:
    cards = [
        card(number, parents=[p for p in parents if p != number], owner=owner)
        for number, owner, parents in drawn
    ]
    first: dict[str, ModelCard] = {}
    for each in cards:
        first.setdefault(each.model_id, each)
    former = {(each.domain_id, parent) for each in cards for parent in each.parents}
    catalogue = as_catalogue(cards)
    assert list(catalogue.owned) == list(first.values())
    assert list(catalogue.latest) == [
        each for each in first.values() if (each.domain_id, each.model_id) not in former
    ]
    assert catalogue.find([f"{n:064x}" for n in range(3)]) == {
        name: each for name, each in first.items() if int(name, 16) < 3
    }
    assert list(catalogue.without(domain_ids=["d0001"], model_ids=[f"{2:064x}"])) == [
        each for each in cards if each.domain_id != "d0001" and int(each.model_id, 16) != 2
    ]


@pytest.mark.parametrize("many", [1, 10**6])
def test_a_round_writes_its_own_cards_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(stored, "MANY", many)
    folder = RunFolder(tmp_path / "run")
    first = SystemState().admit((card(1), card(2)))
    folder.save_round(first, [], [])
    second = folder.read_state().admit((card(3, 1, parents=[1]),))
    folder.save_round(second, [], [])
    folder.save_round(second.admit(()), [], [])
    tables = [pq.read_table(tmp_path / f"run/rounds/{i}/catalogue.parquet") for i in range(3)]
    assert [table["domain_id"].to_pylist() for table in tables] == [
        ["d0001", "d0002"],
        ["d0003"],
        [],
    ]
    assert encoded(RunFolder(folder.path).read_state().catalogue) == encoded(second.catalogue)


def test_a_round_that_lost_a_card_writes_all_that_are_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    first = SystemState().admit((card(1), card(2)))
    folder.save_round(first, [], [])
    left = replace(first, catalogue=first.catalogue.without(domain_ids=["d0001"]))
    folder.save_round(left.admit((card(3, 1),)), [], [])
    folder.save_round(left.admit((card(3, 1),)).admit((card(4, 2),)), [], [])
    owners = [each.domain_id for each in folder.read_state().catalogue]
    assert owners == ["d0002", "d0003", "d0004"]


def test_a_whole_catalogue_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    first = SystemState().admit((card(1),))
    folder.save_round(first, [], [])
    second = first.admit((card(2, 1),))
    folder.save_round(second, [], [])
    path = tmp_path / "run/rounds/1/catalogue.parquet"
    stored.write_cards(second.catalogue, path)
    whole = pq.read_table(path).drop_columns(["statistics"])
    pq.write_table(whole.replace_schema_metadata(None), path)
    assert encoded(folder._read_catalogue(2)) == encoded(second.catalogue)


@pytest.mark.usefixtures("on_disk")
def test_a_damaged_card_on_the_disk_is_a_run_error(tmp_path: Path) -> None:
    path = tmp_path / "cards.parquet"
    stored.write_cards([card(1), card(2)], path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.num_columns - 1, "card", [[b"no card", b""]]), path)
    catalogue: Catalogue = stored.read_cards(path)
    with pytest.raises(RunError, match="catalogue"):
        catalogue[0]
