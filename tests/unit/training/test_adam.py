"""``Adam`` beside the class of PyTorch whose steps it takes."""

import subprocess
import sys

import torch

from graft.training import Adam

COUNTS_NOTHING = """
import sys, torch
from graft.training import Adam
weight = torch.ones(3, requires_grad=True)
optimiser = Adam([{"params": [weight], "lr": 0.1}])
weight.square().sum().backward()
optimiser.step()
print("torch._dynamo" in sys.modules)
"""


def test_its_steps_are_those_of_pytorchs_adam_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(7, 5, generator=generator), torch.randn(5, generator=generator)]
    ours, theirs = [[each.clone().requires_grad_() for each in start] for _ in range(2)]
    optimiser = Adam([{"params": ours[:1], "lr": 0.01}, {"params": ours[1:], "lr": 0.1}], 1e-3)
    reference = torch.optim.Adam(
        [{"params": theirs[:1], "lr": 0.01}, {"params": theirs[1:], "lr": 0.1}],
        weight_decay=1e-3,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(reference, lambda step: 1 / (1 + step))
    for step in range(5):
        optimiser.zero_grad()
        reference.zero_grad()
        for weight, bias in (ours, theirs):
            # The bias has no gradient at first: it counts its own steps.
            (weight.square().sum() + (bias.square().sum() if step > 1 else 0)).backward()
        optimiser.step(1 / (1 + step))
        reference.step()
        schedule.step()
    assert all(map(torch.equal, ours, theirs))


def test_torchs_compiler_is_not_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTS_NOTHING], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
