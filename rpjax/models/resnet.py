"""Residual networks whose blocks take a key: pre-activated, for any image size.

`resnet` builds the named depths, `wide_resnet` the wide ones. A block is one Euler step
(`rpjax.perturbations`): it folds its own index into each record's key, so the noise
does not depend on names, on the batch or on the number of devices. Statistics are per
record (GroupNorm) unless BatchNorm is asked for.
"""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import FeatureMap, Logits, Pixels, RecordKeys
from rpjax.errors import InputError
from rpjax.models.conv import Convolution, StandardisedConv, convolution
from rpjax.models.norms import GroupNorm
from rpjax.perturbations import Perturbation, clip_to_ball, euler_step

Norm = Literal["group", "batch"]
Stem = Literal["cifar", "imagenet"]
Shortcut = Literal["shared", "own"]

CIFAR_DEPTHS = (8, 20, 26, 32, 44, 56, 110)
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet(
    depth: int, classes: int, *, channels: int | None = None, **options: Any
) -> "ResNet":
    """A pre-activated ResNet by depth.

    6n + 2 (8, 20, 26, 32, 44, 56, 110) are the CIFAR nets of He et al. (arXiv
    1603.05027): three stages of width 16, 32, 64. 18, 34 and 50 have four stages of
    width 64 to 512, with bottleneck blocks in 50. `channels` are the first stage's, if
    not 16 or 64; each stage has twice as many. `options` are the fields of `ResNet`:
    perturbation, stem, norm, groups, norm_last, shortcut, standardise, skip,
    residual_bound, convolution, dtype.
    """
    if channels is not None and channels < 1:
        raise InputError(f"channels is {channels}; it must be >= 1")
    if depth in CIFAR_DEPTHS:
        first = channels or 16
        return ResNet(
            stages=((depth - 2) // 6,) * 3,
            widths=(first, 2 * first, 4 * first),
            stem_width=first,
            classes=classes,
            **options,
        )
    if depth in STAGES:
        first = channels or 64
        return ResNet(
            stages=STAGES[depth],
            widths=(first, 2 * first, 4 * first, 8 * first),
            stem_width=first,
            bottleneck=depth == 50,
            classes=classes,
            **options,
        )
    allowed = sorted((*CIFAR_DEPTHS, *STAGES))
    raise InputError(f"depth is {depth}; a ResNet has one of {allowed}")


def wide_resnet(depth: int, width: int, classes: int, **options: Any) -> "ResNet":
    """WRN-depth-width (Zagoruyko and Komodakis, arXiv 1605.07146).

    Three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times `width` channels wide.
    `options` as for `resnet`. De et al. (arXiv 2204.13650) train it privately with
    ``groups=16, standardise=True, norm_last=True, shortcut="own"``.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InputError(f"depth is {depth}; a wide ResNet has 6 n + 4 with n >= 1")
    return ResNet(
        stages=((depth - 4) // 6,) * 3,
        widths=(16 * width, 32 * width, 64 * width),
        classes=classes,
        **options,
    )


class ResNet(nn.Module):
    """Stem, stages of residual blocks, normalised mean, linear head.

    stages: blocks per stage; each stage but the first halves the resolution.
    widths: channels per stage (four times as many leave a bottleneck block).
    perturbation: the noise of each block's Euler step, or None.
    stem: "cifar", a 3x3 convolution; "imagenet", 7x7 with stride 2 and max-pooling; of
        `stem_width` channels.
    norm, groups: "group" (per record) or "batch" (running statistics at evaluation).
    norm_last: normalise after the activation, not before it (De et al.).
    shortcut: "shared" projects where the shape changes, from the activated input of
        the block; "own" in the first block of every stage, from an activation and
        normalisation of its own (De et al.).
    standardise: weight-standardised convolutions.
    skip: False removes the identity, for the paper's ablation.
    residual_bound: l2 norm to which each record's F(x) is clipped in every block (the
        paper's G); None leaves it. It bounds no block, since the skip carries x past
        it, and adds nothing to what is proved.
    convolution: how convolutions are computed, see `rpjax.models.conv`.
    dtype: of the activations; parameters, statistics and logits stay float32.
    batch_axis: mesh axis over which a batch is split, for BatchNorm's statistics; a
        learner fills it in.
    """

    stages: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    perturbation: Perturbation | None = None
    bottleneck: bool = False
    stem: Stem = "cifar"
    stem_width: int = 16
    norm: Norm = "group"
    groups: int = 8
    norm_last: bool = False
    shortcut: Shortcut = "shared"
    standardise: bool = False
    skip: bool = True
    residual_bound: float | None = None
    convolution: Convolution = "auto"
    dtype: Any = jnp.float32
    batch_axis: str | None = None

    def __post_init__(self) -> None:
        if self.residual_bound is not None and not self.residual_bound > 0:
            raise InputError(
                f"residual_bound is {self.residual_bound}; it must be > 0, or left out"
            )
        super().__post_init__()

    @property
    def block_groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the parameters: the stem's, each stage's blocks', the head's."""
        ends = [sum(self.stages[: k + 1]) for k in range(len(self.stages))]
        stages = [
            tuple(f"block{index}" for index in range(end - blocks, end))
            for end, blocks in zip(ends, self.stages, strict=True)
        ]
        return (("stem",), *stages, ("head_norm", "head"))

    @nn.compact
    def __call__(
        self, keys: RecordKeys | None, images: Pixels, train: bool = False
    ) -> Logits:
        """Logits (b, classes) of normalised images (b, h, w, c).

        keys: one key a record, for the noise; may be None without a perturbation.
        train: with BatchNorm, use and update the batch's statistics.
        """
        if self.perturbation is not None and keys is None:
            raise ValueError(
                "a perturbed net needs one key per record; "
                "model.clone(perturbation=None) is the same net without noise"
            )
        layers = _Layers(self, train)
        x = images.astype(self.dtype)
        if self.stem == "imagenet":
            x = layers.conv(self.stem_width, (7, 7), (2, 2), name="stem")(x)
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        else:
            x = layers.conv(self.stem_width, (3, 3), name="stem")(x)
        index = 0
        for stage, (blocks, width) in enumerate(
            zip(self.stages, self.widths, strict=True)
        ):
            for position in range(blocks):
                stride = 2 if stage > 0 and position == 0 else 1
                block_keys = None
                if self.perturbation is not None and keys is not None:
                    block_keys = rp_keys.per_block(keys, index)
                block = Block(
                    layers, width, stride, position == 0, name=f"block{index}"
                )
                x = block(block_keys, x)
                index += 1
        x = layers.activated(x, "head_norm")
        x = jnp.mean(x, (1, 2), dtype=jnp.float32)
        return nn.Dense(self.classes, name="head")(x)


class Block(nn.Module):
    """One residual block: the Euler step ``x + F(x) + noise``.

    Where the shape changes, x is a 1x1 convolution of the activated input; see
    `ResNet.shortcut`. Without a skip the step is ``F(x) + noise``, and Strategy II
    scales with F(x).
    """

    layers: "_Layers"
    width: int
    stride: int
    first: bool

    @nn.compact
    def __call__(
        self, keys: RecordKeys | None, x: FeatureMap
    ) -> Float[Array, "b oh ow o"]:
        """(b, h, w, c) to (b, h / stride, w / stride, channels); one key a record."""
        layers, strides = self.layers, (self.stride, self.stride)
        net = layers.net
        channels = self.width * (4 if net.bottleneck else 1)
        activated = layers.activated(x, "norm0")
        if net.bottleneck:
            f = layers.conv(self.width, (1, 1), name="conv0")(activated)
            f = layers.conv(self.width, (3, 3), strides, name="conv1")(
                layers.activated(f, "norm1")
            )
            f = layers.conv(channels, (1, 1), name="conv2")(
                layers.activated(f, "norm2")
            )
        else:
            f = layers.conv(channels, (3, 3), strides, name="conv0")(activated)
            f = layers.conv(channels, (3, 3), name="conv1")(
                layers.activated(f, "norm1")
            )
        if net.residual_bound is not None:
            f = clip_to_ball(f, net.residual_bound)
        if not net.skip:
            return euler_step(keys, net.perturbation, f, jnp.zeros_like(f))
        if net.shortcut == "own" and self.first:
            activated = layers.activated(x, "shortcut_norm")
            x = layers.conv(channels, (1, 1), strides, name="shortcut")(activated)
        elif x.shape != f.shape:
            x = layers.conv(channels, (1, 1), strides, name="shortcut")(activated)
        return euler_step(keys, net.perturbation, x, f)


class _Layers:
    """The layers of one net, with its options filled in."""

    def __init__(self, net: ResNet, train: bool) -> None:
        self.net, self.train = net, train
        hook = convolution(net.convolution)
        if net.standardise:
            self.conv = partial(
                StandardisedConv, conv_general_dilated=hook, dtype=net.dtype
            )
        else:
            self.conv = partial(
                nn.Conv,
                use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                conv_general_dilated=hook,
                dtype=net.dtype,
            )

    def activated(
        self, x: Float[Array, "b h w c"], name: str
    ) -> Float[Array, "b h w c"]:
        if self.net.norm_last:
            return self._normalised(nn.relu(x), name)
        return nn.relu(self._normalised(x, name))

    def _normalised(self, x: Array, name: str) -> Array:
        if self.net.norm == "batch":
            return nn.BatchNorm(
                use_running_average=not self.train,
                momentum=0.9,
                dtype=self.net.dtype,
                axis_name=self.net.batch_axis,
                name=name,
            )(x)
        # the largest number of groups up to the one asked for that divides the width
        groups = max(g for g in range(1, self.net.groups + 1) if x.shape[-1] % g == 0)
        return GroupNorm(num_groups=groups, dtype=self.net.dtype, name=name)(x)
