"""The noise that a training would need to reach a target epsilon."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

from rpjax.counts import Counts
from rpjax.errors import InputError
from rpjax.experiments.config import DPConfig, ExperimentConfig, Method
from rpjax.experiments.methods import Plan, plan
from rpjax.privacy import calibration, gdp

# so much noise on the input leaves nothing of it
ENDLESS = 1e9


class Needed(NamedTuple):
    """A plan that reaches the target, and what makes it do so.

    option: the noise, as an option of the command line; noise: at least so much of it.
    before: how much the configuration has, None where it leaves it to the target.
    """

    plan: Plan
    option: str
    noise: float
    before: float | None

    def __str__(self) -> str:
        now = "" if self.before is None else f" (now {self.before:g})"
        line = f"needs {self.option} {self.noise:.4g}{now}"
        if self.option == "--input-noise" and self.before == 0:
            line += "; noise on the blocks alone reaches no target, whatever γ is"
        return line


def check_target(epsilon: float, delta: float | None) -> None:
    """Refuse a target that means nothing."""
    if not 0 < epsilon < math.inf:
        raise InputError(f"target_epsilon is {epsilon}; it must be finite and > 0")
    if delta is not None and not 0 < delta < 1:
        raise InputError(
            f"target_delta is {delta}; it must lie strictly between 0 and 1"
        )


def needed(
    config: ExperimentConfig,
    name: Method,
    classes: int,
    records: int,
    shape: tuple[int, int, int],
    epsilon: float,
    delta: float,
    counts: Counts | None = None,
) -> Needed:
    """The least noise for a method to reach (epsilon, delta), in four digits.

    DP-SGD's noise multiplier, or residual perturbation's noise on the input; all other
    settings are the configuration's, which is resolved.
    counts: those of the classes, for a loss that knows them.

    Raises:
        InputError: for a training that no noise makes private.
    """
    config = dataclasses.replace(config, dp=dataclasses.replace(config.dp, delta=delta))
    if name == "dpsgd":
        return _multiplier(config, classes, records, epsilon, counts)
    return _input_noise(config, name, classes, records, shape, epsilon, counts)


def _multiplier(
    config: ExperimentConfig,
    classes: int,
    records: int,
    epsilon: float,
    counts: Counts | None,
) -> Needed:
    dp = config.dp
    if dp.stop_at_epsilon is not None:
        raise InputError(
            f"stop_at_epsilon is {dp.stop_at_epsilon:g} beside target_epsilon = "
            f"{epsilon:g}; give one"
        )

    def at(dp: DPConfig) -> Plan:
        changed = dataclasses.replace(config, dp=dp)
        return plan(changed, "dpsgd", classes, records, counts)

    found = at(dataclasses.replace(dp, epsilon=epsilon, noise_multiplier=None))
    least = found.learner.mechanism.noise_multiplier
    assert least is not None
    noise = rounded_up(least)
    ready = at(dataclasses.replace(dp, noise_multiplier=noise))
    return Needed(ready, "--noise-multiplier", noise, dp.noise_multiplier)


def _input_noise(
    config: ExperimentConfig,
    name: Method,
    classes: int,
    records: int,
    shape: tuple[int, int, int],
    epsilon: float,
    counts: Counts | None,
) -> Needed:
    if name == "plain":
        raise InputError(
            "plain training adds no noise, so that nothing of it reaches a target "
            "epsilon; strategy1, strategy2, ensemble and dpsgd can"
        )
    before = config.noise.input_noise

    def at(noise: float) -> Plan:
        fields = dataclasses.replace(config.noise, input_noise=noise)
        changed = dataclasses.replace(config, noise=fields)
        return plan(changed, name, classes, records, counts)

    unit = at(1.0).guarantee(shape)
    if unit.curve is None:
        raise InputError(
            f"target_epsilon = {epsilon:g}: no noise on the input reaches it, since "
            f"{'; '.join(unit.reasons)}"
        )
    least = _least(at, shape, epsilon, config.dp.delta)
    noise = rounded_up(least)
    return Needed(at(noise), "--input-noise", noise, before)


def _least(
    at: Callable[[float], Plan],
    shape: tuple[int, int, int],
    epsilon: float,
    delta: float,
) -> float:
    """The least input noise whose guarantee is within the target, to 0.01 %."""

    def reached(noise: float) -> float:
        found = at(noise).guarantee(shape).epsilon
        assert found is not None
        return found

    mu = at(1.0).guarantee(shape).mu
    if mu is None:
        if reached(ENDLESS) > epsilon:
            raise InputError(
                f"target_epsilon = {epsilon:g}: the labels alone, by randomised "
                "response, exceed it; give a smaller label_epsilon"
            )
        return calibration.least_noise(reached, epsilon, delta)
    # mu is the inverse of the noise; the root is known to about 1e-14, and a little
    # more noise keeps it on the safe side
    return mu / gdp.mu_from(epsilon, delta) * (1 + 1e-10)


def rounded_up(noise: float) -> float:
    """The next number of four digits, which is as private or more.

    >>> rounded_up(15.29001), rounded_up(15.25), rounded_up(0.00123411)
    (15.3, 15.25, 0.001235)
    """
    unit = 10.0 ** (math.floor(math.log10(noise)) - 3)
    return float(f"{math.ceil(noise / unit) * unit:.4g}")
