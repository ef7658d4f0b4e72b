"""A run's folder: durable, atomic steps, one a round, and the whole at the end.

run.toml             configuration, seed, versions, world, engine, outcome
rounds/<i>/round.json  the SHA-256 of a round's files: with it the round is finished
rounds/<i>/          results, ledger, profiles, peers, catalogue (its new cards),
                     architecture_averages, rejections (.parquet) of a round
results.parquet      all rounds; ledger.parquet likewise
models/              finished models by their SHA-256
keys/                server.key signs every admitted card and stays here; server.pub verifies
steps/               blocks that the block engine finished, until their round is over
appeals.json         whose reports were cleared, and after how many rounds
progress.json        how far the run is, for other processes
journal/             the devices' transfers, line by line, until their round is over
"""

import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from graft.core.catalogue import Catalogue, as_catalogue
from graft.core.config import ExpansionConfig
from graft.core.config_files import config_from_dict
from graft.core.files import AnyPath, lock_file, make_folder, remove_tree, replace_file
from graft.core.records import (
    NAME_RULE,
    RESERVED_NAME,
    DomainProfile,
    LedgerEntry,
    PeerFindings,
    SystemState,
)
from graft.core.results import ResultRow, run_hash, with_peers
from graft.core.tables import (
    read_ledger,
    read_peers,
    read_results,
    write_ledger,
    write_peers,
    write_results,
)
from graft.core.task_table import task_from_table
from graft.core.tasks import Task
from graft.data.domain import World
from graft.errors import RunError
from graft.wire.transfer.transfer_log import read_journal
from graft_server.catalogue import (
    is_part,
    read_cards,
    read_catalogue,
    read_rejections,
    write_cards,
    write_profiles,
    write_rejections,
)
from graft_server.durability import MARKER, boot_id, count_rounds, find_damage, sync, write_marker
from graft_server.forgetting import read_forgotten, settle
from graft_server.run_table import FLOWER, new_run, now, read_run, write_run

log = logging.getLogger("graft")
_LOOK_EVERY_S = 1.0
_RESULTS = "results.parquet"
_FORMER_NAMES = {"architecture_averages": "groups", "rejections": "demotions"}


