"""The block engine's trainer alone, timed as the peers are: local training from memory.

python benchmarks/scale/peers/graft_trainer.py --domains 1000
"""

from collections.abc import Callable

from side_by_side import (
    DISTINCT_DOMAINS,
    LEARNING_RATE,
    LENGTH,
    NUM_CHANNELS,
    NUM_CLASSES,
    NUM_ROWS,
    WEIGHT_DECAY,
    ComputeCost,
    run_peer,
)


def train(work: ComputeCost, start: Callable[[], None], stop: Callable[[], None]) -> None:
    """A few domains compile the kernels and warm up, then the rest are timed."""
    import numpy as np
    import torch

    from graft.core.config import TrainingConfig
    from graft.core.tasks import Task
    from graft.models import build_network
    from graft.training import SupervisedTraining, train_supervised_many

    torch.set_num_threads(1)
    task = Task(
        name="noise",
        modality="imu",
        sample_shape=(NUM_CHANNELS, LENGTH),
        classes=tuple(map(str, range(NUM_CLASSES))),
    )
    config = TrainingConfig(
        epochs=work.epochs,
        batch_size=work.batch_size,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )
    generator = torch.Generator().manual_seed(work.seed)
    data = [
        (
            torch.randn(NUM_ROWS, *task.sample_shape, generator=generator),
            torch.randint(NUM_CLASSES, (NUM_ROWS,), generator=generator),
        )
        for _ in range(DISTINCT_DOMAINS)
    ]

    def train_domains(number: int) -> None:
        for domain in range(number):
            x, y_N = data[domain % DISTINCT_DOMAINS]
            job = SupervisedTraining(
                network=build_network(work.architecture, task, work.seed),
                x=x,
                y_N=y_N,
                num_rows=NUM_ROWS,
                config=config,
                seed=domain,
                architecture=work.architecture,
                mask_C=np.ones(NUM_CLASSES, np.bool_),
            )
            train_supervised_many([job])

    train_domains(work.warm_up_domains)
    start()
    train_domains(work.domains)
    stop()


if __name__ == "__main__":
    run_peer("graft-trainer", ("graft", "torch", "numpy"), train, {})
