"""The matrix keeps what it has, computes what it lacks, and never mixes configurations.

Six people of the embedded world: round(0.4 x 6) = 2 initial domains, 4 target domains. Jobs run in this
process but for the test that says otherwise.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graft.bench.matrix as matrix
from graft.bench import (
    ROWS,
    MatrixPlan,
    MatrixSettings,
    compute_matrix,
    default_methods,
    name_world,
)
from graft.bench.plan import Expansion
from graft.bench.rows import BenchmarkRow, read_benchmark_rows
from graft.core.config import (
    DeviceConfig,
    ExpansionConfig,
    PolicyConfig,
    SelectionConfig,
    TrainingConfig,
    WorldConfig,
)
from graft.core.exchange import TrainRequest
from graft.data import ImuWorld, write_dataset, write_domain
from graft.data.synthetic.imu import CHANNELS, RATE_HZ
from graft.errors import ConfigError, RunError
from graft.wire.messages.codec import encode_request
from graft.wire.transfer.link import StoredModel, acknowledgement_bytes

CONFIG = ExpansionConfig(
    world=WorldConfig(domains=6, windows_per_domain=40),
    selection=SelectionConfig(num_sources=1),
    training=TrainingConfig(epochs=1, max_steps=2, batch_size=16, fedavg_rounds=1),
    devices=DeviceConfig(architectures=("mlp",)),
    policy=PolicyConfig(min_class_count=1),
)


def plan(work: Path, **changes: Any) -> MatrixPlan:
    axes: dict[str, Any] = {
        "worlds": {"imu": CONFIG.world}, "config": CONFIG, "methods": ("label-only",),
        "gammas": (0.1,), "seeds": (0,), "targets": 2, "work": work,
    }  # fmt: skip
    return MatrixPlan(**(axes | changes))


def compute(
    folder: Path,
    *,
    workers: int = 0,
    redo: tuple[str, ...] = (),
    progress: Callable[[str, int, int], None] = lambda *_: None,
    **changes: Any,
) -> list[BenchmarkRow]:
    settings = MatrixSettings(out=folder / "out", workers=workers, redo=redo, progress=progress)
    return compute_matrix(plan(folder / "work", **changes), settings)


def numbers(rows: Iterable[BenchmarkRow]) -> list[dict[str, Any]]:
    """The rows without what a clock measured."""
    return [asdict(replace(row, device_s=None)) for row in rows]


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the jobs that were really done."""
    done: list[str] = []
    really = matrix.run_job

    def run_job(job: Any) -> list[BenchmarkRow]:
        done.append(job.title)
        return really(job)

    monkeypatch.setattr(matrix, "run_job", run_job)
    return done


def test_there_is_a_row_a_cell(tmp_path: Path) -> None:
    rows = compute(tmp_path, methods=("label-only", "average-kd-all"), gammas=(0.1, 0.3))
    assert len(rows) == 2 * 2 * 2  # methods, gammas, target domains
    assert {row.error for row in rows} == {None}
    assert len({row.domain_id for row in rows}) == 2
    assert rows == read_benchmark_rows(tmp_path / "out" / ROWS)
    # 40 windows of which about 30 % test; a larger gamma labels more of the rest.
    few, many = (next(r for r in rows if r.gamma == gamma) for gamma in (0.1, 0.3))
    assert few.num_labelled < many.num_labelled
    assert few.num_labelled + few.num_unlabelled == many.num_labelled + many.num_unlabelled


def test_a_method_without_sources_is_charged_its_order_and_its_own_model(tmp_path: Path) -> None:
    row = compute(tmp_path, targets=1)[0]
    request = TrainRequest(
        domain_id=row.domain_id, round_index=1, method="label-only", sources=(), register=True
    )
    # What comes down: the order, and the store's word that it has the model (an id and three
    # lengths, each of the same size as any small model's).
    stored = StoredModel(
        model_id="0" * 64, payload_bytes=100_000, base_bytes=30_000, residual_bytes=70_000
    )
    assert row.bytes_down == len(encode_request(request)) + acknowledgement_bytes(stored)
    assert row.bytes_up > 50_000


def test_methods_and_targets_come_later_and_old_rows_stay(
    tmp_path: Path, carried: list[str]
) -> None:
    first = compute(tmp_path, targets=1)
    carried.clear()
    rows = compute(tmp_path, targets=2, methods=("average-kd-selected", "label-only"))
    assert [row for row in rows if row.key in {r.key for r in first}] == first
    assert [title.split(": ")[-1] for title in carried] == [
        "initial domains",  # there already: nothing is trained
        "average-kd-selected",
        "label-only",
    ]
    at_once = compute(tmp_path / "other", targets=2, methods=("label-only", "average-kd-selected"))
    assert numbers(rows) == numbers(at_once)


