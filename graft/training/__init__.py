"""Local training on one device: the training task, and the one loop that minimises a loss."""

from graft.training.loop import count_steps, minimise, parameter_group
from graft.training.stacked import SupervisedJob, quick_features, train_alone, train_supervised_many
from graft.training.task import (
    Prototypes,
    Source,
    TrainedModel,
    TrainingTask,
    features_in_batches,
    features_of_parts,
    log_probabilities,
    masked_probabilities,
    predict_in_batches,
)

__all__ = [
    "Prototypes",
    "Source",
    "SupervisedJob",
    "TrainedModel",
    "TrainingTask",
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
