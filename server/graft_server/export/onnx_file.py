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
from graft.core.records import BoolArray, FloatArray
from graft.errors import PayloadChangedError, missing_extra
from graft.models import Network
from graft_server.export.finished import FinishedModel

# What float32 arithmetic in another request may cost, of the largest logit.
TOLERANCE = 1e-5
_OPSET = 18


class _Responses(nn.Module):
    """Logits of all classes, and probabilities of those that the model knows."""

    def __init__(self, network: Network, mask_C: BoolArray) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("hidden_C", torch.from_numpy(~mask_C))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits_BC = self.network(x)
        hidden_C = self.get_buffer("hidden_C")
        return logits_BC, torch.softmax(logits_BC.masked_fill(hidden_C, float("-inf")), dim=1)


def write_onnx(model: FinishedModel, path: Path) -> float:
    """Write the model and check it with onnxruntime; returns the largest difference.

    Input "x" (B, *sample_shape) float32; outputs "logits" (B, C) and "probabilities" (B, C), 0
    for classes that the model never saw. Equal models give equal bytes. Raises ExtraMissingError
    without the extra, PayloadChangedError where the answers differ by more than 1e-5: nothing
    is written then.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - both are there or neither is of use
    except ImportError as error:
        raise missing_extra(str(error.name), "export") from error
    responses = _Responses(model.network(), model.card.class_mask_C).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns of its older exporter; the newer one writes the exporting machine's file
        # names into the model.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            responses,
            (torch.zeros(2, *model.task.sample_shape),),
            buffer,  # type: ignore[arg-type]
            input_names=["x"],
            output_names=["logits", "probabilities"],
            dynamic_axes={name: {0: "batch"} for name in ("x", "logits", "probabilities")},
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

    shape = model.task.sample_shape
    x: FloatArray = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    with torch.no_grad():
        wanted = _Responses(model.network(), model.card.class_mask_C).eval()(torch.from_numpy(x))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got: list[npt.NDArray[np.float32]] = session.run(["logits", "probabilities"], {"x": x})
    logits_BC, probabilities_BC = (tensor.numpy() for tensor in wanted)
    size = max(1.0, float(np.abs(logits_BC).max()))
    apart = np.abs(got[0] - logits_BC).max() / size, np.abs(got[1] - probabilities_BC).max()
    return float(max(apart))