def test_initial_domains_are_trained_once(tmp_path: Path) -> None:
    compute(tmp_path)
    (models,) = (tmp_path / "work" / "initial domains").glob("*/models")
    before = {path: path.stat().st_mtime_ns for path in models.iterdir()}
    compute(tmp_path, gammas=(0.1, 0.2), methods=("label-only", "finetuned-same"))
    assert {path: path.stat().st_mtime_ns for path in models.iterdir()} == before
    assert len(before) == 2 * 3  # two initial domains, three forms of each
    assert not any((tmp_path / "work" / "scratch").iterdir())


def test_methods_of_an_average_have_initial_domains_who_make_it(tmp_path: Path) -> None:
    rows = compute(tmp_path, methods=("label-only", "fedavg"))
    assert {row.error for row in rows} == {None}
    assert len(list((tmp_path / "work" / "initial domains").iterdir())) == 2
    fedavg, label_only = (next(r for r in rows if r.method == m) for m in ("fedavg", "label-only"))
    assert fedavg.bytes_down > 10 * label_only.bytes_down


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path, carried: list[str]) -> None:
    axes: dict[str, Any] = {"methods": ("label-only", "best-source"), "gammas": (0.1, 0.2)}

    def killed(what: str, done: int, wanted: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, progress=killed, **axes)
    kept = read_benchmark_rows(tmp_path / "out" / ROWS)
    assert len(kept) == 4
    carried.clear()
    rows = compute(tmp_path, **axes)
    assert len(carried) == 1 + 2  # initial domains, and the two jobs that were missing
    assert [row for row in rows if row.key in {r.key for r in kept}] == kept
    assert numbers(rows) == numbers(compute(tmp_path / "other", **axes))


def test_progress_counts_the_rows_asked_for(tmp_path: Path) -> None:
    compute(tmp_path, gammas=(0.3,))
    news: list[tuple[int, int]] = []
    compute(
        tmp_path,
        methods=("label-only", "best-source"),
        gammas=(0.1, 0.3),
        progress=lambda what, done, wanted: news.append((done, wanted)),
    )
    # Two of the eight cells are there; then the initial domains, and three jobs of two rows.
    assert news == [(2, 8), (2, 8), (4, 8), (6, 8), (8, 8)]


def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    before = compute(tmp_path)
    other = replace(CONFIG, training=replace(CONFIG.training, max_steps=1))
    with pytest.raises(RunError, match="another configuration"):
        compute(tmp_path, config=other, methods=("best-source",))
    assert read_benchmark_rows(tmp_path / "out" / ROWS) == before
    again = compute(tmp_path, config=other, redo=("all",))
    assert {row.config_digest for row in again}.isdisjoint({row.config_digest for row in before})
    assert [row.key for row in again] == [row.key for row in before]


def test_what_is_an_axis_is_no_other_configuration(tmp_path: Path) -> None:
    first = plan(tmp_path)
    axes = replace(
        CONFIG,
        seed=5,
        rounds=2,
        method="label-only",
        comparisons=("hat",),
        split=replace(CONFIG.split, gamma=0.4),
        selection=replace(CONFIG.selection, num_sources=3),
        world=replace(CONFIG.world, domains=50),
    )
    assert plan(tmp_path, config=axes).config_digest("hat") == first.config_digest("hat")
    for section, change in (
        ("split", {"test_fraction": 0.2}),
        ("selection", {"score_mix": 0.1}),
        ("hat", {"max_injection": 1.0}),
        ("policy", {"min_class_count": 2}),
    ):
        other = replace(CONFIG, **{section: replace(getattr(CONFIG, section), **change)})
        assert plan(tmp_path, config=other).config_digest("hat") != first.config_digest("hat")


def test_a_section_that_one_method_reads_is_no_other_configuration_for_the_rest(
    tmp_path: Path,
) -> None:
    settings = replace(CONFIG.graft, rotation_degrees=1.0)
    first, other = plan(tmp_path), plan(tmp_path, config=replace(CONFIG, graft=settings))
    assert other.config_digest("graft") != first.config_digest("graft")
    for method in ("hat", "label-only", "average-kd-all"):
        assert other.config_digest(method) == first.config_digest(method)


def test_redo_computes_one_method_again(tmp_path: Path, carried: list[str]) -> None:
    methods = ("label-only", "best-source")
    before = compute(tmp_path, methods=methods)
    carried.clear()
    after = compute(tmp_path, methods=methods, redo=("best-source",))
    assert len(carried) == 2
    assert carried[1].endswith("best-source")
    assert numbers(after) == numbers(before)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    world = ImuWorld(6, 40, seed=0)
    folder = tmp_path / "people"
    write_dataset(folder, world.task, channels=CHANNELS, rate_hz=RATE_HZ, licence="synthetic")
    for domain_id in world.domain_ids:
        write_domain(folder, world.load(domain_id))
    return folder


