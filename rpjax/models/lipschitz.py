"""A residual net whose every block is c-Lipschitz by construction, for any parameters.

Where such a trunk is public and frozen and each block adds noise, depth amplifies what
is proved (`rpjax.privacy.depth`), by a formula in c. Two kinds of block ``x + F(x)``
keep a chosen c, with A and B convolutions of operator norm at most 1
(`rpjax.models.spectral`):

=======  ===========================================  ================================
c <= 1   ``F(x) = (c - 1) x - 2 c A' relu(A x + a)``  c times a gradient step of a
                                                      convex potential (Meunier et al.,
                                                      arXiv 2110.12690)
c > 1    ``F(x) = (c - 1) (B relu(A x + a) + b)``     an ordinary branch
=======  ===========================================  ================================

Proof. The first block's Jacobian is ``c (I - 2 A' D A)``, D diagonal with entries 0 or
1; as 0 <= A' D A <= I, its eigenvalues lie in [-c, c]. The second's F is (c - 1)-
Lipschitz, and the identity adds 1. No layer normalises by statistics of its input: such
a layer has no Lipschitz constant.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import FeatureMap, Logits, Pixels, PyTree, RecordKeys
from rpjax.errors import InputError
from rpjax.models.conv import NUMBERS, Convolution, convolution
from rpjax.models.spectral import Kernel, certified, unit
from rpjax.perturbations import Additive, euler_step


class LipschitzResNet(nn.Module):
    """Stem, blocks of known Lipschitz constants, mean over the pixels, linear head.

    lipschitz: c of each block. The features of two images are at most the product of
        them times the images' distance apart; the stem lengthens no distance.
    width: channels.
    classes: of the head, whose norm nothing bounds.
    perturbation: the noise of the blocks' Euler steps (Strategy I), or None.
    profile: each block's noise relative to the perturbation's gamma; None is 1 for all.
    patch: the stem takes squares of so many pixels a side for one, with zeros where an
        image ends early, and the blocks work at that resolution.
    convolution: how convolutions are computed, see `rpjax.models.conv`.
    """

    lipschitz: tuple[float, ...]
    width: int
    classes: int
    perturbation: Additive | None = None
    profile: tuple[float, ...] | None = None
    patch: int = 1
    convolution: Convolution = "auto"

    def __post_init__(self) -> None:
        if not self.lipschitz or not all(0 < c < float("inf") for c in self.lipschitz):
            raise InputError(
                f"lipschitz is {self.lipschitz}; it has a number > 0 for each block"
            )
        profile = self.profile or (1.0,) * len(self.lipschitz)
        if len(profile) != len(self.lipschitz) or not all(
            0 <= r < float("inf") for r in profile
        ):
            raise InputError(
                f"profile is {profile}; it has a number >= 0 for each of "
                f"{len(self.lipschitz)} blocks"
            )
        super().__post_init__()

    @property
    def gammas(self) -> tuple[float, ...]:
        """Standard deviation of each block's noise."""
        gamma = 0.0 if self.perturbation is None else self.perturbation.gamma
        return tuple(gamma * r for r in self.profile or (1.0,) * len(self.lipschitz))

    def setup(self) -> None:
        """The parts."""
        self.stem = Stem(self.width, self.patch, self.convolution)
        quiet = self.perturbation is None
        self.blocks = [
            LipschitzBlock(c, None if quiet else Additive(gamma), self.convolution)
            for c, gamma in zip(self.lipschitz, self.gammas, strict=True)
        ]
        self.head = nn.Dense(self.classes)

    def __call__(
        self, keys: RecordKeys | None, images: Pixels, train: bool = False
    ) -> Logits:
        """Logits (b, classes) of normalised images (b, h, w, c); one key a record."""
        return self.head(nn.relu(self.features(keys, images)).mean((1, 2)))

    def features(
        self, keys: RecordKeys | None, images: Pixels
    ) -> Float[Array, "b ph pw o"]:
        """The last block's output (b, h / patch, w / patch, width).

        A trunk's release: ``net.apply(variables, keys, images, method="features")``.
        """
        x = self.stem(images)
        for index, block in enumerate(self.blocks):
            x = block(None if keys is None else rp_keys.per_block(keys, index), x)
        return x


