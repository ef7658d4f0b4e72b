"""An architecture of one's own, in a script.

    python examples/own_model.py

Only the name of an architecture and tensors travel, so every process imports the architecture by
its reference, "module:attribute". The module has to be importable: beside the script, as here,
installed, or on PYTHONPATH.
"""

from torch import Tensor, nn

import graft
from graft.models.registry import Architecture


class MeanOverTime(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


def tiny_cnn(shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """For windows (channels, length): an encoder, and how many features it gives."""
    encoder = nn.Sequential(
        nn.Conv1d(shape[0], 16, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        MeanOverTime(),
    )
    return encoder, 16


TINY = Architecture(takes="window", encoder=tiny_cnn)


class Attention(nn.Module):
    """A callable that returns a module is enough: this class, which says its features."""

    num_features = 32

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.embed = nn.Linear(shape[0], 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.embed(x.transpose(1, 2))).mean(1)


def main() -> None:
    deep_head = Architecture(  # an object of the script itself
        name="tiny-cnn-deep-head",
        takes="window",
        encoder=tiny_cnn,
        head=lambda features, classes: nn.Sequential(
            nn.Linear(features, 16), nn.GELU(), nn.Linear(16, classes)
        ),
    )
    run = graft.simulate(
        "imu",
        comparisons=["label-only"],
        domains=8,
        rounds=1,
        architectures=["own_model:TINY", "own_model:Attention", deep_head, "cnn-small"],
        settings={"world.windows_per_domain": 60, "training.max_steps": 30},
        engine="block",
        workers=0,
    )
    for row in run.results.to_pylist():
        if row["method"] == "graft":
            print(f"{row['domain_id']}  {row['architecture']:19} {row['accuracy']:.1%}")


if __name__ == "__main__":
    main()
