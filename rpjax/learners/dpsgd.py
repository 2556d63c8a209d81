"""DP-SGD: per-example gradients, clipped, summed, noised, divided by a constant.

Abadi et al., arXiv 1607.00133, for Poisson batches in slots of fixed shape. Clipped
sums are those of `rpjax.gradients`.
"""

import math
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
from rpjax.gradients import Clipping, GroupClipping, Moving, Rule
from rpjax.learners.base import Batch, Implementation, Info, Learner, Mechanism, State
from rpjax.learners.dpsgd_release import Asked, by_groups, by_rule
from rpjax.learners.dpsgd_settings import Engine, Sampling, Settings
from rpjax.learners.freezing import Trained
from rpjax.learners.inputs import Inputs, noise_keys
from rpjax.learners.losses import Loss, Losses, cross_entropy
from rpjax.learners.losses.loss import largest_weights
from rpjax.learners.networks import Network, built, leaves_open, linen
from rpjax.learners.reduction import vary
from rpjax.learners.supervised import forward_mechanism, init_with, means, predict_with
from rpjax.learners.transfer import Pretrained, started
from rpjax.noise import Source as NoiseSource

# the gradients of so many records of ResNet-8 on 32 x 32 pixels stay in a CPU's cache
CPU_MICROBATCH = 32


def dpsgd(
    model: Any,
    tx: optax.GradientTransformation,
    inputs: Inputs | None = None,
    *,
    clip_norm: float,
    noise_multiplier: float,
    batch_size: int,
    clipping: Clipping | Rule | GroupClipping = "flat",
    engine: Engine = "auto",
    microbatch: int | None = None,
    augmentation_multiplicity: int = 1,
    trainable: Sequence[str] | None = None,
    sampling: Sampling = "poisson",
    noise: NoiseSource = "threefry",
    loss: Losses = cross_entropy,
    start: Pretrained | None = None,
) -> Learner:
    """Differentially private training of `model`.

    clip_norm: l2 norm to which each record's gradient is clipped.
    noise_multiplier: standard deviation of the noise on the clipped sum, divided by the
        l2 distance that one record can move it; `rpjax.privacy.dpsgd` finds it from a
        target epsilon.
    batch_size: *expected* size of a Poisson batch; the noisy sum is divided by it,
        whatever the batch really holds.
    clipping: the rule, by name or as one of `rpjax.gradients`: "flat", "normalised",
        "automatic", "per_layer", "adaptive". A `GroupClipping` has a clip norm for each
        class, which labels number.
    engine: how per-example gradients are computed: "vmap", "two_pass", "bookkeeping";
        "auto" is "bookkeeping" unless `fit` has measured.
    microbatch: records whose gradients are in memory at once; None leaves it to the
        device. Slots behind the last record are not computed.
    augmentation_multiplicity: views of a record whose mean gradient is clipped (De et
        al., arXiv 2204.13650); costs no privacy.
    trainable: the parameters to train, by the beginnings of their paths, such as
        ("head",) or `rpjax.learners.trainable_after`'s answer; the others stay as they
        are, need no noise, and their gradients are not computed. None is all.
    sampling: "poisson", each record by its own coin; or "shuffled" epochs of full
        batches, whose guarantee has no amplification by sampling.
    noise: what draws the noise from 256 secret bits: "threefry", or "secure", a
        cryptographic generator on the host.
    loss: (logits (b, k), labels (b,)) -> losses (b,), a function of each record alone;
        or one of `rpjax.learners.losses`. Class counts in it have to be public or
        released with noise; class weights are applied after clipping, and the noise is
        scaled to clip_norm times the largest of them. The guarantee composes with the
        release of counts that `rpjax.privacy.histogram.Histogram` made; what any other
        release cost comes on top.
    start: parameters of a net trained on public data, from which this one starts. They
        cost nothing, and the guarantee names where they come from.

    One record is one unit of privacy, so a model with BatchNorm is refused. The noise
    comes from 256 bits in the state, not from the run's key.
    """
    settings = Settings(
        clip_norm,
        noise_multiplier,
        batch_size,
        clipping,
        engine,
        microbatch,
        augmentation_multiplicity,
        None if trainable is None else tuple(trainable),
        sampling,
        noise,
        loss,
        start,
    )
    if getattr(model, "norm", None) == "batch":
        raise _batch_norm("norm is 'batch'")
    return _learner(model, tx, inputs or Inputs(), settings)


