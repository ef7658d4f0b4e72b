"""Domains and where they come from: folders of users' own data, seeded synthetic worlds, readers of
public data sets, and the split of a domain's rows and of a world's rounds."""

from graft.data.check import explain_folder
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData, World
from graft.data.folder import FolderWorld, write_domain, write_rows
from graft.data.splits import DomainSplit, schedule_rounds, split_rows
from graft.data.synthetic.digits import DigitsWorld
from graft.data.synthetic.imu import ImuWorld
from graft.data.worlds import open_world

__all__ = [
    "DigitsWorld",
    "DomainData",
    "DomainSplit",
    "FolderWorld",
    "ImuWorld",
    "World",
    "explain_folder",
    "open_world",
    "schedule_rounds",
    "split_rows",
    "write_dataset",
    "write_domain",
    "write_rows",
]
