"""FedAvg within an architecture group (AISTATS 2017): the part that runs on devices.

Founders of one architecture train from a common start; the server averages what they push
(``server.fedavg``), and so on for ``training.group_rounds`` rounds. A newcomer fine-tunes the
last average of its own architecture on L. The founders' steps are shared out over the rounds,
so that a founder takes as many for the group as for its own model (ours).
"""

import copy
import math
from dataclasses import replace

from graft.methods.method import Method
from graft.methods.target import fresh_target, train_supervised
from graft.methods.work import fedavg_local_work, supervised_work
from graft.seeding import derive_seed
from graft.training import Learned, Lesson, count_steps

FEDAVG_LOCAL = "fedavg-local"


def fit_fedavg(lesson: Lesson) -> Learned:
    """Fine-tune the group's model on L; where the group has none, train on L alone."""
    network, mask_C = fresh_target(lesson), lesson.label_mask
    if lesson.group is not None:
        network = copy.deepcopy(lesson.group.network)
        mask_C = mask_C | lesson.group.mask_C
    train_supervised(network, lesson.x_L, lesson.y_L, lesson)
    return Learned(
        architecture=lesson.architecture,
        network=network.eval(),
        mask_C=mask_C,
        used=(lesson.group,) if lesson.group is not None else (),
    )


def fit_fedavg_local(lesson: Lesson) -> Learned:
    """One founder's part of one round: its share of the steps on L, from the group's model."""
    training, rows = lesson.config.training, len(lesson.x_L) + len(lesson.x_U)
    steps = math.ceil(count_steps(rows, training)[1] / training.group_rounds)
    config = replace(lesson.config, training=replace(training, max_steps=steps))
    # Other batches in every round, for each starts from another model.
    seed = derive_seed(lesson.seed, lesson.group.model_id if lesson.group else "")
    return fit_fedavg(replace(lesson, config=config, seed=seed))


METHODS = (
    Method(
        name=FEDAVG_LOCAL,
        title="FedAvg, founders' part",
        fit=fit_fedavg_local,
        reach="none",
        work=fedavg_local_work,
        group=True,
    ),
    Method(
        name="fedavg",
        title="FedAvg",
        fit=fit_fedavg,
        reach="none",
        work=supervised_work,
        group=True,
    ),
)
