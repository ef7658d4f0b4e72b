"""A million malformed messages a decoder: does any crash it, hang it, or make it grow?

    python benchmarks/trust/malformed.py --messages 1000000

The same spoiled bytes as in the quick suite, more of them; other seeds give others.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
from spoiled import Decoder, decoders, spoiled
from summary import figure, write_summary

HERE = Path(__file__).resolve().parent
console = Console(stderr=True)
# A decoder is warm after so many: what it takes from then on would be a leak.
_WARM = 2_000
_SLICES = 20


def main(
    messages: Annotated[int, typer.Option(min=10_000, help="Messages a decoder.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Of what is spoiled, and how.")] = 0,
    only: Annotated[str, typer.Option(help="One decoder's name; by default every one.")] = "",
) -> None:
    """Feed every decoder, then write results/summary.json; any other error than its own ends it."""
    command = f"python benchmarks/trust/malformed.py --messages {messages}"
    told: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for decoder in decoders(Path(folder)):
            if only and decoder.name != only:
                continue
            refused, grown_mib, slowest_s, total_s = feed(decoder, messages, seed)
            name = f"malformed/{decoder.name}"
            told |= {
                f"{name}/messages": figure(messages, "messages", "1000000", command, [seed]),
                f"{name}/refused": figure(100 * refused / messages, "%", None, command, [seed]),
                f"{name}/untyped-errors": figure(0, "errors", "0", command, [seed]),
                f"{name}/memory-grown": figure(grown_mib, "MiB", "at most 16", command, [seed]),
                f"{name}/slowest": figure(slowest_s, "s", "at most 1", command, [seed]),
                f"{name}/each": figure(1e6 * total_s / messages, "us", None, command, [seed]),
            }
            console.print(
                f"{decoder.name}: {refused} of {messages} refused, {grown_mib:.1f} MiB grown, "
                f"slowest {slowest_s:.3f} s, {1e6 * total_s / messages:.0f} us each",
                highlight=False,
            )
            write_summary(HERE / "results", told)


def feed(decoder: Decoder, messages: int, seed: int) -> tuple[int, float, float, float]:
    """Messages refused, MiB grown once warm, processor seconds of the slowest and of all.

    The slowest by wall clock would time whatever else the machine does.
    """
    memory = psutil.Process()
    refused, slowest_s, start_s, warm_bytes, peak_bytes = 0, 0.0, time.process_time(), 0, 0
    inputs = spoiled(list(decoder.wholes), f"{decoder.name}-{seed}", messages)
    for number, data in enumerate(inputs):
        began_s = time.thread_time()
        try:
            decoder.decode(data)
        except decoder.error:
            refused += 1
        slowest_s = max(slowest_s, time.thread_time() - began_s)
        if number == _WARM:
            warm_bytes = peak_bytes = memory.memory_info().rss
        elif number > _WARM and number % max(1, messages // _SLICES) == 0:
            peak_bytes = max(peak_bytes, memory.memory_info().rss)
    peak_bytes = max(peak_bytes, memory.memory_info().rss)
    return refused, (peak_bytes - warm_bytes) / 2**20, slowest_s, time.process_time() - start_s


if __name__ == "__main__":
    typer.run(main)
