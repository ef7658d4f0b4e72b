"""``graft bench accuracy``: options to a matrix, rows to a report, failures to an exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graft.bench.rows import read_benchmark_rows
from graft.cli.main import app
from graft.data import ImuWorld, write_dataset, write_domain
from graft.data.synthetic.imu import CHANNELS, RATE_HZ

runner = CliRunner()
SETTINGS = (
    "--set", "world.windows_per_domain=40", "--set", "training.max_steps=2",
    "--set", "policy.min_class_count=1", "--set", 'devices.architectures=["mlp"]',
    "--set", "selection.num_sources=1", "--workers", "0", "--main", "finetuned-any",
)  # fmt: skip


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_matrix_is_computed_reported_and_told_as_json(tmp_path: Path) -> None:
    # One person of three is an initial domain: round(0.4 x 3) = 1; two are target domains.
    arguments = [
        "bench", "accuracy", "--data", "imu", "--gamma", "0.1", "--gamma", "0.2", "--seeds", "1",
        "--set", "world.domains=3", "--methods", "finetuned-any,label-only", "--out", "out",
        *SETTINGS,
    ]  # fmt: skip
    done = runner.invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    # Two methods, two gammas, two target domains.
    assert (told["rows"], told["asked"], told["failed"]) == (8, 8, [])
    rows = read_benchmark_rows(tmp_path / "out" / "rows.parquet")
    mean = np.mean([r.accuracy for r in rows if (r.method, r.gamma) == ("label-only", 0.1)])
    figure = told["figures"]["imu/gamma=0.1/label-only/accuracy"]
    assert figure["value"] == pytest.approx(mean, abs=1e-4)
    # The report alone, of the same rows, is the same report.
    page = tmp_path / "out" / "overview.md"
    written = page.read_bytes()
    page.unlink()
    again = runner.invoke(app, ["bench", "accuracy", "--report-only", "--out", "out", *SETTINGS])
    assert again.exit_code == 0, again.output
    assert page.read_bytes() == written
    assert "Label only" in again.stdout


def test_compiled_rows_are_equal_up_to_rounding_and_have_no_device_time(tmp_path: Path) -> None:
    arguments = [
        "bench", "accuracy", "--data", "imu", "--gamma", "0.1", "--seeds", "1",
        "--set", "world.domains=3", "--methods", "graft,label-only-recipe", *SETTINGS,
    ]  # fmt: skip
    tables = []
    for options in ([], ["--compiled"]):
        out = tmp_path / f"out{len(options)}"
        done = runner.invoke(app, [*arguments, "--out", str(out), *options])
        assert done.exit_code == 0, done.output
        tables.append(read_benchmark_rows(out / "rows.parquet"))
    for plain, compiled in zip(*tables, strict=True):
        assert plain.key == compiled.key
        assert plain.accuracy == pytest.approx(compiled.accuracy, abs=0.1)
        assert plain.device_s is not None
        assert compiled.device_s is None


def test_a_failed_cell_is_named_and_makes_the_exit_code(tmp_path: Path) -> None:
    world = ImuWorld(3, 40, seed=1)
    folder = tmp_path / "people"
    write_dataset(folder, world.task, channels=CHANNELS, rate_hz=RATE_HZ, licence="synthetic")
    for domain_id in world.domain_ids:
        write_domain(folder, world.load(domain_id))
    arguments = [
        "bench", "accuracy", "--data", f"people={folder}", "--quick", "--methods", "label-only",
        "--out", "out", "--format", "json", *SETTINGS,
    ]  # fmt: skip
    good = runner.invoke(app, arguments)
    assert good.exit_code == 0, good.output
    assert "a quick part of the matrix" in good.stderr
    targets = [row.domain_id for row in read_benchmark_rows(tmp_path / "out" / "rows.parquet")]
    spoilt = folder / "domains" / f"{targets[0]}.npz"
    with np.load(spoilt) as held:
        arrays = dict(held)
    arrays["x"][0, 0, 0] = np.nan
    np.savez(spoilt, **arrays)
    bad = runner.invoke(app, [*arguments, "--redo", "all"])
    assert bad.exit_code == 1
    (failed,) = json.loads(bad.stdout)["failed"]
    assert (failed["domain_id"], failed["error"]) == (targets[0], "DomainValueError")


def test_help_has_an_example() -> None:
    done = runner.invoke(app, ["bench", "accuracy", "--help"])
    assert done.exit_code == 0
    assert "Example: graft bench accuracy --data imu" in done.stdout
