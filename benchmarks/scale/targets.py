"""How much sooner are target domains served in blocks than one by one, and as well?

python benchmarks/scale/targets.py --sources 500 --targets 500
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from graft_simulation.block import engine
from graft_simulation.block.checkpoints import Block, BlockResult
from graft_simulation.block.edge import RunBlocks
from graft_simulation.block.worker import WorkerContext, run_block
from summary import figure, write_summary

import graft
from graft.core.exchange import TrainRequest, TrainResult
from graft.wire.messages.codec import decode_request, decode_response

HERE = Path(__file__).resolve().parent
WANTED = {"graft": 4, "hat": 4, "average-kd-selected": 5, "label-only": 6}
_DEFAULT = ("graft", "hat", "average-kd-selected", "label-only", "feddf", "shot", "finetuned-any")


@dataclass(slots=True)
class Served:
    """Of one method's target domains, alone and in blocks: seconds of processor time for the
    whole request, seconds in the method's training, and accuracies."""

    whole_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    training_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    accuracies: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def ratio(self, seconds: Sequence[float]) -> float:
        return seconds[0] / max(seconds[1], 1e-9)

    def difference(self) -> float:
        """Mean accuracy in blocks minus alone, in points."""
        alone, together = map(statistics.fmean, self.accuracies)
        return 100 * (together - alone)


def main(
    sources: Annotated[int, typer.Option(help="Initial domains.")] = 500,
    targets: Annotated[int, typer.Option(help="Target domains, in one round.")] = 500,
    steps: Annotated[int, typer.Option(help="Training steps a model.")] = 300,
    method: Annotated[list[str] | None, typer.Option(help="Methods; all if left out.")] = None,
    out: Annotated[
        Path, typer.Option(help="Where summary.json goes.", show_default="results beside it")
    ] = HERE / "results",
) -> None:
    """One run in this process, one thread; every block of targets is served in both ways, in
    turn the one and the other first."""
    methods = method or list(_DEFAULT)
    served: dict[str, Served] = defaultdict(Served)
    with (
        patch.object(engine, "run_inline", lambda context: _in_both_ways(context, served)),
        tempfile.TemporaryDirectory() as folder,
    ):
        graft.simulate(
            "imu", method=methods[0], comparisons=methods[1:], domains=sources + targets,
            rounds=1, engine="block", workers=0, out=f"{folder}/run",
            settings={
                "split.initial_fraction": sources / (sources + targets),
                "training.max_steps": steps,
            },
        )  # fmt: skip
    command = (
        f"python benchmarks/scale/targets.py --sources {sources} --targets {targets} "
        f"--steps {steps}"
    )
    figures = {}
    for name, each in served.items():
        training, whole = each.ratio(each.training_s), each.ratio(each.whole_s)
        count, alone = len(each.accuracies[0]), 100 * statistics.fmean(each.accuracies[0])
        typer.echo(
            f"{name}: training {training:.2f} times, whole request {whole:.2f}; "
            f"{1e3 * each.training_s[1] / count:.0f} and {1e3 * each.whole_s[1] / count:.0f} ms a "
            f"target; accuracy {alone:.2f} {each.difference():+.3f} points"
        )
        wanted = f"at least {WANTED[name]}" if name in WANTED else None
        cost_ms = 1e3 * each.whole_s[1] / count
        figures |= {
            f"targets/{name}/speedup": figure(training, "times", wanted, command, [0]),
            f"targets/{name}/speedup-whole": figure(
                whole, "times, fetching, test and push included", None, command, [0]
            ),
            f"targets/{name}/time": figure(cost_ms, "ms a target domain", None, command, [0]),
            f"targets/{name}/accuracy-difference": figure(
                each.difference(), "points of the mean", "within 0.2", command, [0]
            ),
        }
    write_summary(out, figures)


def _in_both_ways(context: WorkerContext, served: dict[str, Served]) -> RunBlocks:
    """``run_inline`` that serves each block of target domains alone, too."""

    def run(blocks: Sequence[Block]) -> Iterator[tuple[int, BlockResult]]:
        for number, block in enumerate(blocks):
            request = decode_request(block.requests[0])
            if not isinstance(request, TrainRequest) or not request.round_index:
                yield number, run_block(block, context)
                continue
            each = served[request.method]
            forms = [replace(block, stacked=False), block]
            results: list[BlockResult] = [None, None]  # type: ignore[list-item]
            for way in (number % 2, 1 - number % 2):
                started_s = time.process_time()
                results[way] = run_block(forms[way], context)
                each.whole_s[way] += time.process_time() - started_s
                for response in map(decode_response, results[way].responses):
                    assert isinstance(response, TrainResult), response
                    each.training_s[way] += response.compute_s
                    each.accuracies[way].append(response.metrics["accuracy"])
            yield number, results[1]

    return run


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    app()
