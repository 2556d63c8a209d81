"""What `rpjax.learners.dpsgd` is told: checked once, before anything is computed."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array

from rpjax.errors import InputError
from rpjax.gradients import Clipping, GroupClipping, Moving, Rule
from rpjax.gradients.clipping import rule as rule_named
from rpjax.learners.freezing import Trained
from rpjax.learners.losses import Loss, Losses, cross_entropy
from rpjax.learners.transfer import Pretrained
from rpjax.noise import Source as NoiseSource

Engine = Literal["auto", "vmap", "two_pass", "bookkeeping"]
Sampling = Literal["poisson", "shuffled"]


@dataclass(frozen=True)
class Settings:
    """What `dpsgd` is told, apart from the model, the optimiser and the inputs."""

    clip_norm: float
    noise_multiplier: float
    batch_size: int
    clipping: Clipping | Rule | GroupClipping = "flat"
    engine: Engine = "auto"
    microbatch: int | None = None
    augmentation_multiplicity: int = 1
    trainable: tuple[str, ...] | None = None
    sampling: Sampling = "poisson"
    noise: NoiseSource = "threefry"
    loss: Losses = cross_entropy
    start: Pretrained | None = None

    def __post_init__(self) -> None:
        _positive("clip_norm", self.clip_norm)
        if not 0 <= self.noise_multiplier < math.inf:
            raise InputError(
                f"noise_multiplier is {self.noise_multiplier}; it must be finite and "
                ">= 0"
            )
        for name in ("batch_size", "augmentation_multiplicity", "microbatch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be >= 1")
        for name, kind in (
            ("engine", Engine),
            ("sampling", Sampling),
            ("noise", NoiseSource),
        ):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; it is one of "
                    f"{', '.join(get_args(kind))}"
                )
        if self.rule.clip_norm != self.clip_norm:
            raise InputError(
                f"clip_norm is {self.clip_norm}, but the rule's is "
                f"{self.rule.clip_norm}; give both the same"
            )
        if self.engine == "two_pass" and self.rule.name == "per_layer":
            raise InputError(
                "engine is 'two_pass', which has one weight a record; per_layer "
                "clipping needs 'vmap' or 'bookkeeping'"
            )
        if isinstance(self.loss, Loss):
            self.loss.refuse_unless_private()
        if isinstance(self.rule, Moving):
            self.rule.gradient_noise_multiplier(self.noise_multiplier, self.batch_size)
        if isinstance(self.rule, GroupClipping):
            self.rule.gradient_noise_multiplier(self.noise_multiplier)
            if self.weighted is not None:
                raise InputError(
                    f"loss is {self.weighted.name!r} and clipping 'per_group'; class "
                    "weights and a clip norm for each class are two answers to one "
                    "question: take one of them"
                )

    @property
    def rule(self) -> Rule | GroupClipping:
        """The clipping rule, with its clip norm."""
        if isinstance(self.clipping, GroupClipping):
            return self.clipping
        return rule_named(self.clipping, self.clip_norm)

    @property
    def weighted(self) -> Loss | None:
        """The loss, if it has class weights."""
        loss = self.loss
        return loss if isinstance(loss, Loss) and loss.phases else None

    def sensitivity(self, rule: Rule, step: Array) -> Any:
        """l2 distance by which a record can move the weighted sum of this step.

        Class weights come after clipping, so the largest of them counts for everybody:
        noise that depended on who is in the batch would tell.
        """
        if self.weighted is None:
            return rule.sensitivity()
        return rule.sensitivity() * jnp.max(self.weighted.weights_at(step))

    @property
    def trained(self) -> Trained:
        """Which parameters are trained."""
        return Trained(self.trainable)


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it must be finite and > 0")
