"""Private training (DP-SGD): every row's gradient is clipped, and noise is added to their sum.

Published (Abadi et al., CCS 2016), for each step over a Poisson sample in which every row is with
probability q by itself:  g = (sum_i min(1, C / |g_i|) g_i + N(0, (sigma C)^2)) / (q N).

Ours: Adam takes g, and batch norm's statistics stay as they are, because statistics of a batch
would mix rows before they are clipped. A fresh network gets those of white noise.

Legend: N rows, B rows of a sample, C classes.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from graft.core.config import TrainingConfig
from graft.models import Network
from graft.models.placement import placement
from graft.training.loop import Adam, count_steps, parameter_group

Parameters = dict[str, Tensor]
_CALIBRATION_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PrivateTraining:
    """How a device trains privately.

    Parameters
    ----------
    clip_norm : float
        C: the length to which each row's gradient is clipped.
    pay : callable
        Takes the sample rate q and the number of steps, pays for them from the site's budget and
        gives the deviation of the noise over C, and the secret generator of samples and noise.
    head_only : bool
        Whether the encoder stays as it is: the noise is then on few parameters.
    """

    clip_norm: float
    pay: Callable[[float, int], tuple[float, np.random.Generator]]
    head_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SoftRows:
    """Rows x (N, ...) with target distributions (N, C) and each row's weight in the loss (N,)."""

    x: Any  # a tensor: private training refuses other rows before it begins
    target_NC: Tensor
    weight_N: Tensor


def minimise_privately(
    network: Network,
    rows: SoftRows,
    config: TrainingConfig,
    private: PrivateTraining,
    *,
    num_rows: int,
    seed: int,
    rate: Callable[[int], float] = lambda step: 1.0,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Minimise the rows' weighted cross-entropy; the network is left in eval mode.

    ``num_rows`` decides the number of steps, as in ``minimise``; ``seed`` is dropout's. What
    ``augment`` makes of a row must depend on no other row. A head alone learns at the learning rate
    of heads. Raises PolicyError beyond the budget.
    """
    if private.head_only:
        encoder = [p for n, p in network.named_parameters() if not n.startswith("head.")]
        needed = [parameter.requires_grad for parameter in encoder]
        for parameter in encoder:
            parameter.requires_grad_(False)
        config = replace(config, learning_rate=config.source_learning_rate)
        try:
            return minimise_privately(
                network, rows, config, replace(private, head_only=False),
                num_rows=num_rows, seed=seed, rate=rate, augment=augment,
            )  # fmt: skip
        finally:
            for parameter, was in zip(encoder, needed, strict=True):
                parameter.requires_grad_(was)
    sample_rate = min(1.0, config.batch_size / len(rows.x))
    _, steps = count_steps(num_rows, config)
    multiplier, secret = private.pay(sample_rate, steps)
    optimiser = Adam([parameter_group(network, config.learning_rate)], config.weight_decay)
    network.train()
    freeze_statistics(network, rows.x.shape[1:])
    clipped_sum = _gradient_function(network, rows)
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    with placement().seeded(seed):
        for step in range(steps):
            rows_B = torch.from_numpy(np.flatnonzero(secret.random(len(rows.x)) < sample_rate))
            x_B = rows.x[rows_B]
            batch = SoftRows(
                x=x_B if augment is None else augment(x_B),
                target_NC=rows.target_NC[rows_B],
                weight_N=rows.weight_N[rows_B],
            )
            sums = clipped_sum(network, batch, private.clip_norm)
            for name, parameter in parameters.items():
                parameter.grad = sums[name]
                if multiplier > 0:
                    noise = secret.normal(0, multiplier * private.clip_norm, parameter.shape)
                    parameter.grad += torch.from_numpy(noise).to(parameter.device, parameter.dtype)
                parameter.grad /= sample_rate * len(rows.x)
            optimiser.step(rate(step))
    network.eval()


def freeze_statistics(network: Network, sample_shape: torch.Size) -> None:
    """Put every batch norm into eval mode; where none has seen data, with white noise's statistics.

    Without statistics of some kind, a fresh network's deeper layers would hardly be scaled.
    """
    norms = network.moving_norms()
    fresh = [m for m in norms if m.num_batches_tracked is not None and not m.num_batches_tracked]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_CALIBRATION_ROWS, *sample_shape, generator=generator)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train(norm in fresh)
        norm.momentum = 1.0
    if fresh:
        with torch.no_grad():
            network(noise)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def clipped_gradient_sum(network: Network, rows: SoftRows, clip_norm: float) -> Parameters:
    """sum_i min(1, C / |g_i|) g_i over the rows, by parameter; every row's gradient at once."""
    parameters, constants = _split_state(network)

    def loss_of(learnt: Parameters, x: Tensor, target_C: Tensor, weight: Tensor) -> Tensor:
        logits_1C = functional_call(network, {**constants, **learnt}, (x[None],))
        return weight * F.cross_entropy(logits_1C, target_C[None])

    if not len(rows.x):
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    of_rows = vmap(grad(loss_of), in_dims=(None, 0, 0, 0), randomness="different")
    gradients = of_rows(parameters, rows.x, rows.target_NC, rows.weight_N)
    # Gradients of the encoder and of the head may be on two devices.
    squares = [each.flatten(1).square().sum(1).cpu() for each in gradients.values()]
    squares_B = torch.stack(squares).sum(0)
    scale_B = clip_scale(squares_B.sqrt(), clip_norm)
    return {
        name: torch.tensordot(scale_B.to(each.device), each, 1) for name, each in gradients.items()
    }


def clipped_gradient_sum_by_row(network: Network, rows: SoftRows, clip_norm: float) -> Parameters:
    """``clipped_gradient_sum`` row by row, for layers that have no form over many gradients."""
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for x, target_C, weight in zip(rows.x, rows.target_NC, rows.weight_N, strict=True):
        loss = weight * F.cross_entropy(network(x[None]), target_C[None])
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        length = torch.stack([each.square().sum().cpu() for each in gradients]).sum().sqrt()
        scale = clip_scale(length, clip_norm)
        for name, each in zip(parameters, gradients, strict=True):
            total[name] += scale.to(each.device) * each
    return total


def clip_scale(length: Tensor, clip_norm: float) -> Tensor:
    """min(1, C / length), by which a gradient is at most C long."""
    return (clip_norm / length.clamp_min(1e-12)).clamp_max(1.0)


def _gradient_function(
    network: Network, rows: SoftRows
) -> Callable[[Network, SoftRows, float], Parameters]:
    """All rows at once where the network's layers allow it."""
    if any(isinstance(module, nn.RNNBase) for module in network.modules()):
        return clipped_gradient_sum_by_row
    first = SoftRows(x=rows.x[:1], target_NC=rows.target_NC[:1], weight_N=rows.weight_N[:1])
    try:
        with torch.random.fork_rng(devices=[]):
            clipped_gradient_sum(copy.deepcopy(network), first, 1.0)
    except RuntimeError:
        return clipped_gradient_sum_by_row
    return clipped_gradient_sum


def _split_state(network: Network) -> tuple[Parameters, Parameters]:
    """Tensors that learn, and all others."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    learnt = {n: t.detach() for n, t in state.items() if t.requires_grad}
    return learnt, {n: t.detach() for n, t in state.items() if not t.requires_grad}
