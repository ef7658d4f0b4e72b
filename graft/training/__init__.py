"""Local training on one device: the training task, and the one loop that minimises a loss."""

from graft.training.compiled.build import kernels_built
from graft.training.compiled.calls import Augmentation, CompiledTraining, Objective, compiled_heads
from graft.training.compiled.hat import hat_beside
from graft.training.frozen import frozen_features, rows_digest
from graft.training.inference import (
    compiled_forward,
    features_in_batches,
    features_of_parts,
    log_probabilities,
    predict_in_batches,
)
from graft.training.loop import Adam, count_steps, minimise, parameter_group
from graft.training.outputs import (
    Units,
    known_outputs,
    masked_probabilities,
    output_loss,
    predictions_of,
)
from graft.training.private import PrivateTraining, SoftRows, minimise_privately
from graft.training.soft import SoftTraining, compiled_plan, joint_batches, train_soft
from graft.training.supervised import SupervisedTraining, train_supervised, train_supervised_many
from graft.training.task import Prototypes, Source, TrainedModel, TrainingTask

__all__ = [
    "Adam",
    "Augmentation",
    "CompiledTraining",
    "Objective",
    "PrivateTraining",
    "Prototypes",
    "SoftRows",
    "SoftTraining",
    "Source",
    "SupervisedTraining",
    "TrainedModel",
    "TrainingTask",
    "Units",
    "compiled_forward",
    "compiled_heads",
    "compiled_plan",
    "count_steps",
    "features_in_batches",
    "features_of_parts",
    "frozen_features",
    "hat_beside",
    "joint_batches",
    "kernels_built",
    "known_outputs",
    "log_probabilities",
    "masked_probabilities",
    "minimise",
    "minimise_privately",
    "output_loss",
    "parameter_group",
    "predict_in_batches",
    "predictions_of",
    "rows_digest",
    "train_soft",
    "train_supervised",
    "train_supervised_many",
]
