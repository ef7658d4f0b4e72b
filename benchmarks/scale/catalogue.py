"""A catalogue of a million models: what a round costs in processor time, memory and bytes written.

python benchmarks/scale/catalogue.py --cards 1000000 --targets 100
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from graft_server.catalogue import write_cards
from graft_server.durability import write_marker
from graft_server.run_folder import RunFolder
from graft_simulation.environment import memory_measured
from summary import figure, write_summary

from graft.core.config import SelectionConfig
from graft.core.outputs import fresh_folder
from graft.core.records import DomainProfile, ModelCard, SystemState
from graft.selection import rank_catalogue

HERE = Path(__file__).resolve().parent
# As of an 18-class set with six channels: 8 statistics of each, their means and deviations.
STATISTICS, CLASSES, FEATURES = 96, 18, 32
_DRAWN = 10_000  # profiles drawn at once


def main(
    cards: Annotated[int, typer.Option(help="Models in the catalogue.")] = 1_000_000,
    targets: Annotated[int, typer.Option(help="Target domains of the round.")] = 100,
    runs: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("runs/scale"),
) -> None:
    """Open the catalogue, rank it, admit the target domains' models, write the round."""
    folder = (runs / f"catalogue-{cards}").absolute()
    fresh_folder(folder)
    run = RunFolder(folder)
    begun_s = time.process_time()
    run.save_round(SystemState(round_index=1), [], [])
    first = folder / "rounds" / "0"
    write_cards(track(synthetic(0, cards), "write", cards), first / "catalogue.parquet")
    write_marker(first)
    figures = {"write-all": time.process_time() - begun_s}
    arriving = list(synthetic(cards, cards + targets, round_index=1))
    profiles = [card.profile for card in arriving if card.profile is not None]
    with memory_measured() as memory:
        start_s = time.process_time()
        state = run.read_state()
        figures["open"] = time.process_time() - start_s
        start_s = time.process_time()
        ranked = rank_catalogue(profiles, state.latest, SelectionConfig())
        figures["rank"] = time.process_time() - start_s
        start_s = time.process_time()
        run.save_round(state.admit(tuple(arriving)), [], [], profiles)
        figures["admit-and-write-round"] = time.process_time() - start_s
    written = sum(path.stat().st_size for path in (folder / "rounds" / "1").iterdir())
    checked = range(0, targets, max(1, targets // 10))
    wanted = exact_rankings(
        cards, np.stack([profiles[row].statistics_D for row in checked]), len(ranked[0])
    )
    same = 0
    for row, exact in zip(checked, wanted, strict=True):
        got = [(card.model_id, distance) for card, distance in ranked[row]]
        same += [name for name, _ in got] == [name for name, _ in exact] and np.allclose(
            [distance for _, distance in got], [distance for _, distance in exact], rtol=1e-9
        )
    name = f"catalogue/{cards}-cards"
    command = f"python benchmarks/scale/catalogue.py --cards {cards} --targets {targets}"
    record = {
        f"{name}/{what}": figure(
            taken_s, f"s of processor time, {targets} target domains", None, command, [0]
        )
        for what, taken_s in figures.items()
    } | {
        f"{name}/peak_memory": figure(memory.peak_bytes / 1e9, "GB (PSS)", "<= 2", command, [0]),
        f"{name}/written-a-round": figure(written / 1e6, "MB", None, command, [0]),
        f"{name}/rankings-as-exact": figure(
            same / len(checked), "share of those checked", ">= 1", command, [0]
        ),
    }
    for key, entry in record.items():
        print(f"{key}: {entry['value']} {entry['unit']}")
    write_summary(HERE / "results", record)


def statistics(start: int, count: int) -> np.ndarray:
    """Profiles (count, D) of ``synthetic``: people around some hundred kinds of devices."""
    kinds = np.random.default_rng(7).normal(size=(300, STATISTICS))
    random = np.random.default_rng([11, start])
    drawn = kinds[random.integers(len(kinds), size=count)]
    return (drawn + 0.3 * random.normal(size=drawn.shape)).astype(np.float32)


def synthetic(start: int, end: int, round_index: int = 0) -> Iterator[ModelCard]:
    """Cards of models that nobody trained, with profiles and centroids of the usual sizes."""
    for begin in range(start, end, _DRAWN):
        block = statistics(begin, min(_DRAWN, end - begin))
        values = np.random.default_rng([13, begin]).normal(size=(_DRAWN + CLASSES, FEATURES))
        centroids = values.astype(np.float32)
        for row, statistics_D in enumerate(block):
            domain_id = f"d{begin + row:07d}"
            yield ModelCard(
                model_id=f"{begin + row:064x}",
                domain_id=domain_id,
                architecture="cnn-small",
                payload_bytes=40_000,
                base_bytes=11_000,
                residual_bytes=25_000,
                class_mask_C=np.ones(CLASSES, np.bool_),
                round_index=round_index,
                profile=DomainProfile(
                    domain_id=domain_id,
                    task="synthetic",
                    num_samples=100,
                    statistics_D=statistics_D,
                    class_counts_C=np.full(CLASSES, 5),
                ),
                centroids_CF=centroids[row : row + CLASSES],
                signature=bytes(64),
                probe_signature=bytes(64),
                fusion_signature=bytes(64),
            )


def exact_rankings(cards: int, targets_ND: np.ndarray, count: int) -> list[list[tuple[str, float]]]:
    """The nearest sources by the definition, every distance computed in float64; no profile here
    is an outlier, so that sigma is that of all."""
    blocks = [(begin, min(_DRAWN, cards - begin)) for begin in range(0, cards, _DRAWN)]
    total_D, square_D = np.zeros(STATISTICS), np.zeros(STATISTICS)
    for begin, size in blocks:
        z_SD = statistics(begin, size).astype(np.float64)
        total_D += z_SD.sum(0)
        square_D += (z_SD**2).sum(0)
    sigma_D = np.sqrt(square_D / cards - (total_D / cards) ** 2)
    distance_NS = np.empty((len(targets_ND), cards))
    for begin, size in blocks:
        z_SD = statistics(begin, size).astype(np.float64)
        for row, target_D in enumerate(targets_ND):
            apart_S = np.sqrt((((z_SD - target_D) / sigma_D) ** 2).sum(1) / STATISTICS)
            distance_NS[row, begin : begin + size] = apart_S
    return [
        [(f"{place:064x}", float(distance_S[place])) for place in np.argsort(distance_S)[:count]]
        for distance_S in distance_NS
    ]


if __name__ == "__main__":
    typer.run(main)
