"""Averages of the parameters are the slow ones of numpy, whoever trains, and free."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, assert_close, assert_same, differ, records, start

from rpjax import keys
from rpjax.averaging import averaged, of_state, with_average
from rpjax.errors import InputError
from rpjax.learners import dpsgd, ensemble, supervised
from rpjax.training import fit

DECAYS = (0.5, 0.99)


def slow(initial, trajectory, decay):
    """The average by its recurrence, in float64."""
    average = np.asarray(initial, np.float64)
    for t, theta in enumerate(trajectory):
        m = min(decay, (1 + t) / (10 + t))
        average = m * average + (1 - m) * np.asarray(theta, np.float64)
    return average


def walk(tx, steps, seed=0):
    """Parameters, updates and the last state of a walk along random gradients."""
    rng = np.random.default_rng(seed)
    params = {"a": jnp.asarray(rng.normal(size=3), jnp.float32), "b": jnp.ones((2, 2))}
    state, update = tx.init(params), jax.jit(tx.update)
    passed, moves = [params], []
    for _ in range(steps):
        gradient = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params
        )
        move, state = update(gradient, state, params)
        params = optax.apply_updates(params, move)
        passed.append(params)
        moves.append(move)
    return passed, moves, state


def test_every_average_is_its_recurrence_from_the_initial_parameters():
    # 0.5 is reached by the warm-up at t = 8; 0.99 never is in 40 updates
    tx = averaged(optax.sgd(0.1, momentum=0.9), DECAYS)
    passed, _, state = walk(tx, 40)
    for decay, average in of_state(state).items():
        for name in ("a", "b"):
            expected = slow(passed[0][name], [p[name] for p in passed[1:]], decay)
            np.testing.assert_allclose(average[name], expected, rtol=1e-5, atol=1e-6)
    assert tuple(of_state(state)) == DECAYS


def test_the_updates_are_those_of_the_wrapped_transformation():
    tx = optax.adam(0.1)
    assert_same(walk(averaged(tx, DECAYS), 5)[1], walk(tx, 5)[1])


def test_averages_are_found_inside_other_transformations():
    inner = averaged(optax.sgd(0.1), (0.5,))
    _, _, alone = walk(inner, 3)
    _, _, within = walk(optax.chain(optax.identity(), inner), 3)
    assert_same(of_state(within), of_state(alone))
    assert of_state(walk(optax.sgd(0.1), 1)[2]) == {}


@pytest.mark.parametrize("hole", ["left out", "none"])
def test_parameters_that_are_not_trained_stay_as_they_are(hole):
    params = {"stem": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
    trained = {"head": {"kernel": jnp.full(2, 3.0)}}
    if hole == "none":
        trained["stem"] = {"kernel": None}
    state = averaged(optax.sgd(0.1), (0.5,)).init(trained)
    assert_same(
        with_average(params, state, 0.5),
        {"stem": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.full(2, 3.0)}},
    )


# ------------------------------------------------------------------------------- runs

DATA = records(32)
TX = averaged(optax.sgd(0.2, momentum=0.9), DECAYS)


def train(learner, steps, **options):
    return fit(learner, DATA, steps=steps, batch_size=16, seed=4, **options)


def test_an_averaged_run_of_members_has_each_members_average():
    learner = ensemble(supervised(Dense(), TX), 2, mapping="vmap")
    runs = [train(learner, steps) for steps in (1, 2)]
    first = start(learner, DATA, keys.root(4)).params
    for decay in DECAYS:
        expected = jax.tree.map(
            lambda initial, *later: slow(initial, later, decay),  # noqa: B023
            first,
            *(run.state.params for run in runs),
        )
        found = runs[-1].averaged(decay)
        assert_close(found.state.params, expected, rtol=1e-5, atol=1e-6)
        assert differ(found.state.params, runs[-1].state.params)
        assert differ(found.answers(DATA), runs[-1].answers(DATA))
        assert found.guarantee().as_dict() == runs[-1].guarantee().as_dict()


def test_an_averaged_run_leaves_frozen_parameters_alone():
    learner = dpsgd(
        Dense(),
        TX,
        clip_norm=1.0,
        noise_multiplier=1.0,
        batch_size=16,
        trainable=("head",),
        engine="vmap",
    )
    run = train(learner, 1)
    first = start(learner, DATA, keys.root(4)).params
    found = run.averaged(0.99).state.params
    expected = jax.tree.map(lambda a, b: slow(a, [b], 0.99), first, run.state.params)
    assert_close(found["head"], expected["head"], rtol=1e-5, atol=1e-6)
    assert differ(found["head"], first["head"])
    for name in ("widen", "narrow"):
        assert_same(found[name], first[name])


def test_averages_survive_a_checkpoint(tmp_path):
    learner = supervised(Dense(), TX)
    train(learner, 1, checkpoints=tmp_path / "kept")
    resumed = train(learner, 2, checkpoints=tmp_path / "kept")
    straight = train(learner, 2)
    for decay in DECAYS:
        one, other = (run.averaged(decay) for run in (resumed, straight))
        assert_same(one.state.params, other.state.params)


# --------------------------------------------------------------------------- refusals


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"holds 1.0; each must lie in \[0, 1\)"):
        averaged(optax.sgd(0.1), (0.9, 1.0))
    with pytest.raises(InputError, match="decays is empty; give at least one"):
        averaged(optax.sgd(0.1), ())


def test_an_average_that_is_not_kept_is_refused():
    state = averaged(optax.sgd(0.1), DECAYS).init(jnp.zeros(2))
    with pytest.raises(
        InputError, match=r"decay is 0.9; the averages kept are: 0\.5, 0"
    ):
        with_average(jnp.zeros(2), state, 0.9)
    plain = optax.sgd(0.1).init(jnp.zeros(2))
    with pytest.raises(InputError, match=r"kept are: none; train with averaged\(tx\)"):
        with_average(jnp.zeros(2), plain, 0.9)


def test_an_update_without_parameters_is_refused():
    tx = averaged(optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs them"):
        tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))
