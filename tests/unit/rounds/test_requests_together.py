"""A task that fails in a block of trainings fails alone."""

from collections.abc import Sequence
from typing import Any, cast

from graft.errors import TransportError
from graft.rounds.requests import _fit_each
from graft.training import TrainedModel, TrainingTask


def test_the_others_of_a_block_are_trained_where_one_fails() -> None:
    def fit_many(tasks: Sequence[Any], device: str) -> list[TrainedModel]:
        if "bad" in tasks:
            raise TransportError("sources: got none")
        return cast("list[TrainedModel]", [f"{task} on {device}" for task in tasks])

    tasks = cast("list[TrainingTask]", ["one", "bad", "two"])
    first, failed, last = _fit_each(fit_many, tasks, "cpu")
    assert (first, last) == ("one on cpu", "two on cpu")
    assert isinstance(failed, TransportError)
