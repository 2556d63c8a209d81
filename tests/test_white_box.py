"""Norms of gradients: against a gradient of each record and draw by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, records

from rpjax import keys as rp_keys
from rpjax.attacks import Question, ask
from rpjax.attacks.questions import models_of
from rpjax.learners import Inputs, ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.training import Query, fit

POOL = records(12)
TX = optax.sgd(0.2)
NOISY = supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))
QUIET = supervised(Dense(None), TX)
SEEDS = [3, 8]


def trained(learner):
    many = models_of(learner, 2)
    run = fit(
        many, POOL, lists=np.stack([range(12)] * 2), batch_size=4, steps=6, seed=SEEDS
    )
    return run.state


def slowly(learner, state, model, position, draws, noise):
    """The mean of the draws' gradients, one `jax.grad` after the other."""
    own = jax.tree.map(lambda leaf: leaf[model], state)
    total = None
    for draw in range(draws):
        root = rp_keys.domain(rp_keys.roots(SEEDS[model]), "query")
        key = rp_keys.at_step(root, draw)

        def loss(params, key=key):
            image = jnp.asarray(POOL.images[[position]])
            name = jnp.asarray(POOL.ids[[position]])
            logits = learner.predict(
                key, own._replace(params=params), image, name, noise
            )
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.asarray(POOL.labels[[position]])
            ).sum()

        gradient = jax.grad(loss)(own.params)
        total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
    return jax.tree.map(lambda leaf: leaf / draws, total)


@pytest.mark.parametrize(
    ("learner", "draws", "noise"),
    [(QUIET, 1, True), (NOISY, 5, True), (NOISY, 1, False)],
)
def test_norms_are_those_of_the_mean_gradient(learner, draws, noise):
    state = trained(learner)
    question = Question(Query(noise=noise, draws=draws), reads="gradients")
    found = ask(learner, state, POOL, question, SEEDS)
    names = sorted(state.params)
    assert found.shape == (2, 1, 12, len(names) + 1)
    for model in range(2):
        for position in (0, 7):
            mean = slowly(learner, state, model, position, draws, noise)
            parts = [optax.tree.norm(mean[name]) for name in names]
            expected = np.log([*parts, optax.tree.norm(mean)])
            np.testing.assert_allclose(
                found[model, 0, position], expected, rtol=1e-4, atol=1e-4
            )


def test_an_ensemble_is_one_model():
    both = ensemble(NOISY, 2)
    many = models_of(both, 2)
    lists = np.stack([range(12)] * 2)
    run = fit(many, POOL, lists=lists, batch_size=4, steps=3, seed=SEEDS)
    question = Question(Query(draws=2), reads="gradients")
    found = ask(both, run.state, POOL.take(range(3)), question, SEEDS)
    assert found.shape[:3] == (2, 1, 3)
    assert np.isfinite(found).all()
    # all parameters: the parts' squares add up
    np.testing.assert_allclose(
        np.logaddexp.reduce(2 * found[..., :-1], -1), 2 * found[..., -1], rtol=1e-4
    )


def test_devices_share_the_records_and_change_nothing():
    state = trained(NOISY)
    question = Question(Query(draws=3), reads="gradients")
    alone = ask(NOISY, state, POOL.take(range(11)), question, SEEDS)
    # 11 records on 4 devices: one is asked twice, and left out
    shared = ask(NOISY, state, POOL.take(range(11)), question, SEEDS, devices=4)
    np.testing.assert_allclose(shared, alone, rtol=1e-5, atol=1e-5)


def test_to_take_gradients_takes_the_weights():
    assert Question(reads="gradients").threat == "T4"
