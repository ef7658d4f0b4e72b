"""A network and its parameters: an encoder, which gives one feature vector a sample, and a head.

Only an architecture's name and its tensors ever travel; code never does.

Legend: B samples a batch, C classes, F features.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from graft.core.records import InputSpec, Parameters, Task
from graft.core.streams import Rows, Streams
from graft.errors import PayloadLimitError
from graft.models.registry import build_encoder, task_read


class Network(nn.Module):
    """An encoder and a linear head.

    Parameters
    ----------
    encoder
        Gives features (B, F) of samples (B, *sample_shape).
    num_features
        F.
    num_classes
        C, the head's outputs.
    stream
        The one stream that the encoder reads, out of rows that may have several.
    """

    def __init__(
        self, encoder: nn.Module, num_features: int, num_classes: int, stream: str | None = None
    ) -> None:
        super().__init__()
        self.stream = stream
        self.encoder = encoder
        self.head = nn.Linear(num_features, num_classes)
        self.num_features = num_features

    def features(self, x: Rows) -> Tensor:
        """(B, *sample_shape), or streams of B rows -> (B, F)."""
        if isinstance(x, Streams) and self.stream is not None:
            x = x[self.stream]
        features_BF: Tensor = self.encoder(x)
        return features_BF

    def forward(self, x: Rows) -> Tensor:
        """(B, *sample_shape), or streams of B rows -> logits (B, C)."""
        logits_BC: Tensor = self.head(self.features(x))
        return logits_BC


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
        The task's kind of input has no architecture of this name.
    """
    streams = task_read(architecture, task).input_names
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder, num_features = build_encoder(architecture, task)
        only = streams[0] if len(streams) == 1 else None
        return Network(encoder, num_features, task.num_classes, only)


def example_rows(architecture: str, task: Task, num_rows: int) -> Rows:
    """Rows as an architecture reads them, of zeros; text is of words of five letters."""

    def example(spec: InputSpec) -> Tensor:
        rows = torch.zeros(num_rows, *spec.shape, dtype=getattr(torch, spec.dtype))
        if spec.is_text:
            rows += torch.tensor([97 if t % 6 < 5 else 32 for t in range(spec.shape[0])]).byte()
        return rows if spec.kind != "tokens" or spec.is_text else rows + 1

    inputs = task_read(architecture, task).inputs
    if len(inputs) == 1:
        return example(inputs[0])
    return Streams({spec.name: example(spec) for spec in inputs})


def parameters_of(network: Network) -> Parameters:
    """Every float tensor of the network (batch-norm statistics too) as float32 arrays."""
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def network_from(architecture: str, task: Task, parameters: Parameters) -> Network:
    """Build the named network with copies of these parameters, in evaluation mode.

    Raises
    ------
    ArchitectureError
        As ``build_network`` does.
    PayloadLimitError
        Names or shapes of the parameters are not the architecture's.
    """
    network = build_network(architecture, task, seed=0)
    wanted = {name: array.shape for name, array in parameters_of(network).items()}
    got = {name: tuple(array.shape) for name, array in parameters.items()}
    if got != wanted:
        name = min(name for name, _ in got.items() ^ wanted.items())
        raise PayloadLimitError(
            f"tensor {name!r} of {architecture}: got shape {got.get(name)}, "
            f"wanted {wanted.get(name)}"
        )
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in parameters.items()}
    network.load_state_dict(tensors, strict=False)
    return network.eval()


@lru_cache(maxsize=256)
def parameter_shapes(architecture: str, task: Task) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every tensor that a payload of this architecture must hold."""
    parameters = parameters_of(build_network(architecture, task, seed=0))
    return {name: tuple(array.shape) for name, array in parameters.items()}
