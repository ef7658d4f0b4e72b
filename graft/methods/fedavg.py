"""FedAvg within an architecture group (AISTATS 2017): the part that runs on devices.

Initial domains of one architecture train from a common start; the server averages what they push
(``graft_server.fedavg``), and so on for ``training.fedavg_rounds`` rounds. A target domain
fine-tunes the last average of its own architecture on L. The initial domains' steps are shared out
over the rounds, so that an initial domain takes as many for the group as for its own model (ours).
"""

import copy
import math
from dataclasses import replace

from graft.core.seeding import derive_seed
from graft.methods.baselines import plan_label_only
from graft.methods.cost import fedavg_local_cost
from graft.methods.supervised import Course, on_labels, supervised
from graft.training import TrainingTask, count_steps

FEDAVG_LOCAL = "fedavg-local"


def plan_fedavg(task: TrainingTask) -> Course:
    """Fine-tune the group's model on L; where the group has none, train on L alone."""
    if task.average is None:
        return plan_label_only(task)
    network, mask_C = copy.deepcopy(task.average.network), task.label_mask | task.average.mask_C
    return on_labels(task, network, mask_C, used=(task.average,))


def plan_fedavg_local(task: TrainingTask) -> Course:
    """One source's part of one round: its share of the steps on L, from the group's model."""
    training, rows = task.config.training, len(task.x_L) + len(task.x_U)
    steps = math.ceil(count_steps(rows, training)[1] / training.fedavg_rounds)
    return replace(
        plan_fedavg(task),
        training=replace(training, max_steps=steps),
        # Other batches in every round, for each starts from another model.
        seed=derive_seed(task.seed, task.average.model_id if task.average else ""),
    )


METHODS = (
    supervised(
        plan_fedavg_local,
        name=FEDAVG_LOCAL,
        title="FedAvg, initial domains' part",
        sources_needed="none",
        cost=fedavg_local_cost,
        needs_average=True,
    ),
    supervised(
        plan_fedavg, name="fedavg", title="FedAvg", sources_needed="none", needs_average=True
    ),
)
