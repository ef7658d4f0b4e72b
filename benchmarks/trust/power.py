"""Power lost at any moment of a run or of a deployment's expansion: is it the same in the end?

A shim in this process takes note of what is synced to the disk. When the power is cut it builds a
folder as a disk may have it then: what was synced is there; any other write, rename and removal
since then is there, is not, or is torn. The run goes on from that folder, on a machine that was
started again.

python benchmarks/trust/power.py --losses 100
"""

import contextlib
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from graft_server import durability
from graft_server.deployment.enrolment import create_deployment, enrol_device
from graft_server.flower import deployed_app
from graft_server.model_store import open_store
from graft_server.round_schedule import plan_round, write_node
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory
from summary import figure, write_summary
from trust.field import write_world

import graft
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.ledger import read_ledger
from graft.core.outputs import fresh_folder
from graft.core.records import LedgerEntry
from graft.core.results import read_results, run_hash
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.errors import RunError
from graft.rounds import handle_request
from graft.wire.messages.codec import MESSAGE_BODY, MESSAGE_RECORD, decode_request, encode_response
from graft.wire.messages.replies import MESSAGE_TRANSFERS, encode_transfers
from graft.wire.messages.request_signature import MESSAGE_SIGNATURE, order_digest, sign_answer

HERE = Path(__file__).resolve().parent
INITIAL, TARGETS = ("user-000000", "user-000001"), (("user-000002",), ("user-000003",))
_CHANGES = ("fsync", "replace", "unlink", "rmdir", "mkdir")


class PowerCut(BaseException):
    """The machine is off. It is no Exception, because no program handles it."""


@dataclass(slots=True)
class _Disk:
    """What is on the disk for certain: content by inode, and the names in each folder."""

    content: dict[int, bytes] = field(default_factory=dict)
    names: dict[Path, dict[str, tuple[int, bytes | None]]] = field(default_factory=dict)

    def sync(self, path: Path) -> None:
        status = path.stat()
        if path.is_dir():
            inodes = {each.name: each.stat().st_ino for each in path.iterdir()}
            self.names[path] = {name: (i, self.content.get(i)) for name, i in inodes.items()}
            return
        self.content[status.st_ino] = content = path.read_bytes()
        for names in self.names.values():
            for name, (inode, _) in names.items():
                if inode == status.st_ino:
                    names[name] = inode, content

    def forget(self, path: Path) -> None:
        """A removed file's inode may be another file's from now on."""
        if path.is_file():
            self.content.pop(path.stat().st_ino, None)


class PowerSupply:
    """``with PowerSupply(root, image, cut_at, chance)``: the power is cut at the given change.

    ``changes`` counts what the block did to files under ``root``; None cuts nothing. The folder
    ``image`` then has what may be left of ``root``.
    """

    def __init__(self, root: Path, image: Path, cut_at: int | None, chance: random.Random) -> None:
        self.changes = 0
        self._root = root.resolve()
        self._image = image
        self._cut_at = cut_at
        self._chance = chance
        self._written = chance.choice([0.1, 0.5, 0.95])  # chance that a change came to the disk
        self._disk = _Disk()
        self._is_off = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        for folder, _, names in os.walk(self._root):
            for path in (*(Path(folder) / name for name in names), Path(folder)):
                self._disk.sync(path)
        for folder, _, _ in os.walk(self._root):
            self._disk.sync(Path(folder))
        originals = {name: getattr(os, name) for name in _CHANGES}
        with mock.patch.multiple(os, **{n: self._watched(n, o) for n, o in originals.items()}):
            yield

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **options: Any) -> Any:
            target = args[-1] if name == "replace" else args[0]
            path = self._path(target, options.get("dir_fd"))
            if path is None:
                return original(*args, **options)
            if self._is_off:
                raise PowerCut  # what handles the cut must not change the disk
            self.changes += 1
            if self.changes == self._cut_at:
                self._is_off = True
                self._build(self._root, self._image)
                raise PowerCut
            if name in ("replace", "unlink"):
                self._disk.forget(path)
            done = original(*args, **options)
            if name == "fsync":
                self._disk.sync(path)
            return done

        return change

    def _path(self, target: Any, dir_fd: int | None) -> Path | None:
        """The changed path, if it is under the root."""
        if isinstance(target, int):
            path = Path(os.readlink(f"/proc/self/fd/{target}"))
        elif dir_fd is not None:
            path = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / os.fsdecode(target)
        else:
            path = Path(os.path.abspath(os.fsdecode(target)))
        return path if path.is_relative_to(self._root) else None

    def _build(self, folder: Path, image: Path) -> None:
        """What may be left of a folder: each change since its last sync is there or not."""
        image.mkdir(parents=True)
        synced = self._disk.names.get(folder, {})
        now = {each.name: each for each in folder.iterdir()} if folder.is_dir() else {}
        for name in sorted(synced.keys() | now.keys()):
            path = folder / name
            is_same = name in now and name in synced and path.stat().st_ino == synced[name][0]
            if not is_same and self._chance.random() > self._written:
                if name in synced:  # neither its removal nor what replaced it came to the disk
                    self._restore(path, synced[name][1], image / name)
            elif name in now:
                if path.is_dir():
                    self._build(path, image / name)
                else:
                    self._write(image / name, self._content(path), path.stat().st_mode)

    def _restore(self, path: Path, content: bytes | None, image: Path) -> None:
        if path in self._disk.names:
            self._build_synced(path, image)
        else:
            self._write(image, content or b"", 0o600)

    def _build_synced(self, folder: Path, image: Path) -> None:
        image.mkdir(parents=True)
        for name, (_, content) in self._disk.names[folder].items():
            self._restore(folder / name, content, image / name)

    def _content(self, path: Path) -> bytes:
        """A file's content: as synced, as written since, a part of it, or zeros."""
        now, synced = path.read_bytes(), self._disk.content.get(path.stat().st_ino)
        if now == synced or self._chance.random() < self._written:
            return now
        part = self._chance.randrange(len(now) + 1)
        torn = now[:part]
        return self._chance.choice([synced or b"", torn, torn + bytes(len(now) - part)])

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        path.write_bytes(content)
        path.chmod(mode & 0o777)


