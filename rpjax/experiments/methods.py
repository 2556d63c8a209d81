"""The five methods: from a configuration to a learner and its training."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from rpjax.averaging import averaged
from rpjax.batches import poisson_slots
from rpjax.counts import Counts, Release
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.experiments.clipping import rule_of
from rpjax.experiments.config import METHODS, DPConfig, ExperimentConfig, Method
from rpjax.experiments.imbalance import loss_of, private_loss_of
from rpjax.experiments.schedules import checked_rate, rising, steps_of_warmup
from rpjax.experiments.transfer import Carried, carried
from rpjax.experiments.values import config_hash
from rpjax.learners import Inputs, LabelNoise, Learner, dpsgd, ensemble, supervised
from rpjax.learners.losses import Losses
from rpjax.models import resnet, wide_resnet
from rpjax.perturbations import Additive, Multiplicative, Perturbation
from rpjax.privacy import Guarantee
from rpjax.privacy import dpsgd as accounting
from rpjax.training import Budget, Run, guarantee
from rpjax.training.budget import Meter
from rpjax.training.loop import sampler_for, step_count
from rpjax.training.run import spending


@dataclass(frozen=True)
class Plan:
    """A method, ready to train on so many records.

    learner, batch_size, steps: what `rpjax.training.fit` takes.
    loss: what it minimises; counts: those of the classes that it knows.
    """

    name: Method
    label: str
    description: str
    learner: Learner
    batch_size: int
    steps: int
    records: int
    config: ExperimentConfig
    loss: Losses
    counts: Counts | None = None

    @property
    def average(self) -> float | None:
        """Decay of the average of the parameters that is released; None: the last."""
        return self.config.dp.average if self.name == "dpsgd" else None

    def released(self, run: Run) -> Run:
        """What of a run by this plan is evaluated and attacked."""
        return run if self.average is None else run.averaged(self.average)

    @property
    def budget(self) -> Budget | None:
        """The epsilon at which DP-SGD has to stop, if it has one."""
        limit, delta = self.config.dp.stop_at_epsilon, self.config.dp.delta
        return None if limit is None or self.name != "dpsgd" else Budget(limit, delta)

    def guarantee(self, shape: tuple[int, int, int]) -> Guarantee:
        """What training by this plan proves."""
        training, delta = self.config.training, self.config.dp.delta
        sampler = sampler_for(self.learner, self.records, self.batch_size)
        steps = self.steps
        if self.budget is not None:
            spent = spending(self.learner, sampler, shape, delta)
            steps = Meter(self.budget, spent, steps).steps
        proved = guarantee(
            *(self.learner, sampler, steps, shape),
            delta=delta,
            noise_seed=training.noise_seed,
        )
        return self.certified(proved)

    def certified(self, proved: Guarantee) -> Guarantee:
        """A guarantee of a training by this plan, with the configuration's hash."""
        return dataclasses.replace(proved, configuration=config_hash(self.config))


class _Trained(NamedTuple):
    """What a method's learner is trained by."""

    learner: Learner
    batch_size: int
    steps: int
    loss: Losses


def plan(
    config: ExperimentConfig,
    name: Method,
    classes: int,
    records: int,
    counts: Counts | None = None,
) -> Plan:
    """The plan for one method, from a resolved configuration.

    counts: those of the classes, for a loss that knows them.
    """
    if name not in METHODS:
        raise InputError(f"method is {name!r}; it is one of {', '.join(METHODS)}")
    label, description, perturbation = _described(config, name)
    model = net(config, classes, perturbation)
    public = carried(config, model)
    if name == "dpsgd":
        made = _dpsgd(config, model, records, public, counts)
    else:
        made = _supervised(config, model, records, public, counts)
    learner, batch_size, steps, loss = made
    if name == "ensemble":
        options = config.ensemble
        learner = ensemble(
            learner,
            options.members,
            joint=options.joint,
            combine=options.combine,
            mapping=options.mapping,
        )
    return Plan(
        *(name, label, description, learner, batch_size, steps, records, config),
        *(loss, counts),
    )


