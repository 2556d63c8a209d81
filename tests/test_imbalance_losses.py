"""Losses for imbalanced classes: published values, formulas, finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax

from rpjax.counts import ClassLosses, Counts
from rpjax.errors import InputError
from rpjax.learners import losses
from rpjax.learners.losses.classwise import tally
from rpjax.learners.losses.loss import Loss, Phase, largest_weights, per_record

CIFAR10_LT = Counts((5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50), "public")
THREE = Counts((900, 90, 10), "public")
SETTINGS = settings(max_examples=20, deadline=None, derandomize=True)

# a batch with one record of class 0, two of class 1 and none of class 2
LOGITS = np.array([[2.0, 1.0, -1.0], [0.5, 0.0, 0.5], [-1.0, 3.0, 0.0]])
LABELS = np.array([0, 1, 1])


def value(loss, logits=LOGITS, labels=LABELS):
    return np.asarray(loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels)))


def own_cross_entropy(logits, labels):
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


# ---------------------------------------------------------------------- known values


def test_class_balanced_weights_are_the_published_ones():
    found = losses.effective_number_weights(CIFAR10_LT)
    expected = [0.0506, 0.0769, 0.1211, 0.1950, 0.3188]
    expected += [0.5246, 0.8683, 1.4426, 2.4092, 3.9927]
    np.testing.assert_allclose(found, expected, atol=5e-5)
    assert found.sum() == pytest.approx(10)
    naive = (1 - 0.9999) / (1 - np.power(0.9999, CIFAR10_LT.values))
    np.testing.assert_allclose(found, 10 * naive / naive.sum(), rtol=1e-9)


def test_class_balanced_weights_go_from_uniform_to_inverse_counts():
    np.testing.assert_array_equal(losses.effective_number_weights(THREE, 0.0), 1)
    limit = losses.effective_number_weights(THREE, 1 - 1e-12)
    inverse = losses.inverse_weights(THREE)
    np.testing.assert_allclose(limit, 3 * inverse / inverse.sum(), rtol=1e-6)


def test_inverse_weights_margins_and_shares_are_the_published_ones():
    inverse = [0.2481, 0.4139, 0.6908, 1.1519, 1.9234]
    inverse += [3.2057, 5.3474, 8.9252, 14.947, 24.812]
    found = losses.inverse_weights(CIFAR10_LT)
    np.testing.assert_allclose(found, inverse, rtol=2e-4)
    margins = [0.1581, 0.1797, 0.2042, 0.2321, 0.2638]
    margins += [0.2998, 0.3407, 0.3872, 0.4405, 0.5000]
    np.testing.assert_allclose(losses.margins(CIFAR10_LT), margins, atol=5e-5)
    logs = [-0.9087, -1.4206, -1.9326, -2.4440, -2.9567]
    logs += [-3.4675, -3.9792, -4.4915, -5.0071, -5.5139]
    np.testing.assert_allclose(np.log(CIFAR10_LT.shares), logs, atol=5e-5)
    shift = losses.adjusted(jnp.zeros((2, 10)), CIFAR10_LT)
    np.testing.assert_allclose(-shift[1], logs, atol=5e-5)


def test_msfe_of_two_classes_is_the_worked_example():
    """FPE 0.3 and FNE 0.1: MFE 0.4, MSFE 0.10, half of 0.16 + 0.04."""
    own = jnp.asarray([0.2, 0.4, 0.1])
    means = losses.mean_by_class(own, jnp.asarray([0, 0, 1]), jnp.ones(3, bool), 2)
    np.testing.assert_allclose(means, [0.3, 0.1], rtol=1e-6)
    assert float(means.sum()) == pytest.approx(0.4)
    assert float((means**2).sum()) == pytest.approx(0.10)
    assert pytest.approx(0.10) == ((0.4) ** 2 + (0.3 - 0.1) ** 2) / 2


# ------------------------------------------------------------ independent formulas


def test_each_loss_is_its_formula():
    log_p = log_softmax(LOGITS, axis=1)
    at = np.arange(3), LABELS
    np.testing.assert_allclose(value(losses.cross_entropy), -log_p[at], rtol=1e-5)
    p = np.exp(log_p[at])
    for g in (0.0, 1.0, 2.0):
        expected = (1 - p) ** g * -log_p[at]
        np.testing.assert_allclose(value(losses.focal(g)), expected, rtol=1e-5)
    square = ((np.exp(log_p) - np.eye(3)[LABELS]) ** 2).sum(1) / 2
    np.testing.assert_allclose(value(losses.squared_error), square, rtol=1e-5)
    n = np.array(THREE.values)
    weighed = np.exp(LOGITS) * n
    balanced = -np.log(weighed[at] / weighed.sum(1))
    np.testing.assert_allclose(
        value(losses.balanced_softmax(THREE)), balanced, rtol=1e-5
    )
    half = own_cross_entropy(LOGITS + 0.5 * np.log(n / n.sum()), LABELS)
    np.testing.assert_allclose(
        value(losses.logit_adjusted(THREE, 0.5)), half, rtol=1e-5
    )


def test_ldam_is_the_published_code_in_numpy():
    """`LDAMLoss.forward` of kaidic/LDAM-DRW, without its weights."""
    m_list = 1.0 / np.sqrt(np.sqrt(THREE.values))
    m_list = m_list * (0.5 / np.max(m_list))
    x = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
    index = np.zeros_like(x, bool)
    index[np.arange(3), LABELS] = True
    batch_m = (m_list[None] @ index.T).T
    output = np.where(index, x - batch_m, x)
    expected = own_cross_entropy(30 * output, LABELS)
    np.testing.assert_allclose(value(losses.ldam(THREE), x), expected, 1e-4, 1e-7)


def test_ldam_drw_weighs_from_its_step_on():
    loss = losses.deferred(THREE, start=100, base=losses.ldam(THREE))
    assert loss.phases[0] == Phase(0, (1.0, 1.0, 1.0))
    later = losses.effective_number_weights(THREE)
    weights = jax.jit(loss.weights_at)
    for step, expected in ((0, 1.0), (99, 1.0), (100, later), (10**6, later)):
        np.testing.assert_allclose(weights(step), expected * np.ones(3), rtol=1e-6)
    np.testing.assert_array_equal(value(loss), value(losses.ldam(THREE)))
    assert largest_weights(loss.phases) == ((0, 1.0), (100, later.max()))


FINITE = [
    losses.cross_entropy,
    losses.squared_error,
    losses.focal(1.0),
    losses.focal(2.5),
    losses.ldam(THREE, scale=3.0),
    losses.logit_adjusted(THREE, 1.5),
    losses.balanced_softmax(THREE),
]


@pytest.mark.parametrize("loss", FINITE, ids=lambda f: getattr(f, "name", "plain"))
def test_gradients_are_finite_differences(loss):
    def one(logits):
        return loss(logits[None], jnp.asarray([2]))[0]

    at = jnp.asarray([0.3, -0.4, 0.1], jnp.float32)
    found = jax.grad(one)(at)
    h = 1e-2
    for i in range(3):
        e = h * jnp.eye(3, dtype=jnp.float32)[i]
        slope = (float(one(at + e)) - float(one(at - e))) / (2 * h)
        assert float(found[i]) == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize("loss", FINITE, ids=lambda f: getattr(f, "name", "plain"))
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_losses_and_gradients_stay_finite_at_extreme_logits(loss, size):
    for label in (0, 1):
        logits = jnp.asarray([[size, -size, 0.0]])
        total = lambda z, y=label: loss(z, jnp.asarray([y]))[0]
        found, gradient = jax.value_and_grad(total)(logits)
        assert np.isfinite(found)
        assert np.isfinite(np.asarray(gradient)).all()


# -------------------------------------------------------------------------- algebra

SOME_LOGITS = hnp.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32))
SOME_LABELS = hnp.arrays(np.int32, 4, elements=st.integers(0, 2))
SOME_COUNTS = st.tuples(*[st.integers(1, 5000)] * 3)


@SETTINGS
@given(SOME_LOGITS, SOME_LABELS, st.integers(1, 10**5))
def test_equal_counts_change_nothing(logits, labels, count):
    equal = Counts((count,) * 3, "public")
    plain = value(losses.cross_entropy, logits, labels)
    for loss in (losses.balanced_softmax(equal), losses.logit_adjusted(equal, 2.0)):
        np.testing.assert_allclose(value(loss, logits, labels), plain, atol=1e-5)
    np.testing.assert_allclose(losses.inverse_weights(equal), 1)
    np.testing.assert_allclose(losses.effective_number_weights(equal), 1)
    shifted = value(losses.ldam(equal, 0.5, 1.0), logits, labels)
    assert (shifted >= plain - 1e-5).all()


@SETTINGS
@given(SOME_LOGITS, SOME_LABELS, SOME_COUNTS)
def test_balanced_softmax_is_a_classifier_of_the_shifted_logits(logits, labels, counts):
    counts = Counts(counts, "public")
    loss = losses.logit_adjusted(counts, 1.0)
    same = value(losses.balanced_softmax(counts), logits, labels)
    np.testing.assert_allclose(value(loss, logits, labels), same, atol=1e-6)
    # what it fits, corrected back, is what it was given
    back = losses.adjusted(jnp.asarray(logits) + jnp.log(counts.shares)[None], counts)
    np.testing.assert_allclose(back, logits, atol=1e-5)


@SETTINGS
@given(hnp.arrays(np.float32, 6, elements=st.floats(0, 9, width=32)), st.data())
def test_mfe_is_k_times_the_class_weighted_mean(own, data):
    labels = np.array([0, 1, 2, *data.draw(st.tuples(*[st.integers(0, 2)] * 3))])
    n = np.bincount(labels, minlength=3)
    counts = Counts(tuple(n.tolist()), "public")
    means = np.array([own[labels == c].mean() for c in range(3)])
    for loss in (losses.mfe(), losses.mfe(counts)):
        found = tally(jnp.asarray(own), jnp.asarray(labels), jnp.ones(6, bool), 3)
        args = (loss, jnp.asarray(own), jnp.asarray(labels), 0, found)
        total = float((per_record(*args) * own).mean())
        assert total == pytest.approx(means.sum(), abs=1e-4)
    weighted = losses.inverse_weights(counts)[labels]
    assert 3 * (weighted * own).mean() == pytest.approx(means.sum(), abs=1e-4)


# ----------------------------------------------------------------- batches of classes


def objective(logits, labels, valid, power):
    """MFE (power 1) or MSFE (2) as published, differentiated as it stands."""
    own = losses.cross_entropy(logits, labels)
    return (losses.mean_by_class(own, labels, valid, 3) ** power).sum()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    "valid", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 0, 1), (0, 0, 0)]
)
def test_weights_from_the_batch_give_the_gradient_of_the_published_loss(power, valid):
    """With classes absent, and a class with one record."""
    logits, labels = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(LABELS)
    valid = jnp.asarray(valid, bool)
    expected = jax.grad(objective)(logits, labels, valid, power)
    loss = losses.mfe() if power == 1 else losses.msfe()

    def mean(logits):
        own = loss(logits, labels)
        fixed = jax.lax.stop_gradient(own)
        found = tally(fixed, labels, valid, 3)
        weights = per_record(loss, fixed, labels, 0, found)
        return jnp.sum(own * weights * valid) / jnp.maximum(valid.sum(), 1)

    found = jax.grad(mean)(logits)
    assert np.isfinite(np.asarray(found)).all()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    means = losses.mean_by_class(loss(logits, labels), labels, valid, 3)
    assert means[2] == 0


def test_msfe_of_released_losses_weighs_classes_by_twice_their_loss():
    released = ClassLosses((0.5, 2.0, 0.0), "released")
    loss = losses.msfe(THREE, released)
    expected = [2 * 0.5 * 1000 / 900, 2 * 2.0 * 1000 / 90, 2e-6 * 1000 / 10]
    np.testing.assert_allclose(loss.weights_at(0), expected, rtol=1e-5)
    assert loss.private
    assert loss.unaccounted


# ---------------------------------------------------------------- legality, refusals


def test_each_loss_says_what_it_is_under_dp():
    data = Counts(THREE.values, "data")
    released = Counts(THREE.values, "released")
    assert losses.focal().legality == "per example"
    assert losses.ldam(THREE).legality == "per example, with public counts"
    assert "released" in losses.balanced_softmax(released).legality
    for loss in (
        losses.class_weighted(data),
        losses.class_balanced(data),
        losses.ldam(data),
        losses.logit_adjusted(data),
        losses.mfe(data),
        losses.deferred(THREE, 5, base=losses.ldam(data)),
        losses.mfe(THREE, base=losses.balanced_softmax(data)),
        losses.msfe(THREE, ClassLosses((1, 1, 1), "data")),
    ):
        assert loss.legality.startswith("not private: counts or losses")
        with pytest.raises(InputError, match="source 'data'"):
            loss.refuse_unless_private()
    for loss in (losses.mfe(), losses.msfe()):
        assert loss.legality.startswith("not private: weights come from the batch")
        with pytest.raises(InputError, match="come from the records of a batch"):
            loss.refuse_unless_private()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.class_weighted(Counts((1, 0), "public")), "class 1 has no"),
        (lambda: losses.class_balanced(THREE, 1.0), "beta is 1.0"),
        (lambda: losses.deferred(THREE, 0), "start is 0"),
        (lambda: losses.focal(-1.0), "exponent is -1.0"),
        (lambda: losses.ldam(THREE, largest=0.0), "largest is 0.0"),
        (lambda: losses.ldam(THREE, scale=math.inf), "scale is inf"),
        (lambda: losses.logit_adjusted(THREE, -1.0), "tau is -1.0"),
        (lambda: losses.msfe(THREE), "together, or neither"),
        (lambda: losses.msfe(THREE, ClassLosses((1,), "data")), "1 for 3 classes"),
        (lambda: ClassLosses((math.nan, 1), "data"), "class losses: nan"),
        (lambda: ClassLosses((1.0, 1), "public"), "source is 'public'"),
        (lambda: value(losses.ldam(CIFAR10_LT)), "made for 10 classes, but there are"),
        (lambda: losses.deferred(THREE, 5, base=losses.mfe()), "weights of its own"),
        (
            lambda: losses.class_weighted(THREE, losses.class_balanced(THREE)),
            "which has class weights of its own",
        ),
        (
            lambda: losses.deferred(THREE, 5, base=losses.ldam(CIFAR10_LT)),
            r"are of \[3, 10\] classes",
        ),
        (lambda: Loss("x", None, (Phase(1, (1.0, 1.0)),)), r"start at \[1\]"),
        (lambda: Loss("x", None, (Phase(0, (1.0, 0.0)),)), "class weight is 0.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
