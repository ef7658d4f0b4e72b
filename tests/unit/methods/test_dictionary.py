"""The knowledge dictionary, by hand."""

import pytest
import torch

from graft.core.config import HatConfig
from graft.methods.hat.method import (
    KnowledgeDictionary,
    class_precision,
    injection_strength,
    prediction_quality,
)

CONFIG = HatConfig(insert_quality=0.5, dictionary_momentum=0.7, keep_quality=0.9, max_injection=2.0)


def told(dictionary: KnowledgeDictionary, row: int, first: float, quality: float) -> None:
    """Offer one row's prediction (first, 1 - first) at a quality."""
    dictionary.update(
        torch.tensor([row]), torch.tensor([[first, 1 - first]]), torch.tensor([quality])
    )


def test_an_empty_dictionary_has_no_share_and_no_quality() -> None:
    dictionary = KnowledgeDictionary(4, 2, CONFIG)
    assert (dictionary.filled_fraction, dictionary.mean_quality) == (0.0, 0.0)


def test_a_prediction_enters_at_the_insert_quality_and_not_below() -> None:
    dictionary = KnowledgeDictionary(4, 2, CONFIG)
    told(dictionary, 0, 0.9, 0.5)
    told(dictionary, 1, 0.9, 0.49)
    assert dictionary.filled_fraction == 0.25  # one of four
    assert dictionary.mean_quality == 0.5
    torch.testing.assert_close(dictionary.fused_UC[0], torch.tensor([0.9, 0.1]))
    assert (dictionary.fused_UC[1:] == 0).all()


def test_a_held_prediction_moves_by_its_momentum_while_quality_lasts() -> None:
    dictionary = KnowledgeDictionary(4, 2, CONFIG)
    told(dictionary, 2, 1.0, 0.8)
    told(dictionary, 2, 0.5, 0.75)  # at least 0.9 x 0.8 = 0.72: 0.7 x 1.0 + 0.3 x 0.5 = 0.85
    torch.testing.assert_close(dictionary.fused_UC[2], torch.tensor([0.85, 0.15]))
    assert dictionary.mean_quality == pytest.approx(0.75)
    told(dictionary, 2, 0.0, 0.67)  # below 0.9 x 0.75 = 0.675: nothing moves
    torch.testing.assert_close(dictionary.fused_UC[2], torch.tensor([0.85, 0.15]))
    assert dictionary.mean_quality == pytest.approx(0.75)


def test_a_batch_is_as_good_as_its_rows_one_by_one() -> None:
    whole, single = KnowledgeDictionary(3, 2, CONFIG), KnowledgeDictionary(3, 2, CONFIG)
    offers = [(0, 0.9, 0.6), (1, 0.2, 0.3), (2, 0.4, 0.9)]
    for row, first, quality in offers:
        told(single, row, first, quality)
    rows, firsts, qualities = zip(*offers, strict=True)
    first_B = torch.tensor(firsts)
    whole.update(
        torch.tensor(rows), torch.stack([first_B, 1 - first_B], 1), torch.tensor(qualities)
    )
    torch.testing.assert_close(whole.fused_UC, single.fused_UC)
    torch.testing.assert_close(whole.quality_U, single.quality_U)


def test_what_is_held_stays_a_distribution() -> None:
    dictionary = KnowledgeDictionary(1, 2, CONFIG)
    for first in (0.9, 0.2, 0.6, 0.7):
        told(dictionary, 0, first, 0.8)
    assert float(dictionary.fused_UC.sum()) == pytest.approx(1)


def test_class_precision_counts_right_among_predicted_and_smooths() -> None:
    # Class 0 is predicted three times, twice rightly: (2 + 1) / (3 + 2) = 0.6. Class 1 once,
    # wrongly: 1 / 3. Class 2 never: 1 / 2.
    predicted = torch.tensor([0, 0, 0, 1])
    fused_HC = torch.nn.functional.one_hot(predicted, 3).float()
    precision_C = class_precision(fused_HC, torch.tensor([0, 0, 1, 2]))
    torch.testing.assert_close(precision_C, torch.tensor([0.6, 1 / 3, 0.5]))


def test_quality_is_confidence_times_the_precision_of_the_class() -> None:
    fused_BC = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.4, 0.5]])
    quality_B = prediction_quality(fused_BC, torch.tensor([0.6, 0.9, 0.5]))
    torch.testing.assert_close(quality_B, torch.tensor([0.7 * 0.6, 0.5 * 0.5]))


def test_injection_is_the_most_there_is_times_accuracy_times_share() -> None:
    assert injection_strength(0.75, 0.5, CONFIG) == pytest.approx(2.0 * 0.75 * 0.5)
    assert injection_strength(0.75, 0.0, CONFIG) == 0
