"""A ResNet-18 of one's own for pictures of 64 x 64, as plain PyTorch.

    graft simulate --data FOLDER --set 'devices.architectures=["resnet_pictures:ResNet18"]'

`resnet_pictures.ipynb` uses it in a notebook. Nothing in it knows of graft.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn, relu

CLASSES = ("disc", "square", "cross")


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(outputs)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        path = self.norm_2(self.conv_2(relu(self.norm_1(self.conv_1(x)))))
        return relu(path + self.shortcut(x))


class ResNet18(nn.Module):
    """Pictures (B, 3, 64, 64) to features (B, 512); 11.2 million parameters."""

    num_features = 512

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        self.stages = nn.Sequential(
            *(nn.Sequential(Block(*width), Block(width[1], width[1], 1)) for width in widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x)).mean((2, 3))


def draw_pictures(folder: Path, cameras: int = 5, each: int = 10, seed: int = 0) -> None:
    """JPEG files FOLDER/<camera>/<class>/<number>.jpg: each camera has its own light and colour."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    for camera in range(cameras):
        light, colour = generator.uniform(80, 200), generator.uniform(0.4, 1.0, 3)
        for name in CLASSES:
            place = folder / f"camera-{camera}" / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                row, column = generator.integers(20, 44, 2)
                size = generator.integers(8, 16)
                down, across = np.abs(y - row), np.abs(x - column)
                shape = {
                    "disc": down**2 + across**2 < size**2,
                    "square": np.maximum(down, across) < size,
                    "cross": (np.minimum(down, across) < 3) & (np.maximum(down, across) < size),
                }[name]
                pixels = generator.normal(40, 12, (64, 64, 3)) + light * shape[..., None] * colour
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(place / f"{number:03}.jpg", quality=92)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
    draw_pictures(target)
    print(f"{len(list(target.rglob('*.jpg')))} pictures in {target}")
