"""Residual networks as pure Linen modules whose blocks take a key."""

from rpjax.models.conv import canonical, convolution, im2col
from rpjax.models.resnet import ResNet, resnet, wide_resnet

__all__ = ["ResNet", "canonical", "convolution", "im2col", "resnet", "wide_resnet"]
