"""A forgotten domain leaves nothing behind, and nothing brings its models back."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from graft_client.depot_client import remove_missing
from graft_server import durability, forgetting
from graft_server.deployment.forgetting import complete_forgetting, forget_device, refused_domains
from graft_server.forgetting import read_forgotten, settle
from graft_server.model_store import open_store
from graft_server.run_folder import RunFolder

import graft
from graft.core import tables
from graft.core.forgetting import Forgetting, Forgotten
from graft.core.records import SystemState
from graft.data.worlds import open_world
from graft.errors import ModelForgottenError, ModelMissingError, RunError
from graft.wire.transfer.cache import FolderCache

INITIAL, TARGET = "user-000003", "user-000001"
SETTINGS = {"world.windows_per_domain": 40, "training.max_steps": 2, "selection.num_sources": 2}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds after the initial one, with average models."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    graft.simulate(
        domains=9, rounds=2, comparisons=["fedavg"], settings=SETTINGS,
        engine="block", workers=0, out=folder,
    )  # fmt: skip
    return folder


@pytest.fixture
def run(grown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grown, tmp_path / "run"))


def traces(grown: Path, domain_id: str) -> list[bytes]:
    """The domain's payloads, in every form, its cards, and what identifies its profiles."""
    found = []
    for table in sorted(grown.glob("rounds/*/catalogue.parquet")):
        for row in pq.read_table(table).to_pylist():
            if row["domain_id"] == domain_id:
                found.append(row["card"])
                found += [path.read_bytes() for path in grown.glob(f"models/{row['model_id']}.*")]
    assert found
    return found


def holding(folder: Path, contents: list[bytes]) -> list[Path]:
    """The files that contain any of these bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(each in path.read_bytes() for each in contents)]


def cards(folder: Path) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for path in sorted(folder.glob("rounds/*"), key=lambda path: int(path.name)):
        table = pq.read_table(path / "catalogue.parquet")
        is_part = (table.schema.metadata or {}).get(b"graft") == b"part"
        new = {row["domain_id"]: row for row in table.to_pylist()}
        rows = {**rows, **new} if is_part else new
    return rows


def tree_digest(folder: Path) -> str:
    """All but times, of which run.toml has some."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "run.toml":
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest() + str(graft.open_run(folder).hash)


def test_no_file_holds_a_payload_a_card_or_a_row_of_the_domain(grown: Path, run: Path) -> None:
    contents = traces(grown, INITIAL)
    assert holding(run, contents)
    ledger = (run / "ledger.parquet").read_bytes()
    record = graft.forget(run, INITIAL, descendants="keep")
    assert not holding(run, contents)
    for name in ("results", "profiles", "peers", "catalogue"):
        for table in run.glob(f"rounds/*/{name}.parquet"):
            assert INITIAL not in pq.read_table(table)["domain_id"].to_pylist()
    assert INITIAL not in graft.open_run(run).results["domain_id"].to_pylist()
    assert (run / "ledger.parquet").read_bytes() == ledger
    assert record.domain_id == INITIAL
    assert record.averages
    assert {each.domain_id for each in record.descendants} == {
        name for name, row in cards(grown).items() if set(row["parents"]) & set(record.models)  # type: ignore[call-overload]
    }  # fmt: skip


def test_quarantined_models_are_marked_and_no_sources(run: Path) -> None:
    record = graft.forget(run, INITIAL)  # the configuration's default
    assert record.policy == "quarantine"
    shut_out = {each.domain_id for each in record.descendants}
    assert {name for name, row in cards(run).items() if row.get("quarantined")} == shut_out
    state = RunFolder(run).read_state()
    offered = read_forgotten(run).offered(state)
    assert {card.domain_id for card in state.catalogue} == set(cards(run))
    assert not shut_out & {card.domain_id for card in offered.catalogue}
    assert len(offered.architecture_averages) == len(state.architecture_averages) - 1


