"""A domain folder in the making: it appears whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.data.dataset_table import write_dataset
from graft.data.domain import World
from graft.data.folder import write_domain
from graft.errors import DataError


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside ``out`` that takes its place where the block ends without an error.

    It is called ``<out>.partial``. ``overwrite`` replaces a folder that already holds something,
    once the new one is whole. Raises DataError where it does and ``overwrite`` is off.
    """
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: got a place that already holds something, wanted an empty one")
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_world(out: Path, world: World) -> None:
    """Write a world as a domain folder; raises DataError where ``out`` already holds something."""
    with new_folder(out) as folder:
        for domain_id in world.domain_ids:
            write_domain(folder, world.load(domain_id))
        persons = {name: world.person(name) for name in world.domain_ids}
        write_dataset(
            folder,
            world.task,
            channels=[f"channel_{index}" for index in range(world.task.sample_shape[0])],
            rate_hz=None,
            licence="not stated",
            persons={name: person for name, person in persons.items() if name != person},
        )


def _replace_folder(partial: Path, out: Path) -> None:
    """Put ``partial`` in the place of ``out``; what was there goes only once it is replaced."""
    if not out.exists():
        partial.rename(out)
        return
    previous = out.with_name(out.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    out.rename(previous)
    partial.rename(out)
    if previous.is_dir():
        shutil.rmtree(previous)
    else:
        previous.unlink()
