"""The five methods: from a configuration to a learner and its training."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from rpjax.batches import poisson_slots
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.experiments.config import METHODS, ExperimentConfig, Method
from rpjax.learners import Inputs, Learner, dpsgd, ensemble, supervised
from rpjax.models import resnet, wide_resnet
from rpjax.perturbations import Additive, Multiplicative, Perturbation
from rpjax.privacy import Guarantee
from rpjax.privacy import dpsgd as accounting
from rpjax.training import Budget, guarantee
from rpjax.training.budget import Meter
from rpjax.training.loop import sampler_for, step_count
from rpjax.training.run import spending


@dataclass(frozen=True)
class Plan:
    """A method, ready to train on so many records.

    learner, batch_size, steps: what `rpjax.training.fit` takes.
    """

    name: Method
    label: str
    description: str
    learner: Learner
    batch_size: int
    steps: int
    records: int
    config: ExperimentConfig

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
        return guarantee(
            *(self.learner, sampler, steps, shape),
            delta=delta,
            noise_seed=training.noise_seed,
        )


def plan(config: ExperimentConfig, name: Method, classes: int, records: int) -> Plan:
    """The plan for one method, from a resolved configuration."""
    if name not in METHODS:
        raise InputError(f"method is {name!r}; it is one of {', '.join(METHODS)}")
    label, description, perturbation = _described(config, name)
    model = _model(config, classes, perturbation)
    if name == "dpsgd":
        learner, batch_size, steps = _dpsgd(config, model, records)
    else:
        learner, batch_size, steps = _supervised(config, model, records)
    if name == "ensemble":
        options = config.ensemble
        learner = ensemble(
            learner,
            options.members,
            joint=options.joint,
            combine=options.combine,
            mapping=options.mapping,
        )
    return Plan(name, label, description, learner, batch_size, steps, records, config)


def _described(
    config: ExperimentConfig, name: Method
) -> tuple[str, str, Perturbation | None]:
    noise, members = config.noise, config.ensemble.members
    assert noise.gamma is not None
    assert noise.gamma_relative is not None
    strategy1 = Additive(noise.gamma)
    strategy2 = Multiplicative(noise.gamma_relative, noise.floor)
    how = "jointly" if config.ensemble.joint else "independently"
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
            f"DP-SGD (ε = {config.dp.epsilon:g})"
            if config.dp.noise_multiplier is None
            else f"DP-SGD (σ = {config.dp.noise_multiplier:g})",
            "Per-example gradients, clipped, with Gaussian noise on their sum.",
            None,
        ),
    }
    return lines[name]


def _model(
    config: ExperimentConfig, classes: int, perturbation: Perturbation | None
) -> Any:
    options = config.model
    fields = {
        "perturbation": perturbation,
        "stem": options.stem,
        "norm": options.norm,
        "groups": options.groups,
        "standardise": options.standardise,
        "skip": options.skip,
        "convolution": options.convolution,
        "dtype": jnp.dtype(options.dtype),
    }
    if options.width is not None:
        return wide_resnet(options.depth, options.width, classes, **fields)
    return resnet(options.depth, classes, **fields)


def _inputs(config: ExperimentConfig) -> Inputs:
    training, noise = config.training, config.noise
    assert training.crop is not None
    assert training.flip is not None
    return Inputs(
        noise=noise.input_noise,
        bound=noise.input_bound,
        augmentation=Augmentation(training.crop, training.flip),
    )


def _supervised(
    config: ExperimentConfig, model: Any, records: int
) -> tuple[Learner, int, int]:
    training = config.training
    assert training.batch_size is not None
    assert training.learning_rate is not None

    def learner(steps: int) -> Learner:
        tx = _sgd(training.learning_rate, steps, training)
        inputs = _inputs(config)
        if model.perturbation is None:
            # plain training is the yardstick: it sees the images as they are
            inputs = Inputs(augmentation=inputs.augmentation)
        return supervised(model, tx, inputs, config.noise.draw)

    sampler = sampler_for(learner(1), records, training.batch_size)
    steps = step_count(sampler, None, training.epochs)
    return learner(steps), training.batch_size, steps


def _dpsgd(
    config: ExperimentConfig, model: Any, records: int
) -> tuple[Learner, int, int]:
    dp = config.dp
    assert dp.batch_size is not None
    assert dp.epochs is not None
    if not 1 <= dp.batch_size <= records:
        raise InputError(
            f"dp-batch-size is {dp.batch_size}; it must lie between 1 and the number "
            f"of training records = {records}"
        )
    if not dp.epochs > 0:
        raise InputError(f"dp-epochs is {dp.epochs}; it must be > 0")
    steps = max(1, round(dp.epochs * records / dp.batch_size))
    sigma = dp.noise_multiplier
    if sigma is None:
        sigma = accounting.noise_multiplier_for(
            dp.epsilon,
            dp.delta,
            dp.batch_size / records,
            steps,
            truncation=accounting.Truncation(
                records, poisson_slots(records, dp.batch_size)
            ),
        )
    learner = dpsgd(
        model,
        _sgd(dp.learning_rate, steps, config.training),
        Inputs(augmentation=_inputs(config).augmentation),
        clip_norm=dp.clip_norm,
        noise_multiplier=sigma,
        batch_size=dp.batch_size,
        microbatch=dp.microbatch,
    )
    return learner, dp.batch_size, steps


def _sgd(
    learning_rate: float | None, steps: int, training: Any
) -> optax.GradientTransformation:
    if learning_rate is None or not learning_rate > 0:
        raise InputError(f"learning_rate is {learning_rate}; it must be > 0")
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    sgd = optax.sgd(schedule, momentum=training.momentum, nesterov=True)
    if training.weight_decay == 0:
        return sgd
    return optax.chain(optax.add_decayed_weights(training.weight_decay), sgd)