def test_descendants_are_trained_again_without_it(grown: Path, run: Path) -> None:
    record = graft.forget(run, INITIAL, descendants="retrain")
    contents = [c for each in record.descendants for c in traces(grown, each.domain_id)]
    graft.resume(run, workers=0)
    after = cards(run)
    assert set(after) == set(cards(grown)) - {INITIAL}
    old = {each.model_id for each in record.descendants} | set(record.models)
    for each in record.descendants:
        assert after[each.domain_id]["round_index"] == 3
        assert not old & set(after[each.domain_id]["parents"])  # type: ignore[call-overload]
    assert not holding(run, contents)
    assert not old & {card.model_id for card in RunFolder(run).read_state().catalogue}
    averages = {card.model_id for card in RunFolder(run).read_state().architecture_averages}
    assert not averages & set(record.averages)
    before = graft.open_run(run).hash
    assert graft.resume(run, workers=0).hash == before  # nothing is left to train


def test_the_report_lists_what_was_forgotten(run: Path) -> None:
    record = graft.forget(run, INITIAL)
    page = graft.open_run(run).report().read_text()
    assert "Forgotten domains" in page
    assert all(f"{each.domain_id} (quarantined)" in page for each in record.descendants)


def test_no_backup_brings_a_model_back(grown: Path, run: Path) -> None:
    contents = traces(grown, INITIAL)
    record = graft.forget(run, INITIAL, descendants="keep")
    shutil.copytree(grown / "models", run / "models", dirs_exist_ok=True)
    shutil.copytree(grown / "rounds", run / "rounds", dirs_exist_ok=True)
    (model_id,) = record.models
    config = RunFolder(run).read_config()
    store = open_store(run / "models", open_world(config.world, config.seed).task)
    assert model_id not in store
    with pytest.raises(ModelMissingError):
        store.part(model_id, "base")
    with pytest.raises(ModelForgottenError):
        store.put((grown / "models" / f"{model_id}.safetensors").read_bytes(), "gru")
    assert INITIAL not in {card.domain_id for card in RunFolder(run).read_state().catalogue}
    graft.resume(run, workers=0)
    assert not holding(run, contents)


def test_an_open_store_refuses_what_is_forgotten_later(run: Path) -> None:
    config = RunFolder(run).read_config()
    store = open_store(run / "models", open_world(config.world, config.seed).task)
    model_id = str(cards(run)[INITIAL]["model_id"])
    payload = store.part(model_id, "exact")
    graft.forget(run, INITIAL, descendants="keep")
    with pytest.raises(ModelForgottenError):
        store.put(payload, "gru")


class CrashError(Exception):
    """In place of a kill."""


