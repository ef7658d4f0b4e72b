"""Many networks trained together come out as each would alone."""

import copy
from dataclasses import replace

import pytest
import torch
from small_trainings import STACKABLE, WINDOWS, make_training, tensors

from graft.core.tasks import Task
from graft.training import SupervisedTraining, train_supervised, train_supervised_many
from graft.training.stacked import stages_of


def copies(jobs: list[SupervisedTraining]) -> list[SupervisedTraining]:
    return [replace(job, network=copy.deepcopy(job.network)) for job in jobs]


def assert_close(got: SupervisedTraining, wanted: SupervisedTraining) -> None:
    mine, theirs = tensors(got.network), tensors(wanted.network)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        error = (tensor - theirs[name]).abs().double()
        assert error.max() <= 5e-4, name
        assert error.mean() <= 5e-6, name
    with torch.no_grad():
        torch.testing.assert_close(
            got.network.eval()(got.x), wanted.network.eval()(got.x), atol=2e-4, rtol=1e-3
        )


@pytest.fixture(params=["kernels", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the compiled trainer (where there is a compiler) and without."""
    if request.param == "torch":
        monkeypatch.setenv("GRAFT_NO_KERNELS", "1")
    return str(request.param)


@pytest.mark.parametrize(("task", "architecture"), STACKABLE)
def test_a_network_among_others_learns_what_it_learns_alone(
    way: str, task: Task, architecture: str
) -> None:
    # 5 labelled rows are less than a batch of 8; 40 rows in all are 5 steps, cut to 3.
    sizes = [(20, 24), (5, 24), (5, 24), (11, 24), (20, 40), (3, 9)]
    jobs = [make_training(task, architecture, n, i, rows) for i, (n, rows) in enumerate(sizes)]
    alone = copies(jobs)
    for job in alone:
        train_supervised(job)
    train_supervised_many(jobs)
    for got, wanted in zip(jobs, alone, strict=True):
        assert not got.network.training
        assert_close(got, wanted)


def test_architectures_mix_and_those_without_a_stacked_form_take_the_plain_loop(way: str) -> None:
    jobs = [
        make_training(WINDOWS, name, 12, seed)
        for seed, name in enumerate(("mlp-500", "mlp", "mlp-500", "cnn-small", "mlp"))
    ]
    alone = copies(jobs)
    for job in alone:
        train_supervised(job)
    train_supervised_many(jobs)
    for got, wanted in zip(jobs, alone, strict=True):
        assert_close(got, wanted)
    assert stages_of(jobs[0].network) is None
    for index in (0, 2):  # dropout draws from the same seed: equal to the bit
        mine, theirs = tensors(jobs[index].network), tensors(alone[index].network)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("architecture", ["cnn-small", "mlp", "gru"])
def test_the_same_jobs_give_the_same_bits(way: str, architecture: str) -> None:
    jobs = [make_training(WINDOWS, architecture, 10 + seed, seed) for seed in range(3)]
    again = copies(jobs)
    train_supervised_many(jobs)
    train_supervised_many(again)
    for one, other in zip(jobs, again, strict=True):
        mine, theirs = tensors(one.network), tensors(other.network)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_rows_that_the_plain_loop_refuses_are_refused(way: str) -> None:
    # Batch norm of a dense layer has no variance of one row, and there is no class 5 of 5.
    with pytest.raises(ValueError, match="more than 1 value"):
        train_supervised_many([make_training(WINDOWS, "mlp", 1, seed) for seed in (0, 1)])
    job = make_training(WINDOWS, "cnn-small", 9, 0)
    with pytest.raises(IndexError):
        train_supervised_many([replace(job, y_N=torch.full((9,), 5))] * 2)


def test_a_row_that_is_no_number_spoils_its_own_network_alone(way: str) -> None:
    jobs = [make_training(WINDOWS, "cnn-small", 8, seed) for seed in (0, 1)]
    jobs[0].x[3, 1, 5] = float("nan")
    train_supervised_many(jobs)
    spoilt, sound = (tensors(job.network)["head.weight"] for job in jobs)
    assert spoilt.isnan().all()
    assert sound.isfinite().all()
