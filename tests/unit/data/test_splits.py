"""Laws of the split of rows and of the schedule of rounds."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import SplitConfig
from graft.core.tasks import Task
from graft.data.domain import DomainData
from graft.data.splits import schedule_rounds, split_rows
from graft.data.synthetic.imu import ImuWorld
from graft.errors import ConfigError, DatasetFormatError, DomainEmptyError


def make_data(
    labels: Sequence[int], groups: Sequence[int], split: Sequence[int] | None = None
) -> DomainData:
    return DomainData(
        domain_id="ann",
        x=np.zeros((len(labels), 1, 2), np.float32),
        y_N=np.array(labels, np.int64),
        group_N=np.array(groups, np.int64),
        split_N=None if split is None else np.array(split, np.int8),
    )


@st.composite
def domains(draw: st.DrawFn) -> DomainData:
    """Segments of one to six rows; a segment mostly holds one class, sometimes two."""
    labels: list[int] = []
    groups: list[int] = []
    for name in draw(st.permutations(range(draw(st.integers(2, 25))))):
        length = draw(st.integers(1, 6))
        classes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2))
        labels += [classes[place % len(classes)] for place in range(length)]
        groups += [name] * length
    return make_data(labels, groups)


configs = st.builds(SplitConfig, test_fraction=st.floats(0.05, 0.9), gamma=st.floats(0.01, 0.95))


@settings(max_examples=200, deadline=None)
@given(domains(), configs, st.integers(0, 5))
def test_every_split_keeps_its_invariants(data: DomainData, config: SplitConfig, seed: int) -> None:
    try:
        split = split_rows(data, config, seed)
    except DomainEmptyError:
        # Refused only where no group can be spared: each holds the last rows of some class.
        for group in np.unique(data.group_N):
            rest = data.y_N[data.group_N != group]
            assert set(data.y_N) - set(rest)
        return
    train, test, labelled = split.train_N, split.test_N, split.labelled_N
    assert sorted([*train, *test]) == list(range(len(data.y_N)))
    assert len(train)
    assert len(test)
    assert not set(data.group_N[train]) & set(data.group_N[test])
    assert set(data.y_N[train]) == set(data.y_N)
    assert set(labelled) <= set(train)
    assert set(data.y_N[labelled]) == set(data.y_N[train])
    assert sorted([*labelled, *split.unlabelled_N]) == list(train)
    num_classes = len(set(data.y_N))
    assert len(labelled) <= max(round(config.gamma * len(train)), 0) + num_classes


@settings(max_examples=30, deadline=None)
@given(domains(), st.integers(0, 5))
def test_equal_seeds_give_equal_splits(data: DomainData, seed: int) -> None:
    try:
        first, second = (split_rows(data, SplitConfig(), seed) for _ in range(2))
    except DomainEmptyError:
        return
    np.testing.assert_array_equal(first.test_N, second.test_N)
    np.testing.assert_array_equal(first.labelled_N, second.labelled_N)


def test_the_latest_blocks_of_each_class_test() -> None:
    # Ten single-row groups a class; a share of 0.3 is the last three rows of each.
    data = make_data([0] * 10 + [1] * 10, range(20))
    split = split_rows(data, SplitConfig(test_fraction=0.3), 0)
    assert split.test_N.tolist() == [7, 8, 9, 17, 18, 19]


def test_time_is_the_order_of_rows_not_of_group_numbers() -> None:
    data = make_data([0, 0, 1, 1, 0, 0, 1, 1], [9, 9, 8, 8, 1, 1, 0, 0])
    assert split_rows(data, SplitConfig(), 0).test_N.tolist() == [4, 5, 6, 7]


def test_the_only_group_of_a_class_stays_in_train() -> None:
    data = make_data([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2])
    assert split_rows(data, SplitConfig(), 0).test_N.tolist() == [2, 3]


def test_a_group_of_two_classes_goes_whole_to_one_side() -> None:
    data = make_data([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2])
    assert split_rows(data, SplitConfig(), 0).test_N.tolist() == [4, 5]


def test_one_group_a_class_cannot_be_split() -> None:
    with pytest.raises(DomainEmptyError, match="ann: got no test rows of 4"):
        split_rows(make_data([0, 0, 1, 1], [0, 0, 1, 1]), SplitConfig(), 0)


def test_the_split_that_the_data_bring_holds() -> None:
    data = make_data([0, 1, 0, 1], [0, 0, 1, 1], split=[1, 1, 0, 0])
    assert split_rows(data, SplitConfig(), 0).test_N.tolist() == [0, 1]
    with pytest.raises(DatasetFormatError, match="group 1 on both sides"):
        split_rows(make_data([0, 1, 0, 1], [0, 0, 1, 1], split=[0, 0, 0, 1]), SplitConfig(), 0)
    with pytest.raises(DomainEmptyError, match="no train rows"):
        split_rows(make_data([0, 1], [0, 1], split=[1, 1]), SplitConfig(), 0)


def test_a_tenth_of_the_train_rows_is_labelled_in_the_classes_own_shares() -> None:
    # 60 and 40 train rows at 0.1: six and four.
    data = make_data([0] * 60 + [1] * 40 + [0, 1], range(102), split=[0] * 100 + [1, 1])
    labelled = split_rows(data, SplitConfig(gamma=0.1), 0).labelled_N
    assert np.bincount(data.y_N[labelled]).tolist() == [6, 4]


def test_another_seed_labels_other_rows_and_tests_the_same() -> None:
    data = make_data([0, 1] * 50, range(100))
    first, second = (split_rows(data, SplitConfig(), seed) for seed in (0, 1))
    assert first.test_N.tolist() == second.test_N.tolist()
    assert first.labelled_N.tolist() != second.labelled_N.tolist()


class PeopleWorld:
    """``num_domains`` domains of persons "0", "1", ...; domain d belongs to d mod num_persons."""

    task = Task(name="t", modality="imu", sample_shape=(1, 2), classes=("a", "b"))

    def __init__(self, num_domains: int, num_persons: int) -> None:
        self.domain_ids = [str(place) for place in range(num_domains)]
        self._num_persons = num_persons

    def person(self, domain_id: str) -> str:
        return str(int(domain_id) % self._num_persons)

    def load(self, domain_id: str) -> DomainData:
        raise NotImplementedError


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 30),
    st.integers(1, 5),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
)
def test_every_schedule_keeps_persons_together_and_rounds_even(
    num_domains: int, num_persons: int, rounds: int, share: float, seed: int
) -> None:
    world = PeopleWorld(num_domains, num_persons)
    config = SplitConfig(initial_fraction=share)
    present = min(num_domains, num_persons)
    initial_domains = round(share * present)
    if initial_domains == 0 or present - initial_domains < rounds:
        with pytest.raises(ConfigError, match="got no person"):
            schedule_rounds(world, config, rounds, seed)
        return
    schedule = schedule_rounds(world, config, rounds, seed)
    assert schedule == schedule_rounds(world, config, rounds, seed)
    assert len(schedule) == rounds + 1
    assert sorted(d for part in schedule for d in part) == sorted(world.domain_ids)
    people = [{world.person(d) for d in part} for part in schedule]
    assert sum(map(len, people)) == present
    assert len(people[0]) == initial_domains
    sizes = [len(part) for part in people[1:]]
    assert max(sizes) - min(sizes) <= 1


def test_another_seed_draws_another_order() -> None:
    world = ImuWorld(30, 20, 0)
    assert schedule_rounds(world, SplitConfig(), 3, 0) != schedule_rounds(
        world, SplitConfig(), 3, 1
    )
