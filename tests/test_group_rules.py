"""Rules against disparity: what one record can move, what is noised, what it costs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import CLASSES, Dense, assert_close, assert_normal, batch_of, start

from rpjax import keys
from rpjax.counts import Counts
from rpjax.errors import InputError
from rpjax.gradients import (
    Flat,
    Global,
    GlobalAdaptive,
    GroupClipping,
    clipped_sum,
    group_step,
    group_sum,
)
from rpjax.gradients.clipping import beside_count
from rpjax.learners import dpsgd
from rpjax.learners.losses import class_weighted
from rpjax.privacy import dpsgd as accounting
from rpjax.training import guarantee
from rpjax.training.loop import sampler_for
from rpjax.verification import verify

CLIP, BOUND, SIZE, GROUPS = 0.7, 3.0, 5, 3
COUNTS = Counts((9, 5, 2), "public")
SETTINGS = settings(max_examples=120, deadline=None, derandomize=True)
GRADIENTS = hnp.arrays(
    np.float32,
    (SIZE, 3),
    elements=st.one_of(
        st.sampled_from([0.0, 1e-8, 1.0, -1.0, 1e4, 1e18, np.inf, np.nan]),
        st.floats(-4, 4, width=32),
    ),
)
MEMBERS = hnp.arrays(np.int32, SIZE, elements=st.integers(0, GROUPS - 1))


def dot(params, record):
    """A loss whose gradient is the record itself, in two leaves."""
    total = jnp.sum(params["a"] * record[:2]) + params["b"] * record[2]
    return total, record[0]


def zeros():
    return {"a": jnp.zeros(2), "b": jnp.zeros(())}


def vector(tree):
    return jnp.append(tree["a"], tree["b"])


# ------------------------------------------------------------- Global, Global-Adapt

RULES = {
    "global": Global(CLIP, BOUND),
    "adaptive": GlobalAdaptive(CLIP, BOUND, tolerance=0.8),
}


@pytest.fixture(scope="module", params=RULES.values(), ids=RULES)
def scaled(request):
    rule = request.param

    @jax.jit
    def function(records, valid):
        return vector(clipped_sum(dot, rule)(zeros(), records, valid).total)

    return rule, lambda r, valid: np.asarray(function(r, valid), np.float64)


@SETTINGS
@given(GRADIENTS)
def test_a_record_moves_a_scaled_sum_by_the_clip_norm_at_most(scaled, records):
    rule, summed = scaled
    with np.errstate(all="ignore"):
        everybody = summed(records, np.ones(SIZE, bool))
        for out in range(SIZE):
            rest = summed(records, np.arange(SIZE) != out)
            step = np.linalg.norm(everybody - rest)
            assert step <= CLIP * (1 + 1e-5) + 1e-6 * np.linalg.norm(rest)
            norm = np.linalg.norm(records[out].astype(float))
            if norm <= BOUND * (1 - 1e-6):
                assert step == pytest.approx(norm * CLIP / BOUND, abs=1e-5)
            elif BOUND * (1 + 1e-6) < norm < 1e15:
                long = 0.0 if rule.name == "global" else CLIP
                assert step == pytest.approx(long, abs=1e-5)


def test_the_bound_moves_as_worked_out():
    rule = GlobalAdaptive(1.0, 50.0)
    moved = rule.moved_by(0.2 * 256, 256)["bound"]
    assert float(moved) == pytest.approx(60.46248, rel=1e-6)
    votes = GlobalAdaptive(1.0, 50.0, tolerance=0.5).votes(
        jnp.asarray([24.0, 26.0, jnp.inf, jnp.nan])
    )
    np.testing.assert_array_equal(votes, [0, 1, 1, 1])


def learner(rule, **changes):
    options = {"noise_multiplier": 2.0, "batch_size": 4, **changes}
    return dpsgd(
        Dense(), optax.sgd(0.5), clip_norm=rule.clip_norm, clipping=rule, **options
    )


def test_a_learner_moves_the_bound_by_a_noisy_count_over_the_expected_batch(small):
    rule = GlobalAdaptive(0.5, 0.1, learning_rate=0.3, count_noise_multiplier=7.0)
    made = learner(rule)
    first = start(made, small)
    batch = batch_of(small, range(8), np.arange(8) < 6)
    after, info = jax.jit(made.step)(keys.root(0), first, batch)
    size = jax.flatten_util.ravel_pytree(first.params)[0].size
    draw = np.asarray(keys.secret_normal(first.secret, 0, size + 1))
    votes = 6 * float(info["clipped"]) + 7.0 * draw[-1]
    assert float(after.stats["bound"]) == pytest.approx(
        0.1 * math.exp(votes / 4 - 0.3), rel=1e-4
    )
    assert info["bound"] == np.float32(0.1)
    # nobody there: the gradient's noise alone, raised for the count
    nobody = batch_of(small, range(8), np.zeros(8, bool))
    after, _ = jax.jit(made.step)(keys.root(0), first, nobody)
    moved = jax.tree.map(lambda a, b: (b - a) / 0.5, after.params, first.params)
    found = np.asarray(jax.flatten_util.ravel_pytree(moved)[0])
    own = beside_count(2.0, 7.0)
    np.testing.assert_allclose(found, draw[:-1] * own * 0.5 / 4, atol=1e-5)


def test_a_learner_takes_the_global_rule(small):
    made = learner(Global(0.5, 1e6), noise_multiplier=0.0)
    first = start(made, small)
    after, info = jax.jit(made.step)(keys.root(0), first, batch_of(small, range(8)))
    assert made.mechanism.clipping == "global"
    assert info["clipped"] == 0
    moved = jax.tree.map(lambda a, b: a - b, after.params, first.params)
    assert 0 < float(optax.tree.norm(moved)) < 1e-3


# -------------------------------------------------------------------------- DPSGD-F


def test_bounds_of_groups_are_the_worked_example():
    rule = GroupClipping(1.0, 3)
    noisy = jnp.asarray([[8.0, 2.0, 0.0], [2.0, 8.0, 0.0]])
    np.testing.assert_allclose(rule.bounds(noisy), [2.2, 1.3, 2.5], rtol=1e-5)
    # cut to whole numbers, none below zero
    same = noisy + jnp.asarray([[0.9, 0.9, -3.0], [0.9, 0.9, 0.9]])
    np.testing.assert_allclose(rule.bounds(same), [2.2, 1.3, 2.5], rtol=1e-5)
    assert np.isfinite(np.asarray(rule.bounds(jnp.zeros((2, 3))))).all()


@jax.jit
def grouped(records, groups, valid, noise):
    """The sum with each group's norm, the norms, and the exact counts."""
    rule = GroupClipping(CLIP, GROUPS)
    bounds, found = group_sum(dot, rule)(zeros(), records, groups, valid, noise)
    return vector(found.total), bounds, rule.counts(found.norms, groups, valid)


