"""Beside the accuracy that a device reports stands what other domains found of its model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, WORLD, System

from graft.core.records import PeerFindings
from graft.core.results import ResultRow, run_hash, with_peers
from graft.core.tables import read_peers, read_results
from graft.report.run import read_run
from graft.report.summary import summarise
from graft.report.tables import notes, summary_dict


def findings(model_id: str, round_index: int, *numbers: int, score: float | None) -> PeerFindings:
    probed, chosen, rejected = numbers
    return PeerFindings(
        model_id=model_id, domain_id="ann", round_index=round_index, probed=probed, chosen=chosen,
        rejected=rejected, joint_score=score,
    )  # fmt: skip


def test_rounds_add_up_by_model_and_domain() -> None:
    row = ResultRow(domain_id="ann", method="hat", round_index=0, model_id="m")
    other = replace(row, domain_id="bob")
    peers = [findings("m", 1, 3, 1, 1, score=1.0), findings("m", 2, 1, 1, 0, score=-0.5),
             findings("n", 1, 9, 9, 0, score=2.0), findings("m", 3, 1, 0, 1, score=None)]  # fmt: skip
    found, alone = with_peers([row, other], peers)
    assert (found.peers_probed, found.peers_chose, found.peers_rejected) == (5, 2, 2)
    assert found.peers_score == pytest.approx((2 * 1.0 + 1 * -0.5) / 3)
    assert (alone.peers_probed, alone.peers_score) == (0, None)
    failed = replace(row, model_id=None)
    assert with_peers([failed], peers) == [failed]
    assert run_hash([found], []) == run_hash([row], [])


def test_a_run_has_what_later_rounds_found(tmp_path: Path) -> None:
    config = replace(CONFIG, comparisons=())
    folder = RunFolder(tmp_path / "run")
    folder.begin(config, WORLD)
    settings = RunSettings(
        config=config, world=WORLD, folder=folder, planned=(INITIAL_DOMAINS, *ARRIVING)
    )
    run_rounds(connect_in_process(settings), settings)
    (first, second) = (
        read_peers(folder.path / "rounds" / f"{n}" / "peers.parquet") for n in (1, 2)
    )
    assert {each.domain_id for each in first} <= set(INITIAL_DOMAINS)
    assert {each.domain_id for each in second} <= {*INITIAL_DOMAINS, *ARRIVING[0]}
    rows = read_results(folder.path / "results.parquet")
    by_domain = {row.domain_id: row for row in rows}
    for domain_id in INITIAL_DOMAINS:
        probes = [each for each in (*first, *second) if each.domain_id == domain_id]
        row = by_domain[domain_id]
        assert row.peers_probed == sum(each.probed for each in probes)
        assert row.peers_chose == sum(each.chosen for each in probes)
    chosen = sum(each.chosen for each in first)
    assert chosen == config.selection.num_sources * len(ARRIVING[0])
    assert all(by_domain[name].peers_probed == 0 for name in ARRIVING[1])
    record = read_run(folder.path)
    summaries = summarise(record.rows, record.ledger, record.config)
    facts = json.loads(json.dumps(summary_dict(summaries)))["methods"][0]
    assert facts["source_of_accuracy"] == "reported by the device"
    assert facts["peers"]["probed"] == sum(each.probed for each in (*first, *second))
    assert "reported by the devices themselves" in notes(summaries)
    assert f"chosen {facts['peers']['chosen']} times" in notes(summaries)


def test_a_domain_that_rejects_and_probes_again_counts_once(system_without: System) -> None:
    done = system_without.expand(system_without.found().state)
    for each in done.peers:
        assert each.probed <= len(ARRIVING[0])
        assert each.chosen + each.rejected <= 2 * each.probed


@pytest.fixture
def system_without() -> System:
    return System(config=replace(CONFIG, comparisons=("hat-initial",)))
