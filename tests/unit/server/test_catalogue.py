"""Profiles and cards as columns: what goes in comes out, and what is damaged has a name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from graft_server.catalogue import read_cards, write_cards, write_profiles

from graft.core.records import DomainProfile, ModelCard
from graft.errors import RunError

PROFILE = DomainProfile(
    domain_id="ann",
    task="t",
    num_samples=7,
    statistics_D=np.array([1.5, -2.0, 0.25], np.float32),
    class_counts_C=np.array([3, 0, 4], np.int64),
)
CARD = ModelCard(
    model_id="ab" * 32,
    domain_id="ann",
    architecture="mlp",
    payload_bytes=100,
    base_bytes=30,
    residual_bytes=60,
    class_mask_C=np.array([True, False, True]),
    round_index=2,
    parents=("cd" * 32,),
    profile=PROFILE,
)


def read_profiles(path: Path) -> list[DomainProfile]:
    """What any data frame library reads."""
    return [
        DomainProfile(
            **row
            | {
                "statistics_D": np.array(row.pop("statistics"), np.float32),
                "class_counts_C": None
                if (counts := row.pop("class_counts")) is None
                else np.array(counts),
            }
        )
        for row in pq.read_table(path).to_pylist()
    ]


def facts(profile: DomainProfile) -> tuple[object, ...]:
    counts_C = profile.class_counts_C
    return (
        profile.domain_id,
        profile.task,
        profile.num_samples,
        profile.statistics_D.dtype,
        profile.statistics_D.tolist(),
        None if counts_C is None else counts_C.tolist(),
    )


def test_profiles_come_back_as_they_went_in(tmp_path: Path) -> None:
    silent = replace(PROFILE, domain_id="bob", class_counts_C=None)
    longer = replace(PROFILE, domain_id="cat", statistics_D=np.arange(5, dtype=np.float32))
    path = tmp_path / "profiles.parquet"
    write_profiles([PROFILE, silent, longer], path)
    assert list(map(facts, read_profiles(path))) == list(map(facts, [PROFILE, silent, longer]))


def test_no_profiles_are_a_file_as_well(tmp_path: Path) -> None:
    write_profiles([], tmp_path / "none.parquet")
    assert read_profiles(tmp_path / "none.parquet") == []


def test_a_catalogue_comes_back_and_has_columns_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.parquet"
    write_cards([CARD], path)
    (card,) = read_cards(path)
    assert card.profile is not None
    assert facts(card.profile) == facts(PROFILE)
    assert (card.model_id, card.parents, card.shipped_bytes) == (CARD.model_id, CARD.parents, 90)
    (row,) = pq.read_table(path, columns=["domain_id", "shipped_bytes", "class_mask"]).to_pylist()
    assert row == {"domain_id": "ann", "shipped_bytes": 90, "class_mask": [True, False, True]}


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not so"])
def test_what_cannot_be_read_is_a_run_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="broken"):
        read_cards(path)
