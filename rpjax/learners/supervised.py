"""Supervised training: plain, and with residual perturbation if the model has one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey, PyTree
from rpjax.errors import InputError
from rpjax.learners.base import Batch, Info, Learner, Mechanism, State
from rpjax.learners.freezing import Trained
from rpjax.learners.inputs import Draw, Inputs, noise_keys
from rpjax.learners.label_noise import LabelNoise
from rpjax.learners.losses import Loss, Losses, correct, cross_entropy, per_record
from rpjax.learners.losses.classwise import tally
from rpjax.learners.networks import (
    Combine,
    Mapping,
    Network,
    averaged,
    built,
    leaves_open,
    linen,
)
from rpjax.learners.reduction import summed, vary
from rpjax.learners.transfer import Pretrained, started


def supervised(
    model: Any,
    tx: optax.GradientTransformation,
    inputs: Inputs | None = None,
    draw: Draw = "step",
    label_noise: LabelNoise | None = None,
    loss: Losses = cross_entropy,
    *,
    trainable: Sequence[str] | None = None,
    start: Pretrained | None = None,
) -> Learner:
    """Minimise the mean loss of a model, through its noise if it has some.

    model: a Linen module called as ``model(keys, pixels, train)``, such as
        `rpjax.models.resnet`; its `perturbation` makes this Strategy I or II.
    inputs: normalisation, input noise, augmentation.
    draw: "step" draws all forward noise afresh in each step; "record" keeps one draw
        for each record through the whole training, by the record's id.
    label_noise: randomised response on the labels, drawn once for each record, with the
        loss corrected for it; the guarantee then covers whole records.
    loss: (logits (b, k), labels (b,)) -> losses (b,), or one of `rpjax.learners.losses`
        with class weights or with weights from the batch. A guarantee for the features
        holds with any of them, since it takes labels, and so counts, for known. The
        figure "loss" of a step is the mean of the records' own losses, before weights.
    trainable: the parameters to train, by the beginnings of their paths, such as
        ("head",) or `rpjax.learners.trainable_after`'s answer; the others stay as they
        are, and their gradients are not computed. Running statistics go on moving.
        None is all.
    start: parameters of a net trained on public data, from which this one starts.
    """
    if label_noise is not None and loss is not cross_entropy:
        raise InputError(
            "loss and label_noise are both given; label_noise has a loss of its own, "
            "corrected for it"
        )
    inputs = inputs or Inputs()
    if draw not in ("step", "record"):
        raise InputError(f"draw is {draw!r}; it is 'step' or 'record'")
    if draw == "record" and inputs.order == "augment_then_noise":
        raise InputError(
            "draw is 'record' and noise_order 'augment_then_noise'; noise that is kept "
            "would meet several views of a record, whose difference shows it clean: "
            "take draw='step', or the order 'noise_then_augment'"
        )
    trained = Trained(trainable)
    mechanism = replace(
        forward_mechanism(model, inputs, draw),
        trained=trained.names,
        pretrained=None if start is None else str(start),
    )
    if label_noise is not None:
        mechanism = replace(
            mechanism, label_epsilon=label_noise.epsilon, classes=label_noise.classes
        )
        classes = getattr(model, "classes", label_noise.classes)
        if classes != label_noise.classes:
            raise InputError(
                f"label_noise has {label_noise.classes} classes and the model {classes}"
            )
    network = started(linen(model), start)
    learner = _learner(network, tx, inputs, mechanism, label_noise, loss, trained)
    return learner._replace(
        open=leaves_open(model),
        using=lambda how: supervised(
            *(built(model, how), tx, inputs, draw, label_noise, loss),
            trainable=trainable,
            start=start,
        ),
    )


def forward_mechanism(model: Any, inputs: Inputs, draw: Draw) -> Mechanism:
    """The facts of a model and its inputs on which a guarantee rests."""
    return Mechanism(
        kind="forward",
        perturbation=getattr(model, "perturbation", None),
        input_noise=inputs.noise,
        input_bound=inputs.bound,
        constants_public=inputs.constants_public,
        pixel_range=inputs.pixel_range,
        draw=draw,
        augmentation=inputs.augmented,
        batch_norm=getattr(model, "norm", None) == "batch",
        residual_bound=getattr(model, "residual_bound", None),
    )


def _learner(
    network: Network,
    tx: optax.GradientTransformation,
    inputs: Inputs,
    mechanism: Mechanism,
    label_noise: LabelNoise | None,
    loss: Losses,
    trained: Trained,
) -> Learner:
    losses = loss if label_noise is None else label_noise.losses

    def step(
        key: PRNGKey, state: State, batch: Batch, axis: str | None = None
    ) -> tuple[State, Info]:
        draw = mechanism.draw
        if label_noise is not None:
            batch = label_noise.reported(state, batch)
        pixels = inputs.training(key, state, draw, batch)
        noise = noise_keys(state, "residual_noise", draw, batch.ids)

        params, given = trained.part(state.params), vary(state.params, axis)

        def loss_sum(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
            whole = trained.whole(params, given)
            logits, stats = network.apply(
                noise, whole, state.stats, pixels, True, axis=axis
            )
            own = losses(logits, batch.labels) * batch.valid
            if isinstance(losses, Loss):
                own = own * _weights(losses, logits, batch, state.step, axis)
            return jnp.sum(own), (logits, stats)

        # vary: differentiated as replicated parameters, the gradient would be summed
        # over the axis once more by itself
        own, (logits, stats) = jax.grad(loss_sum, has_aux=True)(trained.part(given))
        gradient, sums = summed((own, figures(logits, batch, losses)), axis)
        gradient = jax.tree.map(lambda g: g / jnp.maximum(sums["count"], 1), gradient)
        updates, opt_state = tx.update(gradient, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        state = state._replace(
            step=state.step + 1,
            params=trained.whole(params, state.params),
            stats=stats,
            opt_state=opt_state,
        )
        return state, means(sums)

    def joint(members: int, mapping: Mapping, combine: Combine) -> Learner:
        return _learner(
            averaged(network, members, mapping, combine),
            tx,
            inputs,
            replace(mechanism, members=mechanism.members * members, shared_input=True),
            label_noise,
            loss,
            trained,
        )

    return Learner(
        init=init_with(network, tx, inputs, trained.part),
        step=step,
        predict=predict_with(network, inputs, mechanism.noisy),
        mechanism=mechanism,
        joint=joint,
    )


def _weights(
    loss: Loss, logits: Array, batch: Batch, step: Array, axis: str | None
) -> Array:
    """Each record's weight (b,), a constant to the gradient."""
    losses = jax.lax.stop_gradient(loss(logits, batch.labels))
    found = None
    if loss.coupling is not None:
        own = tally(losses, batch.labels, batch.valid, logits.shape[-1])
        found = summed(own, axis)
    return per_record(loss, losses, batch.labels, step, found)


