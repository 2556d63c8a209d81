"""Learners with class losses: what is minimised, refused, and noised."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import (
    CLASSES,
    Dense,
    assert_close,
    assert_same,
    batch_of,
    records,
    start,
)

from rpjax import keys
from rpjax.counts import ClassLosses, Counts
from rpjax.data import poisson
from rpjax.errors import InputError
from rpjax.gradients import Adaptive, Flat, clipped_sum
from rpjax.learners import LabelNoise, dpsgd, losses, supervised
from rpjax.learners.losses import cross_entropy
from rpjax.training import fit
from rpjax.training.run import guarantee
from rpjax.verification import verify
from rpjax.verification.probe import Claim

COUNTS = Counts((80, 15, 5), "public")
WEIGHTS = losses.inverse_weights(COUNTS)
RATE = 0.5


def moved(learner, state, batch):
    """How far one step moves the parameters, over the learning rate, as a vector."""
    after, _ = jax.jit(learner.step)(keys.root(0), state, batch)
    return flat(jax.tree.map(lambda a, b: (b - a) / RATE, after.params, state.params))


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0])


def plain(loss=cross_entropy, **options):
    return supervised(Dense(), optax.sgd(RATE), loss=loss, **options)


def private(loss=cross_entropy, **changes):
    options = {"clip_norm": 0.2, "noise_multiplier": 0.0, "batch_size": 4, **changes}
    return dpsgd(Dense(), optax.sgd(RATE), loss=loss, **options)


@pytest.fixture(scope="module")
def state(small):
    return start(plain(), small)


@pytest.fixture(scope="module")
def gradients(small, state):
    """Every record's own cross-entropy gradient, one after another."""

    @jax.jit
    def one(image, label):
        def value(params):
            pixels = 2 * image[None].astype(jnp.float32) / 255 - 1
            logits = Dense().apply({"params": params}, None, pixels)
            return cross_entropy(logits, label[None])[0]

        return jax.grad(value)(state.params)

    pairs = zip(small.images, small.labels, strict=True)
    return np.array([flat(one(jnp.asarray(i), jnp.asarray(y))) for i, y in pairs])


# ------------------------------------------------------------------------ supervised


def test_a_class_weighted_step_is_the_mean_of_weighted_gradients(
    small, state, gradients
):
    """Over the number of records, whatever their weights."""
    valid = np.arange(8) < 6
    found = moved(
        plain(losses.class_weighted(COUNTS)), state, batch_of(small, range(8), valid)
    )
    own = WEIGHTS[small.labels[:6]]
    expected = (own[:, None] * gradients[:6]).sum(0) / 6
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("power", [1, 2])
def test_mfe_and_msfe_are_those_of_the_batch(small, state, gradients, power):
    labels = small.labels
    some = np.flatnonzero(labels != labels[0])[:5]  # a class is missing
    batch = batch_of(small, some)
    made = plain(losses.mfe() if power == 1 else losses.msfe())
    means = np.zeros((CLASSES, gradients.shape[1]))
    for c in set(labels[some]):
        own = some[labels[some] == c]
        log_p = [float(value(small, state, i)) for i in own]
        means[c] = gradients[own].mean(0) * (1 if power == 1 else 2 * np.mean(log_p))
    np.testing.assert_allclose(
        moved(made, state, batch), means.sum(0), rtol=1e-4, atol=1e-6
    )


def value(small, state, i):
    pixels = 2 * jnp.asarray(small.images[[i]], jnp.float32) / 255 - 1
    logits = Dense().apply({"params": state.params}, None, pixels)
    return cross_entropy(logits, jnp.asarray(small.labels[[i]]))[0]


def test_two_devices_that_share_a_batch_have_its_class_losses_together(small):
    slow = supervised(Dense(), optax.sgd(0.01), loss=losses.msfe())
    options = {"batch_size": 8, "steps": 2, "seed": 1, "noise_seed": "fixed"}
    one, two = (fit(slow, small, devices=n, **options) for n in (1, 2))
    assert_close(one.state, two.state)
    assert_close(one.history, two.history)


