"""What is planned of a training is what it takes, and a microbatch bounds it."""

from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from support import Dense, records, start

from rpjax.experiments import ExperimentConfig
from rpjax.experiments.planning import parameters
from rpjax.learners import Mechanism, dpsgd, ensemble, supervised
from rpjax.training import fit, planning
from rpjax.training.devices import Layout, layout
from rpjax.training.loop import sampler_for

TX = optax.sgd(0.1, momentum=0.9)
SHAPE = (16, 16, 3)


def private(batch_size, **options):
    return dpsgd(
        Dense(),
        TX,
        clip_norm=1.0,
        noise_multiplier=1.0,
        batch_size=batch_size,
        engine="bookkeeping",
        **options,
    )


def memory(learner, count, batch_size, where=None, stored=True, shape=SHAPE):
    sampler = sampler_for(learner, count, batch_size)
    return planning.memory(learner, sampler, where or Layout(), count, shape, stored)


def test_eight_times_the_batch_takes_its_images_and_little_more(optimised):
    """At one microbatch, what a step holds in between hardly grows with the batch."""
    small, large = (memory(private(n, microbatch=8), 4096, n) for n in (64, 512))
    bytes_of_images = np.prod(SHAPE)
    slots = [sampler_for(private(n), 4096, n).capacity for n in (64, 512)]
    more = slots[1] - slots[0]
    assert large.arguments - small.arguments > more * bytes_of_images
    # of a record: keys, norm, logits, positions, and no image in float32
    assert large.temporaries - small.temporaries < 0.25 * more * bytes_of_images
    whole = memory(private(512, microbatch=4096), 4096, 512)
    assert whole.temporaries > 10 * large.temporaries, "the bound is the microbatch's"


def test_what_is_planned_is_the_memory_of_the_training():
    """The same program as `fit` compiles, in the part of one of several devices."""
    data = records(32)
    for learner, devices in (
        (private(8, microbatch=4), 4),
        (ensemble(supervised(Dense(), TX), 2, mapping="map"), 4),
    ):
        run = fit(learner, data, batch_size=8, steps=1, devices=devices)
        slots = 0 if learner.mechanism.kind == "dpsgd" else 8
        where = layout(devices, learner.members, slots)
        found = memory(learner, 32, 8, where, stored=False, shape=data.shape)
        assert found.peak == run.cost.memory_bytes


def test_operations_grow_with_the_records_alone():
    """Those of another number of records are foretold."""
    learner = supervised(Dense(), TX)
    found = planning.operations(learner, SHAPE)
    assert found.per_record > 0
    state = planning.first_state(learner, Layout(), SHAPE)
    counted = planning._counted(learner, state, SHAPE, 16)
    assert found.of(16) == pytest.approx(counted, rel=1e-3)


def test_a_convolution_is_timed():
    assert 1e8 < planning.operations_per_second() < 1e18


def test_shapes_are_those_of_the_state():
    data = records(4, shape=SHAPE)
    planned = planning.first_state(private(2), Layout(), SHAPE)
    real = start(private(2), data)
    assert jax.tree.map(np.shape, planned) == jax.tree.map(np.shape, real)


def test_trained_parameters_are_counted_by_paths_whatever_their_names_hold(unchecked):
    params = {"head": {"kernel": np.zeros(5), "kernel, old": np.zeros(3)}}
    for trained, count in ((None, 8), (("head/kernel, old",), 3), (("head",), 8)):
        facts = Mechanism(kind="dpsgd", trained=trained)
        each = SimpleNamespace(learner=SimpleNamespace(mechanism=facts))
        state = SimpleNamespace(params=params)
        found = parameters(ExperimentConfig(), 10, each, state)
        assert (found["all"], found["trained"], found["frozen"]) == (
            8,
            count,
            8 - count,
        )
        assert found["groups"][-1]["trained"] == count