def spoil(folder: Path, domain_id: str) -> None:
    """One NaN in a domain's windows."""
    with np.load(folder / "domains" / f"{domain_id}.npz") as held:
        arrays = dict(held)
    arrays["x"][0, 0, 0] = np.nan
    np.savez(folder / "domains" / f"{domain_id}.npz", **arrays)


def test_changed_data_are_refused(tmp_path: Path, people: Path) -> None:
    worlds = dict([name_world(f"people={people}", CONFIG.world)])
    rows = compute(tmp_path, worlds=worlds)
    assert {row.data for row in rows} == {"people"}
    spoil(people, rows[0].domain_id)
    with pytest.raises(RunError, match="another data"):
        compute(tmp_path, worlds=worlds)


def test_a_cell_that_fails_names_its_error_and_is_tried_again(
    tmp_path: Path, people: Path, carried: list[str]
) -> None:
    worlds = dict([name_world(f"people={people}", CONFIG.world)])
    expansion = next(plan(tmp_path / "look", worlds=worlds).expansions([]))
    assert isinstance(expansion, Expansion)
    spoil(people, expansion.domain_ids[0])
    rows = {row.domain_id: row for row in compute(tmp_path, worlds=worlds)}
    bad, good = (rows[domain_id] for domain_id in expansion.domain_ids)
    assert (bad.error, bad.accuracy) == ("DomainValueError", None)
    assert bad.domain_id in (bad.error_message or "")
    assert good.error is None
    carried.clear()
    compute(tmp_path, worlds=worlds)
    assert len(carried) == 2  # the initial domains are looked for, the failed cell is tried


def test_a_initial_domain_that_fails_fails_every_cell_by_name(tmp_path: Path, people: Path) -> None:
    worlds = dict([name_world(f"people={people}", CONFIG.world)])
    expansion = next(plan(tmp_path / "look", worlds=worlds).expansions([]))
    initial_domain = expansion.initial_training.initial_domains[0]
    spoil(people, initial_domain)
    rows = compute(tmp_path, worlds=worlds)
    assert {row.error for row in rows} == {"ExpansionFailedError"}
    assert all(initial_domain in (row.error_message or "") for row in rows)


def test_one_run_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(what: str, done: int, wanted: int) -> None:
        with pytest.raises(RunError, match="another benchmark run") as error:
            compute(tmp_path)
        refused.append(str(error.value))

    compute(tmp_path, progress=second)
    assert len(refused) == 3  # at the start, after the initial domains, after the one job


def test_numbers_of_sources_are_swept_for_methods_that_select(tmp_path: Path) -> None:
    rows = compute(
        tmp_path, methods=("label-only", "average-kd-selected"), sources=(1, 2), targets=1
    )
    assert [(row.method, row.num_sources, len(row.sources)) for row in rows] == [
        ("average-kd-selected", 1, 1),
        ("label-only", 1, 0),
        ("average-kd-selected", 2, 2),
    ]


@pytest.mark.parametrize(
    "axes",
    [{"methods": ()}, {"methods": ("magic",)}, {"methods": ("initial",)}, {"gammas": ()},
     {"targets": 0}],
)  # fmt: skip
def test_an_impossible_matrix_is_refused(tmp_path: Path, axes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        plan(tmp_path, **axes)


@pytest.mark.parametrize("text", ["hapt", "=folder", "hapt=", "a/b=folder"])
def test_a_data_set_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=FOLDER"):
        name_world(text, CONFIG.world)


def test_the_digits_are_dealt_to_few_domains() -> None:
    assert name_world("digits", WorldConfig(domains=100)) == (
        "digits",
        WorldConfig(kind="digits", domains=20),
    )
    assert name_world("imu", WorldConfig(domains=100))[1].domains == 100


def test_the_default_methods_are_the_main_one_its_ablations_and_what_stands_beside() -> None:
    assert default_methods("hat")[:2] == ("hat", "label-only")
    assert "hat-initial" not in default_methods("hat")  # the same as hat, in this matrix
    assert len(set(default_methods("hat"))) == len(default_methods("hat"))


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_rows(tmp_path: Path) -> None:
    axes: dict[str, Any] = {
        "methods": ("label-only", "average-kd-selected", "fedavg"), "seeds": (0, 1)
    }  # fmt: skip
    here = compute(tmp_path / "0", **axes)
    for workers in (1, 2):
        assert numbers(compute(tmp_path / str(workers), workers=workers, **axes)) == numbers(here)
