"""Clipping rules: how much of each record's gradient may enter the sum.

=============  =====================================  ============================
rule           a record's gradient g becomes          sensitivity of the sum
=============  =====================================  ============================
`Flat`         g min(1, C / |g|)                      C
`Normalised`   g min(1 / C, 1 / |g|)                  1
`Automatic`    g C / (|g| + stability)                C
`PerLayer`     each layer's part of g, as in `Flat`,  C
               with C / sqrt(number of layers)
`Adaptive`     as in `Flat`; C follows a quantile     C; the count has its own
=============  =====================================  ============================

Those that scale all gradients alike are in `rpjax.gradients.scaled`, and one with a
norm for each group in `rpjax.gradients.groups`.

The sensitivity is the l2 distance by which adding or removing one record can move the
sum. Flat: Abadi et al., arXiv 1607.00133; normalised: De et al., arXiv 2204.13650;
automatic: Bu et al., arXiv 2206.07136; adaptive: Andrew et al., arXiv 1905.03871.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rpjax.annotations import PyTree
from rpjax.errors import InputError

Clipping = Literal["flat", "normalised", "automatic", "per_layer", "adaptive"]

TINY = 1e-12


class Rule(ABC):
    """How a record's gradient is bounded.

    name: of the rule, one of `Clipping`.
    clip_norm: C, the l2 norm that the rule holds on to.
    """

    name: ClassVar[str]
    clip_norm: Any

    @abstractmethod
    def weights(self, squares: PyTree) -> PyTree:
        """What to multiply gradients with, from their squared norms.

        squares: like the parameters; each leaf's squared norms (b,).
        Returns the same tree of weights; where one weight counts for the whole
        gradient, every leaf is the same array.
        """

    def sensitivity(self) -> Any:
        """l2 distance by which one record more or less can move the weighted sum."""
        return self.clip_norm

    @property
    def threshold(self) -> Any:
        """The norm above which a gradient is clipped."""
        return self.clip_norm


class Moving(Rule):
    """A rule with a number that a noisy count of each batch moves.

    Gradient and count come from one batch, and are released as one Gaussian mechanism
    that has the learner's noise multiplier: the gradient's own noise is larger for it.
    """

    @abstractmethod
    def moving(self) -> dict[str, Any]:
        """The fields that move, with their values now."""

    @abstractmethod
    def votes(self, lengths: Array) -> Array:
        """Each record's part in the count (b,), from its gradient's norm."""

    @abstractmethod
    def count_noise(self, batch_size: int) -> float:
        """Standard deviation of the noise on the count."""

    @abstractmethod
    def gradient_noise_multiplier(
        self, noise_multiplier: float, batch_size: int
    ) -> float:
        """The gradient's own multiplier, for both releases together to have this one.

        Raises:
            InputError: the count's noise is so small that nothing is left.
        """

    @abstractmethod
    def moved_by(self, noisy_count: Any, batch_size: int) -> dict[str, Any]:
        """The fields' next values; a count is divided by the *expected* batch size."""


@dataclass(frozen=True)
class Flat(Rule):
    """Gradients longer than `clip_norm` are cut to it."""

    name: ClassVar[str] = "flat"
    clip_norm: Any

    def __post_init__(self) -> None:
        _check(self.clip_norm)

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        factor = jnp.minimum(1.0, self.clip_norm / jnp.maximum(norms(squares), TINY))
        return uniform(factor, squares)


@dataclass(frozen=True)
class Normalised(Rule):
    """`Flat`, divided by `clip_norm`: the learning rate does not depend on it."""

    name: ClassVar[str] = "normalised"
    clip_norm: Any

    def __post_init__(self) -> None:
        _check(self.clip_norm)

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        factor = jnp.minimum(1 / self.clip_norm, 1 / jnp.maximum(norms(squares), TINY))
        return uniform(factor, squares)

    def sensitivity(self) -> float:
        """See `Rule`."""
        return 1.0


@dataclass(frozen=True)
class Automatic(Rule):
    """Every gradient is brought to a norm just below `clip_norm`, short ones too.

    `clip_norm` then only scales the learning rate. stability: keeps the direction of a
    vanishing gradient from being blown up.
    """

    name: ClassVar[str] = "automatic"
    clip_norm: float
    stability: float = 0.01

    def __post_init__(self) -> None:
        _check(self.clip_norm)
        if not 0 < self.stability < math.inf:
            raise InputError(
                f"stability is {self.stability}; it must be finite and > 0"
            )

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        factor = self.clip_norm / (norms(squares) + self.stability)
        return uniform(factor, squares)


@dataclass(frozen=True)
class PerLayer(Rule):
    """Each layer's gradient is cut to clip_norm / sqrt(number of layers).

    A layer is what stands at one place of the parameters' tree: a kernel and its bias.
    """

    name: ClassVar[str] = "per_layer"
    clip_norm: float

    def __post_init__(self) -> None:
        _check(self.clip_norm)

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        paths, treedef = jax.tree.flatten_with_path(squares)
        layers: dict[Any, Array] = {}
        for path, square in paths:
            layers[path[:-1]] = layers.get(path[:-1], 0.0) + square
        bound = self.clip_norm / math.sqrt(len(layers))
        factors = {
            layer: jnp.minimum(1.0, bound / jnp.maximum(jnp.sqrt(square), TINY))
            for layer, square in layers.items()
        }
        return treedef.unflatten([factors[path[:-1]] for path, _ in paths])


