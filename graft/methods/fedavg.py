"""FedAvg within an architecture group (AISTATS 2017): the part that runs on devices.

Founders of one architecture train from a common start; the server averages what they push
(``graft_server.fedavg``), and so on for ``training.group_rounds`` rounds. A newcomer fine-tunes the
last average of its own architecture on L. The founders' steps are shared out over the rounds,
so that a founder takes as many for the group as for its own model (ours).
"""

import copy
import math
from dataclasses import replace

from graft.core.seeding import derive_seed
from graft.methods.baselines import plan_label_only
from graft.methods.cost import fedavg_local_work
from graft.methods.supervised import Course, on_labels, supervised
from graft.training import Lesson, count_steps

FEDAVG_LOCAL = "fedavg-local"


def plan_fedavg(lesson: Lesson) -> Course:
    """Fine-tune the group's model on L; where the group has none, train on L alone."""
    if lesson.group is None:
        return plan_label_only(lesson)
    network, mask_C = copy.deepcopy(lesson.group.network), lesson.label_mask | lesson.group.mask_C
    return on_labels(lesson, network, mask_C, used=(lesson.group,))


def plan_fedavg_local(lesson: Lesson) -> Course:
    """One founder's part of one round: its share of the steps on L, from the group's model."""
    training, rows = lesson.config.training, len(lesson.x_L) + len(lesson.x_U)
    steps = math.ceil(count_steps(rows, training)[1] / training.group_rounds)
    return replace(
        plan_fedavg(lesson),
        training=replace(training, max_steps=steps),
        # Other batches in every round, for each starts from another model.
        seed=derive_seed(lesson.seed, lesson.group.model_id if lesson.group else ""),
    )


METHODS = (
    supervised(
        plan_fedavg_local,
        name=FEDAVG_LOCAL,
        title="FedAvg, founders' part",
        reach="none",
        work=fedavg_local_work,
        group=True,
    ),
    supervised(plan_fedavg, name="fedavg", title="FedAvg", reach="none", group=True),
)
