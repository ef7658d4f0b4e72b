"""A model belongs to the order that it was pushed for; what no card names goes; reports can end."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graft_client.depot_client import GrpcLink, open_channel
from graft_server.appeals import appeal
from graft_server.catalogue import write_cards
from graft_server.depot.server import DepotServer
from graft_server.durability import write_marker
from graft_server.flower.deployed_app import _with_orders
from graft_server.forgetting import forget
from graft_server.model_store import DirectoryStore, check_stored, open_store
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.round_schedule import open_order, order_of, write_orders
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process
from typer.testing import CliRunner

from graft.cli.main import app
from graft.core.exchange import Request, Response, TrainRequest
from graft.core.payload import decode_payload, encode_payload, model_id
from graft.core.ports import Edge
from graft.core.records import ModelCard, RejectedSource
from graft.errors import DeviceRefusedError, ModelMissingError, PayloadChangedError
from graft.models import build_network, parameters_of
from graft.wire.transfer.cache import MemoryCache
from graft.wire.transfer.transport import DeviceTransport, TransferLabel

sys.path.insert(0, str(Path(__file__).parents[1] / "rounds"))
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, WORLD

SETTINGS = replace(CONFIG, method="label-only", comparisons=())


def payload(seed: int) -> bytes:
    return encode_payload("mlp", parameters_of(build_network("mlp", WORLD.task, seed)))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return open_store(tmp_path / "models", WORLD.task)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def link(store: DirectoryStore, server: Path) -> Iterator[GrpcLink]:
    """To a depot that takes its callers for the device ann."""
    with (
        DepotServer(
            store, "127.0.0.1:0", insecure=True, open_order=lambda _: open_order(server, "ann")
        ) as depot,
        open_channel(f"127.0.0.1:{depot.port}", insecure=True) as channel,
    ):
        yield GrpcLink(channel)


def push(link: GrpcLink, store: DirectoryStore, data: bytes) -> ModelCard:
    """Push as a device does, and the card that it would report."""
    transport = DeviceTransport(
        link=link,
        cache=MemoryCache(),
        verify=lambda card: None,
        shapes_of=store.shapes_of,
        label=TransferLabel(run="r", round_index=2, method="hat", domain_id="ann"),
        record=lambda entry: None,
        clock=lambda: 0.0,
    )
    name, exact, base, residual = transport.push("mlp", decode_payload(data, None, None)[1])
    return ModelCard(
        model_id=name,
        domain_id="ann",
        architecture="mlp",
        payload_bytes=exact,
        base_bytes=base,
        residual_bytes=residual,
        class_mask_C=np.ones(WORLD.task.num_classes, np.bool_),
        round_index=2,
    )


def test_a_model_without_an_open_order_is_refused(
    link: GrpcLink, store: DirectoryStore, server: Path
) -> None:
    data = payload(1)
    with pytest.raises(DeviceRefusedError, match="no request to register"):
        push(link, store, data)
    write_orders(server, 2, ["ben"])
    with pytest.raises(DeviceRefusedError):
        push(link, store, data)
    assert store.model_ids() == set()
    write_orders(server, 2, ["ann", "ben"])
    assert push(link, store, data).model_id in store
    write_orders(server, 2, ())
    with pytest.raises(DeviceRefusedError):
        push(link, store, payload(2))


def test_a_card_names_the_model_that_its_own_device_pushed_for_its_own_order(
    link: GrpcLink, store: DirectoryStore, server: Path
) -> None:
    write_orders(server, 2, ["ann"])
    card = push(link, store, payload(1))
    assert store.order(card.model_id) == order_of("ann", 2)
    assert check_stored(card, store, WORLD.task) is card
    for change in ({"domain_id": "ben"}, {"round_index": 3}):
        with pytest.raises(PayloadChangedError, match="another order"):
            check_stored(replace(card, **change), store, WORLD.task)
    kept = replace(card, domain_id="ben", parents=(card.model_id,))
    assert check_stored(kept, store, WORLD.task) is kept


def test_the_depot_knows_whom_a_deployment_asks_to_register(server: Path) -> None:
    seen: list[str | None] = []

    class Watching:
        def ask(self, requests: list[Request]) -> list[Response]:
            seen.extend(open_order(server, domain_id) for domain_id in ("ann", "ben", "cem"))
            return []

    def connect(*_: object) -> Edge:
        return Watching()

    requests = [
        TrainRequest(domain_id=d, round_index=3, method="graft", sources=(), register=d != "ben")
        for d in ("ann", "ben")
    ]
    _with_orders(connect, server)(lambda entry: None, lambda *_: None).ask(requests)
    assert seen == ["ann 3", None, None]


def run(folder: RunFolder, rounds: int = 2) -> None:
    settings = RunSettings(
        config=SETTINGS,
        world=WORLD,
        folder=folder,
        planned=(INITIAL_DOMAINS, ARRIVING[0], ARRIVING[1])[:rounds],
    )
    run_rounds(connect_in_process(settings), settings)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(SETTINGS, WORLD)
    return folder


def test_a_payload_that_no_card_names_is_collected(folder: RunFolder) -> None:
    store = open_store(folder.models, WORLD.task)
    run(folder, rounds=1)
    stray = store.put(payload(1), "mlp")
    run(folder, rounds=2)
    named = {card.model_id for card in folder.read_state().catalogue}
    assert store.model_ids() == named
    assert not list(store.folder.glob(f"{stray}*"))
    assert stray == model_id(payload(1))


def report_first(folder: RunFolder) -> str:
    """Two confirmed reports on the first initial domain, as after the last round."""
    state = folder.read_state()
    accused = state.catalogue[0]
    reports = [
        RejectedSource(
            by=by,
            domain_id=accused.domain_id,
            model_id=accused.model_id,
            reason="centroids",
            confirmed=True,
            round_index=1,
        )
        for by in ARRIVING[0]
    ]
    folder.save_round(state.note(reports), [], [])
    return accused.domain_id


def test_an_appeal_clears_the_reports_on_a_model_without_fault(folder: RunFolder) -> None:
    run(folder)
    accused = report_first(folder)
    assert folder.read_state().reported_sources(2) == {accused}
    outcome = appeal(folder, accused)
    assert (outcome.reports, outcome.fault) == (2, "")
    assert folder.read_state().reported_sources(1) == frozenset()
    with pytest.raises(ModelMissingError):
        appeal(folder, "nobody")


def test_a_forgotten_domains_appeal_is_forgotten_too(folder: RunFolder) -> None:
    run(folder)
    accused = report_first(folder)
    appeal(folder, accused)
    assert accused in (folder.path / "appeals.json").read_text("utf-8")
    forget(folder, accused, policy="keep", known=WORLD.domain_ids)
    assert accused not in (folder.path / "appeals.json").read_text("utf-8")


def test_an_appeal_finds_the_fault_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder)
    accused = report_first(folder)
    state = folder.read_state()
    lying = state.catalogue[0]
    assert lying.centroids_CF is not None
    rolled = replace(lying, centroids_CF=np.roll(lying.centroids_CF, 3, axis=0))
    last = folder.path / "rounds" / str(state.round_index - 1)
    write_cards([rolled, *state.catalogue[1:]], last / "catalogue.parquet")
    write_marker(last)
    monkeypatch.setattr("graft_server.flower.deployed_app.run_folder", lambda server: folder)
    done = CliRunner().invoke(app, ["deploy", "appeal", accused, "--format", "json"])
    assert done.exit_code == 1
    assert '"fault": "centroids"' in done.stdout
    assert folder.read_state().reported_sources(2) == {accused}