def test_a_deferred_loss_changes_its_weights_at_its_step(small, state):
    made = plain(losses.deferred(COUNTS, 3, 0.9))
    batch = batch_of(small, range(8))
    before = moved(made, state._replace(step=jnp.int32(2)), batch)
    np.testing.assert_allclose(before, moved(plain(), state, batch), atol=1e-6)
    after = moved(made, state._replace(step=jnp.int32(3)), batch)
    balanced = plain(losses.class_balanced(COUNTS, 0.9))
    np.testing.assert_allclose(after, moved(balanced, state, batch), atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_label_noise_has_a_loss_of_its_own():
    with pytest.raises(InputError, match="loss and label_noise are both given"):
        plain(losses.focal(), label_noise=LabelNoise(1.0, CLASSES))


# ----------------------------------------------------------------------- sensitivity

SIZE = 4
SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)
GRADIENTS = hnp.arrays(
    np.float32,
    (SIZE, 3),
    elements=st.one_of(
        st.sampled_from([0.0, 1e-8, 1.0, 1e4, 1e18, np.inf, np.nan]),
        st.floats(-2, 2, width=32),
    ),
)


@jax.jit
def weighted_sum(records, valid, after):
    """The clipped, then weighted sum of records as gradients, as one vector."""

    def dot(params, record):
        total = jnp.sum(params["a"] * record[:2]) + params["b"] * record[2]
        return total, record[0]

    zeros = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    total = clipped_sum(dot, Flat(0.7), microbatch=3)(zeros, records, valid, after)
    return jnp.append(total.total["a"], total.total["b"])


@SETTINGS
@given(GRADIENTS, hnp.arrays(np.int32, SIZE, elements=st.integers(0, 2)))
def test_a_record_moves_the_sum_by_clip_norm_times_its_class_weight(records, labels):
    after = np.float32([0.25, 1.0, 4.0])[labels]
    with np.errstate(all="ignore"):
        everybody = np.asarray(weighted_sum(records, np.ones(SIZE, bool), after), float)
        for out in range(SIZE):
            rest = np.asarray(
                weighted_sum(records, np.arange(SIZE) != out, after), float
            )
            step = np.linalg.norm(everybody - rest)
            assert step <= 0.7 * after[out] * (1 + 1e-5) + 1e-6 * np.linalg.norm(rest)


@pytest.mark.parametrize(
    ("engine", "microbatch"), [("vmap", 3), ("two_pass", None), ("bookkeeping", 3)]
)
def test_class_weights_come_after_clipping(small, state, gradients, engine, microbatch):
    made = private(losses.class_weighted(COUNTS), engine=engine, microbatch=microbatch)
    found = moved(made, state, batch_of(small, range(8), np.arange(8) < 7))
    norms = np.linalg.norm(gradients[:7], axis=1)
    assert (norms > 0.2).any()
    clipped = gradients[:7] * np.minimum(1, 0.2 / norms)[:, None]
    expected = (WEIGHTS[small.labels[:7], None] * clipped).sum(0) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_weights_before_clipping_would_have_been_undone(small, state):
    """Why they come after: a large weight before clipping changes almost nothing."""
    table = jnp.asarray(WEIGHTS, jnp.float32) * 100
    weighed = lambda z, y: table[y] * cross_entropy(z, y)
    batch = batch_of(small, range(8))
    before, none = (
        moved(private(f), state, batch)
        for f in (weighed, lambda z, y: 100 * cross_entropy(z, y))
    )
    np.testing.assert_allclose(before, none, rtol=1e-3, atol=1e-5)
    after = moved(private(losses.class_weighted(COUNTS)), state, batch)
    assert np.linalg.norm(after - none) > 0.1 * np.linalg.norm(none)