@pytest.mark.parametrize(
    "steps", [(1, 10, 25), pytest.param(tuple(range(200)), marks=pytest.mark.slow)]
)
def test_a_kill_at_any_write_is_completed_by_the_next_call(
    steps: tuple[int, ...], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = Path(shutil.copytree(run, tmp_path / "untouched" / "run"))
    graft.forget(run, INITIAL, descendants="retrain")
    wanted, left = tree_digest(run), 0

    def crashing(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise CrashError
            return function(*args, **options)

        return call

    for step in steps:
        killed, is_whole, left = tmp_path / str(step) / "run", False, step
        shutil.copytree(untouched, killed)
        with monkeypatch.context() as patch, contextlib.suppress(CrashError):
            for name in ("replace_file", "remove_tree", "_remove"):
                patch.setattr(forgetting, name, crashing(getattr(forgetting, name)))
            patch.setattr(durability, "replace_file", crashing(durability.replace_file))
            patch.setattr(tables, "write_table", crashing(tables.write_table))
            graft.forget(killed, INITIAL, descendants="retrain")
            is_whole = True
        assert not any(map(durability.find_damage, killed.glob("rounds/*")))
        graft.forget(killed, INITIAL, descendants="retrain")
        assert tree_digest(killed) == wanted, step
        shutil.rmtree(killed.parent)
        if is_whole:
            break
    assert is_whole or len(steps) < 200


def test_forgetting_twice_is_one_record(run: Path) -> None:
    assert graft.forget(run, TARGET) == graft.forget(run, TARGET)
    assert [path.name for path in (run / "forgotten").glob("*.json")] == ["0000.json"]


def test_a_run_that_is_running_is_left_alone(run: Path) -> None:
    with RunFolder(run).locked(), pytest.raises(RunError, match="process"):
        graft.forget(run, TARGET)
    assert not (run / "forgotten").exists()


def test_an_unknown_domain_is_refused(run: Path) -> None:
    with pytest.raises(RunError, match="stranger"):
        graft.forget(run, "stranger")


def test_a_changed_record_is_refused(run: Path) -> None:
    graft.forget(run, TARGET)
    path = run / "forgotten" / "0000.json"
    file = json.loads(path.read_text())
    file["record"]["models"] = {}
    path.write_text(json.dumps(file))
    with pytest.raises(RunError, match="not signed"):
        RunFolder(run).read_state()


def test_lineage_goes_on_through_models_that_were_removed(run: Path) -> None:
    state = RunFolder(run).read_state()
    one, *_ = (card for card in state.catalogue if card.round_index == 1)
    later = [card.domain_id for card in state.catalogue if one.model_id in card.parents]
    graft.forget(run, one.domain_id, descendants="keep")
    state = RunFolder(run).read_state()
    found = read_forgotten(run).descendants(state, [one.parents[0]])
    assert set(later) <= {card.domain_id for card in found}


def test_a_domain_is_not_served_after_it_was_forgotten() -> None:
    record = Forgetting(
        number=0, run="r", round_index=1, reason="forgotten", domain_id="ann", models={},
        policy="keep",
    )  # fmt: skip
    assert Forgotten([record]).arriving(["ann", "ben"], SystemState()) == ("ben",)


def test_a_device_removes_what_the_depot_has_no_more(tmp_path: Path) -> None:
    gone, kept, pushing = "a" * 64, "b" * 64, "c" * 64
    for name in (f"{gone}.base", f"{gone}.residual.partial", f"{kept}.base", f"{pushing}.push"):
        (tmp_path / name).write_bytes(b"1")
    link = SimpleNamespace(stores=lambda model_id: model_id == kept)
    assert remove_missing(FolderCache(tmp_path), link) == [gone]  # type: ignore[arg-type]
    assert {path.name[0] for path in tmp_path.iterdir()} == {"b", "c"}


@pytest.fixture
def server(run: Path, tmp_path: Path) -> Path:
    """A deployment's folder, around the run."""
    folder = tmp_path / "server"
    (folder / "nodes").mkdir(parents=True)
    for domain_id in (INITIAL, TARGET):
        (folder / "nodes" / f"{domain_id}.pub").write_bytes(domain_id.encode())
    (folder / "rounds.json").write_text(json.dumps([[INITIAL], [TARGET], []]))
    shutil.move(run, folder / "runs" / "run")
    return folder


def test_a_deployment_ends_the_enrolment_too(server: Path) -> None:
    folder, key = RunFolder(server / "runs" / "run"), server / "nodes" / f"{TARGET}.pub"
    record = forget_device(server, folder, TARGET, "keep")
    assert not key.exists()
    assert (server / "nodes" / f"{INITIAL}.pub").exists()
    assert forget_device(server, folder, TARGET, "keep") == record
    key.write_bytes(TARGET.encode())  # restored from a backup
    assert refused_domains(server, folder) == {TARGET}
    complete_forgetting(server, folder)
    assert not key.exists()
    key.write_bytes(b"a new key")
    assert refused_domains(server, folder) == frozenset()


def test_a_run_folder_from_a_backup_gets_its_records_again(grown: Path, server: Path) -> None:
    folder = RunFolder(server / "runs" / "run")
    forget_device(server, folder, TARGET, "keep")
    shutil.rmtree(folder.path)
    shutil.copytree(grown, folder.path)
    complete_forgetting(server, folder)
    assert not holding(folder.path, traces(grown, TARGET))


def test_a_deployment_keeps_what_an_unfinished_round_pushed(server: Path) -> None:
    folder = RunFolder(server / "runs" / "run")
    (server / "rounds.json").write_text(json.dumps([[INITIAL], [TARGET], [], ["new"]]))
    ours, others = "a" * 64, "b" * 64
    for name in (ours, others):
        (folder.path / "models" / f"{name}.safetensors").write_bytes(b"1")
    call = {"device": TARGET, "rpc": "Push", "model_id": ours}
    (server / "state").mkdir()
    (server / "state" / "depot-calls.jsonl").write_text(json.dumps(call) + "\n")
    forget_device(server, folder, TARGET, "keep")
    names = {path.name.partition(".")[0] for path in (folder.path / "models").iterdir()}
    assert others in names
    assert ours not in names
    assert settle(folder).model_ids >= {ours}
