"""Training of small networks on labels: alone, or thousands of them side by side.

Legend: N labelled rows, M models, B a batch, S steps, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from graft.core.config import TrainingConfig
from graft.core.records import BoolArray
from graft.core.streams import Rows, row_shape
from graft.core.tasks import OutputKind
from graft.models import Network
from graft.training.compiled.build import kernels_built
from graft.training.compiled.calls import CompiledTraining, Objective
from graft.training.compiled.plan import KernelPlan, kernel_plan
from graft.training.loop import Adam, batch_rows, count_steps, minimise, parameter_group
from graft.training.outputs import Units, output_loss
from graft.training.private import PrivateTraining, SoftRows, minimise_privately
from graft.training.stacked import StackedNetwork, stages_of
from graft.training.task import Source, TrainedModel

# The quickest of 8, 16 and 32 on a CPU: larger stacks leave the last-level cache.
STACK_SIZE = 16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SupervisedTraining:
    """One network's training by ``output_loss``, in place, on labelled rows.

    ``x`` are N rows and ``y_N`` their labels, as in ``TrainingTask``. ``num_rows`` are the
    domain's labelled and unlabelled rows together: they decide the number of steps
    (``count_steps``), so that every method of a domain takes as many. ``seed`` orders the batches;
    ``architecture``, ``mask_C`` and ``used`` are those of the ``TrainedModel`` that comes of it.
    With ``private``, each row's gradient is clipped and noise is added.
    """

    network: Network
    x: Rows
    y_N: Tensor
    num_rows: int
    config: TrainingConfig
    seed: int
    architecture: str
    mask_C: BoolArray
    used: tuple[Source, ...] = ()
    private: PrivateTraining | None = None
    output: OutputKind = "classes"

    @property
    def batch_size(self) -> int:
        return min(self.config.batch_size, len(self.x))

    @property
    def num_steps(self) -> int:
        return count_steps(self.num_rows, self.config)[1]

    @property
    def is_alone(self) -> bool:
        """Whether only the plain loop trains it: kernels and stacks know classes, and no noise."""
        return self.private is not None or self.output != "classes"

    def batches(self) -> Tensor:
        """Row indices of every step, (S, B)."""
        return batch_rows(len(self.x), self.config.batch_size, self.seed, self.num_steps)


def train_supervised(training: SupervisedTraining) -> TrainedModel:
    """Train one network by PyTorch's plain loop, or privately."""
    network, config, num_labelled = training.network, training.config, len(training.x)
    if training.private is not None:
        one_hot_NC = F.one_hot(training.y_N, network.num_classes).float()
        rows = SoftRows(x=training.x, target_NC=one_hot_NC, weight_N=torch.ones(num_labelled))
        num_rows, seed = training.num_rows, training.seed
        minimise_privately(network, rows, config, training.private, num_rows=num_rows, seed=seed)
        return _trained_model(training)
    network.train()

    groups = [parameter_group(network, config.learning_rate)]
    num_unlabelled = training.num_rows - num_labelled
    with Units.of(training.y_N, training.output).within(network) as units:
        y_N = units.own(training.y_N)

        def loss_of(labelled_B: Tensor, _: Tensor) -> Tensor:
            return output_loss(network(training.x[labelled_B]), y_N[labelled_B], training.output)

        minimise(loss_of, groups, num_labelled, num_unlabelled, config, training.seed)
    return _trained_model(training)


def train_supervised_many(
    trainings: Sequence[SupervisedTraining], device: str = "cpu"
) -> list[TrainedModel]:
    """Give each network what ``train_supervised`` gives it alone, up to float tolerance.

    Batches, steps, Adam and batch norm's statistics are the same whatever other networks are
    beside it. On a CPU with a compiler each network trains in a kernel of its own. Otherwise
    networks of one architecture, sample shape, batch size, number of steps and configuration
    train as one stack, on the torch device ``device``. What has neither form, and a group of one,
    takes the plain loop.
    """
    groups: dict[tuple[object, ...], list[SupervisedTraining]] = {}
    for training in trainings:
        groups.setdefault(_group_key(training), []).append(training)
    for group in groups.values():
        alone = group[0].is_alone
        plan = _kernel_plan(group[0]) if device == "cpu" and not alone else None
        if plan is not None:
            for training in group:
                _train_compiled(plan, training)
        # Private training needs each row's gradient, which neither kernels nor stacks give.
        elif (
            not alone
            and len(group) > 1
            and _has_rows(group[0])
            and stages_of(group[0].network) is not None
        ):
            for first in range(0, len(group), STACK_SIZE):
                _train_stack(group[first : first + STACK_SIZE], device)
        else:
            for training in group:
                train_supervised(training)
    return [_trained_model(training) for training in trainings]


