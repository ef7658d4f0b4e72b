"""Generated files: no traceback, every line accounted for, the windows of a slow reference."""

from pathlib import Path

import csv_corpus as corpus
import numpy as np
import pytest

from graft.data.folder import FolderWorld
from graft.data.importers.csv import convert_csv
from graft.data.importers.csv_columns import CsvColumns
from graft.data.importers.csv_windows import Windowing
from graft.errors import DataError

BATCH = 25


def is_read_as_meant(seed: int, folder: Path) -> bool:
    """Convert one file; whether it was accepted."""
    spec = corpus.make(seed)
    source = corpus.write(spec, folder)
    windowing = Windowing(
        rate_hz=spec.rate, window=corpus.WINDOW, step=corpus.STEP, block_s=2, max_gap_s=spec.max_gap
    )
    wanted = corpus.expected(spec)
    usable = {who for who, blocks in wanted.items() if len({label for label, _ in blocks}) > 1}
    columns, refused = CsvColumns(**corpus.options(spec)), ""
    try:
        done = convert_csv(
            source, folder / "out", columns, windowing, name="m", licence="CC0", overwrite=True
        )
    except DataError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused
        assert not usable, f"seed {seed}: refused: {refused}"
        return False
    assert done.lines == corpus.num_lines(spec), seed
    assert sum(done.account.values()) == done.lines, f"seed {seed}: {done.account}"
    world = FolderWorld(folder / "out")
    persons = {world.person(domain_id): domain_id for domain_id in world.domain_ids}
    assert set(persons) == usable, seed
    for person, domain_id in persons.items():
        data = world.load(domain_id)
        labels = [label for label, windows in wanted[person] for _ in windows]
        groups = [group for group, (_, windows) in enumerate(wanted[person]) for _ in windows]
        windows = np.array([window for _, windows in wanted[person] for window in windows])
        assert [world.task.classes[label] for label in data.y_N] == labels, f"seed {seed}: {person}"
        assert data.group_N.tolist() == groups, seed
        np.testing.assert_allclose(data.x, windows, atol=0.01, err_msg=f"seed {seed}: {person}")
    return True


@pytest.mark.parametrize("first", range(0, 200, BATCH))
def test_generated_files_are_read_as_meant(first: int, tmp_path: Path) -> None:
    accepted = sum(is_read_as_meant(seed, tmp_path) for seed in range(first, first + BATCH))
    assert accepted > BATCH / 2


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 200))
def test_two_thousand_generated_files_are_read_as_meant(first: int, tmp_path: Path) -> None:
    accepted = sum(is_read_as_meant(seed, tmp_path) for seed in range(first, first + 200))
    assert accepted > 100
