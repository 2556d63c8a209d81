"""rpjax's pre-activated ResNet with GroupNorm once more, in PyTorch.

The same layers on the same numbers: flax's epsilon, and its padding, which for stride 2
puts the odd pixel to the right and below, where the size is even.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6


class Block(nn.Module):
    """x + F(x); where the shape changes x is a 1x1 convolution of the activated x."""

    def __init__(self, before: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.norm0 = norm(before, groups)
        self.conv0 = conv(before, width, 3, stride)
        self.norm1 = norm(width, groups)
        self.conv1 = conv(width, width, 3, 1)
        changes = before != width or stride != 1
        self.shortcut = conv(before, width, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.norm0(x))
        f = self.conv1(F.relu(self.norm1(self.conv0(activated))))
        return f + (x if self.shortcut is None else self.shortcut(activated))


class Net(nn.Module):
    """Stem, stages, normalised mean, linear head."""

    def __init__(
        self,
        stages: tuple[int, ...],
        widths: tuple[int, ...],
        classes: int,
        channels: int,
        groups: int = 8,
        stem: int = 16,
    ) -> None:
        super().__init__()
        self.stem = conv(channels, stem, 3, 1)
        blocks, before = [], stem
        for stage, (count, width) in enumerate(zip(stages, widths, strict=True)):
            for position in range(count):
                stride = 2 if stage and not position else 1
                blocks.append(Block(before, width, stride, groups))
                before = width
        self.blocks = nn.ModuleList(blocks)
        self.head_norm = norm(before, groups)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(self.head_norm(x)).mean((2, 3)))


def conv(before: int, after: int, size: int, stride: int) -> nn.Module:
    """A convolution without bias whose padding is flax's SAME."""
    padding = (size - 1) // 2
    if stride == 1 or size == 1:
        return nn.Conv2d(before, after, size, stride, padding, bias=False)
    convolution = nn.Conv2d(before, after, size, stride, bias=False)
    return nn.Sequential(Halving(), convolution)


class Halving(nn.Module):
    """flax's padding of a 3x3 convolution of stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        down, right = (size % 2 for size in x.shape[2:])  # of an even size none before
        return F.pad(x, (right, 1, down, 1))


def norm(width: int, groups: int) -> nn.GroupNorm:
    most = max(g for g in range(1, groups + 1) if width % g == 0)
    return nn.GroupNorm(most, width, eps=EPSILON)


def named(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """rpjax's parameters, or their gradients, by this net's names and shapes."""
    found: dict[str, np.ndarray] = {}
    for layer, leaves in params.items():
        if layer.startswith("block"):
            inner = {f"blocks.{layer[5:]}.{k}": v for k, v in named(leaves).items()}
            found |= inner
        elif "kernel" in leaves:
            kernel = np.asarray(leaves["kernel"])
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            found[f"{layer}.weight"] = kernel.transpose(axes)
            if "bias" in leaves:
                found[f"{layer}.bias"] = np.asarray(leaves["bias"])
        else:
            found[f"{layer}.weight"] = np.asarray(leaves["scale"])
            found[f"{layer}.bias"] = np.asarray(leaves["bias"])
    return found


def plain_name(name: str) -> str:
    """A parameter's name without the padding that stands before its convolution."""
    return name.replace(".1.weight", ".weight") if "conv" in name else name


def load(net: Net, params: Mapping[str, Any]) -> None:
    """Give the net rpjax's parameters; every one is used, and once."""
    values, own = named(params), dict(net.named_parameters())
    if values.keys() != {plain_name(name) for name in own}:
        raise ValueError("the nets have different parameters")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(values[plain_name(name)].copy()))


def normalised(images: Tensor, channels_last: bool) -> Tensor:
    """Stored bytes (b, h, w, c) as float32 (b, c, h, w), in [-1, 1]."""
    pixels = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    if channels_last:
        return pixels
    # of one channel `contiguous` leaves as they are, and the next layers then take
    # them for channels last, with which Opacus's hooks sum the wrong numbers
    return pixels.clone(memory_format=torch.contiguous_format)


def stopwatch(
    net: Net,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    *,
    mode: str,
    channels_last: bool,
    dtype: str,
    device: str,
) -> Callable[[int], float]:
    """(steps) -> seconds of so many training steps, on data that lie on the device.

    mode: "eager", "compiled", or "graphs": compiled, and replayed as CUDA graphs.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(device, memory_format=layout).train()
    options = {"graphs": {"mode": "reduce-overhead"}}.get(mode, {})
    asked = net if mode == "eager" else torch.compile(net, **options)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    pixels = torch.from_numpy(images.copy()).to(device)
    targets = torch.from_numpy(labels.astype(np.int64)).to(device)
    order = torch.randperm(len(images)).to(device)
    low = dtype == "bfloat16"

    def step(number: int) -> None:
        start = number * batch_size % (len(images) - batch_size + 1)
        where = order[start : start + batch_size]
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            logits = asked(normalised(pixels[where], channels_last))
            loss = F.cross_entropy(logits.float(), targets[where])
        loss.backward()
        optimiser.step()

    def seconds(steps: int) -> float:
        wait(device)
        began = time.perf_counter()
        for number in range(steps):
            step(number)
        wait(device)
        return time.perf_counter() - began

    return seconds


def wait(device: str) -> None:
    """Until the device has done all it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