def _described(
    config: ExperimentConfig, name: Method
) -> tuple[str, str, Perturbation | None]:
    noise, members = config.noise, config.ensemble.members
    assert noise.gamma is not None
    assert noise.gamma_relative is not None
    strategy1 = Additive(noise.gamma)
    strategy2 = Multiplicative(noise.gamma_relative, noise.floor)
    how = "jointly" if config.ensemble.joint else "independently"
    average = config.dp.average
    lines: dict[str, tuple[str, str, Perturbation | None]] = {
        "plain": ("Plain", "The net as it is, without any noise.", None),
        "strategy1": (
            f"Strategy I (γ = {noise.gamma:g})",
            "Additive Gaussian noise in every residual block.",
            strategy1,
        ),
        "strategy2": (
            f"Strategy II (γ = {noise.gamma_relative:g})",
            "Gaussian noise in proportion to each block's input.",
            strategy2,
        ),
        "ensemble": (
            f"Ensemble of {members} (Strategy I)",
            f"{members} Strategy I nets, trained {how}; their answers are averaged.",
            strategy1,
        ),
        "dpsgd": (
            _dp_label(config.dp),
            "Per-example gradients, clipped, with Gaussian noise on their sum"
            + (f"; parameters averaged with decay {average:g}." if average else "."),
            None,
        ),
    }
    return lines[name]


def _dp_label(dp: DPConfig) -> str:
    if dp.noise_multiplier is not None:
        return f"DP-SGD (σ = {dp.noise_multiplier:g})"
    if dp.epsilon == math.inf:
        return "DP-SGD (ε = ∞, no noise)"
    return f"DP-SGD (ε = {dp.epsilon:g})"


def net(
    config: ExperimentConfig, classes: int, perturbation: Perturbation | None = None
) -> Any:
    """The configured residual network."""
    options = config.model
    fields = {
        "perturbation": perturbation,
        "stem": options.stem,
        "norm": options.norm,
        "groups": options.groups,
        "norm_last": options.norm_last,
        "shortcut": options.shortcut,
        "standardise": options.standardise,
        "skip": options.skip,
        "residual_bound": options.residual_bound,
        "convolution": options.convolution,
        "dtype": jnp.dtype(options.dtype),
    }
    if options.width is not None:
        if options.channels is not None:
            raise InputError(
                f"channels is {options.channels} and width {options.width}; a wide "
                "ResNet's channels follow from its width"
            )
        return wide_resnet(options.depth, options.width, classes, **fields)
    return resnet(options.depth, classes, channels=options.channels, **fields)


def _inputs(config: ExperimentConfig) -> Inputs:
    training, noise = config.training, config.noise
    assert training.crop is not None
    assert training.flip is not None
    least = training.resized_crop
    return Inputs(
        noise=noise.input_noise,
        bound=noise.input_bound,
        augmentation=Augmentation(
            *(training.crop, training.flip, training.padding),
            resized_crop=None if least is None else (least, 1.0),
        ),
        order=noise.noise_order,
    )


def _supervised(
    config: ExperimentConfig,
    model: Any,
    records: int,
    public: Carried,
    counts: Counts | None,
) -> _Trained:
    training = config.training
    assert training.batch_size is not None
    assert training.learning_rate is not None

    rate = checked_rate(training.learning_rate)

    def learner(schedule: optax.Schedule, steps: int) -> tuple[Learner, Losses]:
        tx = _sgd(schedule, training.momentum, training.weight_decay)
        inputs, labels = _inputs(config), None
        if model.perturbation is None:
            # plain training is the yardstick: it sees the images as they are
            inputs = Inputs(augmentation=inputs.augmentation)
        elif config.noise.label_epsilon is not None:
            labels = LabelNoise(config.noise.label_epsilon, model.classes)
        loss = loss_of(config.loss, counts, steps)
        made = supervised(
            *(model, tx, inputs, config.noise.draw, labels, loss),
            trainable=public.trainable,
            start=public.start,
        )
        return made, loss

    always = optax.constant_schedule(rate)  # a sampler does not hang on it
    sampler = sampler_for(learner(always, 1)[0], records, training.batch_size)
    steps = step_count(sampler, None, training.epochs)
    per_epoch = records / training.batch_size
    first = steps_of_warmup("training", training.warmup, per_epoch, steps)
    made, loss = learner(rising(rate, "cosine", first, steps), steps)
    return _Trained(made, training.batch_size, steps, loss)