@SETTINGS
@given(GRADIENTS, MEMBERS, hnp.arrays(np.float32, (2, 3), elements=st.floats(-3, 3)))
def test_a_record_moves_counts_by_one_and_the_sum_by_its_groups_norm(
    records, groups, noise
):
    """Given the same noisy counts: the noise makes up the difference."""
    with np.errstate(all="ignore"):
        everybody, bounds, counts = (
            np.asarray(x, np.float64)
            for x in grouped(records, groups, np.ones(SIZE, bool), noise)
        )
        for out in range(SIZE):
            valid = np.arange(SIZE) != out
            _, _, fewer = grouped(records, groups, valid, noise)
            change = counts - np.asarray(fewer)
            assert np.linalg.norm(change) == 1
            rest, same, _ = grouped(
                records, groups, valid, (noise + change).astype(np.float32)
            )
            np.testing.assert_allclose(same, bounds, rtol=1e-5)
            step = np.linalg.norm(everybody - np.asarray(rest, np.float64))
            allowed = bounds[groups[out]] * (1 + 1e-4) + 1e-6 * np.linalg.norm(rest)
            assert step <= allowed
    assert bounds.max() <= CLIP * (1 + GROUPS)


def test_a_step_noises_for_the_largest_bound_of_all_groups_even_if_nobody_is_there():
    rule = GroupClipping(0.5, 3, count_noise_multiplier=5.0)
    made = jax.jit(group_step(big_dot, rule, noise_multiplier=2.0, batch_size=8))
    secret = jnp.arange(8, dtype=jnp.uint32)
    records = jnp.zeros((4, 6000))
    groups, nobody = jnp.zeros(4, jnp.int32), jnp.zeros(4, bool)
    found = made(jnp.zeros(6000), records, groups, nobody, secret, 3)
    scale = beside_count(2.0, 5.0) * float(found.bounds.max())
    assert_normal(8 * np.asarray(found.gradient), scale)
    # counts and gradient get different numbers of one draw
    normals = np.asarray(keys.secret_normal(secret, 3, 6006))
    expected = rule.bounds(jnp.asarray(5.0 * normals[:6].reshape(2, 3)))
    np.testing.assert_allclose(found.bounds, expected, rtol=1e-5)
    np.testing.assert_allclose(8 * found.gradient, scale * normals[6:], rtol=1e-3)


