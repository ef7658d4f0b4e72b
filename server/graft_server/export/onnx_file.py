"""A finished model as an ONNX file, and how far another runtime's answers are from torch's.

Legend: B samples a batch, C classes.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from graft.core.files import replace_file
from graft.core.records import BoolArray
from graft.core.streams import Rows, Streams
from graft.core.tasks import OutputKind
from graft.errors import ArchitectureError, PayloadChangedError, missing_extra
from graft.models import Network
from graft.models.building import example_rows
from graft.models.registry import task_read
from graft.training import predictions_of
from graft_server.export.finished import FinishedModel

# What float32 arithmetic in another request may cost, of the largest logit.
TOLERANCE = 1e-5
_OPSET = 18


class _Responses(nn.Module):
    """Logits of all classes, and probabilities of those that the model knows."""

    def __init__(
        self, network: Network, mask_C: BoolArray, names: tuple[str, ...], kind: OutputKind
    ) -> None:
        super().__init__()
        self.kind = kind
        self.network, self.names = network, names
        self.register_buffer("hidden_C", torch.from_numpy(~mask_C))

    def forward(self, *x: Tensor) -> tuple[Tensor, Tensor]:
        several = len(x) > 1
        rows = Streams(dict(zip(self.names, x, strict=True))) if several else x[0]
        logits_BC = self.network(rows)
        hidden_C = self.get_buffer("hidden_C")
        if self.kind != "classes":
            return logits_BC, predictions_of(logits_BC, ~hidden_C, self.kind)
        return logits_BC, torch.softmax(logits_BC.masked_fill(hidden_C, float("-inf")), dim=1)


def _kind(model: FinishedModel) -> OutputKind:
    return model.task.outputs[0].kind


def write_onnx(model: FinishedModel, path: Path) -> float:
    """Write the model and check it with onnxruntime; returns the largest difference.

    Input "x" (B, *sample_shape) float32, or an input for each stream by its name; outputs "logits"
    (B, C) and "probabilities" (B, C), 0 for classes that the model never saw, or amounts. Equal
    models give equal bytes. Raises ExtraMissingError without the extra, ArchitectureError for a
    model that
    reads tokens, PayloadChangedError where the answers differ by more than 1e-5: nothing is written
    then.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - both are there or neither is of use
    except ImportError as error:
        raise missing_extra(str(error.name), "export") from error
    names = _input_names(model)
    responses = _Responses(model.network(), model.card.class_mask_C, names, _kind(model)).eval()
    example = _named_rows(example_rows(model.card.architecture, model.task, 2), names)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns of its older exporter; the newer one writes the exporting machine's file
        # names into the model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            responses,
            tuple(example.values()),
            buffer,  # type: ignore[arg-type]
            input_names=list(names),
            output_names=["logits", "probabilities"],
            dynamic_axes={name: {0: "batch"} for name in (*names, "logits", "probabilities")},
            opset_version=_OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(
        graph,
        {
            "model_id": model.card.model_id,
            "domain_id": model.card.domain_id,
            "classes": "\n".join(model.task.classes),
        },
    )
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString(deterministic=True)
    difference = largest_difference(model, content)
    if difference > TOLERANCE:
        raise PayloadChangedError(
            f"ONNX of {model.card.domain_id}: got answers {difference:.2g} apart from torch's, "
            f"wanted {TOLERANCE:g} at most"
        )
    replace_file(path, content)
    return difference


def largest_difference(model: FinishedModel, content: bytes, batch: int = 33) -> float:
    """How far onnxruntime's answers are from torch's, over the largest logit (1 or more)."""
    import onnxruntime

    rng, names = np.random.default_rng(0), _input_names(model)
    rows = _named_rows(example_rows(model.card.architecture, model.task, batch), names)
    x = {
        name: rng.normal(size=each.shape).astype(np.float32)
        if each.is_floating_point()
        else rng.integers(0, 256, tuple(each.shape), dtype=np.uint8)
        for name, each in rows.items()
    }
    responses = _Responses(model.network(), model.card.class_mask_C, names, _kind(model)).eval()
    with torch.no_grad():
        wanted = responses(*(torch.from_numpy(each) for each in x.values()))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got: list[npt.NDArray[np.float32]] = session.run(["logits", "probabilities"], x)
    logits_BC, probabilities_BC = (tensor.numpy() for tensor in wanted)
    size = max(1.0, float(np.abs(logits_BC).max()))
    apart = np.abs(got[0] - logits_BC).max() / size, np.abs(got[1] - probabilities_BC).max()
    return float(max(apart))


def _input_names(model: FinishedModel) -> tuple[str, ...]:
    inputs = task_read(model.card.architecture, model.task).inputs
    if any(spec.kind == "tokens" for spec in inputs):
        raise ArchitectureError(
            f"ONNX of {model.card.domain_id}: got a model that reads tokens, wanted windows, "
            "waveforms, images or vectors"
        )
    return tuple(spec.name for spec in inputs)


def _named_rows(rows: Rows, names: tuple[str, ...]) -> dict[str, Tensor]:
    return dict(rows.items()) if isinstance(rows, Streams) else {names[0]: rows[:]}
