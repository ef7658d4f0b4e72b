"""Networks built from an architecture's name: fresh, empty, or with a payload's parameters."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graft.core.records import Parameters
from graft.core.streams import Rows, Streams
from graft.core.tasks import InputSpec, Task
from graft.core.tensor_types import DTYPES, Shape, shape_of
from graft.errors import ArchitectureError, GraftError, PayloadLimitError
from graft.models.backbones import PREFIX, arrays_of, find_backbone, require_backbone, tensors_of
from graft.models.fused import scaled
from graft.models.network import Network
from graft.models.placement import placement
from graft.models.registry import Architecture, find_architecture, task_read
from graft.models.trained import add_adapters, backbone_name

# Smaller models are copied into torch's own, aligned memory, so that kernels sum in one order.
_COPIED_BYTES = 16 * 1024 * 1024
_DRAWS = {
    "normal_", "uniform_", "exponential_", "erfinv_", "bernoulli_", "random_", "log_normal_",
}  # fmt: skip


_DTYPE_NAMES = {torch.float64: "F32", **{
    getattr(torch, name): dtype
    for name, dtype in {
        "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
        "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    }.items()
}}  # fmt: skip


assert set(_DTYPE_NAMES.values()) == DTYPES.keys()


class _NoDraws(TorchFunctionMode):
    """Leaves parameters as they were allocated: their pages are never touched.

    On torch's meta device modules fail that compute with numbers while they are built, and buffers
    lose their values; here both work.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in ("randn", "rand"):
            return torch.empty(*args, **{k: v for k, v in kwargs.items() if k != "generator"})
        filled = args[0] if args else kwargs.get("tensor")  # torch.nn.init names it
        in_place = name.endswith("_") and not name.endswith(("__", "requires_grad_"))
        if filled is not None and (
            name in _DRAWS or (in_place and isinstance(filled, nn.Parameter))
        ):
            return filled
        return func(*args, **kwargs)


def build_network(architecture: str, task: Task, seed: int) -> Network:
    """Build a freshly initialised network; torch's global generator is left as it was.

    Parameters
    ----------
    architecture
        A name of the zoo or of an installed architecture for the task's kind of input.
    task
        Gives the sample's shape and the number of classes.
    seed
        Equal seeds give equal parameters.

    Raises
    ------
    ArchitectureError
        The task's kind of input has no architecture of this name, it cannot be built, or its
        backbone is not on this machine.
    """
    found = find_architecture(architecture, task)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _assemble(found, _task_read(architecture, found, task))
    if network.backbone is not None:
        _load(network, {})
    return network.place(placement())


def parameters_of(network: Network) -> Parameters:
    """The tensors of a network that travel (batch-norm statistics too), as arrays of their own."""
    state = network.state_dict()
    tensors = {name: state[name] for name in network.travelling}
    if network.is_delta:
        weights = _backbone_weights(network)
        for name in tensors.keys() & weights.keys():
            if tensors[name].is_floating_point():
                tensors[name] = tensors[name].cpu() - weights[name]
    return {name: array.copy() for name, array in arrays_of(tensors).items()}


def network_from(architecture: str, task: Task, parameters: Parameters) -> Network:
    """Build the named network with these parameters, in evaluation mode.

    A large model takes the arrays over; a small one copies them.

    Raises
    ------
    ArchitectureError
        As ``build_network`` does.
    PayloadLimitError
        Names or shapes of the parameters are not the architecture's.
    """
    network = empty_network(architecture, task)
    wanted = _shapes(network)
    got = {name: shape_of(array) for name, array in parameters.items()}
    if got != wanted:
        name = min(name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name))
        raise PayloadLimitError(
            f"tensor {name!r} of {architecture}: got shape {got.get(name)}, "
            f"wanted {wanted.get(name)}"
        )
    tensors = tensors_of(parameters)
    if sum(array.nbytes for array in parameters.values()) < _COPIED_BYTES:
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    _load(network, tensors)
    return network.place(placement()).eval()