def _learner(
    model: Any, tx: optax.GradientTransformation, inputs: Inputs, settings: Settings
) -> Learner:
    network = started(linen(model), settings.start)
    mechanism = _mechanism(model, inputs, settings)
    rule, trained = settings.rule, settings.trained

    def init(key: PRNGKey, images: Array) -> State:
        # the optimiser sees the trained parameters alone
        state: State = init_with(network, tx, inputs, trained.part)(key, images)
        if state.stats:
            raise _batch_norm("the model has running statistics")
        if isinstance(rule, Moving):
            moving = {name: jnp.float32(v) for name, v in rule.moving().items()}
            state = state._replace(stats=moving)
        return state

    def step(
        key: PRNGKey, state: State, batch: Batch, axis: str | None = None
    ) -> tuple[State, Info]:
        frozen, params = state.params, trained.part(state.params)
        asked = _asked(network, inputs, settings, trained)(
            key, state, vary(params, axis), vary(frozen, axis), batch, axis
        )
        given = (asked, state, batch, axis)
        if isinstance(rule, GroupClipping):
            released = by_groups(settings, rule, *given)
        else:
            released = by_rule(settings, _now(rule, state), *given)
        updates, opt_state = tx.update(released.gradient, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        state = state._replace(
            step=state.step + 1,
            params=trained.whole(params, state.params),
            stats=released.stats,
            opt_state=opt_state,
        )
        return state, means(released.sums) | released.facts

    def predict(
        key: PRNGKey, state: State, images: Array, ids: Array, noise: bool = True
    ) -> Array:
        answer: Array = predict_with(network, inputs, mechanism.noisy)(
            key, state._replace(stats={}), images, ids, noise
        )
        return answer

    def using(how: Implementation) -> Learner:
        chosen = settings
        if settings.engine == "auto" and how.engine is not None:
            chosen = replace(settings, engine=how.engine)  # type: ignore[arg-type]
        return _learner(built(model, how), tx, inputs, chosen)

    open_engine = {"engine"} if settings.engine == "auto" else set()
    return Learner(
        init=init,
        step=step,
        predict=predict,
        mechanism=mechanism,
        open=leaves_open(model) | open_engine,
        using=using,
        with_optimiser=lambda tx: _learner(model, tx, inputs, settings),
    )


def _mechanism(model: Any, inputs: Inputs, settings: Settings) -> Mechanism:
    return replace(
        forward_mechanism(model, inputs, "step"),
        kind="dpsgd",
        clip_norm=settings.clip_norm,
        noise_multiplier=settings.noise_multiplier,
        batch_size=settings.batch_size,
        clipping=settings.rule.name,
        sampling=settings.sampling,
        noise_source=settings.noise,
        trained=settings.trained.names,
        class_weights=largest_weights(settings.weighted.phases)
        if settings.weighted is not None
        else (),
        pretrained=None if settings.start is None else str(settings.start),
        **_known_counts(settings.loss),
    )


def _known_counts(loss: Losses) -> dict[str, Any]:
    """Where the figures in a loss come from."""
    if not isinstance(loss, Loss):
        return {}
    return {
        "released_counts": loss.unaccounted,
        "public_counts": any(source.source == "public" for source in loss.sources),
        "releases": loss.releases,
    }


def _now(rule: Rule, state: State) -> Rule:
    """The rule with what has moved of it."""
    return replace(rule, **state.stats) if isinstance(rule, Moving) else rule  # type: ignore[type-var]


def _asked(
    network: Network, inputs: Inputs, settings: Settings, trained: Trained
) -> Callable[..., Asked]:
    """How a batch's gradients by the trained parameters are computed."""
    views = settings.augmentation_multiplicity
    engine = "bookkeeping" if settings.engine == "auto" else settings.engine

    def asked(
        key: PRNGKey,
        state: State,
        params: PyTree,
        frozen: PyTree,
        batch: Batch,
        axis: str | None,
    ) -> Asked:
        def prepared(batch: Batch) -> tuple[Array, ...]:
            pixels = inputs.training(key, state, "step", batch, views)
            own = noise_keys(state, "residual_noise", "step", batch.ids)
            return own, pixels, batch.labels

        def loss(params: PyTree, record: tuple[Array, ...]) -> tuple[Array, Array]:
            noise_key, images, label = record
            keys = noise_key[None]
            if views > 1:
                keys = jax.vmap(lambda v: rp_keys.view(noise_key, v))(jnp.arange(views))
            whole = trained.whole(params, frozen)
            logits, _ = network.apply(keys, whole, {}, images, True)
            losses = _one_each(settings.loss, logits, jnp.repeat(label, views))
            return losses.mean(), logits[0]

        size = settings.microbatch or _microbatch(
            len(batch.valid), settings.batch_size / _devices(axis)
        )
        return Asked(loss, params, engine, size, prepared)

    return asked


def _microbatch(slots: int, expected: float) -> int | None:
    """How many records at a time, where nobody says.

    A CPU is fastest when the gradients in hand stay in its cache. Elsewhere a quarter
    of the expected batch, if a fifth of the slots or more stays empty: those behind the
    last record are then skipped, but for a part of a quarter.
    """
    if jax.default_backend() == "cpu":
        return CPU_MICROBATCH
    return None if slots < 1.2 * expected else max(1, math.ceil(expected / 4))


def _devices(axis: str | None) -> int:
    return 1 if axis is None else int(jax.lax.psum(1, axis))


def _one_each(loss: Losses, logits: Array, labels: Array) -> Array:
    losses = loss(logits, labels)
    if jnp.shape(losses) != labels.shape:
        raise InputError(
            f"loss returned shape {jnp.shape(losses)} for {len(labels)} records; it "
            "must return one number for each, since a mean would mix records"
        )
    return losses


def _batch_norm(what: str) -> InputError:
    return InputError(
        f"{what}, and BatchNorm's statistics mix the records of a batch; "
        "DP-SGD needs norm='group'"
    )
