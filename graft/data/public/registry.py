"""Turns the originals of a public data set into a domain folder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import new_folder, write_domain
from graft.data.public import fsdd, hapt, myo, pendigits, spsw
from graft.data.public.archives import Originals, open_originals
from graft.data.public.recordings import DatasetDescription, Tally, check_counts, person_of
from graft.errors import ConfigError

Progress = Callable[[str, int, int], None]


class Reader(Protocol):
    """Yields the domains of one original data set in a fixed order, counting as it goes."""

    def __call__(self, originals: Originals, tally: Tally) -> Iterator[DomainData]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicDataset:
    """A description and the reader that belongs to it."""

    description: DatasetDescription
    read: Reader


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """What ``prepare_dataset`` wrote, and what it skipped on the way."""

    name: str
    folder: Path
    licence: str
    load: Tally


PUBLIC_DATASETS = (
    PublicDataset(description=hapt.DESCRIPTION, read=hapt.read_hapt),
    PublicDataset(description=myo.DESCRIPTION, read=myo.read_myo),
    PublicDataset(description=spsw.DESCRIPTION, read=spsw.read_spsw),
    PublicDataset(description=pendigits.DESCRIPTION, read=pendigits.read_pendigits),
    PublicDataset(description=fsdd.DESCRIPTION, read=fsdd.read_fsdd),
)


def find_dataset(name: str) -> PublicDataset:
    """The public data set called ``name``.

    Raises:
        ConfigError: no such set; the message lists those there are.
    """
    for dataset in PUBLIC_DATASETS:
        if dataset.description.name == name:
            return dataset
    known = ", ".join(dataset.description.name for dataset in PUBLIC_DATASETS)
    raise ConfigError(f"data set: got {name!r}, wanted one of {known}")


def prepare_dataset(
    name: str,
    source: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    complete: bool = True,
) -> PrepareReport:
    """Write the domain folder ``out`` from the originals at ``source``, all or nothing.

    ``source`` is a folder or an archive in the originals' own layout. ``progress`` is
    called after each domain with its id, the number done and the published number of
    domains. ``overwrite`` replaces a folder that already holds something. ``complete``
    compares the counts with the published ones; turn it off to prepare a part of a set.

    Raises:
        ConfigError: no such data set.
        DatasetFormatError: the originals are missing, damaged or not complete.
        DataError: ``out`` already holds something and ``overwrite`` is off.
    """
    dataset = find_dataset(name)
    description = dataset.description
    tally = Tally()
    persons: dict[str, str] = {}
    with new_folder(out, overwrite=overwrite) as folder, open_originals(source) as originals:
        for data in dataset.read(originals, tally):
            write_domain(folder, data)
            persons[data.domain_id] = person_of(data.domain_id)
            if progress is not None:
                progress(data.domain_id, len(persons), description.published.domains)
        tally.skipped_lines = dict(sorted(tally.skipped_lines.items()))
        if complete:
            check_counts(description, tally)
        write_dataset(
            folder,
            description.task,
            channels=description.channels,
            rate_hz=description.rate_hz,
            licence=description.licence,
            persons={domain: person for domain, person in persons.items() if domain != person},
        )
    return PrepareReport(name=name, folder=out, licence=description.licence, load=tally)
