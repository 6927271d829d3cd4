"""Tiny nets that hold every kind of layer the windows must cut."""

from __future__ import annotations

import torch
from torch import nn

from snowsdeploy.models.program import Program
from snowsdeploy.models.trace import trace
from snowsdeploy.values import Preprocessing, SourceInfo
from tests.caches import module_key, traced


class TinyCNN(nn.Module):
    """Residual, strided, dilated, 1xN, depthwise, a module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.strided = nn.Conv2d(8, 12, (1, 3), stride=2, padding=(0, 1))
        self.dilated = nn.Conv2d(12, 12, 3, padding=2, dilation=2, bias=False)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.norm(self.stem(x)))
        x = x + self.twice(torch.relu(self.twice(x)))
        x = torch.nn.functional.gelu(self.strided(x))
        x = x + self.depthwise(torch.sigmoid(self.dilated(x)))
        return self.head(x.mean((2, 3)))


class TinyAttention(nn.Module):
    """A pre-norm transformer block on image patches; attention fused or written out."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, c))
        x = x + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean(1))


def make_program(module: nn.Module, size: int = 8) -> Program:
    """Trace with random normalisation statistics, so that nothing is zero by initialisation."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    preprocessing = Preprocessing(input_size=(3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3)
    key = module_key(module)
    return traced(
        key and f"{key} {size}", lambda: trace(module, preprocessing, SourceInfo(source="test", format="factory"))
    )


NETS = {
    "cnn": TinyCNN,
    "attention": lambda: TinyAttention(fused=False),
    "fused attention": lambda: TinyAttention(fused=True),
}
