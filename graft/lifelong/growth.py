"""A domain's task grows: its own model learns new classes and keeps the old ones.

A stage has labelled rows of the new classes, and unlabelled rows of whatever the domain does now;
labelled rows of the old classes are gone, but to the reference ``joint``. The head has an output
for every class of the task, and what grows is the set of classes that it knows. Ours, for HAD and
LwF are published for outputs with heads of their own:

    L = CE(labelled rows, over old and new classes) + penalty(unlabelled rows)

The frozen former model pseudo-labels the unlabelled rows. The student answers over old and new
classes, so that rows of old classes are also what the new ones are told apart from; HAD's
geometric means make it forgive pseudo-labels of rows that are of a new class. Without unlabelled
rows the penalty is taken on the labelled ones, over the old classes alone.

Legend: B a batch, N rows, L labelled, U unlabelled, C classes.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.records import BoolArray
from graft.core.results import GROW
from graft.core.streams import Rows, concat
from graft.errors import ConfigError
from graft.lifelong.had import Distillation, HadConfig
from graft.lifelong.heads import HeadedNetwork, OutputTask
from graft.lifelong.retention import ElasticWeights, LearningWithoutForgetting, Retention, Stage
from graft.models import Network
from graft.training import minimise, parameter_group

_OUTPUT = "classes"
_UNKNOWN = -30.0  # the logit of a class that a network does not know
JOINT: Final = "joint"
# Each way of keeping old outputs: its default strength, and what it makes of a strength.
_RETENTIONS: Final[Mapping[str, tuple[float, Callable[[float], Retention]]]] = {
    "had": (3.0, lambda strength: Distillation(config=HadConfig(strength=strength))),
    "lwf": (1.0, lambda strength: LearningWithoutForgetting(strength=strength)),
    "ewc": (1000.0, lambda strength: ElasticWeights(strength=strength)),
    "naive": (0.0, lambda _: Retention()),
    JOINT: (0.0, lambda _: Retention()),
}
METHODS: Final = tuple(_RETENTIONS)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GrowthTask:
    """What a device grows its model by.

    Parameters
    ----------
    network : Network
        The model as it is; it is not changed.
    old_C, new_C : array of bool
        The classes that it knows, and those that it gains; both (C,).
    x_L, y_L : Tensor
        Labelled rows of the new classes.
    x_U : Tensor
        Unlabelled rows of any class.
    x_old, y_old : Tensor
        Labelled rows of the old classes. ``joint`` learns them; EWC takes from them the Fisher
        information that a device would have kept since it learnt them. No other way reads them.
    training : TrainingConfig
        Steps, batches and learning rate.
    seed : int
        Orders the batches.
    """

    network: Network
    old_C: BoolArray
    new_C: BoolArray
    x_L: Rows
    y_L: Tensor
    x_U: Rows
    x_old: Rows
    y_old: Tensor
    training: TrainingConfig
    seed: int


def growth_method(name: str) -> str:
    """The way of keeping old outputs that a request's ``method`` names; raises ConfigError."""
    way = name.removeprefix(GROW)
    if not name.startswith(GROW) or way not in METHODS:
        wanted = [GROW + each for each in METHODS]
        raise ConfigError(f"growth: got method {name!r}, wanted one of {wanted}")
    return way


def grow_classes(task: GrowthTask, way: str, strength: float | None = None) -> Network:
    """The grown network, in eval mode.

    ``way`` is one of ``METHODS`` and ``strength`` the weight of its penalty; None: its default.
    """
    default, make = _RETENTIONS[way]
    retention = make(default if strength is None else strength)
    teacher = _OneHead(copy.deepcopy(task.network), task.old_C).eval().requires_grad_(False)
    grown = copy.deepcopy(task.network)
    student = _OneHead(grown, task.old_C | task.new_C)
    old_output = student if len(task.x_U) else _OneHead(grown, task.old_C)
    if isinstance(retention, ElasticWeights) and len(task.x_old):
        stage = Stage(task=teacher.tasks[_OUTPUT], x=task.x_old, target=task.y_old)
        retention.after_stage(_OneHead(copy.deepcopy(task.network), task.old_C).eval(), stage)
    x_L, y_L = task.x_L, task.y_L
    if way == JOINT:
        x_L, y_L = concat([x_L, task.x_old]), torch.cat([y_L, task.y_old])

    def loss_of(labelled_B: Tensor, unlabelled_B: Tensor) -> Tensor:
        # One pass, whatever is kept and how: batch norm sees what the domain does now.
        x = concat([x_L[labelled_B], task.x_U[unlabelled_B]])
        features, split = student.features(x), len(labelled_B)
        logits_BC = student.output(features[:split], _OUTPUT)
        kept = slice(split, None) if len(unlabelled_B) else slice(None)
        penalty = retention.penalty(old_output, teacher, x[kept], features[kept])
        return F.cross_entropy(logits_BC, y_L[labelled_B]) + penalty

    student.train()
    groups = [parameter_group(grown, task.training.learning_rate)]
    minimise(loss_of, groups, len(x_L), len(task.x_U), task.training, task.seed)
    return grown.eval()


class _OneHead(HeadedNetwork):
    """A classifier as a network of one output, over the classes that it knows."""

    def __init__(self, network: Network, known_C: BoolArray) -> None:
        super().__init__(network.encoder, network.num_features, dense=False)
        self.heads[_OUTPUT] = network.head
        self._features = network.features
        self.tasks[_OUTPUT] = OutputTask(name=_OUTPUT, kind="classes", num_outputs=len(known_C))
        self._unknown_C = ~torch.from_numpy(known_C)

    def features(self, x: Rows) -> Tensor:
        """The features (B, F) of the network."""
        return self._features(x)

    def output(self, features: Tensor, name: str) -> Tensor:
        """The logits (B, C), of which those of unknown classes are very low."""
        return super().output(features, name).masked_fill(self._unknown_C, _UNKNOWN)
