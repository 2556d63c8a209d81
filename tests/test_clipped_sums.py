"""DP-SGD's clipped sum: what one record, and what a padded slot, can move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import (
    assert_close,
    assert_same,
    pixels,
    tiny,
    variables,
)

from rpjax import keys
from rpjax.gradients import Flat, clipped_sum
from rpjax.gradients.clipping import norms as norms_of
from rpjax.gradients.examples import squares_of
from rpjax.learners.losses import cross_entropy
from rpjax.perturbations import Additive

CLIP = 0.7
RECORDS, SIZE = 5, 3


def dot(params, record):
    """A loss whose gradient is the record itself, in two leaves."""
    value = jnp.sum(params["a"] * record[:2]) + params["b"] * record[2]
    return value, record[0]


@jax.jit
def clipped(records, valid):
    """Clipped sum of the records as gradients, as one vector, and their norms."""
    zeros = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    total, norms, _ = clipped_sum(dot, Flat(CLIP))(zeros, records, valid)
    return jnp.append(total["a"], total["b"]), norms


def summed(records, valid=None):
    valid = np.ones(RECORDS, bool) if valid is None else valid
    with np.errstate(all="ignore"):
        return np.asarray(clipped(jnp.asarray(records, jnp.float32), valid)[0], float)


GRADIENTS = hnp.arrays(
    np.float32,
    (RECORDS, SIZE),
    elements=st.one_of(
        st.sampled_from([0.0, 1e-30, 1e-8, 1.0, -1.0, 1e4, 1e18, 1e30]),
        st.sampled_from([np.inf, -np.inf, np.nan]),
        st.floats(-2, 2, width=32),
    ),
)
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


@SETTINGS
@given(GRADIENTS)
def test_adding_or_removing_a_record_moves_the_sum_by_the_clip_norm_at_most(records):
    everybody = summed(records)
    assert np.isfinite(everybody).all()
    for left_out in range(RECORDS):
        without = summed(records, np.arange(RECORDS) != left_out)
        moved = np.linalg.norm(everybody - without)
        assert moved <= CLIP * (1 + 1e-5) + 1e-6 * np.linalg.norm(without)


@SETTINGS
@given(GRADIENTS, GRADIENTS)
def test_a_padded_slot_moves_the_sum_by_exactly_nothing(records, others):
    valid = np.array([True, False, True, False, False])
    mixed = np.where(valid[:, None], records, others)
    assert_same(summed(records, valid), summed(mixed, valid))


@SETTINGS
@given(GRADIENTS)
def test_a_clipped_gradient_keeps_its_direction_and_a_short_one_itself(records):
    for record in records.astype(float):
        found = summed(np.tile(record, (RECORDS, 1)), np.arange(RECORDS) == 2)
        norm = np.linalg.norm(record.astype(np.float32).astype(float))
        if not np.isfinite(norm) or norm > 1e19:  # its square is no float32
            expected = np.zeros(SIZE)
        else:
            expected = record * min(1.0, CLIP / max(norm, 1e-12))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)


def test_a_gradient_that_is_not_finite_counts_as_zero_and_spoils_no_other():
    records = np.full((RECORDS, SIZE), 0.1, np.float32)
    broken = records.copy()
    broken[1, 0], broken[3, 2] = np.nan, np.inf
    valid = np.array([True, False, True, False, True])
    assert_same(summed(broken), summed(records, valid))


@pytest.mark.parametrize("microbatch", [1, 2, 4, 5, 9])
def test_microbatches_of_any_size_give_the_same_sum_norms_and_order(microbatch):
    records = jnp.asarray(
        np.random.default_rng(0).normal(size=(RECORDS, SIZE)), jnp.float32
    )
    valid = jnp.array([True, False, True, True, True])
    zeros = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    found = clipped_sum(dot, Flat(CLIP), microbatch=microbatch)(zeros, records, valid)
    expected = clipped_sum(dot, Flat(CLIP))(zeros, records, valid)
    assert_close(found, expected, atol=1e-6)
    np.testing.assert_array_equal(found[2], records[:, 0])


def test_clipping_is_not_vacuous():
    long, short = np.full((RECORDS, SIZE), 5.0), np.full((RECORDS, SIZE), 0.01)
    assert np.linalg.norm(summed(long)) == pytest.approx(RECORDS * CLIP, rel=1e-5)
    np.testing.assert_allclose(summed(short), RECORDS * 0.01, rtol=1e-5)


def test_norms_are_float32_norms_over_all_leaves():
    gradients = {"a": jnp.full((2, 3, 2), 300.0, jnp.bfloat16), "b": jnp.ones((2,))}
    norms = norms_of(jax.tree.map(squares_of, gradients))
    assert norms.dtype == jnp.float32
    np.testing.assert_allclose(norms, [(6 * 300**2 + 1) ** 0.5] * 2, rtol=1e-5)


# ---------------------------------------------------------------- gradients of a net


@pytest.fixture(scope="module")
def net():
    """A loss through a perturbed net, its parameters, and seven records."""
    model = tiny(perturbation=Additive(0.5))

    def loss(params, record):
        key, image, label = record
        logits = model.apply({"params": params}, key[None], image[None], True)
        return cross_entropy(logits, label[None])[0], logits[0]

    own = keys.per_record(keys.root(0), jnp.arange(7))
    labels = jnp.asarray([0, 1, 2, 0, 1, 2, 0])
    return loss, variables(model)["params"], (own, pixels(7), labels)


@pytest.fixture(scope="module")
def looped(net):
    """Each record's gradient by itself, one after another."""
    loss, params, records = net
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    return [
        gradient(params, jax.tree.map(lambda a, i=i: a[i], records))[0]
        for i in range(7)
    ]


VALID = np.array([True, True, False, True, True, True, False])


@pytest.mark.parametrize("microbatch", [None, 3])
def test_the_clipped_sum_is_that_of_a_loop_whatever_the_microbatch(
    net, looped, microbatch
):
    loss, params, records = net
    norms = np.array([float(optax.tree.norm(g)) for g in looped])
    bound = float(np.median(norms))
    weights = VALID * np.minimum(1, bound / norms)
    expected = jax.tree.map(
        lambda *g: sum(w * a for w, a in zip(weights, g, strict=True)), *looped
    )
    summing = jax.jit(clipped_sum(loss, Flat(bound), microbatch=microbatch))
    total, found, logits = summing(params, records, jnp.asarray(VALID))
    assert_close(total, expected, atol=1e-5)
    # slots behind the last record are left out where they fill a microbatch
    computed = np.arange(7) < (7 if microbatch is None else 6)
    np.testing.assert_allclose(found[computed], norms[computed], rtol=1e-4)
    assert logits.shape == (7, 3)
