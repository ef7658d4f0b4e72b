"""Many networks of one architecture as one computation in plain PyTorch, on any device.

Legend: M models, B samples a batch, K channels, F features, T steps of a sequence, H hidden.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor, nn

from graft.models import Network
from graft.models.encoders import Gru, MeanPool, Outline

Stage = Callable[[Tensor], Tensor]
# GRU stands for the GRU and the mean over its steps, as `Gru` has them.
STAGES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.Flatten,
    nn.GRU, MeanPool, Outline,
)  # fmt: skip
# Large temporaries are fresh memory each time, which costs more than the arithmetic on them.
ROWS_AT_ONCE = 128


def stages_of(network: Network) -> list[tuple[str, nn.Module]] | None:
    """(name, module) of every stage, the head last; None where one has no stacked form."""
    if network.placement.autocast != "none":
        return None
    stages = [*_leaves("encoder", network.encoder), ("head", network.head)]
    fits = type(network.head) is nn.Linear and all(_has_form(module) for _, module in stages)
    floats = all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    return stages if fits and floats else None


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential | Gru):
        for child_name, child in module.named_children():
            yield from _leaves(f"{name}.{child_name}", child)
    else:
        yield name, module


def _has_form(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        plain = module.bias is None and module.groups == 1 and set(module.dilation) == {1}
        return plain and module.padding_mode == "zeros" and isinstance(module.padding, tuple)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return module.affine and module.track_running_stats and module.momentum is not None
    if isinstance(module, nn.GRU):
        plain = module.num_layers == 1 and module.bias and not module.bidirectional
        return plain and module.batch_first
    return type(module) in STAGES


class StackedNetwork:
    """M networks side by side: every tensor of one has a leading axis of M here.

    ``parameters`` are leaves that ask for gradients; ``statistics`` are batch norm's, which
    a forward pass moves as training mode does.
    """

    def __init__(self, networks: list[Network], device: str) -> None:
        stages = stages_of(networks[0])
        assert stages is not None

        def stack(states: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {
                name: torch.stack([state[name].detach() for state in states]).to(device)
                for name in states[0]
            }

        self._networks = networks
        self.parameters = stack([dict(network.named_parameters()) for network in networks])
        self.statistics = stack([dict(network.named_buffers()) for network in networks])
        for tensor in self.parameters.values():
            tensor.requires_grad_()
        tensors = {**self.parameters, **self.statistics}
        first = stages[0][1]
        self._rows = first if isinstance(first, nn.Flatten | Outline) else None
        learnt = stages if self._rows is None else stages[1:]
        self._stages = [_stacked(name, module, tensors) for name, module in learnt]

    def rows(self, x: Tensor) -> Tensor:
        """Samples (N, ...) as a forward pass reads them: what learns nothing is done once."""
        if self._rows is None:
            return x
        return torch.cat([self._rows(part) for part in torch.split(x, ROWS_AT_ONCE)])

    def __call__(self, x: Tensor) -> Tensor:
        """A batch of ``rows`` of each model (M, B, ...) -> logits (M, B, C), in training mode."""
        for stage in self._stages:
            x = stage(x)
        return x

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy every model's tensors into the network that they came from."""
        tensors = {**self.parameters, **self.statistics}
        for index, network in enumerate(self._networks):
            network.load_state_dict({name: stack[index] for name, stack in tensors.items()})


def _stacked(name: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> Stage:
    """One module's stage over M models; its tensors are those under ``name``."""
    own = {key.rpartition(".")[2]: tensor for key, tensor in tensors.items()
           if key.rpartition(".")[0] == name}  # fmt: skip
    match module:
        case nn.Linear():
            return lambda x: _linear(x, own["weight"], own.get("bias"))
        case nn.Conv1d() | nn.Conv2d():
            return lambda x: _convolution(x, own["weight"], module)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return lambda x: _batch_norm(x, own, module)
        case nn.ReLU():
            return torch.relu
        case nn.GRU():
            return lambda x: _mean_of_gru(x, own)
        case _:
            assert isinstance(module, MeanPool)
            return lambda x: x.flatten(3).mean(3)


def _linear(x_MBF: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return x_MBF @ weight.mT
    return torch.baddbmm(bias[:, None], x_MBF, weight.mT)


def _convolution(x: Tensor, weight: Tensor, module: nn.Conv1d | nn.Conv2d) -> Tensor:
    """A product of unfolded samples, channels last: a grouped convolution is slower on a CPU."""
    assert not isinstance(module.padding, str)
    x = F.pad(x, [pad for pad in reversed(module.padding) for _ in range(2)])
    for axis, (size, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True)):
        x = x.unfold(3 + axis, size, stride)
    # (M, B, K, *out, *kernel) -> (M, B, *out, K, *kernel), whose tail is a weight's tail.
    positions = x.shape[3 : 3 + len(module.stride)]
    rows = x.movedim(2, 2 + len(positions)).flatten(2 + len(positions))
    out = torch.bmm(rows.flatten(1, -2), weight.flatten(2).mT)
    return torch.unflatten(out, 1, (x.shape[1], *positions)).movedim(-1, 2)


def _batch_norm(
    x: Tensor, own: Mapping[str, Tensor], module: nn.BatchNorm1d | nn.BatchNorm2d
) -> Tensor:
    """(M, B, K, ...): one norm over the M * K channels, so statistics are PyTorch's own."""
    own["num_batches_tracked"].add_(1)
    flat = x.transpose(0, 1).flatten(1, 2)
    flat = F.batch_norm(
        flat, own["running_mean"].view(-1), own["running_var"].view(-1), own["weight"].flatten(),
        own["bias"].flatten(), True, module.momentum or 0.0, module.eps,
    )  # fmt: skip
    return torch.unflatten(flat, 1, (x.shape[0], x.shape[2])).transpose(0, 1)


def _mean_of_gru(x_MBKT: Tensor, own: Mapping[str, Tensor]) -> Tensor:
    """The mean over steps of a GRU's hidden states, (M, B, H)."""
    num_models, num_samples, _, num_steps = x_MBKT.shape
    x = x_MBKT.permute(0, 3, 1, 2)
    inputs = _linear(x.flatten(1, 2), own["weight_ih_l0"], own["bias_ih_l0"])
    inputs_TMBG = torch.unflatten(inputs, 1, (num_steps, num_samples)).transpose(0, 1)
    recurrent, bias = own["weight_hh_l0"].mT, own["bias_hh_l0"][:, None]
    width = recurrent.shape[1]
    hidden = x.new_zeros(num_models, num_samples, width)
    total = torch.zeros_like(hidden)
    for from_input in inputs_TMBG:
        from_hidden = torch.baddbmm(bias, hidden, recurrent)
        gates, new = torch.split(from_input, [2 * width, width], dim=2)
        own_gates, own_new = torch.split(from_hidden, [2 * width, width], dim=2)
        reset, keep = torch.sigmoid(gates + own_gates).chunk(2, dim=2)
        hidden = torch.lerp(torch.tanh(new + reset * own_new), hidden, keep)
        total = total + hidden
    return total / num_steps