def init_with(
    network: Network,
    tx: optax.GradientTransformation,
    inputs: Inputs,
    trained: Callable[[PyTree], PyTree] = lambda params: params,
) -> Any:
    """The `init` that learners share; `trained` parameters are the optimiser's."""

    def init(key: PRNGKey, images: Array) -> State:
        # no parameter may come from a record, whatever a layer's initialiser does
        pixels = inputs.clean(jnp.zeros_like(images))
        params, stats = network.init(rp_keys.domain(key, "init"), pixels)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            stats=stats,
            opt_state=tx.init(trained(params)),
            secret=rp_keys.fixed_secret(key),
        )

    return init


def predict_with(network: Network, inputs: Inputs, noisy: bool) -> Any:
    """The `predict` that supervised learners share."""

    def predict(
        key: PRNGKey, state: State, images: Array, ids: Array, noise: bool = True
    ) -> Array:
        if not (noise and noisy):
            pixels = inputs.clean(images)
            return network.apply(None, state.params, state.stats, pixels, False, False)[
                0
            ]
        key = rp_keys.domain(key, "query")
        own = rp_keys.per_record(rp_keys.domain(key, "input_noise"), ids)
        pixels = inputs.noisy(own, images)
        own = rp_keys.per_record(rp_keys.domain(key, "residual_noise"), ids)
        return network.apply(own, state.params, state.stats, pixels)[0]

    return predict


def figures(
    logits: Array,
    batch: Batch,
    loss: Losses = cross_entropy,
) -> Info:
    """Sums of a training batch, before the update: valid records, losses, hits."""
    losses, hits = loss(logits, batch.labels), correct(logits, batch.labels)
    return {
        "count": jnp.sum(batch.valid, dtype=jnp.float32),
        "loss": jnp.sum(losses * batch.valid),
        "accuracy": jnp.sum(hits * batch.valid, dtype=jnp.float32),
    }


def means(sums: Info) -> Info:
    """Each sum over the number of valid records, which is left out."""
    count = jnp.maximum(sums["count"], 1)
    return {name: total / count for name, total in sums.items() if name != "count"}
