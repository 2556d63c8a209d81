"""Learning rates rise as they are told, and training takes them from the options."""

import math

import numpy as np
import optax
import pytest
from test_config import put

from rpjax.data import load
from rpjax.errors import InputError
from rpjax.experiments import ExperimentConfig, methods, presets
from rpjax.experiments.schedules import rising

CONFIG = presets.resolved(put(ExperimentConfig(), "model.channels", 2), load("digits"))


def expected(step, rate, first, steps, constant=False):
    """The law, written out."""
    if step < first:
        return rate * (step + 1) / first
    if constant:
        return rate
    return rate * (1 + math.cos(math.pi * (step - first) / (steps - first))) / 2


def close(schedule, rate, first, steps, constant=False):
    found = [float(schedule(step)) for step in range(steps)]
    wanted = [expected(step, rate, first, steps, constant) for step in range(steps)]
    # a cosine in float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * rate)


@pytest.mark.parametrize("first", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_a_rate_rises_in_equal_steps_and_then_goes_on(kind, first):
    close(rising(3.0, kind, first, 9), 3.0, first, 9, kind == "constant")


def test_without_a_rise_a_cosine_is_the_one_it_was():
    one, other = rising(0.3, "cosine", 0, 40), optax.cosine_decay_schedule(0.3, 40)
    assert [float(one(t)) for t in range(40)] == [float(other(t)) for t in range(40)]


def planned(monkeypatch, method, **fields):
    """The schedule that a plan gives to its optimiser, and the plan."""
    given = []
    sgd = optax.sgd
    with monkeypatch.context() as patch:
        watch = lambda rate, **rest: given.append(rate) or sgd(rate, **rest)
        patch.setattr(methods.optax, "sgd", watch)
        config = CONFIG
        for name, value in fields.items():
            config = put(config, name.replace("__", "."), value)
        found = methods.plan(config, method, 10, 640)
    return given[-1], found


@pytest.mark.parametrize("method", ["plain", "strategy1", "dpsgd"])
def test_warm_up_is_told_in_epochs(method, monkeypatch):
    own, other = ("dp", "training") if method == "dpsgd" else ("training", "dp")
    fields = {f"{own}__{name}": value for name, value in SHORT.items()}
    fields |= {"dp__noise_multiplier": 1.0, f"{other}__warmup": 3.0}
    schedule, found = planned(monkeypatch, method, **fields)
    assert found.steps == 40
    close(schedule, 0.5, 15, 40)  # 1.5 of 4 epochs of 10 steps


SHORT = {"epochs": 4.0, "batch_size": 64, "learning_rate": 0.5, "warmup": 1.5}


def test_a_constant_rate_can_rise_too(monkeypatch):
    fields = {f"dp__{name}": value for name, value in SHORT.items()}
    fields |= {"dp__noise_multiplier": 1.0, "dp__schedule": "constant"}
    schedule, _ = planned(monkeypatch, "dpsgd", **fields)
    close(schedule, 0.5, 15, 40, constant=True)


@pytest.mark.parametrize(("method", "group"), [("plain", "training"), ("dpsgd", "dp")])
def test_a_rise_as_long_as_the_training_is_refused(method, group, monkeypatch):
    fields = {f"{group}__{name}": value for name, value in SHORT.items()}
    fields |= {"dp__noise_multiplier": 1.0, f"{group}__warmup": 4.0}
    message = rf"^{group}\.warmup is 4 epochs, 40 steps, and the training has 40; it"
    with pytest.raises(InputError, match=message):
        planned(monkeypatch, method, **fields)
