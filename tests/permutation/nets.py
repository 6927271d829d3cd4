"""Tiny nets whose channels are tied in every way that a rule knows."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from snowsdeploy.models.program import Program
from snowsdeploy.models.trace import trace
from snowsdeploy.values import Preprocessing, SourceInfo


class Residual(nn.Module):
    """Stream with a padded shortcut, a gate, a depthwise convolution, a grouped one, a concatenation, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv1, self.conv2 = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.down = nn.Conv2d(8, 24, 3, stride=2, padding=1)
        self.squeeze, self.gate = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.side, self.group_norm = nn.Conv2d(24, 24, 1), nn.GroupNorm(3, 24)
        self.joined = nn.Conv2d(48, 16, 1)
        self.grouped, self.last = nn.Conv2d(16, 16, 1, groups=2), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.conv2(F.hardswish(self.conv1(x)))
        y = self.down(x)
        y = y * torch.sigmoid(self.gate(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        y = self.depthwise(y)
        y = torch.cat([y, self.group_norm(self.side(y))], 1)
        y = self.last(self.grouped(F.relu(self.joined(y))))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Transformer(nn.Module):
    """Class token, position embedding, two blocks with layer scale; attention fused or written out."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused, dim = fused, 16
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, 5, dim))
        layers = [("norm1", nn.LayerNorm(dim)), ("norm2", nn.LayerNorm(dim)), ("qkv", nn.Linear(dim, 3 * dim))]
        layers += [("proj", nn.Linear(dim, dim)), ("fc1", nn.Linear(dim, 24)), ("fc2", nn.Linear(24, dim))]
        self.blocks = nn.ModuleList(nn.ModuleDict(layers_of(layers)) for _ in range(2))
        self.scale = nn.Parameter(torch.randn(dim))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = x + self.scale * self.attend(block, block["norm1"](x))
            x = x + block["fc2"](F.gelu(block["fc1"](block["norm2"](x))))
        return self.head(self.norm(x)[:, 0])

    def attend(self, block: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = block["qkv"](x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else written_out(q, k, v)
        return block["proj"](y.transpose(1, 2).reshape(b, n, c))


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention as two products."""
    return (q * 0.3 @ k.transpose(-2, -1)).softmax(-1) @ v


def layers_of(layers: list[tuple[str, nn.Module]]) -> dict[str, nn.Module]:
    """Copies of layers with weights of their own."""
    made = {}
    for name, layer in layers:
        made[name] = (
            nn.LayerNorm(layer.normalized_shape)
            if isinstance(layer, nn.LayerNorm)
            else nn.Linear(layer.in_features, layer.out_features)
        )
    return made


def make_double(module: nn.Module, size: int = 8) -> Program:
    """Trace in float64 with random normalisations, so that no vector is constant."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 1.5)
    preprocessing = Preprocessing(input_size=(3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return trace(module.double(), preprocessing, SourceInfo(source="test", format="factory"))
    finally:
        torch.set_default_dtype(before)
