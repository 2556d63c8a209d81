"""Residual networks as pure Linen modules whose blocks take a key."""

from rpjax.models.conv import convolution, im2col
from rpjax.models.resnet import ResNet, resnet, wide_resnet

__all__ = ["ResNet", "convolution", "im2col", "resnet", "wide_resnet"]