class Stem(nn.Module):
    """Squares of pixels become channels, then a convolution of norm at most 1."""

    width: int
    patch: int
    convolution: Convolution

    @nn.compact
    def __call__(self, images: Pixels) -> Float[Array, "b ph pw o"]:
        """(b, h, w, c) to (b, h / patch, w / patch, width)."""
        x = squares(images, self.patch)
        kernel, bias = _parameters(self, 0, x.shape[-1], self.width)
        return _convolve(self.convolution, x, unit(kernel, x.shape[1:3])) + bias


class LipschitzBlock(nn.Module):
    """``x + F(x)`` plus noise, c-Lipschitz: see the module for the two kinds of F."""

    c: float
    perturbation: Additive | None = None
    convolution: Convolution = "auto"

    @nn.compact
    def __call__(self, keys: RecordKeys | None, x: FeatureMap) -> FeatureMap:
        """(b, h, w, c) to the same shape; one key a record."""
        size, channels = x.shape[1:3], x.shape[-1]
        kernel, bias = _parameters(self, 0, channels, channels)
        first = unit(kernel, size)
        hidden = nn.relu(_convolve(self.convolution, x, first) + bias)
        if self.c <= 1:
            back = _convolve(self.convolution, hidden, adjoint(first))
            f = (self.c - 1) * x - 2 * self.c * back
        else:
            kernel, bias = _parameters(self, 1, channels, channels)
            second = unit(kernel, size)
            f = (self.c - 1) * (_convolve(self.convolution, hidden, second) + bias)
        return euler_step(keys, self.perturbation, x, f)


def certified_constants(
    net: LipschitzResNet, variables: PyTree, shape: tuple[int, ...]
) -> tuple[float, ...]:
    """Each block's Lipschitz constant, from its kernels by singular values in float64.

    It uses nothing of `net.lipschitz` but the formulas of the blocks, and exceeds no
    entry of it: a check of what construction promises.

    variables: the net's, ``{"params": ...}``.
    shape: (h, w, c) of the images.
    """
    size = (-(-shape[0] // net.patch), -(-shape[1] // net.patch))

    def norm(block: PyTree, index: int) -> float:
        return certified(unit(block[f"kernel{index}"], size), size)

    blocks = [variables["params"][f"blocks_{i}"] for i in range(len(net.lipschitz))]
    return tuple(
        c * max(1.0, 2 * norm(block, 0) ** 2 - 1)
        if c <= 1
        else 1 + (c - 1) * norm(block, 0) * norm(block, 1)
        for c, block in zip(net.lipschitz, blocks, strict=True)
    )


def squares(images: Pixels, patch: int) -> Float[Array, "b ph pw k"]:
    """Each square of patch x patch pixels as one with all their channels.

    Zeros fill up what is missing to a whole number of squares. Distances are kept.
    """
    b, h, w, c = images.shape
    below, right = -h % patch, -w % patch
    x = jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)))
    x = x.reshape(b, (h + below) // patch, patch, (w + right) // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, x.shape[1], x.shape[3], -1)


def adjoint(kernel: Kernel) -> Float[Array, "kh kw o i"]:
    """The kernel of the transposed operator: SAME, stride 1, odd height and width."""
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def _parameters(
    module: nn.Module, index: int, before: int, after: int
) -> tuple[Array, Array]:
    he = nn.initializers.he_normal()
    kernel: Array = module.param(f"kernel{index}", he, (3, 3, before, after))
    bias: Array = module.param(f"bias{index}", nn.initializers.zeros, (after,))
    return kernel, bias.reshape(1, 1, 1, -1)


def _convolve(how: Convolution, x: Array, kernel: Array) -> Array:
    convolve: Callable[..., Array] = convolution(how)
    return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)
