"""What people bring on their first day: recordings, pictures and a network, none of them tidy."""

import gzip
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"cat": (200, 60, 60), "dog": (60, 200, 60), "ship": (60, 60, 200)}
RESNET = '''"""A ResNet for pictures of 32 x 32 pixels, as one writes it for CIFAR."""

from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )
        self.skip = nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))
'''


def write_pictures(folder: Path, cameras: int = 8, pictures: int = 14) -> None:
    """camera/class/file of 32 x 32 pixels; beside them what a Mac leaves, and a broken file."""
    for camera in range(cameras):
        for name, colour in CLASSES.items():
            place = folder / f"Kamera {camera}" / name
            place.mkdir(parents=True)
            for number in range(pictures):
                draw = np.random.default_rng([camera, number, *colour])
                pixels = draw.normal(0, 40, (32, 32, 3)) + np.array(colour) + 5 * camera
                pixels[8 + number % 8 : 16 + number % 8, 8:24] = 255 - np.array(colour)
                Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(place / f"{number}.png")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Kamera 0" / "cat" / "broken.jpg").write_bytes(b"not a picture")


def write_recordings(folder: Path, people: int = 8) -> None:
    """An export of a sensor app: preamble, decimal commas, epoch ms, pauses, words for missing."""
    folder.mkdir(parents=True)
    for person in range(people):
        draw = random.Random(person)
        lines = ["Exported by: SensorApp 3.1", "Gerät: Handy", "", "Zeit;Aktivität;x;y;z"]
        stamp = 1_700_000_000_000 + person * 86_400_000
        for activity, pace in (("liegen", 0.0), ("gehen", 1.8), ("laufen", 2.8)):
            stamp += 60_000  # a pause
            for reading in range(40 * 50):
                phase = 2 * math.pi * pace * reading / 50
                swing = min(pace, 1.5)
                values = [
                    f"{swing * math.sin(phase) + draw.gauss(0, 0.15):.3f}".replace(".", ","),
                    f"{swing * math.cos(2 * phase) / 2 + draw.gauss(0, 0.15):.3f}".replace(
                        ".", ","
                    ),
                    f"{1 + swing * math.sin(phase + 1) / 3 + draw.gauss(0, 0.15):.3f}".replace(
                        ".", ","
                    ),
                ]
                if draw.random() < 0.002:
                    values[1] = "NaN"
                lines.append(";".join([str(stamp), activity, *values]))
                stamp += 20
        data = "\r\n".join(lines).encode("latin-1")
        if person % 3 == 0:
            (folder / f"Müller {person}.csv.gz").write_bytes(gzip.compress(data))
        else:
            (folder / f"Person {person}.CSV").write_bytes(data)
    (folder / "._Person 1.CSV").write_bytes(b"\0\5\26\7")
    (folder / "Notizen.txt").write_text("nothing to see\n", "utf-8")
