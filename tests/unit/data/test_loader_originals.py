"""The real originals, where a person points GRAFT_DATA_ORIGINALS at a folder of them.

The folder holds one sub-folder a set, each with the set's archive or its files.
"""

import os
from pathlib import Path

import pytest

from graft.data.check import explain_folder
from graft.data.folder import FolderWorld
from graft.data.public.registry import prepare_dataset

ORIGINALS = os.environ.get("GRAFT_DATA_ORIGINALS")
pytestmark = [
    pytest.mark.skipif(ORIGINALS is None, reason="GRAFT_DATA_ORIGINALS is not set"),
    pytest.mark.slow,
]


@pytest.mark.parametrize(
    ("name", "folder", "num_domains", "num_windows"),
    [
        # 30 users; the windows of the set's own feature files.
        ("hapt", "hapt", 30, 10_929),
        # The other sets publish no number of windows for this cutting: seen, then fixed.
        ("myo", "myo-readings", 41, 19_087),
        ("spsw", "spsw-har", 46, 7_218),
        # 44 writers and one window a trace.
        ("pendigits", "pendigits", 44, 10_992),
        # 6 speakers, 10 digits, 50 takes.
        ("fsdd", "fsdd", 6, 3_000),
        # 23 subjects; windows of the time that both devices have.
        ("spsw-pairs", "spsw-har", 23, 3_596),
        # 861 trials of both sensors, 2,533 pictures; 31,780 reviews, 39 of them no UTF-8 or empty.
        ("utd-mhad", "utd-mhad", 8, 861),
        ("office", "office-caltech10", 4, 2_533),
        ("fdu-mtl", "fdu-mtl", 16, 31_741),
    ],
)
def test_the_whole_set_gives_the_published_counts_and_a_sound_folder(
    name: str, folder: str, num_domains: int, num_windows: int, tmp_path: Path
) -> None:
    assert ORIGINALS is not None
    report = prepare_dataset(name, Path(ORIGINALS) / folder, tmp_path / name)
    assert (report.load.domains, report.load.windows) == (num_domains, num_windows)
    assert not any(finding.is_problem for finding in explain_folder(tmp_path / name))
    assert len(FolderWorld(tmp_path / name).domain_ids) == num_domains
