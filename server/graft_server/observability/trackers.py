"""``Tracker`` for TensorBoard, MLflow and Weights & Biases, none of which graft needs itself."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graft.core.ports import Tracker
from graft.errors import ConfigError, missing_extra

EXPERIMENT = "graft"
_RUN_TAG = "graft.run"


class TensorBoardTracker:
    """Event files in ``<folder>/<run>``; a resumed run adds a file."""

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboard", "trackers") from error
        self._open: Callable[[str], Any] = SummaryWriter
        self._folder = Path(folder).absolute()  # the working directory changes under a run

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        self._writer = self._open(str(self._folder / run))
        self._writer.add_text("settings", f"```\n{json.dumps(dict(settings), indent=2)}\n```")

    def log(self, figures: Mapping[str, float], round_index: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, round_index)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class MlflowTracker:
    """A run of the experiment "graft" in a folder, a database or a tracking server.

    A resumed run goes on in the run that it began, which its tag names.
    """

    def __init__(self, place: str) -> None:
        if "://" not in place:
            place = Path(place).absolute().as_uri()
        # Trackers tell their makers how they are used, unless they are told not to.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if place.startswith("file:"):
            # MLflow asks for a word of consent before it writes to a plain folder.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing_extra("mlflow", "trackers") from error
        self._client: Any = MlflowClient(tracking_uri=place)

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        named = f"tags.`{_RUN_TAG}` = '{run}'"
        found = self._client.search_runs([experiment], named, max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {_RUN_TAG: run}
        self._run = self._client.create_run(experiment, run_name=run, tags=tags).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._run, key, value)

    def log(self, figures: Mapping[str, float], round_index: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=round_index)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


class WandbTracker:
    """An offline run of Weights & Biases in a folder; ``wandb sync`` may send it later."""

    def __init__(self, folder: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise missing_extra("wandb", "trackers") from error
        self._wandb: Any = wandb
        self._folder = Path(folder).absolute()

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=EXPERIMENT, name=run, dir=str(self._folder), mode="offline",
            config=dict(settings), settings=self._wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def log(self, figures: Mapping[str, float], round_index: int) -> None:
        self._run.log(dict(figures), step=round_index)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


_TRACKERS: Mapping[str, Callable[[str], Tracker]] = MappingProxyType(
    {"tensorboard": TensorBoardTracker, "mlflow": MlflowTracker, "wandb": WandbTracker}
)


def open_tracker(text: str) -> Tracker:
    """The tracker of KIND=PLACE, e.g. tensorboard=runs/tensorboard or mlflow=sqlite:///a.db.

    Raises ConfigError for another kind or no place, ExtraMissingError where its library is not
    installed.
    """
    kind, _, place = text.partition("=")
    if kind not in _TRACKERS or not place:
        raise ConfigError(
            f"tracker: got {text!r}, wanted KIND=PLACE with one of {', '.join(_TRACKERS)}"
        )
    return _TRACKERS[kind](place)
