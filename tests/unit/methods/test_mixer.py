"""Laws of the attention mixer and of what it holds out."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.core.config import HatConfig
from graft.core.tasks import Task
from graft.methods.blocks.adaptation import stack_padded
from graft.methods.hat.mixer import Mixer, holdout_folds, mixer_loss
from graft.models import build_network
from graft.training import Source, features_in_batches, masked_probabilities

# R replicas, B samples, S sources, C classes, F features.
TASK = Task(name="t", modality="imu", sample_shape=(2, 16), classes=("a", "b", "c", "d"))
REPLICAS, BATCH, TARGET_FEATURES = 3, 5, 7
Known = tuple[bool, ...]


def stack_features(sources: Sequence[Source], x: torch.Tensor) -> torch.Tensor:
    return stack_padded([features_in_batches(source.network, x) for source in sources])


def source(place: int, known: Known = (True,) * 4, architecture: str = "mlp") -> Source:
    return Source(
        model_id=f"{place:064x}",
        domain_id=f"d{place}",
        architecture=architecture,
        network=build_network(architecture, TASK, seed=place).eval(),
        mask_C=np.array(known),
    )


def fuse(sources: list[Source]) -> tuple[Mixer, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The mixer, the sources' features, and what it made of one random batch."""
    torch.manual_seed(0)
    mixer = Mixer(sources, TARGET_FEATURES, REPLICAS, HatConfig(), seed=1)
    sources_SBF = stack_features(sources, torch.randn(BATCH, *TASK.sample_shape))
    fused_RBC, mixture_RBS = mixer(torch.randn(BATCH, TARGET_FEATURES), sources_SBF)
    return mixer, sources_SBF, fused_RBC.detach(), mixture_RBS.detach()


def test_a_mixture_is_a_share_of_every_source() -> None:
    _, _, _, mixture_RBS = fuse([source(0), source(1), source(2, architecture="cnn-small")])
    assert mixture_RBS.shape == (REPLICAS, BATCH, 3)
    assert (mixture_RBS > 0).all()
    torch.testing.assert_close(mixture_RBS.sum(2), torch.ones(REPLICAS, BATCH))


def test_fused_predictions_are_distributions_over_the_classes_that_any_source_knows() -> None:
    sources = [source(0, (True, True, False, False)), source(1, (False, True, True, False))]
    _, _, fused_RBC, _ = fuse(sources)
    torch.testing.assert_close(fused_RBC.sum(2), torch.ones(REPLICAS, BATCH))
    assert (fused_RBC[:, :, :3] > 0).all()
    assert (fused_RBC[:, :, 3] == 0).all()  # nobody knows the last class


def test_one_source_is_passed_through_unchanged() -> None:
    only = source(4, (True, True, True, False))
    _, sources_SBF, fused_RBC, mixture_RBS = fuse([only])
    assert (mixture_RBS == 1).all()
    with torch.no_grad():
        logits_BC = only.network.head(sources_SBF[0])
    expected_BC = masked_probabilities(logits_BC, torch.from_numpy(only.mask_C))
    for fused_BC in fused_RBC:
        torch.testing.assert_close(fused_BC, expected_BC)


def test_the_order_of_the_sources_does_not_decide_what_is_stacked() -> None:
    wide, narrow = source(0), source(1, architecture="cnn-small")  # 64 and 32 features
    x = torch.randn(BATCH, *TASK.sample_shape)
    forth, back = stack_features([wide, narrow], x), stack_features([narrow, wide], x)
    assert forth.shape == (2, BATCH, 64)
    torch.testing.assert_close(forth, back.flip(0))
    assert (forth[1, :, 32:] == 0).all()


def test_the_target_is_not_trained_by_the_mixer_but_the_mixer_is() -> None:
    sources = [source(0), source(1)]
    mixer = Mixer(sources, TARGET_FEATURES, REPLICAS, HatConfig(), seed=1)
    target_BF = torch.randn(BATCH, TARGET_FEATURES, requires_grad=True)
    sources_SBF = stack_features(sources, torch.randn(BATCH, *TASK.sample_shape))
    fused_RBC, _ = mixer(target_BF, sources_SBF)
    y_B = torch.arange(BATCH) % 4
    mixer_loss(fused_RBC, y_B, torch.zeros(REPLICAS, BATCH, dtype=torch.bool)).backward()
    assert target_BF.grad is None
    for parameter in [*mixer.own_parameters(), *mixer.head_parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    for soft_targets in sources:  # the heads are copies: the source itself stays as it was sent
        assert soft_targets.network.head.weight.grad is None


def test_equal_seeds_make_equal_mixers() -> None:
    first, again = (fuse([source(0), source(1)])[2] for _ in range(2))
    assert torch.equal(first, again)


def test_the_loss_is_the_mean_surprise_over_the_rows_a_replica_trains_on() -> None:
    # Replica 0 trains on both rows: -(ln 1/2 + ln 1/4) / 2 = 1.5 ln 2; replica 1 on the second
    # row only: -ln 1/8 = 3 ln 2. Summed: 4.5 ln 2.
    fused_RBC = torch.tensor([[[0.5, 0.5], [0.75, 0.25]], [[0.9, 0.1], [0.875, 0.125]]])
    held_RB = torch.tensor([[False, False], [True, False]])
    loss = mixer_loss(fused_RBC, torch.tensor([0, 1]), held_RB)
    assert float(loss) == pytest.approx(4.5 * np.log(2), rel=1e-6)


def test_a_replica_with_every_row_held_out_has_no_loss() -> None:
    fused_RBC = torch.full((1, 2, 2), 0.5)
    held_RB = torch.ones(1, 2, dtype=torch.bool)
    assert float(mixer_loss(fused_RBC, torch.tensor([0, 1]), held_RB)) == 0


def test_the_gradients_of_the_loss_are_those_of_finite_differences() -> None:
    torch.manual_seed(2)
    logits_RBC = torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)
    y_B = torch.tensor([0, 1, 2, 1])
    held_RB = torch.tensor([[True, False, False, False], [False, False, True, True]])

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        return mixer_loss(torch.softmax(logits, dim=-1), y_B, held_RB)

    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(loss_of, (logits_RBC,))


LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 5))
def test_every_replica_holds_out_a_row_and_equal_seeds_the_same(
    labels: list[int], seed: int
) -> None:
    y_L = np.array(labels)
    folds_RL = holdout_folds(y_L, 0.2, seed)
    assert folds_RL.shape[1] == len(labels)
    assert folds_RL.any(1).all()
    np.testing.assert_array_equal(folds_RL, holdout_folds(y_L, 0.2, seed))


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 5))
def test_every_row_is_held_out_exactly_once(labels: list[int], seed: int) -> None:
    folds_RL = holdout_folds(np.array(labels), 0.2, seed)
    assert len(folds_RL) == min(len(labels), 5)
    np.testing.assert_array_equal(folds_RL.sum(0), np.ones(len(labels)))


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 5))
def test_folds_share_each_class_evenly(labels: list[int], seed: int) -> None:
    y_L = np.array(labels)
    folds_RL = holdout_folds(y_L, 0.2, seed)
    for label in np.unique(y_L):
        held_R = folds_RL[:, y_L == label].sum(1)
        assert held_R.max() - held_R.min() <= 1


def test_the_share_held_out_is_the_one_asked_for() -> None:
    # Of 4 classes of 10 rows each, a fifth is 2 rows a class: 8 in every fold.
    folds_RL = holdout_folds(np.arange(40) % 4, 0.2, seed=0)
    np.testing.assert_array_equal(folds_RL.sum(1), [8] * 5)
