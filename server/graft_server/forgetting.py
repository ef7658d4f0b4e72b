"""Forgetting a domain: its models leave the catalogue and the store, and nothing brings them back.

A record is written first. From then on its models are refused; what a killed process left is
removed by the next call, and by the next start of the run.
"""

import json
import os
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from graft.core.catalogue import as_catalogue
from graft.core.config import ExpansionConfig
from graft.core.files import AnyPath, remove_tree, replace_file
from graft.core.forgetting import (
    FOLDER,
    Descendant,
    Descendants,
    Forgetting,
    Forgotten,
    read_records,
)
from graft.core.ports import Edge
from graft.core.records import SystemState
from graft.core.tables import read_table
from graft.errors import RunError
from graft.rounds import Admission, Averaging, Round, average_by_architecture
from graft.wire.messages.card_signature import joined_fields, read_public_key
from graft_server.durability import is_replacing, replace_tables
from graft_server.signing import open_signer

if TYPE_CHECKING:
    from graft_server.run_folder import RunFolder

_PURPOSE = b"graft forgetting 1"  # so that no other signature can be taken for this one
_APPLIED = "applied"


def read_forgotten(run_folder: AnyPath) -> Forgotten:
    """The records of a run folder, verified where the run has a key.

    Raises RunError for a record that cannot be read, or that the run's key did not sign.
    """
    records = read_records(run_folder)
    path = run_folder / "keys" / "server.pub"
    if records and path.exists():
        # A rotation of the key keeps what the one before signed.
        paths: list[AnyPath] = [path, *(run_folder / "keys" / "former").glob("*.pub")]
        keys = [read_public_key(each.read_bytes()) for each in paths]
        for record, signature in records:
            if not any(_is_signed(key, record, signature) for key in keys):
                raise RunError(
                    f"{run_folder / FOLDER}: record {record.number} is not signed by the run's key"
                )
    return Forgotten(record for record, _ in records)


def _is_signed(key: Ed25519PublicKey, record: Forgetting, signature: bytes) -> bool:
    try:
        key.verify(signature, _signed_bytes(record))
    except InvalidSignature:
        return False
    return True


class Tombstones:
    """The ids of a run's forgotten models, as its records say at each call."""

    def __init__(self, run_folder: AnyPath) -> None:
        self._run_folder = run_folder
        self._seen: list[str] | None = None
        self._model_ids: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        folder = self._run_folder / FOLDER
        try:
            names = sorted(os.listdir(folder)) if isinstance(folder, Path) else []
        except FileNotFoundError:
            names = []
        if names != self._seen:  # a folder elsewhere is read once
            self._model_ids = read_forgotten(self._run_folder).model_ids
            self._seen = names
        return self._model_ids


