"""The way of one train request, from the run's loop to the catalogue: how many calls and files."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import CodeType, FrameType

from graft_server.round_loop import RunSettings, run_rounds
from graft_server.run_folder import RunFolder
from graft_simulation.in_process import connect_in_process
from small_system import ARRIVING, CONFIG, INITIAL_DOMAINS, WORLD

from graft.core.exchange import TrainRequest, TrainResult
from graft.core.records import ModelCard
from graft.methods import find_method
from graft.rounds import Round, expand_system, handle_request
from graft.training import TrainedModel, TrainingTask
from graft.wire.messages import codec

ROOT = Path(__file__).resolve().parents[3]
TARGET = ARRIVING[0][0]
MAX_CALLS, MAX_FILES = 27, 16
CORNERSTONES = (
    "run_rounds", "expand_system", "LocalEdge.ask", "DeviceFactory.device", "handle_request",
    "train", "prepare_training", "fit_hat", "evaluate_and_register", "Signer.sign",
    "SystemState.admit",
)  # fmt: skip


class RequestPath:
    """The public functions that one request's records pass through, in the order of entry.

    A function is on the way if it is given or returns a record of one domain's train request: the
    request, the training task, the trained model, the result, its card, or the round that holds
    the result. A private function is read with its caller. The method and the codec are one step
    each: what they call is their own. The way ends where the round with the card is returned.
    """

    def __init__(self, fit: CodeType) -> None:
        self.calls = {run_rounds.__code__: "run_rounds"}
        self._fit = fit
        self._opaque: CodeType | None = None
        self._on_device = self._done = False

    def watch(self, frame: FrameType, event: str, returned: object) -> None:
        """A profiler for ``sys.setprofile``."""
        code = frame.f_code
        if self._done or event not in ("call", "return") or not is_public(code):
            return
        values = tuple(frame.f_locals.values()) if event == "call" else (returned,)
        if self._opaque in (None, code) and any(map(self._is_record, values)):
            self.calls.setdefault(code, code.co_qualname)
        if code is handle_request.__code__:
            self._on_device = event == "call" and any(map(self._is_record, values))
        if code is self._fit or code.co_filename == codec.__file__:
            if event == "call":
                self._opaque = self._opaque or code
            elif self._opaque is code:
                self._opaque = None
        self._done = code is expand_system.__code__ and event == "return"

    def _is_record(self, value: object) -> bool:
        match value:
            case TrainRequest() | TrainResult() | ModelCard():
                return value.domain_id == TARGET
            case TrainingTask() | TrainedModel():
                return self._on_device
            case Round():
                return any(map(self._is_record, value.reports))
            case list() | tuple():
                return any(map(self._is_record, value))
        return False


def is_public(code: CodeType) -> bool:
    folders = ("graft", "server", "client", "simulation")
    ours = code.co_filename.startswith(tuple(f"{ROOT}{os.sep}{name}{os.sep}" for name in folders))
    return ours and not code.co_name.startswith(("<", "_"))


def traced(folder: Path) -> list[tuple[str, str]]:
    """File and name of each call of one request's path."""
    config = replace(CONFIG, comparisons=())
    run = RunFolder(folder / "run")
    run.begin(config, WORLD)
    settings = RunSettings(
        config=config, world=WORLD, folder=run, planned=(INITIAL_DOMAINS, (TARGET,))
    )
    path = RequestPath(find_method(config.method).fit.__code__)
    connect = connect_in_process(settings)
    sys.setprofile(path.watch)
    try:
        run_rounds(connect, settings)
    finally:
        sys.setprofile(None)
    return [(code.co_filename, name) for code, name in path.calls.items()]


def test_one_requests_path_is_short(tmp_path: Path) -> None:
    # A process of its own: what other tests loaded or left behind must not be on the way.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        calls = pool.submit(traced, tmp_path).result()
    steps = [(Path(file).name, name) for file, name in calls]
    assert set(CORNERSTONES) <= {name for _, name in calls}, steps
    assert len(calls) <= MAX_CALLS, steps
    assert len({file for file, _ in calls}) <= MAX_FILES, steps
