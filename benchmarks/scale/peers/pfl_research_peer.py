"""pfl-research's side: one round of its FederatedAveraging over its SimulatedBackend.

runs/scale/peers/pfl-research/bin/python benchmarks/scale/peers/pfl_research_peer.py --domains 1000
"""

from collections.abc import Callable
from functools import partial
from itertools import count

from side_by_side import (
    DISTINCT_DOMAINS,
    KERNEL,
    LEARNING_RATE,
    LENGTH,
    NUM_CHANNELS,
    NUM_CLASSES,
    NUM_ROWS,
    STRIDE,
    WEIGHT_DECAY,
    ComputeCost,
    run_peer,
)


def train(work: ComputeCost, start: Callable[[], None], stop: Callable[[], None]) -> None:
    """Round 0 warms up (pfl evaluates in it), round 1 is timed."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.hyperparam.base import HyperParam
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(work.seed)

    class Cnn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers, inputs = [], NUM_CHANNELS
            for width in work.widths:
                layers += [
                    torch.nn.Conv1d(inputs, width, KERNEL, STRIDE, KERNEL // 2, bias=False),
                    torch.nn.BatchNorm1d(width),
                    torch.nn.ReLU(),
                ]
                inputs = width
            self.encoder = torch.nn.Sequential(*layers)
            self.head = torch.nn.Linear(inputs, NUM_CLASSES)

        def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            logits = self.head(self.encoder(x).mean(2))
            return torch.nn.functional.cross_entropy(logits, y)

        @torch.no_grad()
        def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict:
            return {"loss": Weighted(self.loss(x, y).item() * len(y), len(y))}

    class CohortSize(HyperParam):
        size = work.warm_up_domains

        def value(self) -> int:
            return self.size

    cohort = CohortSize()

    class Clock(TrainingProcessCallback):
        def after_central_iteration(
            self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            if central_iteration == 0:
                cohort.size = work.domains
                start()
            else:
                stop()
            return False, Metrics()

    data = [
        (
            torch.randn(NUM_ROWS, NUM_CHANNELS, LENGTH, generator=generator),
            torch.randint(NUM_CLASSES, (NUM_ROWS,), generator=generator),
        )
        for _ in range(DISTINCT_DOMAINS)
    ]
    users = count()
    domains = FederatedDataset(
        lambda user: PyTorchTensorDataset(data[user % DISTINCT_DOMAINS], user_id=str(user)),
        lambda: next(users),
    )
    network = Cnn()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=2,
            evaluation_frequency=2,
            train_cohort_size=cohort,
            val_cohort_size=None,
        ),
        SimulatedBackend(domains, domains),
        PyTorchModel(
            network,
            partial(torch.optim.Adam, weight_decay=WEIGHT_DECAY, fused=True),
            torch.optim.SGD(network.parameters(), lr=1.0),
        ),
        NNTrainHyperParams(
            local_num_epochs=work.epochs,
            local_learning_rate=LEARNING_RATE,
            local_batch_size=work.batch_size,
        ),
        NNEvalHyperParams(local_batch_size=NUM_ROWS),
        callbacks=[Clock()],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    run_peer("pfl-research", ("pfl", "torch", "numpy"), train, {})
