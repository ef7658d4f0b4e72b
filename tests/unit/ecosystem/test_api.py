"""``import graft``: as short as the command, and the same run; other libraries read its folder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import graft
from graft.cli.main import app
from graft.core.payload import model_id
from graft.core.tables import read_ledger, read_results
from graft.data import ImuWorld
from graft.errors import ConfigError, RunError


def test_a_run_gives_its_tables_its_summary_and_its_models(small_run: graft.Run) -> None:
    results = small_run.results.to_pandas()
    assert len(results) == 3 + 5 * 2
    main, other = small_run.summary()
    assert (main["method"], other["method"]) == ("graft", "label-only")
    mine = results[(results.method == "graft") & (results.round_index > 0)]
    assert main["accuracy_mean"] == pytest.approx(mine.accuracy.mean())
    row = mine.iloc[0]
    found = small_run.model(row.domain_id)
    assert found.card.model_id == row.model_id == model_id(found.payload)
    assert small_run.report().name == "report.html"
    assert graft.open_run(str(small_run.folder)) == small_run


def test_the_command_gives_the_same_hash(
    small_run: graft.Run, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert f"hash {small_run.hash}" in done.stderr


def test_figures_reached_the_tracker_round_by_round(small_run: graft.Run) -> None:
    folder = Path(str(small_run.folder))
    events = EventAccumulator(str(folder.parent / "events" / folder.name))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("graft/accuracy")}
    results = small_run.results.to_pandas()
    means = results[results.method == "graft"].groupby("round_index").accuracy.mean()
    assert told == pytest.approx(means.to_dict())


def test_pandas_and_polars_read_the_run_folder_directly(small_run: graft.Run) -> None:
    folder = Path(str(small_run.folder))
    rows, entries = read_results(folder / "results.parquet"), read_ledger(folder / "ledger.parquet")
    for read in (pd.read_parquet, pl.read_parquet):
        results, ledger = read(folder / "results.parquet"), read(folder / "ledger.parquet")
        assert list(results.columns) == list(small_run.results.schema.names)
        assert list(results["domain_id"]) == [row.domain_id for row in rows]
        assert int(ledger["payload_bytes"].sum()) == sum(e.payload_bytes for e in entries)
        catalogue = read(folder / "rounds" / "2" / "catalogue.parquet")
        served = {row.domain_id for row in rows if row.round_index == 2}
        assert sorted(catalogue["domain_id"]) == sorted(served)
        profiles = read(folder / "rounds" / "1" / "profiles.parquet")
        assert len(profiles["statistics"][0]) > 8
    every = pl.read_parquet(folder / "rounds" / "*" / "results.parquet")
    assert len(every) == len(rows)


def test_a_world_made_in_python_is_written_beside_its_run(tmp_path: Path) -> None:
    world = ImuWorld(4, 40, seed=1)
    run = graft.simulate(
        world, method="label-only", comparisons=["all-labels"], rounds=1, engine="block",
        workers=0, settings={"training.max_steps": 2}, out=tmp_path / "run",
    )  # fmt: skip
    held = np.load(tmp_path / "run" / "world" / "domains" / f"{world.domain_ids[0]}.npz")
    np.testing.assert_array_equal(held["x"], world.load(world.domain_ids[0]).x)
    assert set(run.results.to_pandas().domain_id) == set(world.domain_ids)


def test_what_the_command_refuses_the_api_refuses(tmp_path: Path, small_run: graft.Run) -> None:
    with pytest.raises(ConfigError, match="magic"):
        graft.simulate("imu", method="magic", out=tmp_path / "run")
    with pytest.raises(RunError, match="holds a run already"):
        graft.simulate("imu", out=str(small_run.folder))
    with pytest.raises(ConfigError, match="wanted a folder on this machine"):
        graft.simulate(ImuWorld(4, 40, seed=1), out="memory://run")
    with pytest.raises(RunError, match="nowhere"):
        graft.open_run(tmp_path / "nowhere")
    with pytest.raises(AttributeError, match="'simulat'"):
        graft.simulat  # noqa: B018


def imported(code: str) -> set[str]:
    """Which modules a fresh process has imported after some code."""
    show = "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_help_imports_no_engine() -> None:
    code = (
        "import sys\nfrom graft.cli.main import app\nsys.argv = ['graft', '--help']\n"
        "app(standalone_mode=False)"
    )
    heavy = {"torch", "flwr", "ray", "scipy", "matplotlib", "pandas"}
    assert heavy & imported(code) == set()


def test_a_worker_imports_no_compiler_report_or_cluster() -> None:
    """A second each in every worker, where they are not needed."""
    heavy = {"torch._dynamo", "matplotlib", "ray", "simpy", "sklearn", "onnx", "scipy.stats"}
    heavy |= {"scipy.optimize", "flwr", "httpx", "starlette"}
    assert heavy & imported("import graft_simulation.block.worker") == set()


def test_importing_graft_loads_no_engine() -> None:
    code = "import sys, graft; print([m for m in ('torch', 'ray', 'flwr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
