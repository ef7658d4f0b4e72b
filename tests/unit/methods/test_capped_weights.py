"""Shares under a cap: the sum stays, nobody passes, who is below is left in proportion."""

import pytest
import torch

from graft.methods.blocks.fusion import cap_teachers, cap_weights


@pytest.mark.parametrize(
    ("shares", "cap", "wanted"),
    [
        ([0.7, 0.2, 0.1], 0.4, [0.4, 0.4, 0.2]),  # 0.6 left, 2:1
        ([0.5, 0.3, 0.2], 0.6, [0.5, 0.3, 0.2]),
        ([0.9, 0.05, 0.05], 0.1, [1 / 3, 1 / 3, 1 / 3]),  # less than 1/S cannot be
        ([0.5, 0.4, 0.05, 0.05], 0.4, [0.4, 0.4, 0.1, 0.1]),  # the second passes after the first
        ([1.0, 0.0, 0.0], 0.5, [0.5, 0.25, 0.25]),
    ],
)
def test_what_is_cut_goes_to_the_others(
    shares: list[float], cap: float, wanted: list[float]
) -> None:
    capped_S = cap_weights(torch.tensor(shares), cap)
    torch.testing.assert_close(capped_S, torch.tensor(wanted))


def test_rows_are_capped_by_themselves_and_gradients_pass() -> None:
    logits = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    shares = torch.softmax(4 * logits, dim=-1)
    capped = cap_weights(shares, 0.4)
    torch.testing.assert_close(capped.sum(-1), torch.ones(7, 5))
    assert float(capped.detach().max()) <= 0.4 + 1e-6
    within = (shares.detach() <= 0.4).all(-1)
    torch.testing.assert_close(capped[within], shares[within])
    (capped**2).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_source_that_teaches_twice_has_one_share() -> None:
    capped_T = cap_teachers(torch.tensor([0.4, 0.1, 0.4, 0.1]), ["a", "b", "a", "b"], 0.6)
    torch.testing.assert_close(capped_T, torch.tensor([0.3, 0.2, 0.3, 0.2]))
