"""What is trained in benchmarks: nets, learners, random pixels, rpjax's programs."""

import re
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax

from rpjax import keys
from rpjax.data.augmentation import Augmentation
from rpjax.data.records import Records, numbered
from rpjax.data.sampling import Sampler
from rpjax.errors import InputError
from rpjax.learners import Inputs, Learner, State, dpsgd, supervised
from rpjax.models import ResNet, resnet, wide_resnet
from rpjax.perturbations import Additive, Multiplicative
from rpjax.training import Run, fit
from rpjax.training.clock import Clock
from rpjax.training.devices import Devices, layout
from rpjax.training.feeds import Resident
from rpjax.training.loop import sampler_for, split_slots
from rpjax.training.tuning import Choice

Method = Literal["plain", "strategy1", "strategy2", "dpsgd"]
Size = Literal["digits", "mnist", "cifar10"]
Dtype = Literal["float32", "bfloat16"]

LABELS = {
    "plain": "plain",
    "strategy1": "Strategy I",
    "strategy2": "Strategy II",
    "dpsgd": "DP-SGD",
}
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
CLASSES = 10
TX = optax.sgd(0.1, momentum=0.9)


def net(name: str, **options: Any) -> ResNet:
    """A model by name: resnet8, resnet18, wrn-28-10; tiny is one narrow block."""
    if name == "tiny":
        return ResNet((1,), (8,), CLASSES, groups=4, **options)
    if found := re.fullmatch(r"resnet(\d+)", name):
        return resnet(int(found[1]), CLASSES, **options)
    if found := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return wide_resnet(int(found[1]), int(found[2]), CLASSES, **options)
    raise InputError(f"model is {name!r}; it is resnetN, wrn-N-K or tiny")


def learner(
    method: str,
    model: str,
    batch_size: int,
    *,
    augment: bool = False,
    dtype: str = "float32",
    microbatch: int | None = None,
    **options: Any,
) -> Learner:
    """A net trained by a method; noise scales do not change what a step costs.

    microbatch: of DP-SGD; None leaves it to the device.
    """
    noise = {"strategy1": Additive(0.5), "strategy2": Multiplicative(0.5)}.get(method)
    own = net(model, perturbation=noise, dtype=jnp.dtype(dtype), **options)
    inputs = Inputs(augmentation=Augmentation(4, True) if augment else Augmentation())
    if method != "dpsgd":
        return supervised(own, TX, inputs)
    private = {"clip_norm": 1.0, "noise_multiplier": 1.0, "batch_size": batch_size}
    return dpsgd(own, TX, inputs, **private, microbatch=microbatch)


def random_pixels(
    count: int, shape: tuple[int, int, int], seed: int, classes: int = CLASSES
) -> Records:
    """Records with nothing to learn: a step's time does not depend on its pixels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return numbered(images, rng.integers(0, classes, count))


def halves(members: int, records: int, seed: int) -> np.ndarray:
    """A random half of the positions for each member, (members, records / 2)."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(records)[: records // 2] for _ in range(members)]
    return np.sort(orders, axis=1)


def trained(
    learner: Learner, records: Records, batch_size: int, seed: int, **options: Any
) -> Run:
    """A run of one step: its `stopwatch` times the compiled training program.

    One step is too few for rpjax to measure how it computes best: what is left to
    "auto" is the device's default, unless the same program was measured before.
    """
    return fit(
        learner,
        records,
        batch_size=batch_size,
        steps=1,
        seed=seed,
        noise_seed="fixed",
        **options,
    )


def training_program(
    learner: Learner,
    records: Records,
    batch_size: int,
    devices: Devices = None,
    steps: int = 1,
) -> tuple[Any, Any]:
    """The program that `fit` would compile for so many steps, and its stopwatch."""
    sampler = sampler_for(learner, len(records), batch_size)
    feed, state, _ = resident(learner, records, sampler, devices, steps)
    return feed.program, feed.stopwatch(state)


def resident(
    learner: Learner,
    records: Records,
    sampler: Sampler,
    devices: Devices = None,
    steps: int = 1,
    seed: int = 0,
) -> tuple[Resident, State, Choice]:
    """What drives the steps of a `fit` that is so long, compiled; its first state.

    The sampler may be another than `fit` would choose for the learner.
    """
    where = layout(devices, learner.members, split_slots(sampler))
    positions = np.arange(len(records), dtype=np.int32)
    table = np.broadcast_to(positions, (*learner.members, len(records)))
    feed = Resident(learner, records, table, sampler, where, keys.root(seed), Clock())
    state = feed.first_state()
    return feed, state, feed.compile(state, steps)
