"""From labelled rows of any kind to a domain folder: domains, classes, groups, the report."""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graft.core.outputs import new_folder
from graft.core.records import DOMAIN_ID, NAME_RULE, IntArray
from graft.core.tasks import InputSpec, Task
from graft.data.dataset_table import PATH_SUFFIX, write_dataset
from graft.data.folder import write_rows
from graft.data.importers.accounting import RowTally
from graft.data.public.recordings import natural_key
from graft.errors import DatasetFormatError, DomainEmptyError

Progress = Callable[[str, int, int], None]
_FOREIGN = re.compile(r"[^A-Za-z0-9._@-]+")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledRow:
    """A row that was read: ``value`` is its cell, ``content`` a hash of what it holds.

    ``group`` names its recording, "" where it is one by itself.
    """

    domain: str
    label: str
    group: str
    content: bytes
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What an importer wrote, and what became of every row: ``rows_read`` is ``rows_kept`` and
    the rows of ``skipped`` together."""

    folder: Path
    classes: tuple[str, ...]
    domains: int
    rows_read: int
    rows_kept: int
    skipped: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a domain folder is written, and what ``dataset.toml`` says of it.

    ``max_unreadable``: the share of rows that may be damaged; 0 refuses the first.
    """

    out: Path
    name: str
    licence: str
    overwrite: bool = False
    max_unreadable: float = 0.02


def content_hash(content: bytes) -> bytes:
    """What tells rows apart that hold the same."""
    return hashlib.sha256(content).digest()


def domain_id_of(name: str) -> str:
    """The name with "-" for what no domain id has; raises DatasetFormatError where none is left."""
    domain_id = _FOREIGN.sub("-", name).strip("-")
    if not DOMAIN_ID.fullmatch(domain_id):
        raise DatasetFormatError(f"domain: got {name!r:.80}, wanted {NAME_RULE}")
    return domain_id


def write_labelled(
    rows: Callable[[Path], Iterable[LabelledRow]],
    to: Destination,
    tally: RowTally,
    spec_of: Callable[[Sequence[LabelledRow]], InputSpec],
    *,
    source: str,
    as_files: bool = False,
    remarks: Callable[[], Iterable[str]] = tuple,
) -> ImportReport:
    """Write the rows as a domain folder, all or nothing.

    A domain of fewer than two classes is left out, its rows counted as skipped. Rows of a domain
    that hold the same are one group, so that no split parts them.

    Parameters
    ----------
    rows
        From the new folder to the rows, whose files it may hold below domains/<id>.
    to, tally
        Where they go, and what was counted of them.
    spec_of
        From all rows to the description of their only stream.
    source
        The source's name for errors.
    as_files
        Whether values are paths of files in their domain's folder.
    remarks
        What else is to be reported, once the rows are read.

    Raises
    ------
    DatasetFormatError
        Too many rows cannot be read, or two names give one domain id.
    DomainEmptyError
        No domain is left.
    """
    by_domain: dict[str, list[LabelledRow]] = {}
    names: dict[str, str] = {}
    with new_folder(to.out, overwrite=to.overwrite) as folder:
        for row in rows(folder):
            domain_id = domain_id_of(row.domain)
            other = names.setdefault(domain_id, row.domain)
            if other != row.domain:
                raise DatasetFormatError(
                    f"domain: got {row.domain!r} and {other!r}, which both become {domain_id!r}, "
                    "wanted names that stay apart"
                )
            by_domain.setdefault(domain_id, []).append(row)
        tally.check_share(source, to.max_unreadable)
        for domain_id, own in sorted(by_domain.items()):
            if len({row.label for row in own}) < 2:
                tally.skip("its domain has fewer than two classes", domain_id, rows=len(own))
                del by_domain[domain_id]
                shutil.rmtree(folder / "domains" / domain_id, ignore_errors=True)
        if not by_domain:
            raise DomainEmptyError(
                f"{source}: got no domain of two classes or more, wanted at least one; "
                + "; ".join(tally.words())
            )
        found = {row.label for own in by_domain.values() for row in own}
        classes = tuple(sorted(found, key=natural_key))
        spec = spec_of([row for own in by_domain.values() for row in own])
        task = Task(name=to.name, modality=spec.modality, inputs=(spec,), classes=classes)
        for domain_id, own in by_domain.items():
            columns = {
                spec.name + (PATH_SUFFIX if as_files else ""): _cells([row.value for row in own]),
                "y": np.array([classes.index(row.label) for row in own], np.int64),
                "group": _groups(own),
            }
            write_rows(folder, domain_id, columns, files={} if as_files else None)
        write_dataset(folder, task, licence=to.licence)
    return ImportReport(
        folder=to.out,
        classes=classes,
        domains=len(by_domain),
        rows_read=tally.read,
        rows_kept=tally.kept,
        skipped=tally.words(),
        remarks=(*remarks(), *_repeats(by_domain)),
    )


def _cells(values: Sequence[Any]) -> Any:
    """A column: vectors as an array, texts and paths as they are."""
    return np.stack(values) if isinstance(values[0], np.ndarray) else list(values)


def _groups(rows: Sequence[LabelledRow]) -> IntArray:
    """A number for each recording: of the group's name, or of the content where it has none."""
    numbers: dict[Any, int] = {}
    keys = (("group", row.group) if row.group else ("content", row.content) for row in rows)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _repeats(by_domain: Mapping[str, Sequence[LabelledRow]]) -> list[str]:
    """What is remarkable about rows that hold the same."""
    homes: dict[bytes, set[str]] = {}
    for domain_id, rows in by_domain.items():
        for row in rows:
            homes.setdefault(row.content, set()).add(domain_id)
    inside = sum(len(rows) - len({row.content for row in rows}) for rows in by_domain.values())
    across = sum(len(domains) > 1 for domains in homes.values())
    found = []
    if inside:
        found.append(f"{inside} rows repeat another of their domain")
    if across:
        found.append(
            f"{across} samples are in two domains or more: what one trains on may test another"
        )
    return found
