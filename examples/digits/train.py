"""Train the example: a compact timm ResNet on scikit-learn's handwritten digits. Writes the files beside this script.

    python examples/digits/train.py        (needs scikit-learn; about half a minute)

The outputs have the form that users have them: a training dict with `module.` before every key, and two `.npz` files.
Everything is seeded; the split and the `.npz` files are the same on every machine, the weights up to rounding.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

ARCH = "test_resnet"  # timm's smallest ResNet: basic and bottleneck blocks, 16 to 192 channels
MODEL_ARGS = {"num_classes": 10, "in_chans": 1}
MEAN, STD = 0.3, 0.35  # of the training pixels on [0, 1], rounded
SIZE = 32
TEST, CALIBRATION = 897, 512  # half of the digits judge
BATCH = 64


def load_split(seed: int) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The digits as uint8 `[n, 32, 32, 1]` with labels: train and test are disjoint, calibration is part of train."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # stored as counts from 0 to 16
    images = np.stack([np.asarray(Image.fromarray(g).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for g in grey])
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST, random_state=seed, stratify=labels)
    chosen = {"train": train, "calibration": train[:CALIBRATION], "test": test}
    return {name: (images[index, :, :, None], labels[index]) for name, index in chosen.items()}


def normalise(x: NDArray[np.uint8]) -> Tensor:
    """Pixels `[n, H, W, 1]` to inputs `[n, 1, H, W]`."""
    return (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Small random rotations (15 degrees), scales (12 %) and shifts (3 pixels); background where nothing is left."""
    n = len(images)
    angle, scale, dx, dy = torch.rand(4, n, generator=generator) * 2 - 1
    angle, scale = angle * math.radians(15), 1 + 0.12 * scale
    cos, sin, shift = scale * torch.cos(angle), scale * torch.sin(angle), 2 * 3 / SIZE
    theta = torch.stack([torch.stack([cos, -sin, dx * shift], 1), torch.stack([sin, cos, dy * shift], 1)], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    black = -MEAN / STD
    return functional.grid_sample(images - black, grid, align_corners=False) + black


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
    """AdamW with one learning-rate cycle."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = functional.cross_entropy(model(augment(x[index], generator)), y[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: training loss {total / len(x):.4f}")


@torch.no_grad()
def top1(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Accuracy from 0 to 1."""
    model.eval()
    return float((model(x).argmax(1) == y).float().mean())


def main() -> None:
    """Train, evaluate, write `digits.pth`, `calibration.npz` and `test.npz`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the three files go")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)  # images this small gain nothing from more, and sums keep their order
    split = load_split(options.seed)
    torch.manual_seed(options.seed)
    model = timm.create_model(ARCH, **MODEL_ARGS)
    x, y = split["train"]
    train(model, normalise(x), torch.from_numpy(y), options.epochs, options.seed)
    x, y = split["test"]
    accuracy = top1(model, normalise(x), torch.from_numpy(y))
    print(f"top-1 on {len(x)} held-out digits: {100 * accuracy:.2f} %")

    options.out.mkdir(parents=True, exist_ok=True)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    checkpoint = {"arch": ARCH, "epoch": options.epochs, "best_prec1": 100 * accuracy, "state_dict": state}
    torch.save(checkpoint, options.out / "digits.pth")
    for name in ("calibration", "test"):
        x, y = split[name]
        np.savez_compressed(options.out / f"{name}.npz", x=x, y=y)


if __name__ == "__main__":
    main()