def forget(
    folder: "RunFolder",
    domain_id: str,
    policy: Descendants,
    *,
    known: Collection[str],
    enrolment: str = "",
    pushed: Iterable[str] = (),
    collect: bool = True,
) -> Forgetting:
    """Forget a domain of a run that is not running; complete what a killed call left.

    Parameters
    ----------
    folder : RunFolder
        The run.
    domain_id : str
        The domain.
    policy : {"keep", "quarantine", "retrain"}
        What happens to the models that learned from it.
    known : collection of str
        The domains that there are.
    enrolment, pushed : str, iterable of str
        Of a deployment: the digest of the device's key, and the ids of all models that it pushed.
    collect : bool
        Remove all models that no card names. A deployed device does not push its model of an
        unfinished round again, so that then only those in ``pushed`` may be removed.

    Returns
    -------
    Forgetting
        The record, now in ``forgotten/``; the earlier one where nothing of the domain is left.

    Raises
    ------
    RunError
        For an unknown domain, a run that is running, or a folder that cannot be read.
    """
    with folder.locked():
        forgotten, state = settle(folder), folder.read_state()
        own = {c.model_id: list(c.parents) for c in state.catalogue if c.domain_id == domain_id}
        earlier = [
            each
            for each in forgotten.records
            if (each.reason, each.domain_id, each.enrolment) == ("forgotten", domain_id, enrolment)
        ]
        if earlier and not own:
            return earlier[-1]
        if domain_id not in known:
            raise RunError(
                f"domain {domain_id}: got no such domain in {folder.path}, wanted one of it"
            )
        groups = {
            card.architecture
            for card in state.catalogue
            if card.domain_id == domain_id and card.round_index == 0
        }
        averages = [c.model_id for c in state.architecture_averages if c.architecture in groups]
        learned = forgotten.descendants(state, (*own, *averages))
        named = {card.model_id for card in (*state.catalogue, *state.architecture_averages)}
        record = Forgetting(
            number=len(forgotten.records),
            run=folder.run_id,
            round_index=state.round_index,
            reason="forgotten",
            domain_id=domain_id,
            models={**{each: [] for each in sorted(set(pushed) - named)}, **own},
            policy=policy,
            descendants=tuple(
                Descendant(
                    domain_id=card.domain_id,
                    model_id=card.model_id,
                    round_index=card.round_index,
                    parents=card.parents,
                )
                for card in learned
                if card.model_id not in own
            ),
            averages=tuple(averages),
            enrolment=enrolment,
            collect=collect,
        )
        _write(folder, record)
        settle(folder)
        return record


def settle(folder: "RunFolder") -> Forgotten:
    """Remove from a run folder whatever its records say; gives the records."""
    forgotten = read_forgotten(folder.path)
    if not forgotten.records:
        return forgotten
    state = folder.read_state()
    left = {card.model_id for card in (*state.catalogue, *state.architecture_averages)}
    averages = {
        name: Descendant(domain_id="average", model_id=name, round_index=0)
        for name in sorted(forgotten.retrained_averages)
    }
    replaced = [
        model
        for name, model in {**forgotten.retrained, **averages}.items()
        if name not in left | forgotten.model_ids
    ]
    for number, model in enumerate(replaced, len(forgotten.records)):
        _write(
            folder,
            Forgetting(
                number=number,
                run=folder.run_id,
                round_index=state.round_index,
                reason="replaced",
                domain_id=model.domain_id,
                models={model.model_id: list(model.parents)},
                policy="keep",
            ),
        )
    forgotten = read_forgotten(folder.path)
    _sweep(folder, forgotten, left)
    return forgotten


def retrain_averages(
    state: SystemState,
    forgotten: Forgotten,
    edge: Edge,
    admit: Admission,
    averaging: Averaging,
    config: ExpansionConfig,
) -> SystemState:
    """The state with averages that are due trained again by the initial domains that are left.

    An average stays due where none of them answers, and leaves where there is none.
    """
    due = {card.architecture for card in forgotten.pending_averages(state)}
    if not due:
        return state
    members = tuple(
        card
        for card in forgotten.offered(state).catalogue
        if card.round_index == 0 and card.architecture in due
    )
    profiles = tuple(card.profile for card in members if card.profile is not None)
    trained = Round(
        state=SystemState(catalogue=as_catalogue(members)), reports=(), profiles=profiles
    )
    new = average_by_architecture(trained, edge, admit, averaging, config)
    averages = {card.architecture: card for card in state.architecture_averages}
    for architecture in due - {card.architecture for card in members}:
        del averages[architecture]
    averages |= {card.architecture: card for card in new.state.architecture_averages}
    return SystemState(
        round_index=state.round_index,
        catalogue=state.catalogue,
        architecture_averages=tuple(averages[name] for name in sorted(averages)),
        rejections=state.rejections,
    )


def _signed_bytes(record: Forgetting) -> bytes:
    return joined_fields(_PURPOSE, record.to_bytes())


def _write(folder: "RunFolder", record: Forgetting) -> None:
    signature = b""
    if (folder.keys / "server.key").exists():
        signature = open_signer(folder.keys, folder.run_id).sign_bytes(_signed_bytes(record))
    file = {"record": json.loads(record.to_bytes()), "signature": signature.hex()}
    path = folder.path / FOLDER / f"{record.number:04}.json"
    replace_file(path, (json.dumps(file, indent=1) + "\n").encode())


