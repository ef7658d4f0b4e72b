"""Power lost at any moment of a run or of a deployment's expansion: is it the same in the end?

A shim in this process takes note of what is synced to the disk. When the power is cut it builds a
folder as a disk may have it then: what was synced is there; any other write, rename and removal
since then is there, is not, or is torn. The run goes on from that folder, on a machine that was
started again.

python benchmarks/trust/power.py --losses 100
"""

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from graft_server import durability
from graft_server.deployment.enrolment import create_deployment, enrol_device
from graft_server.flower import deployed_app
from graft_server.mailbox import open_mailbox
from graft_server.model_store import open_store
from graft_server.round_schedule import plan_round, write_node
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory
from power_supply import PowerCut, PowerSupply
from summary import figure, write_summary
from trust.field import write_world

import graft
from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.outputs import fresh_folder
from graft.core.records import LedgerEntry
from graft.core.results import run_hash
from graft.core.tables import read_ledger, read_results
from graft.data.synthetic.imu import CHANNELS, ImuWorld
from graft.errors import RunError
from graft.rounds import handle_request
from graft.wire.messages.codec import (
    MESSAGE_BODY,
    MESSAGE_RECORD,
    MESSAGE_SESSION,
    decode_request,
    encode_response,
)
from graft.wire.messages.replies import MESSAGE_TRANSFERS, encode_transfers
from graft.wire.messages.request_signature import MESSAGE_SIGNATURE, order_digest, sign_answer
from graft.wire.stubs import depot_pb2

HERE = Path(__file__).resolve().parent
INITIAL, TARGETS = ("user-000000", "user-000001"), (("user-000002",), ("user-000003",))


def lose_power(
    root: Path, work: Callable[[], object], losses: int, changes: int, chance: random.Random,
    syncs: bool,
) -> int:  # fmt: skip
    """Do ``work`` on ``root`` until it is done, with at most so many losses; gives their number.

    Each is at a change drawn from the ``changes`` of work that is not disturbed.
    """
    for lost in range(losses + 1):
        image = root.with_name(f"{root.name}-image")
        cut_at = chance.randrange(1, changes) if lost < losses else None
        supply = PowerSupply(root, image, cut_at, chance, syncs)
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
        self._sessions: dict[str, str] = {}

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
        """Flower's part: a message asks a domain to attend."""
        ids = []
        for message in messages:
            name = message.content.config_records[MESSAGE_RECORD][MESSAGE_SESSION]
            assert isinstance(name, bytes)
            self._sessions[self.domains[message.metadata.dst_node_id]] = name.decode()
            ids.append(f"message-{next(self._numbers)}")
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The devices answer what the depot has for them; no ClientApp ends."""
        mailbox = open_mailbox(self._server)
        for domain_id, session in self._sessions.items():
            order = mailbox.wait(domain_id, session, 0.0, lambda: True)
            if order.order_id:
                parts = self._attended(domain_id, dict(order.parts))
                answer = depot_pb2.Answer(parts=parts).SerializeToString()
                mailbox.deliver(domain_id, session, order.order_id, answer)
        return []

    def _attended(self, domain_id: str, order: dict[str, bytes]) -> dict[str, bytes]:
        body = order[MESSAGE_BODY]
        if body not in self._answers:  # a device saves its reply
            self._answers[body] = self._answer(body)
        answer = self._answers[body]
        signature = sign_answer(
            deployed_app.run_folder(self._server).run_id,
            domain_id,
            order_digest(body, order[MESSAGE_SIGNATURE]),
            response=answer[MESSAGE_BODY],
            transfers=answer[MESSAGE_TRANSFERS],
            node_key=(self._server.parent / "devices" / domain_id / "node.key").read_bytes(),
        )
        return {**answer, MESSAGE_SIGNATURE: signature}

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
    what: str, work: Path, losses: int, most: int, chance: random.Random, *, syncs: bool = True
) -> tuple[int, int, int]:
    """Runs with power losses until there were enough: (runs, runs of the same hash, losses).

    Without ``syncs``, the control, a run that ends with an error is one of another hash.
    """
    deployment = Deployment(work) if what == "deployment" else None
    root, start = work / what, work / f"{what}-start"
    start.mkdir(parents=True)
    if deployment is not None:
        deployment.set_up(start)

    hashes: list[str] = []

    def run() -> None:
        hashes.append(deployment.expand(root) if deployment else simulation(root))

    shutil.copytree(start, root)
    supply = PowerSupply(root, work / "none", None, chance, syncs)
    with supply():
        run()
    runs = same = lost = 0
    while lost < losses:
        shutil.rmtree(root)
        shutil.copytree(start, root)
        if deployment is not None:
            deployment._answers.clear()
        allowed = min(most, losses - lost)
        try:
            lost += lose_power(root, run, allowed, supply.changes, chance, syncs)
        except Exception as error:
            if syncs:
                raise
            lost += allowed
            hashes.append(f"{type(error).__name__}: {error}")
        runs, same = runs + 1, same + (hashes[-1] == hashes[0])
        print(f"{what}: {lost} losses, {same} of {runs} runs the same", flush=True)
    return runs, same, lost


def main(
    losses: Annotated[int, typer.Option(help="Power losses in all.")] = 100,
    most: Annotated[int, typer.Option(help="Most losses of one run.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the moments and of what is left.")] = 0,
    work: Annotated[Path, typer.Option(help="Where runs go.")] = Path("runs/trust-power"),
) -> None:
    """Half of the losses in simulations, half in expansions of a deployment, and a control."""
    fresh_folder(work)
    work = work.absolute()
    torch.set_num_threads(1)
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
    # A disk that ignores what is synced: the check must find it out.
    for what, runs in (("simulation", losses // 5), ("deployment", losses // 10)):
        if runs:
            runs, same, lost = survive(what, work / "control", runs, 1, chance, syncs=False)
            figures[f"power/{what}/control"] = figure(
                100 * same / runs, f"% of {runs} runs with {lost} losses, no syncs", "below 100",
                text, [seed],
            )  # fmt: skip
    figures["power/time"] = figure(time.monotonic() - started_s, "s", None, text, [seed])
    write_summary(HERE / "results", figures)
    if not is_same:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
