"""One round of graft in one process, step by step: profile, rank, probe, train, register.

    python examples/one_round.py

A round of a real system is the same: there, ``edge`` reaches the devices over gRPC, and
``graft.rounds.expand_system`` takes the steps for many target domains and methods at once.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from graft_server.model_store import check_stored, open_store
from graft_server.signing import open_signer
from graft_simulation.in_process import LocalEdge
from graft_simulation.simulated_devices import devices_in_memory, simulated_factory

from graft.core.config import ExpansionConfig
from graft.core.config_files import with_settings
from graft.core.exchange import ProbeRequest, ProfileRequest, Selection, TrainRequest, TrainResult
from graft.core.records import DomainProfile, LedgerEntry, ModelCard
from graft.data import ImuWorld
from graft.rounds import train_initial_domains
from graft.selection import rank_catalogue

RUN = "one-round"


def main(folder: Path) -> None:
    # Six domains with synthetic motion data; the last is the target, the others exist already.
    world = ImuWorld(6, 60, seed=1)
    *initial, target = world.domain_ids
    config = with_settings(ExpansionConfig(), {"training.max_steps": 40})

    # The server's side: a store of models, and the key that signs what it admits.
    store = open_store(folder / "models", world.task)
    signer = open_signer(folder / "keys", RUN)

    def admit(card: ModelCard) -> ModelCard:
        return signer.sign(check_stored(card, store, world.task))

    # The way to the devices. Each message passes through its encoding, each has a ledger entry.
    ledger: list[LedgerEntry] = []
    factory = simulated_factory(config, world, RUN, signer.public_key, store)
    devices = devices_in_memory(factory, store, ledger.append)
    edge = LocalEdge(RUN, world.domain_ids, devices, ledger.append)

    # Round 0: the initial domains train on their own labels; their models are the catalogue.
    catalogue = train_initial_domains(initial, edge, admit).state.catalogue
    print(f"catalogue: {len(catalogue)} models of {', '.join(c.domain_id for c in catalogue)}")

    # 1. Profile: the target sends a few kilobytes of statistics and no data.
    (profile,) = edge.ask([ProfileRequest(domain_id=target, round_index=1)])
    assert isinstance(profile, DomainProfile), profile
    print(f"profile: {len(profile.statistics_D)} statistics of {profile.num_samples} samples")

    # 2. Rank: the server compares profiles; the nearest sources become candidates.
    ranked = rank_catalogue([profile], catalogue, config.selection)[0]
    print("ranked:", ", ".join(f"{card.domain_id} {distance:.2f}" for card, distance in ranked))

    # 3. Probe: the target fetches int8 bases, scores them on its own rows and selects.
    probe = ProbeRequest(
        domain_id=target,
        round_index=1,
        method="graft",
        candidates=tuple(card.for_probe() for card, _ in ranked),
        coarse_distances=tuple(distance for _, distance in ranked),
    )
    (selection,) = edge.ask([probe])
    assert isinstance(selection, Selection), selection

    # 4. Train: the target's own device learns from the selected sources, few labels and much
    #    unlabelled data, and pushes the finished model into the store.
    cards = {card.model_id: card for card in catalogue}
    sources = tuple(cards[model_id].for_fusion() for model_id in selection.chosen)
    train = TrainRequest(
        domain_id=target, round_index=1, method="graft", sources=sources, register=True
    )
    (result,) = edge.ask([train])
    assert isinstance(result, TrainResult), result
    print(f"trained from {len(sources)} sources: accuracy {result.metrics['accuracy']:.1%}")

    # 5. Register: the server checks the model against its card and signs it. It serves next time.
    assert result.card is not None
    catalogue += (admit(replace(result.card, profile=profile)),)
    moved = sum(e.payload_bytes for e in ledger if target in (e.sender, e.receiver))
    print(f"registered: {len(catalogue)} models; the target moved {moved / 1000:.0f} kB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
