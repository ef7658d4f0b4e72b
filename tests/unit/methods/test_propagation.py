"""Spreading over a graph: by hand on three samples, and what holds for any."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.methods.blocks.fusion import joint_features, neighbour_graph, propagate


def test_the_graph_of_three_samples_by_hand() -> None:
    # Cosines: 0-1 0.6, 1-2 0.8, 0-2 0. One neighbour each: 0 -> 1, 1 -> 2, 2 -> 1.
    unit_NF = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    near, nearer = np.exp((0.6 - 1) / 0.1), np.exp((0.8 - 1) / 0.1)
    weights = np.array([[0, near, 0], [near, 0, nearer], [0, nearer, 0]])
    root = np.sqrt(weights.sum(1))
    wanted = weights / root[:, None] / root
    np.testing.assert_allclose(neighbour_graph(unit_NF, 1).toarray(), wanted, rtol=1e-5)


def test_spreading_reaches_the_fixed_point() -> None:
    generator = torch.Generator().manual_seed(0)
    features_SNF = torch.randn(2, 12, 5, generator=generator)
    start_NC = torch.softmax(torch.randn(12, 3, generator=generator), 1)
    graph = neighbour_graph(joint_features(features_SNF), 3)
    spread_NC = propagate(start_NC, graph, alpha=0.5, steps=200)
    solved_NC = np.linalg.solve(np.eye(12) - 0.5 * graph.toarray(), 0.5 * start_NC.numpy())
    solved_NC /= solved_NC.sum(1, keepdims=True)
    np.testing.assert_allclose(spread_NC.numpy(), solved_NC, atol=1e-5)


def test_a_sample_without_a_label_takes_that_of_its_own_cluster() -> None:
    features_SNF = torch.cat([torch.ones(1, 4, 2), -torch.ones(1, 4, 2)], dim=1)
    features_SNF += 0.05 * torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(1))
    start_NC = torch.full((8, 2), 0.5)
    start_NC[0], start_NC[4] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    spread_NC = propagate(start_NC, neighbour_graph(joint_features(features_SNF), 3), alpha=0.8)
    assert spread_NC.argmax(1).tolist() == [0] * 4 + [1] * 4


def test_every_source_counts_the_same_however_wide_or_loud() -> None:
    generator = torch.Generator().manual_seed(2)
    narrow_NF, wide_NF = torch.randn(6, 4, generator=generator), torch.randn(6, 4)
    narrow_NF[:, 2:] = 0  # padding
    quiet = joint_features(torch.stack([narrow_NF, wide_NF]))
    loud = joint_features(torch.stack([narrow_NF, 1000 * wide_NF]))
    torch.testing.assert_close(quiet, loud, atol=2e-3, rtol=0)
    torch.testing.assert_close(quiet[:, :4].norm(dim=1), torch.full((6,), 0.5**0.5))


@settings(max_examples=30, deadline=None)
@given(
    num_rows=st.integers(2, 40),
    num_neighbours=st.integers(1, 8),
    alpha=st.floats(0, 0.99),
    seed=st.integers(0, 99),
)
def test_what_comes_out_is_a_distribution(
    num_rows: int, num_neighbours: int, alpha: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features_SNF = torch.randn(2, num_rows, 3, generator=generator)
    start_NC = torch.softmax(torch.randn(num_rows, 4, generator=generator), 1)
    graph = neighbour_graph(joint_features(features_SNF), num_neighbours)
    spread_NC = propagate(start_NC, graph, alpha)
    assert (spread_NC >= 0).all()
    torch.testing.assert_close(spread_NC.sum(1), torch.ones(num_rows))
    if alpha == 0:
        torch.testing.assert_close(spread_NC, start_NC)


def test_blocks_of_rows_make_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    unit_NF = joint_features(torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(3)))
    whole = neighbour_graph(unit_NF, 4).toarray()
    monkeypatch.setattr("graft.methods.blocks.fusion._ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(neighbour_graph(unit_NF, 4).toarray(), whole, rtol=1e-6)