@pytest.mark.parametrize(
    ("loss", "step", "largest"),
    [
        (losses.class_weighted(COUNTS), 0, WEIGHTS.max()),
        (losses.balanced_softmax(COUNTS), 0, 1.0),
        (losses.deferred(COUNTS, 3, 0.9), 2, 1.0),
        (
            losses.deferred(COUNTS, 3, 0.9),
            3,
            losses.effective_number_weights(COUNTS, 0.9).max(),
        ),
    ],
    ids=["weighted", "softmax", "before", "after"],
)
def test_noise_is_scaled_to_the_largest_class_weight_whoever_is_there(
    small, state, loss, step, largest
):
    made = private(loss, noise_multiplier=2.0)
    at = state._replace(step=jnp.int32(step))
    nobody = batch_of(small, range(8), np.zeros(8, bool))
    found = moved(made, at, nobody)
    noise = np.asarray(keys.secret_normal(state.secret, step, found.size))
    expected = noise * 2.0 * 0.2 * largest / 4
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    claim = Claim.of(made.mechanism, at)
    assert claim.sensitivity == pytest.approx(0.2 * largest)
    assert claim.noise == pytest.approx(2.0 * 0.2 * largest)


def test_an_adaptive_rule_scales_to_the_largest_weight_too(small, state):
    rule = Adaptive(0.2, count_noise_multiplier=7.0)
    options = {"noise_multiplier": 2.0, "clipping": rule}
    made = private(losses.class_weighted(COUNTS), **options)
    first = start(made, small)
    nobody = batch_of(small, range(8), np.zeros(8, bool))
    found, quiet = (moved(each, first, nobody) for each in (made, private(**options)))
    np.testing.assert_allclose(found, WEIGHTS.max() * quiet, rtol=1e-3, atol=1e-5)


def test_verification_knows_weights_after_clipping():
    loss = losses.class_weighted(COUNTS)
    made = private(loss, noise_multiplier=1.0, batch_size=8)
    options = {"batch_size": 8, "checks": ("parity", "sensitivity"), "devices": 1}
    assert verify(made, records(64), loss=loss, **options).ok


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (losses.class_weighted(Counts((8, 1, 1), "data")), "source 'data'"),
        (losses.ldam(Counts((8, 1, 1), "data")), "source 'data'"),
        (losses.mfe(), "come from the records of a batch"),
        (losses.msfe(), "come from the records of a batch"),
        (losses.msfe(COUNTS, ClassLosses((1, 1, 1), "data")), "source 'data'"),
    ],
)
def test_dpsgd_refuses_what_is_not_private(loss, message):
    with pytest.raises(InputError, match=message):
        private(loss)


def test_released_counts_are_taken_and_the_guarantee_says_what_it_leaves_out():
    def said(source):
        loss = losses.mfe(Counts((8, 4, 4), source))
        made = private(loss, noise_multiplier=1.0)
        assert made.mechanism.released_counts == (source == "released")
        sampler, facts = poisson(16, 4, 16), {"delta": 1e-3, "noise_seed": "secret"}
        return str(guarantee(made, sampler, 2, (6, 6, 1), **facts).as_dict())

    assert "has to be composed with it" in said("released")
    assert "composed with it" not in said("public")
    assert "released_counts" not in said("public")


def test_a_loss_without_classes_is_what_it_was(small, state):
    wrapped = losses.Loss("plain", cross_entropy)
    batch = batch_of(small, range(8))
    options = {"noise_multiplier": 1.0}
    assert_same(
        moved(private(wrapped, **options), state, batch),
        moved(private(**options), state, batch),
    )
    assert_close(moved(plain(wrapped), state, batch), moved(plain(), state, batch))


def test_a_loss_for_other_classes_is_refused_while_tracing(small, state):
    wrong = losses.balanced_softmax(Counts((1, 1), "public"))
    with pytest.raises(InputError, match="made for 2 classes, but there are 3 logits"):
        moved(private(wrong), state, batch_of(small, range(2)))
