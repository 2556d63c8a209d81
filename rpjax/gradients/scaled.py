"""Rules that scale every gradient alike, so that no group's direction is bent.

Flat clipping shortens long gradients only, which are those of rare or hard groups.
Dividing all by one bound Z keeps their proportions::

    Global          g C / Z if |g| <= Z, else nothing
    GlobalAdaptive  g C / Z if |g| <= Z, else g C / |g|;  Z follows a noisy count

Source: Esipova, Ghomi, Luo and Cresswell, "Disparate impact in differential privacy
from gradient misalignment", ICLR 2023; `Global` from Bu et al., arXiv 2206.07136. Both
move a sum by C at most. Here the count is divided by the expected batch size: the size
of the batch itself, by which the published code divides, is data.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from rpjax.annotations import PyTree
from rpjax.errors import InputError
from rpjax.gradients.clipping import TINY, Moving, Rule, beside_count, norms, uniform


@dataclass(frozen=True)
class Global(Rule):
    """Every gradient times clip_norm / bound; one longer than `bound` is left out."""

    name: ClassVar[str] = "global"
    clip_norm: float
    bound: float

    def __post_init__(self) -> None:
        _check(clip_norm=self.clip_norm, bound=self.bound)

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        kept = norms(squares) <= self.bound
        return uniform(jnp.where(kept, self.clip_norm / self.bound, 0.0), squares)

    @property
    def threshold(self) -> Any:
        """See `Rule`."""
        return self.bound


@dataclass(frozen=True)
class GlobalAdaptive(Moving):
    """Every gradient times clip_norm / bound; a longer one is cut to clip_norm.

    bound: Z, at the start.
    tolerance: tau; gradients longer than tau Z are counted.
    learning_rate: eta. After each step Z is multiplied with
        exp(noisy count / expected batch - eta): it grows where more than a share eta of
        a batch is counted.
    count_noise_multiplier: standard deviation of the noise on the count, which a record
        moves by one. Gradient and count together cost what the learner's noise
        multiplier says; the gradient's noise is raised for it.
    """

    name: ClassVar[str] = "global_adaptive"
    clip_norm: float
    bound: Any
    tolerance: float = 1.0
    learning_rate: float = 0.01
    count_noise_multiplier: float = 10.0

    def __post_init__(self) -> None:
        _check(
            clip_norm=self.clip_norm,
            bound=self.bound,
            tolerance=self.tolerance,
            count_noise_multiplier=self.count_noise_multiplier,
        )
        if not 0 <= self.learning_rate < math.inf:
            raise InputError(
                f"learning_rate is {self.learning_rate}; it must be finite and >= 0"
            )

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        length = jnp.maximum(jnp.maximum(norms(squares), self.bound), TINY)
        return uniform(self.clip_norm / length, squares)

    @property
    def threshold(self) -> Any:
        """See `Rule`."""
        return self.bound

    def moving(self) -> dict[str, Any]:
        """See `Moving`."""
        return {"bound": self.bound}

    def votes(self, lengths: Array) -> Array:
        """See `Moving`; a gradient that is not finite is counted."""
        short = lengths <= self.tolerance * self.bound
        return jnp.where(short, 0.0, 1.0)

    def count_noise(self, batch_size: int) -> float:
        """See `Moving`."""
        return self.count_noise_multiplier

    def gradient_noise_multiplier(
        self, noise_multiplier: float, batch_size: int
    ) -> float:
        """See `Moving`."""
        return beside_count(noise_multiplier, self.count_noise_multiplier)

    def moved_by(self, noisy_count: Any, batch_size: int) -> dict[str, Any]:
        """See `Moving`."""
        share = noisy_count / batch_size
        return {"bound": self.bound * jnp.exp(share - self.learning_rate)}


def _check(**values: Any) -> None:
    for name, value in values.items():
        # a traced bound is the rule's own, and was checked at its start
        if isinstance(value, int | float) and not 0 < value < math.inf:
            raise InputError(f"{name} is {value}; it must be finite and > 0")
