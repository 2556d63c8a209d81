"""DP-SGD: per-example gradients, clipped, summed, noised, divided by a constant.

Abadi et al., arXiv 1607.00133, for Poisson batches in slots of fixed shape. Clipped
sums are those of `rpjax.gradients`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from rpjax import keys as rp_keys
from rpjax import noise as rp_noise
from rpjax.annotations import PRNGKey, PyTree
from rpjax.errors import InputError
from rpjax.gradients import Clipping, Moving, Rule, clipped_sum
from rpjax.gradients.clipped import Clipped
from rpjax.gradients.clipping import rule as rule_named
from rpjax.learners.base import Batch, Implementation, Info, Learner, Mechanism, State
from rpjax.learners.freezing import Trained
from rpjax.learners.inputs import Inputs, noise_keys
from rpjax.learners.losses import Loss, Losses, cross_entropy
from rpjax.learners.losses.loss import largest_weights
from rpjax.learners.networks import Network, built, leaves_open, linen
from rpjax.learners.reduction import summed, vary
from rpjax.learners.supervised import (
    figures,
    forward_mechanism,
    init_with,
    means,
    predict_with,
)
from rpjax.learners.transfer import Pretrained, started
from rpjax.noise import Source as NoiseSource

Engine = Literal["auto", "vmap", "two_pass", "bookkeeping"]
Sampling = Literal["poisson", "shuffled"]

# the gradients of so many records of ResNet-8 on 32 x 32 pixels stay in a CPU's cache
CPU_MICROBATCH = 32


@dataclass(frozen=True)
class Settings:
    """What `dpsgd` is told, apart from the model, the optimiser and the inputs."""

    clip_norm: float
    noise_multiplier: float
    batch_size: int
    clipping: Clipping | Rule = "flat"
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

    @property
    def rule(self) -> Rule:
        """The clipping rule, with its clip norm."""
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


def dpsgd(
    model: Any,
    tx: optax.GradientTransformation,
    inputs: Inputs | None = None,
    *,
    clip_norm: float,
    noise_multiplier: float,
    batch_size: int,
    clipping: Clipping | Rule = "flat",
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
        "automatic", "per_layer", "adaptive".
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
    adaptive = isinstance(rule, Moving)

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
        own_rule = replace(rule, **state.stats) if adaptive else rule  # type: ignore[type-var]
        frozen, params = state.params, trained.part(state.params)
        clipped = _clipped(network, inputs, settings, own_rule, trained)(
            key, state, vary(params, axis), vary(frozen, axis), batch, axis
        )
        sums = _sums(clipped, batch, own_rule, settings.loss)
        total, sums = summed((clipped.total, sums), axis)
        # every device adds the same draw to the same sum: the noise enters once
        gradient, moved = _released(settings, own_rule, state, total, sums)
        updates, opt_state = tx.update(gradient, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        info = means({k: v for k, v in sums.items() if k != "votes"})
        if adaptive:
            info |= state.stats
        state = state._replace(
            step=state.step + 1,
            params=trained.whole(params, state.params),
            stats=moved,
            opt_state=opt_state,
        )
        return state, info

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


def _clipped(
    network: Network, inputs: Inputs, settings: Settings, rule: Rule, trained: Trained
) -> Callable[..., Clipped]:
    """The clipped sum of a batch's gradients, by the trained parameters."""
    views = settings.augmentation_multiplicity
    engine = "bookkeeping" if settings.engine == "auto" else settings.engine

    def clipped(
        key: PRNGKey,
        state: State,
        params: PyTree,
        frozen: PyTree,
        batch: Batch,
        axis: str | None,
    ) -> Clipped:
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
        after = None
        if settings.weighted is not None:
            after = settings.weighted.weights_at(state.step)[batch.labels]
        return clipped_sum(loss, rule, engine, size, prepared)(
            params, batch, batch.valid, after
        )

    return clipped


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


def _sums(clipped: Clipped, batch: Batch, rule: Rule, loss: Losses) -> Info:
    """Figures of a batch before the update, as sums over its records."""
    norms, finite = clipped.norms, jnp.isfinite(clipped.norms)
    over, valid = norms > rule.threshold, batch.valid
    count = lambda which: jnp.sum(which, dtype=jnp.float32)
    sums = figures(clipped.aux, batch, loss) | {
        "clipped": count(over & valid),
        "non_finite": count(~finite & valid),
    }
    if isinstance(rule, Moving):
        sums["votes"] = jnp.sum(rule.votes(norms) * valid)
    return sums


def _released(
    settings: Settings, rule: Rule, state: State, total: PyTree, sums: Info
) -> tuple[PyTree, PyTree]:
    """What leaves the mechanism: the noisy mean gradient, and the next statistics."""
    sigma, size = settings.noise_multiplier, settings.batch_size
    if not isinstance(rule, Moving):
        scale = sigma * settings.sensitivity(rule, state.step)
        source = settings.noise
        noisy = noised(total, state.secret, state.step, scale, size, source)
        return noisy, state.stats
    return _released_with_count(settings, rule, state, total, sums["votes"])


def _released_with_count(
    settings: Settings, rule: Moving, state: State, total: PyTree, votes: Array
) -> tuple[PyTree, PyTree]:
    """The noisy mean gradient, and where the noisy count moves the rule."""
    sigma, size = settings.noise_multiplier, settings.batch_size
    if sigma == 0:
        gradient = jax.tree.map(lambda t: t / size, total)
    else:
        own = rule.gradient_noise_multiplier(sigma, size)
        own = own * settings.sensitivity(rule, state.step)
        count = rule.count_noise(size)
        # in units of their noise the two are one vector, and get one draw
        scaled = (jax.tree.map(lambda t: t / own, total), votes / count)
        draw = (state.secret, state.step, 1.0, 1, settings.noise)
        noisy, noisy_votes = noised(scaled, *draw)
        gradient = jax.tree.map(lambda t: t * own / size, noisy)
        votes = noisy_votes * count
    return gradient, rule.moved_by(votes, size)


def noised(
    total: PyTree,
    secret: Array,
    step: Array,
    scale: Any,
    batch_size: int,
    source: NoiseSource = "threefry",
) -> PyTree:
    """``(total + scale n) / batch_size`` with standard normal n of this step."""
    noisy = rp_noise.noised(total, secret, step, scale, source)
    return jax.tree.map(lambda leaf: leaf / batch_size, noisy)


def _batch_norm(what: str) -> InputError:
    return InputError(
        f"{what}, and BatchNorm's statistics mix the records of a batch; "
        "DP-SGD needs norm='group'"
    )


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it must be finite and > 0")
