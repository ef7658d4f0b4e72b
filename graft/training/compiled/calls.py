"""Calls of the compiled trainer: training, features, batch-norm statistics and heads.

Legend: N rows, B a batch, S steps, C classes, F features, T heads, L labelled rows, A axes.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graft.models import Network
from graft.training.compiled.build import load_kernels
from graft.training.compiled.plan import KernelPlan, gather, padded, views


def structure(name: str, *groups: str) -> Any:
    """A C struct's fields in order, in groups: "i names" (int64), "d" (double), "p" (pointer)."""
    types = {"i": ctypes.c_int64, "d": ctypes.c_double, "p": ctypes.c_void_p}
    fields = [(key, types[kind]) for kind, *keys in map(str.split, groups) for key in keys]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def filled(kind: Any, **values: Tensor | float | None) -> Any:
    """A struct; its pointers are those of contiguous tensors, which the caller must hold."""
    assert all(v.is_contiguous() for v in values.values() if isinstance(v, Tensor))
    return kind(**{k: v.data_ptr() if isinstance(v, Tensor) else v for k, v in values.items()})


_Training = structure(
    "_Training", "i num_parameters done", "p parameters gradients mean square statistics"
)
_Loss = structure("_Loss", "p wanted weights known", "i labelled information fixed_head", "p hat")
_Augment = structure("_Augment", "i axes channels height width pieces", "p rotations shifts")
_Heads = structure(
    "_Heads", "i heads rows features classes class_lanes steps", "d learning_rate pull",
    "p x y known weight bias",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Augmentation:
    """Random numbers of every step: rotations (S, B, A, A) of neighbouring channels, with A = 0
    for none, and shifts (S, 2) along height and width, int64."""

    rotation_SBAA: Tensor
    shift_S2: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objective:
    """What every step minimises: sum_n weight_n CE(wanted_n) over the batch.

    ``wanted_NC`` has a distribution for each row, ``weight_B`` a weight for each place in the
    batch. ``known_C``: the other classes have probability 0. With ``information``, of the rows
    from ``labelled`` on, the mean entropy minus the entropy of the mean prediction is added. With
    ``fixed_head`` the head does not move. ``hat``: mixer and dictionary, which write what is wanted
    of unlabelled rows (``graft.training.compiled.hat``).
    """

    wanted_NC: Tensor
    weight_B: Tensor
    labelled: int = 0
    known_C: Tensor | None = None
    information: bool = False
    fixed_head: bool = False
    hat: Any = None


class CompiledTraining:
    """One network's training, call after call, on the rows ``x``; ``write_back`` ends it."""

    def __init__(
        self, plan: KernelPlan, network: Network, x: Tensor, *, augmented: bool = False
    ) -> None:
        self._plan, self._network, self._shape = plan, network, x.shape[1:]
        self._rows = plan.rows(x, augmented=augmented)
        state = _state(network)
        self.parameters, self.statistics = (
            gather(plan.parameters, state),
            gather(plan.statistics, state),
        )
        self.gradients = torch.zeros_like(self.parameters)
        self._means = torch.zeros_like(self.parameters), torch.zeros_like(self.parameters)
        self._done = self._written = 0

    def run(
        self,
        rows_SB: Tensor,
        objective: Objective,
        rates: Sequence[float],
        weight_decay: float,
        augmentation: Augmentation | None = None,
    ) -> Tensor:
        """Take these steps at these learning rates; every step's loss (S,). Raises MemoryError."""
        training = filled(
            _Training, num_parameters=len(self.parameters), done=self._done,
            parameters=self.parameters, gradients=self.gradients, mean=self._means[0],
            square=self._means[1], statistics=self.statistics,
        )  # fmt: skip
        known_C = None if objective.known_C is None else objective.known_C.float()
        loss = filled(
            _Loss, wanted=objective.wanted_NC, weights=objective.weight_B, known=known_C,
            labelled=objective.labelled, information=objective.information,
            fixed_head=objective.fixed_head,
            hat=None if objective.hat is None else ctypes.addressof(objective.hat),
        )  # fmt: skip
        augment = None if augmentation is None else self._augment(augmentation)
        rows_SB, losses_S = rows_SB.contiguous(), torch.zeros(len(rows_SB))
        rate_S = torch.tensor(rates, dtype=torch.float64)
        assert rows_SB.shape == (len(rate_S), len(objective.weight_B))
        failed = _kernels().graft_train(
            ctypes.addressof(self._plan.plan), ctypes.addressof(training), self._rows.data_ptr(),
            ctypes.addressof(loss), None if augment is None else ctypes.addressof(augment),
            rows_SB.data_ptr(), len(rows_SB), rate_S.data_ptr(), weight_decay, losses_S.data_ptr(),
        )  # fmt: skip
        if failed:
            raise MemoryError(f"training {len(self.parameters)} parameters: no memory for a step")
        self._done = training.done
        return losses_S

    def _augment(self, augmentation: Augmentation) -> Any:
        height, width = (1, *self._shape[1:])[-2:]
        return filled(
            _Augment, axes=augmentation.rotation_SBAA.shape[-1], channels=self._shape[0],
            height=height, width=width, pieces=self._plan.pieces,
            rotations=augmentation.rotation_SBAA, shifts=augmentation.shift_S2,
        )  # fmt: skip

    def named_gradients(self) -> dict[str, Tensor]:
        """The last step's gradients by the parameter's name."""
        found = views(self._plan.parameters, self.gradients, _state(self._network))
        return {slot.name: tensor for slot, tensor in found}

    def features(self, rows: slice) -> Tensor:
        """Features of some of the rows by the parameters and statistics of now."""
        return _features(self._plan, self.parameters, self.statistics, self._rows[rows], 0.0)

    def write_back(self) -> None:
        """Copy parameters and statistics into the network."""
        state = _state(self._network)
        _restore(self._plan.parameters, self.parameters, state)
        _restore(self._plan.statistics, self.statistics, state)
        for name, buffer in self._network.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer += self._done - self._written
        self._written = self._done


class CompiledForward:
    """Forward passes of a network in any mode over rows as ``KernelPlan.rows`` gives them.

    The network is read once and stays as it is until ``write_statistics``. Each call raises
    MemoryError without room for a batch.
    """

    def __init__(self, plan: KernelPlan, network: Network, rows: Tensor) -> None:
        self._plan, self._network, self._rows = plan, network, rows
        state = _state(network)
        self._parameters = gather(plan.parameters, state)
        self._statistics = gather(plan.statistics, state)

    def features(self) -> Tensor:
        """Features (N, F) by the running statistics."""
        features_NF = _features(self._plan, self._parameters, self._statistics, self._rows, 0.0)
        return features_NF[:, : self._network.num_features]

    def renormalise(self, num_batches: int) -> None:
        """Estimate batch norm's statistics anew, as a plain average over strided batches."""
        for first in range(num_batches):
            rows = self._rows[first::num_batches].contiguous()
            plan = self._plan.of_batch(len(rows))
            _features(plan, self._parameters, self._statistics, rows, 1 / (first + 1))

    def statistics(self) -> dict[str, Tensor]:
        """Batch norm's statistics by name."""
        found = views(self._plan.statistics, self._statistics, _state(self._network))
        return {slot.name: tensor for slot, tensor in found}

    def write_statistics(self) -> None:
        """Copy the statistics into the network."""
        _restore(self._plan.statistics, self._statistics, _state(self._network))


def compiled_heads(
    features_TLF: Tensor,
    y_L: Tensor,
    weight_TFC: Tensor,
    bias_TC: Tensor,
    known_TC: Tensor,
    *,
    steps: int,
    learning_rate: float,
    pull: float,
) -> tuple[Tensor, Tensor]:
    """Every head after Adam's steps on CE(L) + pull ||W - W_s||^2; raises MemoryError."""
    features_TLF, y_L = features_TLF.contiguous(), y_L.contiguous()
    weight, bias = (each.detach().clone().contiguous() for each in (weight_TFC, bias_TC))
    known = known_TC.float().contiguous()
    num_heads, num_rows, num_features = features_TLF.shape
    heads = filled(
        _Heads, heads=num_heads, rows=num_rows, features=num_features, classes=bias.shape[1],
        class_lanes=padded(bias.shape[1]), steps=steps, learning_rate=learning_rate, pull=pull,
        x=features_TLF, y=y_L, known=known, weight=weight, bias=bias,
    )  # fmt: skip
    if _kernels().graft_heads(ctypes.addressof(heads)):
        raise MemoryError(f"training {num_heads} heads: no memory for a step")
    return weight, bias


def compiled_gradients(
    plan: KernelPlan, network: Network, x: Tensor, objective: Objective
) -> tuple[float, dict[str, Tensor]]:
    """One batch's loss and its gradients by name; the network stays as it is."""
    training = CompiledTraining(plan, network, x)
    losses_S = training.run(torch.arange(len(x))[None], objective, [0.0], 0.0)
    return float(losses_S[0]), training.named_gradients()


def _kernels() -> ctypes.CDLL:
    kernels = load_kernels()
    assert kernels is not None, "a plan is made only where there are kernels"
    return kernels


def _features(
    plan: KernelPlan, parameters: Tensor, statistics: Tensor, rows: Tensor, momentum: float
) -> Tensor:
    features_NF = torch.empty(len(rows), plan.plan.features)
    failed = _kernels().graft_features(
        ctypes.addressof(plan.plan), len(parameters), parameters.data_ptr(),
        statistics.data_ptr(), rows.data_ptr(), len(rows), momentum, features_NF.data_ptr(),
    )  # fmt: skip
    if failed:
        raise MemoryError(f"features by {len(parameters)} parameters: no memory for a batch")
    return features_NF


@torch.no_grad()
def _restore(slots: Sequence[Any], flat: Tensor, state: dict[str, Tensor]) -> None:
    for slot, tensor in views(tuple(slots), flat, state):
        state[slot.name].copy_(tensor)


def _state(network: Network) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
