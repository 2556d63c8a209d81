"""What a step of a learner releases: all that these experiments look at.

The learner is built with an optimiser that writes down the gradient which it is given
and then takes it with a learning rate of 1. So every experiment sees exactly what
leaves the mechanism, whatever optimiser will be trained with: that is postprocessing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from rpjax import keys as rp_keys
from rpjax.annotations import PyTree
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Batch, Learner, Mechanism, State
from rpjax.learners.freezing import Trained

Make = Callable[[optax.GradientTransformation], Learner]
Vector = Float[np.ndarray, " _"]

PROBES = 6
ROUNDING = float(np.finfo(np.float32).eps)
LARGEST = float(np.finfo(np.float32).max)


class Recorded(NamedTuple):
    """The state of `recorder`: the last gradient that it was given."""

    gradient: PyTree


def recorder() -> optax.GradientTransformation:
    """Gradient descent of learning rate 1 that keeps the gradient in its state."""

    def init(params: PyTree) -> Recorded:
        return Recorded(jax.tree.map(jnp.zeros_like, params))

    def update(
        gradient: PyTree, state: Recorded, params: PyTree = None
    ) -> tuple[PyTree, Recorded]:
        return jax.tree.map(jnp.negative, gradient), Recorded(gradient)

    return optax.GradientTransformation(init, update)


def recorded(state: PyTree) -> PyTree:
    """The gradient that a state has kept."""
    kind = lambda node: isinstance(node, Recorded)
    found = [s for s in jax.tree.leaves(state, is_leaf=kind) if kind(s)]
    if len(found) != 1:
        raise InputError(
            f"the learner's state holds {len(found)} times the "
            "optimiser that make was given; its step must take updates from that one"
        )
    return found[0].gradient


def flat(tree: PyTree) -> Array:
    """All leaves as one vector."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves).astype(jnp.float32)


def names(tree: PyTree) -> list[str]:
    """The paths of a tree's leaves, such as "head/kernel"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in paths]


@dataclass(frozen=True)
class Claim:
    """What a mechanism says of its sum.

    clip_norm: now, which an adaptive rule moves.
    sensitivity: l2 distance by which adding or removing a record moves the sum.
    noise: standard deviation of the noise on it; an adaptive rule's may be larger.
    batch_size: by which it is divided.
    """

    clip_norm: float
    sensitivity: float
    noise: float
    batch_size: int

    @classmethod
    def of(cls, mechanism: Mechanism, state: State) -> "Claim":
        """The claim of a mechanism in this state."""
        assert mechanism.clip_norm is not None
        assert mechanism.noise_multiplier is not None
        assert mechanism.batch_size is not None
        norm = mechanism.clip_norm
        if mechanism.clipping == "adaptive":
            norm = float(state.stats["clip_norm"])
        bound = 1.0 if mechanism.clipping == "normalised" else norm
        bound *= mechanism.largest_weight(int(state.step))
        noise = mechanism.noise_multiplier * bound
        return cls(norm, bound, noise, mechanism.batch_size)


class Probe:
    """Asks one learner; see the module.

    learner: from `made`. first: its state at step 0.
    names, sizes: of the leaves of the gradient.
    trained: names of the parameters that the mechanism says are trained.
    batch: records in all slots, of which `at` are those that experiments look at: some
        of the data set, and extreme ones.
    """

    def __init__(
        self, learner: Learner, records: Records, slots: int, seed: int
    ) -> None:
        self.learner, self.root = learner, rp_keys.root(seed)
        images = jnp.asarray(records.images[:1])
        self.first: State = jax.jit(self.learner.init)(self.root, images)
        gradient = recorded(self.first)
        self.names = names(gradient)
        self.sizes = [leaf.size for leaf in jax.tree.leaves(gradient)]
        self.trained = self._trained()
        self.batch, self.at = _batch(records, slots, np.random.default_rng(seed))
        self._step = jax.jit(self._stepped)

    def _stepped(self, state: State, batch: Batch) -> tuple[Array, State]:
        after, _ = self.learner.step(self.root, state, batch)
        return flat(recorded(after)), after

    def step(self, state: State, batch: Batch) -> tuple[Vector, State]:
        """What a step releases, and the state after it."""
        gradient, after = self._step(state, batch)
        return np.asarray(gradient, np.float64), after

    def released(self, state: State, batch: Batch) -> Vector:
        """What a step releases."""
        return self.step(state, batch)[0]

    def claim(self, state: State | None = None) -> Claim:
        """What the mechanism says of its sum."""
        return Claim.of(self.learner.mechanism, state or self.first)

    @property
    def noisy(self) -> bool:
        """Whether the mechanism claims to add noise."""
        return bool(self.claim().noise)

    def holding(self, *slots: int) -> Batch:
        """The batch in which these slots alone count."""
        valid = np.zeros(len(self.batch.valid), bool)
        valid[list(slots)] = True
        return self.batch._replace(valid=jnp.asarray(valid))

    def parts(self, vector: Vector) -> dict[str, Vector]:
        """A gradient's leaves, by their paths."""
        ends = np.cumsum(self.sizes)[:-1]
        return dict(zip(self.names, np.split(vector, ends), strict=True))

    def own(self, vectors: Float[np.ndarray, "... p"]) -> Float[np.ndarray, "... q"]:
        """The trained parameters' part of gradients."""
        own = np.repeat([name in self.trained for name in self.names], self.sizes)
        kept: np.ndarray = vectors[..., own]
        return kept

    def _trained(self) -> set[str]:
        claimed = Trained(self.learner.mechanism.trained)
        return set(names(claimed.part(self.first.params)))

    def moved(self, factor: float, spread: float = 0.05) -> State:
        """The first state with parameters off their start, times `factor`.

        A net whose last gain or bias starts at zero has gradients everywhere then.
        """
        rng = np.random.default_rng(0)

        def one(leaf: Array) -> Array:
            noise = rng.uniform(-spread, spread, leaf.shape)
            moved = factor * (np.asarray(leaf, np.float64) + noise)
            return jnp.asarray(np.clip(moved, -LARGEST, LARGEST), leaf.dtype)

        return self.first._replace(params=jax.tree.map(one, self.first.params))


