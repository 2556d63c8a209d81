"""What a step gives away, by rpjax's own learners, and how an attacker imitates it.

Threat: the attacker sees the gradient of one step and the parameters before it, and
knows the net and its settings. That is the server of federated learning, or whoever
reads two checkpoints one step apart. It is less than differential privacy's adversary
has, and more than someone with the final weights alone.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey, PyTree, RecordKeys
from rpjax.errors import InputError
from rpjax.gradients import Rule, clipped_sum
from rpjax.learners import Batch, Implementation, Learner, State
from rpjax.learners.inputs import Draw, noise_keys
from rpjax.learners.losses import cross_entropy
from rpjax.learners.networks import built, linen

READING: optax.GradientTransformation = optax.trace(0.0)
"""An optimiser that keeps the gradient of the last step, and nothing else."""


def released_gradient(
    learner: Learner, key: PRNGKey, state: State, batch: Batch
) -> PyTree:
    """The gradient that this learner hands to its optimiser in one step on `batch`.

    learner: made with `READING` as its optimiser, with whatever noise and clipping it
        has: ``rpjax.supervised(model, READING)``, ``rpjax.dpsgd(model, READING, ...)``.
    key, state: as for ``learner.step``; of the state count the parameters, the step and
        the secret, from which all noise comes.

    Raises:
        InputError: the learner has another optimiser.
    """
    before = state._replace(opt_state=_empty(learner, key, batch.images))
    after, _ = learner.step(key, before, batch)
    gradient: PyTree = after.opt_state.trace
    return gradient


def step_noise(state: State, ids: Array, draw: Draw = "step") -> RecordKeys:
    """The keys of a step's residual noise, one a record: a secret of the training.

    For an attacker who knows it, and to see what not knowing it is worth.
    """
    return noise_keys(state, "residual_noise", draw, ids)


@dataclass(frozen=True)
class Imitation:
    """The attacker's own copy of a training step: from a guess to its gradient.

    model: the net, with its perturbation if it has one.
    rule: how each record's gradient is clipped (DP-SGD), or None.
    draws: draws of residual noise that are averaged, where the attacker does not know
        that of the step.

    Input noise is not imitated: what is found is the net's input, noisy if it was.
    """

    model: Any
    rule: Rule | None = None
    draws: int = 4

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"draws is {self.draws}; it must be >= 1")
        if getattr(self.model, "norm", None) == "batch":
            raise InputError(
                "norm is 'batch', whose gradient depends on running statistics; "
                "attack a net with norm='group'"
            )

    @property
    def noisy(self) -> bool:
        """Whether the gradient depends on a key."""
        return getattr(self.model, "perturbation", None) is not None

    def gradient(
        self, params: PyTree, keys: RecordKeys | None, pixels: Array, labels: Array
    ) -> PyTree:
        """The (clipped) mean gradient of a batch under one draw of the noise."""
        # many steps and starts are searched at once, for which the other convolutions
        # become grouped ones
        model = built(self.model, Implementation(convolution="im2col"))
        network = linen(model)

        def loss(params: PyTree, record: tuple[Array, ...]) -> tuple[Array, None]:
            image, label, *own = (leaf[None] for leaf in record)
            logits, _ = network.apply(own[0] if own else None, params, {}, image, True)
            return cross_entropy(logits, label)[0], None

        records = (pixels, labels) if keys is None else (pixels, labels, keys)
        if self.rule is not None:
            valid = jnp.ones(len(pixels), bool)
            total = clipped_sum(loss, self.rule)(params, records, valid).total
            return jax.tree.map(lambda leaf: leaf / len(pixels), total)

        def mean(params: PyTree) -> Array:
            return jax.vmap(lambda record: loss(params, record)[0])(records).mean()

        return jax.grad(mean)(params)

    def expected(
        self, params: PyTree, key: PRNGKey, pixels: Array, labels: Array
    ) -> PyTree:
        """The mean gradient over `draws` fresh draws of the noise."""
        if not self.noisy:
            return self.gradient(params, None, pixels, labels)

        def drawn(number: Array) -> PyTree:
            own = rp_keys.per_record(rp_keys.view(key, number), jnp.arange(len(pixels)))
            return self.gradient(params, own, pixels, labels)

        # one after another: side by side, what XLA makes of Strategy II for the CPU
        # (jaxlib 0.10.2) breaks off with a segmentation fault
        many = jax.lax.map(drawn, jnp.arange(self.draws))
        return jax.tree.map(lambda leaf: leaf.mean(0), many)


def _empty(learner: Learner, key: PRNGKey, images: Array) -> PyTree:
    """The state of a reading optimiser before its step."""
    made = jax.eval_shape(learner.init, key, images).opt_state
    if not isinstance(made, optax.TraceState):
        raise InputError(
            "learner has an optimiser that does not keep the gradient; make it with "
            "rpjax.attacks.reconstruction.READING as its optimiser"
        )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)
