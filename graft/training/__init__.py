"""Local training on one device: the training task, and the one loop that minimises a loss."""

from graft.training.inference import (
    compiled_features_of_parts,
    features_in_batches,
    features_of_parts,
    log_probabilities,
    masked_probabilities,
    predict_in_batches,
)
from graft.training.loop import Adam, count_steps, minimise, parameter_group
from graft.training.private import PrivateTraining, SoftRows, minimise_privately
from graft.training.supervised import SupervisedTraining, train_supervised, train_supervised_many
from graft.training.task import Prototypes, Source, TrainedModel, TrainingTask

__all__ = [
    "Adam",
    "PrivateTraining",
    "Prototypes",
    "SoftRows",
    "Source",
    "SupervisedTraining",
    "TrainedModel",
    "TrainingTask",
    "compiled_features_of_parts",
    "count_steps",
    "features_in_batches",
    "features_of_parts",
    "log_probabilities",
    "masked_probabilities",
    "minimise",
    "minimise_privately",
    "parameter_group",
    "predict_in_batches",
    "train_supervised",
    "train_supervised_many",
]
