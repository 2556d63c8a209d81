"""The net that is attacked, and its learners by name."""

from typing import Any

import flax.linen as nn
import optax

from rpjax import keys as rp_keys
from rpjax.attacks.reconstruction import Imitation
from rpjax.gradients import Flat
from rpjax.learners import Learner, dpsgd, supervised
from rpjax.models import ResNet
from rpjax.models.conv import convolution
from rpjax.perturbations import Additive, Multiplicative, Perturbation, euler_step

CLIP_NORM = 1.0


class Small(nn.Module):
    """A stem, one residual block with its noise, a head that reads every place.

    No normalisation and no pooling: both hide the image from this attack, see the rows
    of "resnet". Where a net has neither, its gradient is at its most telling.
    """

    classes: int
    perturbation: Perturbation | None = None
    width: int = 8
    convolution: Any = "auto"

    @nn.compact
    def __call__(self, keys: Any, images: Any, train: bool = False) -> Any:
        hook = convolution(self.convolution)
        x = nn.Conv(self.width, (3, 3), conv_general_dilated=hook, name="stem")(images)
        if self.perturbation is not None:
            keys = rp_keys.per_block(keys, 0)
        x = Step(self.width, self.perturbation, hook, name="block0")(keys, x)
        return nn.Dense(self.classes, name="head")(nn.relu(x).reshape(len(x), -1))


class Step(nn.Module):
    """The block: ``x + F(x) + noise``."""

    width: int
    perturbation: Perturbation | None
    hook: Any

    @nn.compact
    def __call__(self, keys: Any, x: Any) -> Any:
        f = x
        for name in ("conv0", "conv1"):
            layer = nn.Conv(
                self.width, (3, 3), conv_general_dilated=self.hook, name=name
            )
            f = layer(nn.relu(f))
        return euler_step(keys, self.perturbation, x, f)


def mechanism(name: str) -> tuple[str, float]:
    """Kind and size: "plain", "strategy1:0.5", "strategy2:0.5", "dpsgd:0.1".

    The size is gamma, or DP-SGD's noise multiplier.
    """
    kind, _, size = name.partition(":")
    return kind, float(size or 0)


def net(name: str, classes: int, kind: str = "small") -> Any:
    """The net of a mechanism, with its perturbation."""
    of, size = mechanism(name)
    noise = {"strategy1": Additive, "strategy2": Multiplicative}.get(of)
    perturbation = noise(size) if noise else None
    if kind == "small":
        return Small(classes, perturbation)
    return ResNet(
        stages=(1,),
        widths=(8,),
        stem_width=8,
        classes=classes,
        perturbation=perturbation,
    )


def learner(
    name: str, model: Any, tx: optax.GradientTransformation, size: int
) -> Learner:
    """The learner of a mechanism, for batches of `size`."""
    of, sigma = mechanism(name)
    if of != "dpsgd":
        return supervised(model, tx)
    return dpsgd(
        model, tx, clip_norm=CLIP_NORM, noise_multiplier=sigma, batch_size=size
    )


def imitation(name: str, model: Any, size: int, draws: int) -> Imitation:
    """What the attacker runs; one record's clipping changes no direction."""
    clipped = mechanism(name)[0] == "dpsgd" and size > 1
    return Imitation(model, Flat(CLIP_NORM) if clipped else None, draws)
