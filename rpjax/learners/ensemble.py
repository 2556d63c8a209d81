"""Wrappers that give a learner a member axis: ensembles and models side by side."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey
from rpjax.errors import InputError
from rpjax.learners.base import Batch, Info, Learner, State
from rpjax.learners.networks import Combine, Mapping, combined, over_members


def ensemble(
    learner: Learner,
    members: int,
    *,
    joint: bool = False,
    combine: Combine = "probabilities",
    mapping: Mapping = "auto",
) -> Learner:
    """`members` copies of a learner that answer with their average.

    joint: False trains each on its own batches, with its own keys; True trains them as
        one net through the average of their outputs, as in EnResNet (arXiv 1811.10745).
    combine: average "probabilities" or "logits".
    mapping: how members run on one device, see `over_members`.
    """
    if joint:
        if learner.joint is None:
            raise InputError("joint is True; only supervised learners train jointly")
        _check(members)
        return learner.joint(members, mapping, combine)
    many = side_by_side(learner, members, mapping=mapping)

    def predict(
        key: PRNGKey, state: State, images: Array, ids: Array, noise: bool = True
    ) -> Array:
        return combined(many.predict(key, state, images, ids, noise), combine)

    released = replace(
        many.mechanism, members=many.mechanism.members * members, shared_input=False
    )
    return many._replace(predict=predict, mechanism=released)


def side_by_side(
    learner: Learner, members: int, *, mapping: Mapping = "auto"
) -> Learner:
    """`members` independent copies of a learner: a bank of models, not one model.

    Every leaf of the state and of a batch has a leading axis of `members`, and so have
    the predictions. Member i does exactly what `learner` does with ``keys.member(key,
    i)``. Shadow models and sweeps over seeds are this.
    """
    _check(members)
    over = over_members(members, mapping)

    def init(key: PRNGKey, images: Array) -> State:
        # one program for all, whatever the mapping: initialisation is run just once
        own = rp_keys.members(key, (members,))
        state: State = jax.vmap(lambda k: learner.init(k, images))(own)
        return state

    def step(
        key: PRNGKey, state: State, batch: Batch, axis: str | None = None
    ) -> tuple[State, Info]:
        def one(key: PRNGKey, state: State, batch: Batch) -> tuple[State, Info]:
            return learner.step(key, state, batch, axis)

        own = rp_keys.members(key, (members,))
        after: tuple[State, Info] = over(one, own, state, batch)
        return after

    def predict(
        key: PRNGKey, state: State, images: Array, ids: Array, noise: bool = True
    ) -> Array:
        def one(index: Array, state: State) -> Array:
            own = rp_keys.member(key, index)
            return learner.predict(own, state, images, ids, noise)

        return over(one, jnp.arange(members), state)

    return Learner(
        init=init,
        step=step,
        predict=predict,
        mechanism=learner.mechanism,
        members=(members, *learner.members),
    )


def _check(members: int) -> None:
    if members < 1:
        raise InputError(f"members is {members}; it must be >= 1")
