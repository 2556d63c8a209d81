"""Residual networks as pure Linen modules whose blocks take a key."""

from rpjax.models.conv import canonical, convolution, im2col
from rpjax.models.lipschitz import LipschitzResNet, certified_constants
from rpjax.models.resnet import ResNet, resnet, wide_resnet

__all__ = [
    "LipschitzResNet",
    "ResNet",
    "canonical",
    "certified_constants",
    "convolution",
    "im2col",
    "resnet",
    "wide_resnet",
]
