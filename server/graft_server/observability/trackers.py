"""A run's figures, round by round, to TensorBoard, MLflow or Weights & Biases.

A tracker's failure is logged and never ends a run. graft itself needs none of the libraries.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graft.core.config import ExpansionConfig
from graft.core.config_files import config_to_dict
from graft.core.ledger import total_bytes
from graft.core.ports import Tracker
from graft.core.records import LedgerEntry
from graft.core.results import ResultRow
from graft.core.tables import ledger_entries, ledger_table
from graft.errors import ConfigError, missing_extra
from graft.methods import INITIAL
from graft.report.run import RunRecord
from graft.report.summary import is_finished, mean_or_none, summarise
from graft_server.round_loop import OnRound

log = logging.getLogger("graft")
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
        self._folder = Path(folder).absolute()

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

    def __init__(self, uri: str) -> None:
        if "://" not in uri:
            uri = Path(uri).absolute().as_uri()
        # By default MLflow reports its use to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if uri.startswith("file:"):
            # MLflow wants an explicit setting before it writes to a plain folder.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing_extra("mlflow", "trackers") from error
        self._client: Any = MlflowClient(tracking_uri=uri)

    def begin(self, run: str, settings: Mapping[str, str]) -> None:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else self._client.create_experiment(EXPERIMENT)
        named = f"tags.`{_RUN_TAG}` = '{run}'"
        runs = self._client.search_runs([experiment], named, max_results=1)
        if runs:
            self._run = runs[0].info.run_id
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


def round_figures(
    rows: Sequence[ResultRow], entries: Sequence[LedgerEntry], config: ExpansionConfig
) -> dict[str, float]:
    """One round's figures by ``<method>/<what>``; shares of 1, payload bytes, device seconds.

    A figure without a finished domain is left out. Round 0 has the initial domains' accuracy alone.
    """
    figures: dict[str, float | None] = {
        "run/payload_bytes": float(total_bytes(entries)),
        "run/failed": float(sum(row.error is not None for row in rows)),
    }
    initial_domains = [row for row in rows if row.method == INITIAL and is_finished(row)]
    figures["initial domain/accuracy"] = mean_or_none([row.score or 0.0 for row in initial_domains])
    targets = [row for row in rows if row.round_index >= 1]
    for each in summarise(targets, ledger_table(entries), config) if targets else ():
        figures |= {
            f"{each.method}/accuracy": each.accuracy_mean,
            f"{each.method}/macro_f1": each.macro_f1_mean,
            f"{each.method}/gain_over_label_only": each.gain_mean,
            f"{each.method}/worst_accuracy": each.worst_accuracy,
            f"{each.method}/finished": float(each.finished),
            f"{each.method}/payload_bytes_up": float(each.bytes_up),
            f"{each.method}/payload_bytes_down": float(each.bytes_down),
            f"{each.method}/device_s": each.device_s_total,
        }
    return {name: value for name, value in figures.items() if value is not None}


@contextmanager
def tracked(trackers: Sequence[Tracker], run: str, config: ExpansionConfig) -> Iterator[OnRound]:
    """Report a run to every tracker; the function that it yields gets each finished round."""
    working = list(trackers)

    def notify(action: Callable[[Tracker], None]) -> None:
        for tracker in list(working):
            try:
                action(tracker)
            except Exception as error:
                working.remove(tracker)
                log.warning("%s: %s: no more figures go there", type(tracker).__name__, error)

    def on_round(index: int, rows: Sequence[ResultRow], entries: Sequence[LedgerEntry]) -> None:
        if working:
            figures = round_figures(rows, entries, config)
            notify(lambda tracker: tracker.log(figures, index))

    with ExitStack() as stack:
        notify(lambda tracker: tracker.begin(run, flat_settings(config)))
        failed = True
        stack.callback(lambda: notify(lambda tracker: tracker.close(failed=failed)))
        yield on_round
        failed = False


def track_record(record: RunRecord, trackers: Sequence[Tracker]) -> None:
    """Report a finished run to trackers, from its folder."""
    with tracked(trackers, str(record.run["id"]), record.config) as on_round:
        for index in sorted({row.round_index for row in record.rows}):
            on_round(
                index,
                [row for row in record.rows if row.round_index == index],
                [entry for entry in ledger_entries(record.ledger) if entry.round_index == index],
            )


def flat_settings(config: ExpansionConfig) -> dict[str, str]:
    """Every key of the configuration, dotted, and its value as JSON (texts as they are)."""

    def walk(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        for key, value in table.items():
            if isinstance(value, Mapping):
                yield from walk(f"{prefix}{key}.", value)
            else:
                yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)

    return dict(walk("", config_to_dict(config)))
