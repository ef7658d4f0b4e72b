"""Local training on one device: what a lesson holds, and the one loop that minimises a loss."""

from graft.training.lesson import (
    Learned,
    Lesson,
    Prototypes,
    Source,
    features_in_batches,
    features_of_parts,
    log_probabilities,
    masked_probabilities,
    predict_in_batches,
)
from graft.training.local import count_steps, minimise, parameter_group
from graft.training.stacked import (
    SupervisedJob,
    quick_features,
    train_alone,
    train_supervised_many,
)

__all__ = [
    "Learned",
    "Lesson",
    "Prototypes",
    "Source",
    "SupervisedJob",
    "count_steps",
    "features_in_batches",
    "features_of_parts",
    "log_probabilities",
    "masked_probabilities",
    "minimise",
    "parameter_group",
    "predict_in_batches",
    "quick_features",
    "train_alone",
    "train_supervised_many",
]