def _trained_model(training: SupervisedTraining) -> TrainedModel:
    return TrainedModel(
        architecture=training.architecture,
        network=training.network.eval(),
        mask_C=training.mask_C,
        used=training.used,
    )


def _group_key(training: SupervisedTraining) -> tuple[object, ...]:
    return (
        str(training.network), row_shape(training.x), _dtype(training.x), training.batch_size,
        training.num_steps, training.config, training.private, _labels_fit(training),
        training.output, stages_of(training.network) is None,
    )  # fmt: skip


def _labels_fit(training: SupervisedTraining) -> bool:
    """Labels that the plain loop would refuse must not reach a kernel as memory addresses."""
    y_N, classes = training.y_N, training.network.num_classes
    return bool(((y_N >= 0) & (y_N < classes)).all()) and len(y_N) == len(training.x)


def _has_rows(training: SupervisedTraining) -> bool:
    return len(training.x) > 0 and _dtype(training.x) == torch.float32 and _labels_fit(training)


def _dtype(x: Rows) -> torch.dtype | None:
    """Of a tensor; None of rows that neither kernels nor stacks read."""
    return x.dtype if isinstance(x, Tensor) else None


def _has_stack(training: SupervisedTraining) -> bool:
    return _has_rows(training) and stages_of(training.network) is not None


def _kernel_plan(training: SupervisedTraining) -> KernelPlan | None:
    if not kernels_built() or not _has_rows(training):
        return None
    return kernel_plan(training.network, row_shape(training.x), training.batch_size)


def _train_compiled(plan: KernelPlan, training: SupervisedTraining) -> None:
    network, config, size = training.network, training.config, training.batch_size
    one_hot_NC = F.one_hot(training.y_N, network.num_classes).float()
    objective = Objective(wanted_NC=one_hot_NC, weight_B=torch.full((size,), 1 / size))
    assert isinstance(training.x, Tensor)  # no plan is of other rows
    compiled = CompiledTraining(plan, network, training.x)
    rates = [config.learning_rate] * training.num_steps
    compiled.run(training.batches(), objective, rates, config.weight_decay)
    compiled.write_back()


def _train_stack(trainings: Sequence[SupervisedTraining], device: str) -> None:
    """One block of a group, all models one step at a time."""
    for training in trainings:
        training.network.train()
    config = trainings[0].config
    stack = StackedNetwork([training.network for training in trainings], device)
    # One table of all rows: a model's row numbers start where its own rows do.
    starts = torch.tensor([0, *(len(training.x) for training in trainings[:-1])]).cumsum(0)
    x = torch.cat([stack.rows(t.x) for t in trainings if isinstance(t.x, Tensor)])
    y = torch.cat([training.y_N for training in trainings])
    rows_SMB = torch.stack([training.batches() for training in trainings], 1) + starts[:, None]
    x, y, rows_SMB = x.to(device), y.to(device), rows_SMB.to(device)
    group = {"params": list(stack.parameters.values()), "lr": config.learning_rate}
    optimiser = Adam([group], config.weight_decay)
    for rows_MB in rows_SMB:
        optimiser.zero_grad()
        logits_MBC = stack(x[rows_MB])
        # A sum over models of means over samples: each model's gradients are its own.
        loss = F.cross_entropy(logits_MBC.flatten(0, 1), y[rows_MB].flatten(), reduction="sum")
        (loss / rows_MB.shape[1]).backward()
        optimiser.step()
    stack.write_back()
