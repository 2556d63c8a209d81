"""Wrappers that give a learner a member axis: ensembles and models side by side."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import MemberKeys, PRNGKey, RootKey
from rpjax.errors import InputError
from rpjax.learners.base import Batch, Implementation, Info, Learner, State
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

    def using(how: Implementation) -> Learner:
        return ensemble(
            learner.computed(how),
            members,
            joint=joint,
            combine=combine,
            mapping=_filled(mapping, how),
        )

    if joint:
        if learner.joint is None:
            raise InputError("joint is True; only supervised learners train jointly")
        _check(members)
        one = learner.joint(members, mapping, combine)
        return one._replace(open=_open(learner, mapping), using=using)
    many = side_by_side(learner, members, mapping=mapping)

    def together(logits: Array) -> Array:
        return combined(logits, combine)

    def predict(
        key: PRNGKey, state: State, images: Array, ids: Array, noise: bool = True
    ) -> Array:
        return together(many.predict(key, state, images, ids, noise))

    facts = learner.mechanism
    released = replace(facts, members=facts.members * members, shared_input=False)
    return many._replace(
        predict=predict, mechanism=released, combine=together, using=using
    )


def side_by_side(
    learner: Learner, members: int, *, mapping: Mapping = "auto"
) -> Learner:
    """`members` independent copies of a learner: a bank of models, not one model.

    Every leaf of the state and of a batch has a leading axis of `members`, and so have
    the predictions. Member i does exactly what `learner` does with ``keys.member(key,
    i)``; with a root key for each member (``fit(..., seed=[4, 7])``), what `learner`
    does with that key. Shadow models and sweeps over seeds are this.
    """
    _check(members)
    return _members(learner, members, mapping, 0)


def _members(
    learner: Learner, count: int, mapping: Mapping, first: Array | int
) -> Learner:
    """Members `first` to ``first + count - 1``; `first` may differ between devices."""
    over, facts = over_members(count, mapping), learner.mechanism

    def numbers() -> Array:
        return first + jnp.arange(count)

    def roots(key: RootKey) -> MemberKeys:
        return rp_keys.own(key, numbers())

    def init(key: RootKey, images: Array) -> State:
        # one program for all, whatever the mapping: initialisation is run just once
        state: State = jax.vmap(lambda k: learner.init(k, images))(roots(key))
        return state

    def step(
        key: RootKey, state: State, batch: Batch, axis: str | None = None
    ) -> tuple[State, Info]:
        def one(key: PRNGKey, state: State, batch: Batch) -> tuple[State, Info]:
            return learner.step(key, state, batch, axis)

        after: tuple[State, Info] = over(one, roots(key), state, batch)
        return after

    def predict(
        key: RootKey, state: State, images: Array, ids: Array, noise: bool = True
    ) -> Array:
        def one(key: PRNGKey, state: State) -> Array:
            return learner.predict(key, state, images, ids, noise)

        return over(one, roots(key), state)

    return Learner(
        init=init,
        step=step,
        predict=predict,
        mechanism=replace(facts, models=facts.models * count),
        members=(count, *learner.members),
        part=lambda count, first: _members(learner, count, mapping, first),
        open=_open(learner, mapping),
        using=lambda how: _members(
            learner.computed(how), count, _filled(mapping, how), first
        ),
    )


def _open(learner: Learner, mapping: Mapping) -> frozenset[str]:
    return learner.open | ({"mapping"} if mapping == "auto" else set())


def _filled(mapping: Mapping, how: Implementation) -> Any:
    return how.mapping or mapping if mapping == "auto" else mapping


def _check(members: int) -> None:
    if members < 1:
        raise InputError(f"members is {members}; it must be >= 1")
