"""The small net of the `imbalance` benchmark, and its images: MNIST in quarters.

Small, because a record here is trained hundreds of times over: three ways to train, a
loss each, seeds, shadow models. Average-pooled 14 x 14 pixels lose little of a digit.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import numpy as np

import rpjax as rp
from rpjax import keys as rp_keys
from rpjax.perturbations import Perturbation, euler_step


class Residual(nn.Module):
    """A layer on the pixels, one residual block of a layer with its noise, a head.

    No normalisation: DP-SGD takes it as it is.
    """

    classes: int
    width: int = 32
    perturbation: Perturbation | None = None

    @nn.compact
    def __call__(self, keys: Any, images: Any, train: bool = False) -> Any:
        x = nn.Dense(self.width, name="stem")(images.reshape(len(images), -1))
        if self.perturbation is not None:
            keys = rp_keys.per_block(keys, 0)
        f = nn.Dense(self.width, name="block0")(nn.relu(x))
        # the step is one of images: here of a single place
        place = (len(x), 1, 1, self.width)
        x = euler_step(keys, self.perturbation, x.reshape(place), f.reshape(place))
        return nn.Dense(self.classes, name="head")(nn.relu(x.reshape(len(x), -1)))


def pooled(data: rp.Dataset) -> rp.Dataset:
    """Images of half the height and width: means of 2 x 2 pixels, rounded."""

    def part(records: Any) -> Any:
        images = np.asarray(records.images[:])
        n, high, wide, channels = images.shape
        blocks = images.reshape(n, high // 2, 2, wide // 2, 2, channels)
        means = np.rint(blocks.mean((2, 4))).astype(np.uint8)
        return dataclasses.replace(records, images=means)

    return dataclasses.replace(
        data,
        train=part(data.train),
        test=part(data.test),
        source=data.source + " Pixels averaged in blocks of 2 x 2.",
    )
