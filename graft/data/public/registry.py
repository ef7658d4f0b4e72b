"""Turns the originals of a public data set into a domain folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from graft.core.text import did_you_mean
from graft.data.dataset_table import write_dataset
from graft.data.domain import DomainData
from graft.data.folder import new_folder, write_domain
from graft.data.public import fdu_mtl, fsdd, hapt, myo, office, pendigits, spsw, utd_mhad
from graft.data.public.archives import Originals, open_originals
from graft.data.public.recordings import DatasetDescription, Tally, check_counts, describe
from graft.data.sites import deal_domain
from graft.errors import ConfigError

Progress = Callable[[str, int, int], None]


class Reader(Protocol):
    """Yields the domains of one original data set in a fixed order, counting as it goes."""

    def __call__(self, originals: Originals, tally: Tally) -> Iterator[DomainData]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """What ``prepare_dataset`` wrote, and what it skipped on the way."""

    name: str
    folder: Path
    licence: str
    load: Tally


READERS: Mapping[str, Reader] = {
    "hapt": hapt.read_hapt,
    "myo": myo.read_myo,
    "spsw": spsw.read_spsw,
    "pendigits": pendigits.read_pendigits,
    "fsdd": fsdd.read_fsdd,
    "spsw-pairs": spsw.read_spsw_pairs,
    "office": office.read_office,
    "fdu-mtl": fdu_mtl.read_fdu_mtl,
    "utd-mhad": utd_mhad.read_utd_mhad,
}


def find_dataset(name: str) -> DatasetDescription:
    """The public data set called ``name``; raises ConfigError with the known ones."""
    if name not in READERS:
        hint = did_you_mean(name, READERS)
        raise ConfigError(f"data set: got {name!r}, wanted one of {', '.join(READERS)}{hint}")
    return describe(name)


def prepare_dataset(
    name: str,
    source: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    complete: bool = True,
    sites: int = 1,
    alpha: float = 1.0,
    seed: int = 0,
) -> PrepareReport:
    """Write the domain folder ``out`` from the originals at ``source``, all or nothing.

    Parameters
    ----------
    name
        Of the data set.
    source
        A folder or an archive in the originals' own layout.
    out
        The domain folder.
    progress
        Called after each domain with its id, the number done and the published number of domains.
    overwrite
        Replace a folder that already holds something.
    complete
        Compare the counts with the published ones; off, to prepare a part of a set.
    sites, alpha, seed
        Above one site, each domain is dealt into so many, "amazon@1" and so on, and is the person
        of all of them: see ``graft.data.sites``. ``alpha`` is Dirichlet's.

    Raises
    ------
    ConfigError
        No such data set, or sites that it has too few rows for.
    DatasetFormatError
        The originals are missing, damaged or not complete.
    DataError
        ``out`` is, holds or lies in ``source``, or holds something and ``overwrite`` is off.
    """
    description = find_dataset(name)
    tally = Tally()
    persons: dict[str, str] = {}
    with (
        new_folder(out, sources=[source], overwrite=overwrite) as folder,
        open_originals(source) as originals,
    ):
        for number, whole in enumerate(READERS[name](originals, tally), start=1):
            for data in deal_domain(whole, sites, alpha, seed):
                write_domain(folder, data, task=description.task)
                # A person's id may be followed by a device's or a site's: s01@sp, amazon@1.
                persons[data.domain_id] = data.domain_id.partition("@")[0]
            if progress is not None:
                progress(whole.domain_id, number, description.published["domains"])
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