def made(subject: Learner | Make) -> Learner:
    """The learner with `recorder` for its optimiser, if it can be experimented with.

    Raises:
        InputError: if it cannot.
    """
    make = getattr(subject, "with_optimiser", None) or subject
    if not callable(make):
        raise InputError(
            "the learner does not let its optimiser be exchanged; give verify what "
            "builds it from one: lambda tx: my_learner(tx, ...)"
        )
    learner = make(recorder())
    for name in ("init", "step", "predict", "mechanism"):
        if not hasattr(learner, name):
            raise InputError(f"learner has no {name}; it is no rpjax.Learner")
    if learner.members:
        raise InputError(
            f"the learner has members {learner.members}; verify looks at one: give it "
            "the learner that the ensemble is made of"
        )
    facts = learner.mechanism
    stated = (facts.clip_norm, facts.noise_multiplier, facts.batch_size)
    if facts.kind == "dpsgd" and None in stated:
        raise InputError(
            "the mechanism must state clip_norm, noise_multiplier and batch_size"
        )
    if facts.kind != "dpsgd":
        raise InputError(
            f"the learner's mechanism is of kind {facts.kind!r}; verify "
            "knows what 'dpsgd' claims"
        )
    if facts.clipping == "per_group":
        raise InputError(
            "clipping is 'per_group', by which records change each other's clip norms: "
            "verify looks at sums in which each counts for itself"
        )
    return learner


def _batch(
    records: Records, slots: int, rng: np.random.Generator
) -> tuple[Batch, list[int]]:
    """A batch of random records, with extreme ones among those to look at."""
    fill = rng.choice(len(records), slots, replace=slots > len(records))
    fill = np.sort(fill)  # stored records are read in their order
    images, labels = np.array(records.images[fill]), records.labels[fill].copy()
    at = np.unique(np.linspace(0, slots - 1, PROBES).round().astype(int)).tolist()
    extreme = [np.zeros_like(images[0]), np.full_like(images[0], 255)]
    extreme.append(rng.integers(0, 2, images[0].shape).astype(np.uint8) * 255)
    for slot, image in zip(at[1::2], extreme, strict=False):
        images[slot] = image
        labels[slot] = rng.choice(records.labels)
    leaves = (images, labels, records.ids[fill], np.zeros(slots, bool))
    return Batch(*map(jnp.asarray, leaves)), at
