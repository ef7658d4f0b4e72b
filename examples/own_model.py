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


TINY = Architecture(name="tiny-cnn", takes="windows", encoder=tiny_cnn)


def main() -> None:
    run = graft.simulate(
        "imu",
        comparisons=["label-only"],
        domains=8,
        rounds=1,
        settings={
            "devices.architectures": ["own_model:TINY", "cnn-small"],
            "world.windows_per_domain": 60,
            "training.max_steps": 30,
        },
        engine="block",
        workers=0,
    )
    for row in run.results.to_pylist():
        if row["method"] == "graft":
            print(f"{row['domain_id']}  {row['architecture']:15} {row['accuracy']:.1%}")


if __name__ == "__main__":
    main()