def lose_power(
    root: Path, work: Callable[[], object], losses: int, changes: int, chance: random.Random
) -> int:
    """Do ``work`` on ``root`` until it is done, with at most so many losses; gives their number.

    Each is at a change drawn from the ``changes`` of work that is not disturbed.
    """
    for lost in range(losses + 1):
        image = root.with_name(f"{root.name}-image")
        cut_at = chance.randrange(1, changes) if lost < losses else None
        supply = PowerSupply(root, image, cut_at, chance)
        boot = root.with_name("boot-id")
        boot.write_text(f"{lost}", "utf-8")
        with mock.patch.object(durability, "_BOOT_ID", boot):
            try:
                with supply():
                    work()
                return lost
            except PowerCut:
                shutil.rmtree(root)
                image.rename(root)
    return losses


def simulation(root: Path) -> str:
    """A small run, new or gone on with; gives its hash."""
    if (root / "run" / "run.toml").exists():
        return graft.resume(root / "run", workers=0).hash
    return graft.simulate(
        "imu", domains=8, rounds=2, method="graft", comparisons=["label-only"], engine="block",
        workers=0, out=root / "run",
        settings={"world.windows_per_domain": 40, "training.max_steps": 3},
    ).hash  # fmt: skip


class Deployment:
    """A deployment's server over a Flower of this process; its devices never lose power."""

    def __init__(self, work: Path) -> None:
        self.domains = [*INITIAL, *(d for round_ in TARGETS for d in round_)]
        self._world = ImuWorld(len(self.domains), 40, seed=0)
        write_world(self._world, self.domains, work / "data", list(CHANNELS))
        self._data = work / "data" / self.domains[0]
        settings = {"training.max_steps": 3, "selection.num_sources": 2}
        self._config = with_settings(ExpansionConfig(), settings)
        self._answers: dict[bytes, dict[str, bytes]] = {}
        self._numbers = count()
        self._waiting: dict[str, Message] = {}

    def set_up(self, root: Path) -> None:
        """``graft deploy init`` and ``enrol``."""
        create_deployment(
            root, host="127.0.0.1", dataset=self._data, config=self._config, flower_port=9443,
            depot_port=9444,
        )  # fmt: skip
        for number, domain_id in enumerate(self.domains):
            enrol_device(root, domain_id)
            write_node(root / "server", domain_id, {"node_id": number})
        self._answers.clear()

    def expand(self, root: Path) -> str:
        """What is left of three rounds, as ``graft deploy expand`` goes on; gives the hash."""
        self._server = root / "server"
        folder = deployed_app.run_folder(self._server)
        for index, arriving in enumerate((INITIAL, *TARGETS)):
            if folder.count_rounds() > index:
                continue
            with contextlib.suppress(RunError):  # it was planned before the power was lost
                plan_round(self._server, arriving, folder.read_state())
            context = Context(0, 0, {}, RecordDict(), {"join-timeout-s": 1.0, "patience-s": 0.0})
            # Flower's messages are made inside a task of Flower's.
            with (
                mock.patch.multiple(TaskIdentity, _task_id=1, _run_id=1, _node_id=1),
                mock.patch.object(deployed_app, "_POLL_S", 0.01),
            ):
                deployed_app._expand(self, context, self._server, folder)  # type: ignore[arg-type]
        folder.finish_closed()
        rows = read_results(folder.path / "results.parquet")
        return run_hash(rows, read_ledger(folder.path / "ledger.parquet"))

    def get_node_ids(self) -> Iterable[int]:
        return range(len(self.domains))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(f"message-{next(self._numbers)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            sent = message.content.config_records[MESSAGE_RECORD]
            body, signature = sent[MESSAGE_BODY], sent[MESSAGE_SIGNATURE]
            assert isinstance(body, bytes)
            assert isinstance(signature, bytes)
            if body not in self._answers:  # a device saves its reply
                self._answers[body] = self._answer(body)
            answer = self._answers[body]
            domain_id = decode_request(body).domain_id
            device = self._server.parent / "devices" / domain_id
            answer = answer | {
                MESSAGE_SIGNATURE: sign_answer(
                    deployed_app.run_folder(self._server).run_id,
                    domain_id,
                    order_digest(body, signature),
                    response=answer[MESSAGE_BODY],
                    transfers=answer[MESSAGE_TRANSFERS],
                    node_key=(device / "node.key").read_bytes(),
                )
            }
            record = ConfigRecord(dict(answer))
            self._waiting[ids[-1]] = Message(RecordDict({MESSAGE_RECORD: record}), reply_to=message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._waiting.pop(each) for each in message_ids if each in self._waiting]

    def _answer(self, body: bytes) -> dict[str, bytes]:
        folder = deployed_app.run_folder(self._server)
        store = open_store(folder.models, self._world.task, durable=True)
        public_key = (folder.keys / "server.pub").read_bytes()
        factory = simulated_factory(self._config, self._world, folder.run_id, public_key, store)
        entries: list[LedgerEntry] = []
        request = decode_request(body)
        with devices_in_memory(factory, store, entries.append)(request) as device:
            response = encode_response(handle_request(request, device))
        return {MESSAGE_BODY: response, MESSAGE_TRANSFERS: encode_transfers(entries)}


def survive(
    what: str, work: Path, losses: int, most: int, chance: random.Random
) -> tuple[int, int, int]:
    """Runs with power losses until there were enough: (runs, runs of the same hash, losses)."""
    deployment = Deployment(work) if what == "deployment" else None
    root, start = work / what, work / f"{what}-start"
    start.mkdir(parents=True)
    if deployment is not None:
        deployment.set_up(start)

    hashes: list[str] = []

    def run() -> None:
        hashes.append(deployment.expand(root) if deployment else simulation(root))

    shutil.copytree(start, root)
    supply = PowerSupply(root, work / "none", None, chance)
    with supply():
        run()
    runs = same = lost = 0
    while lost < losses:
        shutil.rmtree(root)
        shutil.copytree(start, root)
        if deployment is not None:
            deployment._answers.clear()
        lost += lose_power(root, run, min(most, losses - lost), supply.changes, chance)
        runs, same = runs + 1, same + (hashes[-1] == hashes[0])
        print(f"{what}: {lost} losses, {same} of {runs} runs the same", flush=True)
    return runs, same, lost


def main(
    losses: Annotated[int, typer.Option(help="Power losses in all.")] = 100,
    most: Annotated[int, typer.Option(help="Most losses of one run.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the moments and of what is left.")] = 0,
    work: Annotated[Path, typer.Option(help="Where runs go.")] = Path("runs/trust-power"),
) -> None:
    """Half of the losses in simulations, half in expansions of a deployment."""
    fresh_folder(work)
    work = work.absolute()
    chance = random.Random(seed)  # noqa: S311 - of moments, which are no secret
    text = f"python benchmarks/trust/power.py --losses {losses} --most {most}"
    started_s = time.monotonic()
    figures, is_same = {}, True
    for what, share in (("simulation", losses // 2), ("deployment", losses - losses // 2)):
        runs, same, lost = survive(what, work, share, most, chance)
        is_same &= same == runs
        figures[f"power/{what}/same"] = figure(
            100 * same / runs, f"% of {runs} runs with {lost} losses", "100", text, [seed]
        )
    figures["power/time"] = figure(time.monotonic() - started_s, "s", None, text, [seed])
    write_summary(HERE / "results", figures)
    if not is_same:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