@lru_cache(maxsize=256)
def parameter_shapes(architecture: str, task: Task) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor that a payload of this architecture must hold.

    "backbone:" before the architecture's name: of its backbone's payload.
    """
    if architecture.startswith(PREFIX):
        return backbone_shapes(architecture.removeprefix(PREFIX), task)
    return _shapes(empty_network(architecture, task))


def backbone_shapes(architecture: str, task: Task) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor of an architecture's backbone."""
    found = find_architecture(architecture, task)
    with torch.random.fork_rng(devices=[]), _NoDraws():
        encoder, _ = _encoder(found, _task_read(architecture, found, task))
    return {
        name: shape_of_tensor(tensor)
        for name, tensor in encoder.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def example_rows(architecture: str, task: Task, num_rows: int, device: str = "cpu") -> Rows:
    """Rows as an architecture reads them, of zeros; text is of words of five letters."""
    found = find_architecture(architecture, task)
    return _example(_task_read(architecture, found, task), num_rows, device)


def _example(task: Task, num_rows: int, device: str = "cpu") -> Rows:
    def example(spec: InputSpec) -> Tensor:
        dtype = getattr(torch, spec.dtype)
        rows = torch.zeros(num_rows, *spec.shape, dtype=dtype, device=device)
        if spec.is_text:
            letters = [97 if t % 6 < 5 else 32 for t in range(spec.shape[0])]
            rows += torch.tensor(letters, device=device).byte()
        return rows if spec.kind != "tokens" or spec.is_text else rows + 1

    if len(task.inputs) == 1:
        return example(task.inputs[0])
    return Streams({spec.name: example(spec) for spec in task.inputs})


def empty_network(architecture: str, task: Task) -> Network:
    """A network whose parameters have no values yet."""
    found = find_architecture(architecture, task)
    with torch.random.fork_rng(devices=[]), _NoDraws():
        return _assemble(found, _task_read(architecture, found, task))


def _task_read(name: str, architecture: Architecture, task: Task) -> Task:
    return task_read(name, task).reading(architecture.inputs)


def _assemble(architecture: Architecture, task: Task) -> Network:
    # An encoder whose weights a backbone has is drawn for nothing.
    with nullcontext() if _needs_draws(architecture, task) else _NoDraws():
        encoder, num_features = _encoder(architecture, task)
    add_adapters(encoder, architecture.trained_parts)
    stream = task.input_names[0] if len(task.inputs) == 1 else None
    network = Network(encoder, num_features, task.num_classes, stream, architecture.head)
    network.restrict(architecture)
    return network


def _needs_draws(architecture: Architecture, task: Task) -> bool:
    weights = None if architecture.backbone is None else find_backbone(architecture.backbone)
    if weights is None:
        return True
    with torch.random.fork_rng(devices=[]), _NoDraws():
        state = _encoder(architecture, task)[0].state_dict()
    return any(n not in weights for n in state if not n.endswith("num_batches_tracked"))


def _encoder(architecture: Architecture, task: Task) -> tuple[nn.Module, int]:
    """The encoder and its features; raises ArchitectureError where it is none."""
    shape: Any = task.sample_shape or {spec.name: spec.shape for spec in task.inputs}
    with named_errors(architecture.name, "could not be built"):
        build = architecture.encoder
        built = build(shape) if _takes_shape(build) else build()  # type: ignore[call-arg]
        module, width = built if isinstance(built, tuple) else (built, None)
        if not isinstance(module, nn.Module):
            raise TypeError(f"{type(module).__name__} is no torch.nn.Module")
    if width is None:
        width = getattr(module, "num_features", None)
    if len(task.inputs) == 1 and not any(hasattr(m, "takes_bytes") for m in module.modules()):
        module = scaled(task.inputs[0], module)
    if width is None:  # measured on what the module gets: pixels are scaled
        width = _measured_width(architecture, module, task)
    return module, width


def _takes_shape(build: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(build).parameters.values()
    except ValueError:  # a builtin without a signature
        return True
    return any(p.kind != p.KEYWORD_ONLY and p.default is p.empty for p in parameters)


_widths: dict[tuple[Architecture, Task], int] = {}


def _measured_width(architecture: Architecture, module: nn.Module, task: Task) -> int:
    """F of a module that does not say it, by a pass of two samples."""
    key = architecture, task
    if key not in _widths:
        was_training = module.training
        with torch.no_grad(), named_errors(architecture.name, "could not be run"):
            shape = module.eval()(_example(task, 2)).shape
            module.train(was_training)
        if len(shape) != 2:
            raise ArchitectureError(
                f"architecture {architecture.name}: got features of {tuple(shape)}, wanted (2, F)"
            )
        _widths[key] = int(shape[1])
    return _widths[key]


@contextmanager
def named_errors(name: str, what: str) -> Iterator[None]:
    """Somebody else's module may fail in any way: it becomes an ArchitectureError."""
    try:
        yield
    except GraftError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArchitectureError(f"architecture {name} {what}: {told:.300}") from error


def _load(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Give a network its tensors, and the rest of an encoder its backbone's."""
    state, device = dict(tensors), placement().accelerator
    if network.backbone is not None:
        travelling = set(network.travelling)
        for name, weight in _backbone_weights(network, device).items():
            if name in travelling:  # the frozen ones are shared, these are the network's own
                weight = weight.clone()
                if network.is_delta and name in state and weight.is_floating_point():
                    weight = weight + state.pop(name).to(device)
            state.setdefault(name, weight)
    network.load_state_dict(state, strict=False, assign=True)


def _backbone_weights(network: Network, device: str = "cpu") -> dict[str, Tensor]:
    """The backbone's tensors by the network's names; raises BackboneError."""
    assert network.backbone is not None
    weights = require_backbone(network.backbone, device)
    wanted = {
        name: backbone_name(name)
        for name in network.state_dict()
        if name.startswith("encoder.") and not name.endswith("num_batches_tracked")
    }
    state = network.state_dict()
    found: dict[str, Tensor] = {}
    for name, own in wanted.items():
        if own not in weights:
            continue  # an adapter's
        if weights[own].shape != state[name].shape:
            raise ArchitectureError(
                f"backbone {network.backbone.name}: tensor {own!r}: got "
                f"{tuple(weights[own].shape)}, wanted {tuple(state[name].shape)}"
            )
        found[name] = weights[own]
    missing = wanted.keys() - found.keys() - set(network.travelling)
    if missing:
        raise ArchitectureError(
            f"backbone {network.backbone.name}: got no tensor {wanted[min(missing)]!r}"
        )
    return found


def shape_of_tensor(tensor: Tensor) -> tuple[int, ...]:
    name = _DTYPE_NAMES.get(tensor.dtype)
    if name is None:
        raise ArchitectureError(f"tensor: got {tensor.dtype}, wanted one of {list(DTYPES)}")
    return tuple(tensor.shape) if name == "F32" else Shape(tensor.shape, name)


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    state = network.state_dict()
    return {name: shape_of_tensor(state[name]) for name in network.travelling}
