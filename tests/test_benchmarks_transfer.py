"""The benchmark of public starts: its parts of the data, and a rate for each run."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from support import Dense, assert_close, records, start

import rpjax as rp
from benchmarks import transfer
from rpjax import keys
from rpjax.data import load
from rpjax.errors import InputError


def test_records_that_choose_a_rate_are_neither_trained_on_nor_reported():
    data = load("digits")
    settings = transfer.Transfer(data="digits", private_records=200)
    sides = transfer._sides(data, settings)
    parts = (sides.public, sides.train, sides.choosing, sides.validation)
    ids = [set(part.ids.tolist()) for part in parts]
    assert [len(own) for own in ids[1:3]] == [200, 200]
    assert sum(map(len, ids)) == len(set.union(*ids)) == len(data.train)
    for part in sides[2:]:
        assert set(part.labels) == set(range(5))
    assert len(sides.public_test) + len(sides.test) == len(data.test)
    with pytest.raises(InputError, match="private_records is 400; it must be 1 to 3"):
        transfer._sides(data, dataclasses.replace(settings, private_records=400))


def test_trainings_side_by_side_have_a_rate_each():
    """A member ends where a training at its rate and seed does, and at none stays."""
    settings = transfer.Transfer(steps=2, batch_size=8)
    data = records(24)
    learner = rp.learners.dpsgd(
        Dense(),
        rp.averaged(
            optax.inject_hyperparams(optax.sgd)(learning_rate=0.0), [transfer.AVERAGE]
        ),
        **{"clip_norm": 1.0, "noise_multiplier": 1.0, "batch_size": 8},
        engine="bookkeeping",
    )
    rates = np.array([0.0, 0.5])
    run, hits = transfer._trained(learner, settings, rates, 3, data, data)
    assert hits.shape == (2,)
    alone = rp.dpsgd(
        *(Dense(), optax.sgd(0.5)),
        **{"clip_norm": 1.0, "noise_multiplier": 1.0, "batch_size": 8},
        engine="bookkeeping",
    )
    options = {"batch_size": 8, "steps": 2, "noise_seed": "fixed"}
    twin = rp.fit(alone, data, seed=4, **options).state.params
    still = start(alone, data, keys.root(3)).params
    for member, own in ((1, twin), (0, still)):
        found = jax.tree.map(lambda leaf, at=member: leaf[at], run.state.params)
        assert_close(found, own, rtol=1e-5, atol=1e-6)
