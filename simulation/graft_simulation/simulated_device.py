"""The simulated device: a domain's own side, with the model store a folder away."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from graft_client.device_factory import make_device, open_journal

from graft.core.config import ExpansionConfig
from graft.core.ports import ModelStore
from graft.core.records import ModelCard, Request
from graft.data.domain import World
from graft.rounds import Device
from graft.wire.transfer.link import DirectoryLink
from graft_simulation.store_backed_cache import ListedParts


@contextmanager
def open_simulated_device(
    request: Request,
    *,
    config: ExpansionConfig,
    world: World,
    folder: Path,
    store: ModelStore,
    verify: Callable[[ModelCard], None],
) -> Iterator[Device]:
    """The device that a request is for, its models straight from ``store``.

    Its journal and the list of what it holds are under ``folder``. Its clock is the CPU time
    of this thread, which other devices on the machine do not lengthen.
    """
    held = folder / "devices" / f"{request.domain_id}.{request.method}.held"
    with open_journal(folder, request) as journal:
        yield make_device(
            request,
            config=config,
            world=world,
            run=folder.name,
            link=DirectoryLink(store),
            cache=ListedParts(held, store),
            verify=verify,
            record=journal.record,
            clock=time.thread_time,
        )