def big_dot(params, record):
    return jnp.sum(params * record), record[0]


def test_without_noise_a_step_is_the_clipped_mean():
    rule = GroupClipping(1.0, 2)
    records = jnp.asarray([[3.0, 0.0], [0.0, 0.5], [0.0, 4.0]])
    made = jax.jit(group_step(big_dot, rule, noise_multiplier=0.0, batch_size=2))
    found = made(
        jnp.zeros(2),
        records,
        jnp.asarray([0, 1, 1]),
        jnp.ones(3, bool),
        jnp.zeros(8, jnp.uint32),
        0,
    )
    # r = (1, 1/2), mean 3/4: norms 1 + 4/3 and 1 + 2/3
    np.testing.assert_allclose(found.bounds, [7 / 3, 5 / 3], rtol=1e-5)
    np.testing.assert_allclose(
        found.gradient, [7 / 3 / 2, (0.5 + 5 / 3) / 2], rtol=1e-5
    )


@pytest.mark.parametrize("engine", ["vmap", "two_pass", "bookkeeping"])
@pytest.mark.parametrize("microbatch", [None, 1, 2, 3, 5])
def test_microbatches_and_engines_give_the_same_sum_by_groups(engine, microbatch):
    """Counts are of the whole batch, whatever part of it is in memory."""
    rule = GroupClipping(0.5, 3)
    rng = np.random.default_rng(0)
    records = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    given = (zeros(), records, jnp.asarray([0, 1, 1, 2, 0]))
    given += (jnp.asarray([True, True, True, True, False]), jnp.zeros((2, 3)))
    expected = group_sum(dot, rule)(*given)
    found = jax.jit(group_sum(dot, rule, engine, microbatch))(*given)
    np.testing.assert_allclose(found.bounds, expected.bounds, rtol=1e-6)
    np.testing.assert_allclose(
        vector(found.clipped.total), vector(expected.clipped.total), rtol=1e-5
    )
    np.testing.assert_allclose(
        found.clipped.norms[:4], expected.clipped.norms[:4], rtol=1e-5
    )


def by_class(**changes):
    options = {"clip_norm": 0.5, "groups": CLASSES, "count_noise_multiplier": 7.0}
    return learner(GroupClipping(**options), **changes)