@dataclass(frozen=True)
class Adaptive(Moving):
    """Flat clipping to a norm that follows a quantile of the gradients' norms.

    clip_norm: at the start.
    quantile: of the norms, to which the clip norm moves.
    learning_rate: it is multiplied by exp(-learning_rate (fraction below it -
        quantile)) after each step.
    count_noise_multiplier: standard deviation of the noise on the number of records
        below it; None is a twentieth of the expected batch. The noise on the gradient
        is raised so that both releases together cost what the learner's noise
        multiplier says.
    """

    name: ClassVar[str] = "adaptive"
    clip_norm: Any
    quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        _check(self.clip_norm)
        if not 0 < self.quantile < 1:
            raise InputError(
                f"quantile is {self.quantile}; it must lie between 0 and 1"
            )
        if not 0 <= self.learning_rate < math.inf:
            raise InputError(
                f"learning_rate is {self.learning_rate}; it must be finite and >= 0"
            )

    def weights(self, squares: PyTree) -> PyTree:
        """See `Rule`."""
        return Flat(self.clip_norm).weights(squares)

    def moving(self) -> dict[str, Any]:
        """See `Moving`."""
        return {"clip_norm": self.clip_norm}

    def votes(self, lengths: Array) -> Array:
        """One half below the clip norm, minus one half above it or not finite."""
        return jnp.where(lengths <= self.clip_norm, 0.5, -0.5)

    def moved_by(self, noisy_count: Any, batch_size: int) -> dict[str, Any]:
        """See `Moving`."""
        return {"clip_norm": self.moved(self.clip_norm, noisy_count, batch_size)}

    def count_noise(self, batch_size: int) -> float:
        """Standard deviation of the noise on the count."""
        if self.count_noise_multiplier is None:
            return batch_size / 20
        return self.count_noise_multiplier

    def gradient_noise_multiplier(
        self, noise_multiplier: float, batch_size: int
    ) -> float:
        """The gradient's own multiplier, for both releases together to have this one.

        A record moves the count, taken from one half below to one half above, by 1/2;
        so the two are one Gaussian mechanism with ``z^-2 = own^-2 + (2 count)^-2``.
        """
        return beside_count(noise_multiplier, self.count_noise(batch_size), 0.5)

    def moved(self, clip_norm: Any, noisy_count: Any, batch_size: int) -> Any:
        """The next clip norm.

        noisy_count: the sum over the batch of 1/2 for each record below `clip_norm` and
            -1/2 for each above, with noise; divided by the *expected* batch size.
        """
        fraction = noisy_count / batch_size + 0.5
        return clip_norm * jnp.exp(-self.learning_rate * (fraction - self.quantile))


def rule(clipping: "Clipping | Rule", clip_norm: float) -> "Rule":
    """The rule of that name for a clip norm; a rule is handed back as it is."""
    if not isinstance(clipping, str):
        return clipping
    if clipping not in get_args(Clipping):
        raise InputError(
            f"clipping is {clipping!r}; it is one of {', '.join(get_args(Clipping))}"
        )
    made: dict[str, Any] = {
        "flat": Flat,
        "normalised": Normalised,
        "automatic": Automatic,
        "per_layer": PerLayer,
        "adaptive": Adaptive,
    }
    found: Rule = made[clipping](clip_norm)
    return found


def beside_count(
    noise_multiplier: float, count_noise: float, sensitivity: float = 1.0
) -> float:
    """The gradient's multiplier beside a count, for both together to have this one.

    ``z^-2 = own^-2 + (count_noise / sensitivity)^-2``: given a batch, both are one
    Gaussian mechanism, whichever of them depends on the other's outcome; and they are
    sampled together.

    Raises:
        InputError: nothing is left for the gradient.
    """
    if noise_multiplier == 0:
        return 0.0
    count = count_noise / sensitivity
    if not count > noise_multiplier:
        raise InputError(
            f"count_noise_multiplier is {count_noise:g}; it must be > "
            f"{noise_multiplier * sensitivity:g}, or nothing is left for the gradient"
        )
    own: float = (noise_multiplier**-2 - count**-2) ** -0.5
    return own


def norms(squares: PyTree) -> Float[Array, " b"]:
    """l2 norm of each record's whole gradient, from its leaves' squared norms."""
    return jnp.sqrt(sum(jax.tree.leaves(squares)))


def uniform(factor: Array, squares: PyTree) -> PyTree:
    """One weight a record (b,), for every leaf the same array."""
    return jax.tree.map(lambda _: factor, squares)


def _check(clip_norm: Any) -> None:
    """A traced clip norm is the adaptive rule's own, and was checked at its start."""
    if isinstance(clip_norm, int | float) and not 0 < clip_norm < math.inf:
        raise InputError(f"clip_norm is {clip_norm}; it must be finite and > 0")