class RunFolder:
    """The files of one run. Every write is whole or not there."""

    def __init__(self, path: AnyPath) -> None:
        self.path = path.absolute()  # the caller may change the working directory
        self.run_id: str = self.path.name
        self.models, self.keys = self.path / "models", self.path / "keys"
        self.journals, self.devices = self.path / "journal", self.path / "devices"
        self.steps = self.path / "steps"
        self._seen: dict[AnyPath, tuple[int, int]] = {}
        self._next_look_s = 0.0

    @property
    def is_written(self) -> bool:
        """Whether the whole ledger and results are there."""
        return all((self.path / f"{name}.parquet").exists() for name in ("results", "ledger"))

    @property
    def status(self) -> str:
        """As in run.toml: running, complete or failed; raises RunError where there is no run."""
        return str(read_run(self.path)["run"]["status"])

    def begin(
        self, config: ExpansionConfig, world: World, engine: Mapping[str, str | bool] = FLOWER
    ) -> None:
        """Start a new run; raises RunError where the folder has one already.

        ``engine`` has the engine's settings that touch the result: a resumed run needs the same.
        """
        if (self.path / "run.toml").exists():
            raise RunError(
                f"run folder {self.path}: holds a run already; resume it or name another"
            )
        if RESERVED_NAME.match(self.run_id):
            raise RunError(f"run folder: got the name {self.run_id!r}, wanted {NAME_RULE}")
        make_folder(self.path)
        write_run(self.path, new_run(self.run_id, config, world, engine))

    def read_config(self) -> ExpansionConfig:
        """The configuration of the folder's run.

        Raises RunError where there is none, ConfigError where it has keys of another version.
        """
        return config_from_dict(read_run(self.path)["config"], load_plug_ins=True)

    def read_task(self) -> Task:
        """What the run's models do; raises as ``read_config`` does."""
        world = read_run(self.path)["world"]
        return task_from_table(world["name"], world)

    def resume(self, *, durable_steps: bool = False) -> ExpansionConfig:
        """Mark the run as running again; returns and raises as ``read_config`` does.

        A round that a power cut spoilt is removed, to run again, and so are the steps of the
        running round, unless they and their models are durable.
        """
        config = self.read_config()
        self._check_last_round()
        is_same_boot = read_run(self.path)["run"].get("boot", boot_id()) == boot_id()
        if not (is_same_boot or durable_steps) and isinstance(self.models, Path):
            self._drop_unsynced(self.models)
        self.note(status="running", reason="", boot=boot_id())
        return config

    def read_engine(self) -> Mapping[str, str | bool]:
        """The engine's settings that ``begin`` recorded; raises RunError where there is no run."""
        engine: Mapping[str, str | bool] = read_run(self.path).get("engine", FLOWER)
        return engine

    def save_round(
        self,
        state: SystemState,
        rows: Sequence[ResultRow],
        entries: Sequence[LedgerEntry],
        profiles: Sequence[DomainProfile] = (),
        peers: Sequence[PeerFindings] = (),
        *,
        base: int | None = None,
        steps: AnyPath | None = None,
    ) -> None:
        """Write a finished round: ``state`` after it, ``profiles`` of the domains that joined.

        It is finished once its marker is there, which has the digests of its files. What the round
        could be made of again, ``steps``, is removed only then (default: those of every round).
        ``base``: the number of rounds that were over when it began (default: all before it).
        """
        folder = self._round(state.round_index - 1)
        write_ledger(entries, folder / "ledger.parquet")
        write_profiles(profiles, folder / "profiles.parquet")
        write_peers(peers, folder / "peers.parquet")
        self._write_catalogue(state, folder)
        write_cards(state.architecture_averages, folder / "architecture_averages.parquet")
        write_rejections(state.rejections, folder / "rejections.parquet")
        sync([folder])  # results without averages then are a round of before markers
        write_results(rows, folder / _RESULTS)
        began = state.round_index - 1 if base is None else base
        new = [
            card.model_id
            for cards in (state.catalogue, as_catalogue(state.architecture_averages))
            for card in cards.where(cards.round_indices == began)
        ]
        models = [path for name in new for path in self._model_files(name)]
        sync([*models, self.models])
        write_marker(folder)
        sync([folder.parent, self.path])
        remove_tree(self.steps if steps is None else steps)

    def _write_catalogue(self, state: SystemState, folder: AnyPath) -> None:
        """Write the round's own cards; or all, where not all of those before are still there."""
        rounds = state.round_index - 1
        is_known = (self._round(rounds - 1) / "catalogue.parquet").exists()
        before = self._read_catalogue(rounds) if is_known else Catalogue()
        stayed, added = state.catalogue[: len(before)], state.catalogue[len(before) :]
        is_longer = np.array_equal(stayed.model_ids, before.model_ids) and np.array_equal(
            stayed.domain_ids, before.domain_ids
        )
        cards = added if is_longer else state.catalogue
        write_cards(cards, folder / "catalogue.parquet", is_part=is_longer)

    def _read_catalogue(self, num_rounds: int) -> Catalogue:
        """The catalogue after the first rounds, forgotten models that are not removed included."""
        paths = []
        for index in reversed(range(num_rounds)):
            paths.append(self._round(index) / "catalogue.parquet")
            if not is_part(paths[-1]):
                break
        return read_catalogue(paths[::-1])

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder against other processes; one on a remote file system is not locked."""
        if not isinstance(self.path, Path):
            return nullcontext()
        return lock_file(self.path / "lock", str(self.path))

    def load_state(self) -> SystemState:
        """The state to go on from, after the last finished round.

        The journals and devices of an interrupted round are removed: it runs again.
        """
        remove_tree(self.journals)
        remove_tree(self.devices)
        self._check_last_round()
        settle(self)
        return self.read_state()

    def _check_last_round(self) -> None:
        """Remove rounds from the last one backwards until one is whole."""
        remove_tree(self._round(self.count_rounds()))  # written in part, without its marker
        while finished := self.count_rounds():
            folder = self._round(finished - 1)
            if not (folder / MARKER).exists() or not (damaged := find_damage(folder)):
                return
            reason = f"{', '.join(damaged)}: damaged"
            log.warning("round %d: %s; the run goes on from the round before", finished - 1, reason)
            (folder / MARKER).unlink()
            remove_tree(folder)

    def _drop_unsynced(self, models: Path) -> None:
        """Remove what a restart of the machine may have torn: the running round's steps and models.

        Within a round nothing is synced, which would cost a wait for the disk a domain.
        """
        remove_tree(self.steps)
        known = {card.model_id for card in self.read_state().catalogue}
        for path in models.glob("*.safetensors"):
            name = path.name.removesuffix(".safetensors")
            if name not in known:
                exact, *parts = self._model_files(name)
                for part in parts:  # made again from the payload
                    part.unlink()
                if hashlib.sha256(exact.read_bytes()).hexdigest() != name:
                    exact.unlink()

    def _model_files(self, model_id: str) -> list[AnyPath]:
        """A stored model's files, the payload first."""
        paths = [self.models / f"{model_id}.{kind}" for kind in ("safetensors", "base", "residual")]
        return [path for path in paths if path.exists()]

    def count_rounds(self) -> int:
        """How many rounds are finished; reads none of them."""
        return count_rounds(self.path)

    def read_state(self, num_rounds: int | None = None) -> SystemState:
        """The state after so many rounds, by default all that are finished; empty after none."""
        finished = self.count_rounds() if num_rounds is None else num_rounds
        if not finished:
            return SystemState()
        averages = read_cards(self._round_file(finished - 1, "architecture_averages"))
        appeals, rejections = self._appeals(), self._round_file(finished - 1, "rejections")
        state = SystemState(
            round_index=finished,
            catalogue=self._read_catalogue(finished),
            architecture_averages=tuple(averages),
            rejections=tuple(
                each
                for each in read_rejections(rejections)
                if each.round_index >= appeals.get(each.domain_id, 0)
            ),
        )
        return read_forgotten(self.path).filtered(state)

    def clear_reports(self, domain_id: str) -> None:
        """No report on a domain's models counts that was made until now."""
        appeals = self._appeals() | {domain_id: self.count_rounds()}
        replace_file(self.path / "appeals.json", json.dumps(appeals, sort_keys=True).encode())

    def forget_appeals(self, domain_ids: Collection[str]) -> None:
        """Remove the names of forgotten domains."""
        left = {d: count for d, count in self._appeals().items() if d not in domain_ids}
        if left != self._appeals():
            replace_file(self.path / "appeals.json", json.dumps(left, sort_keys=True).encode())

    def _appeals(self) -> dict[str, int]:
        """By domain, the number of finished rounds at its latest granted appeal."""
        path = self.path / "appeals.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}

    def journal_bytes(self) -> int:
        """Payload bytes in the journals, up to a second old.

        Reads only what was added; thousands of files are looked at once a second at most.
        """
        if time.monotonic() < self._next_look_s:
            return sum(shipped for _, shipped in self._seen.values())
        for path in self._journals():
            read, shipped = self._seen.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(read)
                lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            shipped += sum(json.loads(line)["payload_bytes"] for line in whole.splitlines())
            self._seen[path] = read + len(whole), shipped
        self._next_look_s = time.monotonic() + _LOOK_EVERY_S
        return sum(shipped for _, shipped in self._seen.values())

    def journal_entries(self) -> list[LedgerEntry]:
        """The journals' entries since the last call; it empties the journals."""
        entries: list[LedgerEntry] = []
        for path in self._journals():
            entries += read_journal(path)
        remove_tree(self.journals)
        self._seen.clear()
        self._next_look_s = 0.0
        return entries

    def read_rows(self, num_rounds: int) -> list[ResultRow]:
        """The results of the first rounds, in order; raises RunError where one is unfinished."""
        return [row for index in range(num_rounds) for row in self.read_round(index)]

    def read_round(self, index: int) -> list[ResultRow]:
        """The results of a round; raises RunError where it is unfinished."""
        return read_results(self._round(index) / _RESULTS)

    def with_peers(self, rows: Sequence[ResultRow], num_rounds: int) -> list[ResultRow]:
        """The rows with what peers found of their models in the first rounds."""
        paths = (self._round(index) / "peers.parquet" for index in range(num_rounds))
        return with_peers(rows, (each for path in paths for each in read_peers(path)))

    def finish(self, num_rounds: int) -> tuple[str, list[str]]:
        """Write the whole ledger and results and the outcome.

        Returns the run's hash and a line for each failure.
        """
        rows = self.read_rows(num_rounds)
        entries: list[LedgerEntry] = []
        for index in range(num_rounds):
            entries += read_ledger(self._round(index) / "ledger.parquet")
        rows = self.with_peers(rows, num_rounds)
        write_results(rows, self.path / "results.parquet")
        write_ledger(entries, self.path / "ledger.parquet")
        sync([self.path / "results.parquet", self.path / "ledger.parquet", self.path])
        digest = run_hash(rows, entries)
        failures = [
            f"{row.domain_id} ({row.method}): {row.error}: {row.error_message}"
            for row in rows
            if row.error
        ]
        status = "failed" if failures else "complete"
        self.note(status=status, finished=now(), hash=digest, rounds=num_rounds)
        return digest, failures

    def finish_closed(self) -> None:
        """Do what ``finish`` does where the machine went off between the last round and that."""
        closed = self.count_rounds()
        noted = read_run(self.path)["run"].get("rounds", 0) if self.is_written else 0
        if noted < closed:
            self.finish(closed)

    def fail(self, reason: str) -> None:
        """Mark the run as failed before its end; a complete run stays complete."""
        if read_run(self.path)["run"]["status"] != "complete":
            self.note(status="failed", finished=now(), reason=reason)

    def read_failure(self) -> str:
        """Why the run failed before its end, or "" where it did not, or has not begun."""
        begun = (self.path / "run.toml").exists()
        return str(read_run(self.path)["run"]["reason"]) if begun else ""

    def note(self, **facts: int | str) -> None:
        """Add facts about how the run went to run.toml's [run]."""
        tables = read_run(self.path)
        tables["run"] |= facts
        write_run(self.path, tables)

    def _journals(self) -> list[Path]:
        """Devices that share this machine's disk write them; there are none elsewhere."""
        if not isinstance(self.path, Path):
            return []
        return sorted((self.path / "journal").glob("*.jsonl"))

    def _round(self, index: int) -> AnyPath:
        return self.path / "rounds" / str(index)

    def _round_file(self, index: int, name: str) -> AnyPath:
        """A table of a round, under its name of an earlier version where that is what there is."""
        path = self._round(index) / f"{name}.parquet"
        return path if path.exists() else path.with_name(f"{_FORMER_NAMES.get(name, name)}.parquet")
