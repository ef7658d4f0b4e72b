"""Domains and where they come from: folders of people's own data, seeded synthetic worlds,
loaders of public data sets, and the split of a domain's rows and of a world's rounds."""

from graft.data.domain import DomainData, World
from graft.data.folder import FolderWorld, check_folder, write_dataset, write_domain

__all__ = [
    "DomainData",
    "FolderWorld",
    "World",
    "check_folder",
    "write_dataset",
    "write_domain",
]