@pytest.mark.parametrize("microbatch", [None, 3])
def test_a_learner_takes_the_step_of_the_rule_with_classes_for_groups(
    small, microbatch
):
    made = by_class(microbatch=microbatch)
    first = start(made, small)
    batch = batch_of(small, range(8), np.arange(8) < 6)
    after, info = jax.jit(made.step)(keys.root(0), first, batch)

    def loss(params, record):
        image, label = record
        pixels = (image.astype(jnp.float32)[None] / 255 - 0.5) / 0.5
        logits = Dense().apply({"params": params}, None, pixels)
        one = optax.softmax_cross_entropy_with_integer_labels(logits[0], label)
        return one, logits[0]

    rule = GroupClipping(0.5, CLASSES, 7.0)
    expected = group_step(loss, rule, noise_multiplier=2.0, batch_size=4)(
        first.params,
        (batch.images, batch.labels),
        *(batch.labels, batch.valid, first.secret, 0),
    )
    moved = jax.tree.map(lambda a, b: (a - b) / 0.5, first.params, after.params)
    assert_close(moved, expected.gradient, atol=1e-5)
    assert info["largest_clip_norm"] == pytest.approx(expected.bounds.max())
    assert info["least_clip_norm"] == pytest.approx(expected.bounds.min())
    own = np.asarray(expected.bounds)[np.asarray(batch.labels)]
    over = (np.asarray(expected.norms) > own)[:6]
    assert info["clipped"] == pytest.approx(over.mean())
    assert made.mechanism.clipping == "per_group"


def test_what_is_proved_of_clipping_by_class_is_what_the_noise_multiplier_says(small):
    options = {"delta": 1e-5, "noise_seed": "secret"}
    proved, flat = (
        guarantee(made, sampler_for(made, 16, 4), 5, (1, 1, 1), **options)
        for made in (by_class(), learner(Flat(0.5)))
    )
    assert proved.epsilon == flat.epsilon
    assert any("noisy counts of the same batch" in line for line in proved.assumptions)
    with pytest.raises(InputError, match="change each other's clip norms"):
        verify(by_class(), small, batch_size=4)


# ------------------------------------------------------------------------ accounting


def test_counts_and_gradient_of_one_batch_cost_more_than_two_that_are_sampled_apart():
    """Why they are accounted as one mechanism."""
    steps, q, own, count = 200, 0.05, 1.0, 2.0
    both = (own**-2 + count**-2) ** -0.5
    assert beside_count(both, count) == pytest.approx(own)
    together = accounting.epsilon(both, q, steps, 1e-5)
    apart = dp_event.ComposedDpEvent(
        [accounting.event(sigma, q, steps) for sigma in (own, count)]
    )
    published = PLDAccountant().compose(apart).get_epsilon(1e-5)
    assert together > 1.01 * published


def test_count_noise_raises_the_gradients():
    assert beside_count(1.0, 10.0) == pytest.approx((1 - 0.01) ** -0.5)
    assert beside_count(0.0, 10.0) == 0.0
    assert GroupClipping(1.0, 2, 10.0).gradient_noise_multiplier(1.0) == (
        pytest.approx(1.005038)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Global(1.0, 0.0), "bound is 0.0"),
        (lambda: Global(-1.0, 1.0), "clip_norm is -1.0"),
        (lambda: GlobalAdaptive(1.0, 1.0, tolerance=math.inf), "tolerance is inf"),
        (lambda: GlobalAdaptive(1.0, 1.0, learning_rate=-1.0), "learning_rate is -1"),
        (lambda: GroupClipping(0.0, 2), "clip_norm is 0.0"),
        (lambda: GroupClipping(1.0, 1), "groups is 1"),
        (lambda: by_class(noise_multiplier=7.0), "nothing is left for the gradient"),
        (lambda: by_class(loss=class_weighted(COUNTS)), "take one of them"),
        (lambda: beside_count(2.0, 2.0), "nothing is left for the gradient"),
        (
            lambda: learner(GlobalAdaptive(1.0, 1.0, count_noise_multiplier=1.0)),
            "nothing is left for the gradient",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_groups_that_are_not_the_nets_classes_are_refused(small):
    made = learner(GroupClipping(0.5, CLASSES + 1))
    with pytest.raises(InputError, match=f"groups is {CLASSES + 1}"):
        made.step(keys.root(0), start(made, small), batch_of(small, range(4)))
