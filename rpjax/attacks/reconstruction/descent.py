"""From a cost of images to the images: Adam from several starts, in one program.

Both inversions minimise a distance plus a total variation over images whose pixels stay
in their range. Which start was best is told by the cost, which an attacker knows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from rpjax.annotations import PRNGKey
from rpjax.errors import InputError

Cost = Callable[[PRNGKey, Array], Array]
"""(key for what the cost draws itself, images (b, h, w, c)) -> scalar."""


@dataclass(frozen=True)
class Descent:
    """How images are searched for.

    iterations: steps of Adam from each start.
    restarts: starts, from uniform pixels; the one of least cost is the answer.
    rate: learning rate, a tenth of it after 3/8, 5/8 and 7/8 of the steps.
    total_variation: weight of the total variation: how smooth an image should be. More
        of it helps against noise; an attacker tries it out on images of their own.
    signed: only the gradient's signs are used.
    pixel_range: where pixels lie.

    The defaults are those of Geiping et al. (arXiv 2003.14053) but for where and how
    often it starts, and the number of steps.
    """

    iterations: int = 600
    restarts: int = 2
    rate: float = 0.1
    total_variation: float = 1e-3
    signed: bool = True
    pixel_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be >= 1")
        if not self.rate > 0:
            raise InputError(f"rate is {self.rate}; it must be > 0")
        if not self.total_variation >= 0:
            raise InputError(
                f"total_variation is {self.total_variation}; it must be >= 0"
            )
        if not self.pixel_range[0] < self.pixel_range[1]:
            raise InputError(
                f"pixel_range is {self.pixel_range}; its ends must be in order"
            )

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """Adam with its schedule, on signs if so asked."""
        drops = {round(self.iterations * part / 8): 0.1 for part in (3, 5, 7)}
        schedule = optax.piecewise_constant_schedule(self.rate, drops)
        adam = optax.adam(schedule)
        if not self.signed:
            return adam
        sign = optax.stateless(lambda g, _: jax.tree.map(jnp.sign, g))
        return optax.chain(sign, adam)


class Reconstruction(NamedTuple):
    """What an attacker takes the images for.

    images: normalised pixels (..., b, h, w, c).
    cost: of the best start (...).
    costs: of every start (..., restarts).
    """

    images: Array
    cost: Array
    costs: Array


class Search(NamedTuple):
    """Where one start has got to: images, and the cost of those before them."""

    images: Array
    state: optax.OptState
    before: Array
    cost: Array


def descend(
    cost: Cost,
    shape: tuple[int, ...],
    key: PRNGKey,
    settings: Descent,
    total_variation: float | Array,
) -> Reconstruction:
    """The images (b, h, w, c) of this shape with the least cost that was found.

    total_variation: in place of the settings', so that it may be traced. All starts see
    the same draws at the same step, and are compared on one more.
    """
    tx, ends = settings.optimiser, settings.pixel_range
    k_start, k_draws = jax.random.split(key)

    def whole(key: PRNGKey, images: Array) -> Array:
        return cost(key, images) + total_variation * variation(images)

    def step(carry: Search, number: Array) -> tuple[Search, None]:
        images, state = carry.images, carry.state
        own = jax.random.fold_in(k_draws, number)
        value, gradient = jax.value_and_grad(whole, 1)(own, images)
        # a guess that has no gradient stays where it is
        gradient = jnp.nan_to_num(gradient, posinf=0.0, neginf=0.0)
        updates, state = tx.update(gradient, state)
        moved = jnp.clip(images + updates, *ends)
        return Search(moved, state, images, value), None

    def one(key: PRNGKey) -> tuple[Array, Array]:
        first = jax.random.uniform(key, shape, minval=ends[0], maxval=ends[1])
        start = Search(first, tx.init(first), first, jnp.zeros(()))
        # one more, whose cost is that of the answer: compiled once, not twice
        numbers = jnp.arange(settings.iterations + 1)
        found, _ = jax.lax.scan(step, start, numbers)
        return found.before, found.cost

    images, costs = jax.vmap(one)(jax.random.split(k_start, settings.restarts))
    # a start that ended in no number is no answer
    costs = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
    best = jnp.argmin(costs)
    return Reconstruction(images[best], costs[best], costs)


def variation(images: Float[Array, "b h w c"]) -> Float[Array, ""]:
    """Mean absolute difference of neighbours, down plus across: total variation."""
    down = jnp.abs(images[:, 1:] - images[:, :-1]).mean()
    return down + jnp.abs(images[:, :, 1:] - images[:, :, :-1]).mean()
