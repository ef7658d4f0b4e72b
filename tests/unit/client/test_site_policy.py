"""A site's policy on its disk: what is spent is written first, and nothing leaves beyond it."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from graft_client.policy import DiskReleases, load_policy

from graft.core.config import PolicyConfig
from graft.core.files import replace_file
from graft.core.tasks import Task
from graft.errors import ConfigError, PolicyError
from graft.privacy import Cost, gaussian_sigma, profile_domain

TASK = Task(name="w", modality="imu", sample_shape=(1, 32), classes=("a", "b"))
X = np.random.default_rng(0).normal(size=(30, 1, 32)).astype(np.float32)
Y = np.arange(30) % 2
COST = Cost(epsilon=1.0, delta=1e-6)


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, "utf-8")
    return path


def releases_of(folder: Path, total_epsilon: float = 2.0) -> DiskReleases:
    config = PolicyConfig(epsilon=1.0, total_epsilon=total_epsilon)
    return DiskReleases(folder / "site.spent", config)


def draw(rng: np.random.Generator) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {"a": rng.normal(size=3)}


def release_many(folder: Path, number: int) -> None:
    for each in range(10):
        releases_of(folder, 1_000).release("x", f"{number}-{each}", COST, draw)


def test_a_file_gives_the_policy_it_states(tmp_path: Path) -> None:
    path = written(tmp_path, "min_class_count = 3\nepsilon = 0.5\ntotal_epsilon = 1\n")
    settings = load_policy(path).settings
    assert (settings.min_class_count, settings.epsilon, settings.total_epsilon) == (3, 0.5, 1.0)


@pytest.mark.parametrize(
    "text", ["epsilom = 1\n", "epsilon = ", "epsilon = 1.0\n", "min_class_count = 0\n"]
)
def test_a_file_that_states_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_policy(written(tmp_path, text))
    with pytest.raises(ConfigError, match="no such file"):
        load_policy(tmp_path / "missing.toml")


def test_what_is_spent_is_on_the_disk_before_a_release_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("graft_client.policy.replace_file", full)
    with pytest.raises(OSError, match="no space"):
        releases_of(tmp_path).release("x", "key", COST, draw)
    monkeypatch.setattr("graft_client.policy.replace_file", replace_file)
    releases_of(tmp_path).release("x", "key", COST, draw)
    assert releases_of(tmp_path).spent == COST


def test_a_paid_generator_and_an_answer_are_noted_once(tmp_path: Path) -> None:
    drawn = [releases_of(tmp_path).spend("model", "key", COST).normal() for _ in range(2)]
    assert drawn[0] == drawn[1] != releases_of(tmp_path).spend("model", "new", COST).normal()
    with pytest.raises(PolicyError, match="model"):
        releases_of(tmp_path).spend("model", "newer", COST)
    for key in ("one", "two", "one"):
        releases_of(tmp_path).admit("probe of ann", key, "probes of round 1", 2)
    with pytest.raises(PolicyError, match="probe of ann: got 2 others"):
        releases_of(tmp_path).admit("probe of ann", "three", "probes of round 1", 2)
    releases_of(tmp_path).admit("probe of ann", "three", "probes of round 2", 2)
    assert releases_of(tmp_path).spent.epsilon == 2


def test_what_an_earlier_version_spent_counts(tmp_path: Path) -> None:
    entry = {"name": "x", "epsilon": 1.0, "delta": 1e-6, "numbers": {"a": [1.0]}}
    (tmp_path / "site.spent").mkdir()
    text = json.dumps({"version": 1, "releases": {"key": entry}})
    (tmp_path / "site.spent" / "spent.json").write_text(text)
    [mechanism] = releases_of(tmp_path).spent.mechanisms
    assert mechanism.noise_multiplier == gaussian_sigma(COST)
    assert releases_of(tmp_path).release("x", "key", COST, draw)["a"] == [1.0]


def test_a_release_is_given_again_unchanged_and_costs_once(tmp_path: Path) -> None:
    first = releases_of(tmp_path).release("x", "key", COST, draw)["a"]
    again = releases_of(tmp_path).release("x", "key", COST, draw)["a"]
    np.testing.assert_array_equal(first, again)
    assert releases_of(tmp_path).spent == COST
    other = releases_of(tmp_path).release("x", "other", COST, draw)["a"]
    assert not np.array_equal(first, other)


def test_a_spent_budget_is_refused_by_name_and_old_releases_stay(tmp_path: Path) -> None:
    releases = releases_of(tmp_path)
    kept = [releases.release("x", key, COST, draw)["a"] for key in ("one", "two")]
    with pytest.raises(PolicyError, match=r"centroids of ann: .*2 of it spent"):
        releases.release("centroids of ann", "three", COST, lambda rng: pytest.fail("drawn"))
    np.testing.assert_array_equal(releases.release("x", "two", COST, draw)["a"], kept[1])


def test_nobody_else_may_read_what_was_released(tmp_path: Path) -> None:
    releases_of(tmp_path).release("x", "key", COST, draw)
    assert (tmp_path / "site.spent" / "spent.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 2, "releases": {}}', "\xff"])
def test_a_budget_that_cannot_be_read_is_spent(tmp_path: Path, content: str) -> None:
    releases = releases_of(tmp_path)
    releases.release("x", "key", COST, draw)
    (tmp_path / "site.spent" / "spent.json").write_text(content, "latin-1")
    with pytest.raises(PolicyError, match=r"spent\.json"):
        releases.release("x", "key", COST, draw)


def test_no_spending_is_lost_between_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=release_many, args=(tmp_path, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert releases_of(tmp_path, 1_000).spent.epsilon == 20


def test_a_profile_costs_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "epsilon = 1.0\ntotal_epsilon = 1.0\n")
    told = [profile_domain("ann", TASK, X, Y, load_policy(path)) for _ in range(3)]
    np.testing.assert_array_equal(told[0].statistics_D, told[2].statistics_D)
    spent = json.loads((tmp_path / "policy.spent" / "spent.json").read_text("utf-8"))
    assert [each["epsilon"] for each in spent["releases"].values()] == [1.0]
    with pytest.raises(PolicyError, match="profile of ann"):
        profile_domain("ann", TASK, X[:-1], Y[:-1], load_policy(path))