def _dpsgd(
    config: ExperimentConfig,
    model: Any,
    records: int,
    public: Carried,
    counts: Counts | None,
) -> _Trained:
    dp, augmentation = config.dp, _inputs(config).augmentation
    assert dp.batch_size is not None
    if not 1 <= dp.batch_size <= records:
        raise InputError(
            f"dp-batch-size is {dp.batch_size}; it must lie between 1 and the number "
            f"of training records = {records}"
        )
    if dp.augmentation_multiplicity > 1 and not augmentation.changes:
        raise InputError(
            f"augmult is {dp.augmentation_multiplicity}; without crop, resized_crop or "
            "flip all views of a record are the same"
        )
    steps = _dp_steps(dp, records)
    loss = private_loss_of(config.loss, counts, steps)
    released = getattr(loss, "releases", ())
    learner = dpsgd(
        model,
        _dp_optimiser(config, records, steps),
        Inputs(augmentation=augmentation),
        clip_norm=dp.clip_norm,
        noise_multiplier=_noise_multiplier(dp, records, steps, released),
        batch_size=dp.batch_size,
        microbatch=dp.microbatch,
        clipping=rule_of(dp, model.classes),
        engine=dp.engine,
        augmentation_multiplicity=dp.augmentation_multiplicity,
        trainable=dp.trainable or public.trainable,
        start=public.start,
        sampling=dp.sampling,
        noise=dp.noise_source,
        loss=loss,
    )
    return _Trained(learner, dp.batch_size, steps, loss)


def _dp_steps(dp: DPConfig, records: int) -> int:
    if dp.steps is not None:
        return dp.steps
    assert dp.batch_size is not None
    assert dp.epochs is not None
    if not dp.epochs > 0:
        raise InputError(f"dp-epochs is {dp.epochs}; it must be > 0")
    return max(1, round(dp.epochs * records / dp.batch_size))


def _noise_multiplier(
    dp: DPConfig, records: int, steps: int, releases: tuple[Release, ...]
) -> float:
    """The one that is asked for, or else the least for the target epsilon.

    The target is for training and the release of class counts together.
    """
    assert dp.batch_size is not None
    if dp.noise_multiplier is not None:
        return dp.noise_multiplier
    if dp.epsilon == math.inf:
        return 0.0
    run = (dp.epsilon, dp.delta, dp.batch_size / records, steps)
    if dp.sampling == "shuffled":
        return accounting.noise_multiplier_for(
            *run, adjacency="zero_out", sampling="shuffled", releases=releases
        )
    slots = poisson_slots(records, dp.batch_size)
    return accounting.noise_multiplier_for(
        *run, truncation=accounting.Truncation(records, slots), releases=releases
    )


def _dp_optimiser(
    config: ExperimentConfig, records: int, steps: int
) -> optax.GradientTransformation:
    dp, training = config.dp, config.training
    assert dp.batch_size is not None
    first = steps_of_warmup("dp", dp.warmup, records / dp.batch_size, steps)
    schedule = rising(checked_rate(dp.learning_rate), dp.schedule, first, steps)
    momentum = training.momentum if dp.momentum is None else dp.momentum
    tx = _sgd(schedule, momentum, training.weight_decay)
    return averaged(tx, dp.averages) if dp.averages else tx


def _sgd(
    schedule: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    # without momentum there is no second copy of the parameters to keep
    sgd = optax.sgd(schedule, momentum=momentum or None, nesterov=momentum > 0)
    if weight_decay == 0:
        return sgd
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd)