def _sweep(folder: "RunFolder", forgotten: Forgotten, left: Collection[str]) -> None:
    """Remove the models, and all traces of forgotten domains but the ledger's numbers."""
    applied = folder.path / FOLDER / _APPLIED
    known = int(applied.read_text("ascii")) if applied.exists() else 0
    is_new = known < len(forgotten.records)
    count = folder.count_rounds()
    if is_new:
        # The unfinished round starts again: its requests and responses may hold cards.
        unfinished = [
            path
            for path in _entries(folder.path / "rounds")
            if path.name.isdigit() and int(path.name) >= count
        ]
        for path in (folder.steps, folder.journals, folder.devices, *unfinished):
            remove_tree(path)
        for path in [*folder.path.rglob(".partial-*"), folder.path / "report.html"]:
            _remove(path)
        folder.forget_appeals({each.domain_id for each in forgotten.records})
    for index in range(count):
        _sweep_round(folder.path / "rounds" / str(index), forgotten, index)
    collect = any(each.collect for each in forgotten.records[known:])
    devices = {sha256(each.domain_id.encode()).hexdigest()[:16] for each in forgotten.records}
    for path in (*_entries(folder.models), *_entries(folder.models / "incoming")):
        name, _, rest = path.name.partition(".")
        unnamed = collect and name not in left and path.name != "incoming"
        pushed_by = rest.rpartition(".push")[0].rpartition(".")[2]
        if name in forgotten.model_ids or unnamed or (pushed_by and pushed_by in devices):
            _remove(path)
    if is_new:
        if folder.is_written and folder.status != "running":
            folder.finish(count)
        elif folder.is_written:  # the running process writes it again at its end
            _remove(folder.path / "results.parquet")
        replace_file(applied, str(len(forgotten.records)).encode())


def _sweep_round(round_folder: AnyPath, forgotten: Forgotten, index: int) -> None:
    gone = pa.array(sorted(forgotten.model_ids), pa.string())
    names = pa.array(sorted(forgotten.names_until(index)), pa.string())
    of_model, of_domain = pc.field("model_id").isin(gone), pc.field("domain_id").isin(names)
    changed: dict[str, bytes] = {}
    for name, unwanted in {
        "catalogue": of_model,
        "architecture_averages": of_model,
        "groups": of_model,
        "profiles": of_domain,
        "peers": of_model | of_domain,
        "rejections": of_model | of_domain | pc.field("by").isin(names),
        "demotions": of_model | of_domain | pc.field("by").isin(names),
        "results": of_domain,
    }.items():
        path = round_folder / f"{name}.parquet"
        if not path.exists():
            continue
        table = read_table(path)
        if not table.num_rows:
            continue
        kept = table.filter(~unwanted)
        if unwanted is of_model:
            kept = _marked(kept, forgotten)
        if kept.num_rows < table.num_rows or not kept.equals(table):
            sink = pa.BufferOutputStream()
            pq.write_table(kept, sink)
            changed[path.name] = sink.getvalue().to_pybytes()
    if changed or is_replacing(round_folder):
        replace_tables(round_folder, changed)


def _marked(cards: pa.Table, forgotten: Forgotten) -> pa.Table:
    """The catalogue with its column ``quarantined``, where any model is or was."""
    marks = [name in forgotten.quarantined for name in cards["model_id"].to_pylist()]
    if "quarantined" in cards.column_names:
        cards = cards.drop_columns(["quarantined"])
    return cards.append_column("quarantined", pa.array(marks, pa.bool_())) if any(marks) else cards


def _entries(folder: AnyPath) -> list[AnyPath]:
    return list(folder.iterdir()) if folder.exists() else []


def _remove(path: AnyPath) -> None:
    if path.is_dir():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
