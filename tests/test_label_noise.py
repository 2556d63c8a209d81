"""Labels by randomised response: drawn as stated, learned from, and accounted for."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from support import CLASSES, Dense, assert_binomial, batch_of, records, start, tiny

from rpjax.errors import InputError
from rpjax.learners import Inputs, LabelNoise, State, ensemble, supervised
from rpjax.perturbations import Additive
from rpjax.privacy import Gaussian, compose, feature_guarantee, labels
from rpjax.training import fit, guarantee
from rpjax.training.loop import sampler_for

TX = optax.sgd(0.1)
INPUTS = Inputs(noise=4.0, bound=1.5)
NOISE = LabelNoise(1.0, CLASSES)
FACTS = {"delta": 1e-5, "noise_seed": "secret"}


def state_of(secret=0, step=0):
    words = jnp.arange(8, dtype=jnp.uint32) + secret
    return State(jnp.int32(step), {}, {}, (), words)


@pytest.fixture(scope="module")
def drawn():
    """30,000 labels of three classes, and what was reported of them."""
    data = records(30_000, shape=(1, 1, 1))
    batch = batch_of(data, range(len(data)))
    reported = jax.jit(NOISE.reported)(state_of(), batch).labels
    return data.labels, np.asarray(reported)


# ----------------------------------------------------------------------------- the draw


def test_a_label_is_kept_as_often_as_the_closed_form_says(drawn):
    """Error rate 1e-4 for each class; a twentieth more or less would be seen."""
    true, reported = drawn
    keep = np.e / (np.e + 2)
    for label in range(CLASSES):
        own = reported[true == label]
        assert len(own) > 9_000
        assert_binomial((own == label).sum(), len(own), keep)
        for wrong in (1.06 * keep, keep / 1.06):
            power = scipy.stats.binomtest((own == label).sum(), len(own), wrong)
            assert power.pvalue < 1e-6


def test_the_other_classes_are_equally_likely(drawn):
    """Error rate 1e-4 for each class."""
    true, reported = drawn
    for label in range(CLASSES):
        moved = reported[(true == label) & (reported != label)]
        first = (moved == (label + 1) % CLASSES).sum()
        assert_binomial(first, len(moved), 0.5)


def test_the_draw_is_the_records_own_whatever_the_step_and_the_batch(small):
    noise = LabelNoise(0.5, CLASSES)
    one = noise.reported(state_of(step=3), batch_of(small, range(16)))
    order = np.arange(16)[::-1][:9]
    other = noise.reported(state_of(step=8), batch_of(small, order))
    np.testing.assert_array_equal(other.labels, np.asarray(one.labels)[order])
    secret = noise.reported(state_of(secret=1), batch_of(small, range(16)))
    assert (np.asarray(secret.labels) != one.labels).any()
    assert (np.asarray(one.labels) != small.labels).any()


def test_labels_at_no_epsilon_are_uniform_and_at_a_large_one_kept(small):
    batch = batch_of(records(3_000, shape=(1, 1, 1)), range(3_000))
    free = np.asarray(LabelNoise(0.0, CLASSES).reported(state_of(), batch).labels)
    for label in range(CLASSES):
        assert_binomial((free == label).sum(), 3_000, 1 / 3)
    kept = LabelNoise(40.0, CLASSES).reported(state_of(), batch).labels
    np.testing.assert_array_equal(kept, batch.labels)


# ----------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 4.0, 30.0])
def test_the_loss_is_corrected_by_the_confusion_matrix(epsilon):
    """Minus log of sum_y p_y T[y, z], written out, in float64."""
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 3
    reported = np.arange(20) % 5
    law = scipy.special.softmax(logits, -1) @ labels.confusion(epsilon, 5)
    expected = -np.log(law[np.arange(20), reported])
    noise = LabelNoise(epsilon, 5)
    found = noise.losses(jnp.asarray(logits, jnp.float32), jnp.asarray(reported))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda x: noise.losses(x, jnp.asarray(reported)).sum())(
        jnp.asarray(logits, jnp.float32)
    )
    assert np.isfinite(slope).all()


def test_a_step_sees_reported_labels_alone(small):
    """It is the plain step on a batch of those, with the corrected loss."""
    noisy = supervised(Dense(), TX, label_noise=NOISE)
    state = start(noisy, small)
    batch = batch_of(small, range(8))
    after, info = jax.jit(noisy.step)(jax.random.key(0), state, batch)
    told = NOISE.reported(state, batch)
    assert (np.asarray(told.labels) != batch.labels).any()
    pixels = Inputs().clean(batch.images)
    matrix = jnp.asarray(labels.confusion(1.0, CLASSES), jnp.float32)

    def loss(params):
        logits = Dense().apply({"params": params}, None, pixels, True)
        law = jnp.take_along_axis(
            jax.nn.softmax(logits) @ matrix, told.labels[:, None], axis=1
        )
        return -jnp.log(law).mean()

    value, slope = jax.value_and_grad(loss)(state.params)
    assert float(info["loss"]) == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, slope)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        *(after.params, expected),
    )


# ------------------------------------------------------------------------ the guarantee


def stated(learner, small, steps=5):
    return guarantee(learner, sampler_for(learner, 16, 4), steps, small.shape, **FACTS)


def test_with_noisy_labels_the_whole_record_is_covered(small):
    run = fit(
        *(supervised(Dense(), TX, INPUTS, label_noise=NOISE), small),
        batch_size=4,
        steps=5,
    )
    assert run.learner.mechanism.label_epsilon == 1.0
    found, mu = run.guarantee(), 2 * 1.5 * 2**0.5 / 4.0
    assert (found.kind, found.mu) == ("dp", None)
    assert found.adjacency == "replace one record by another"
    assert found.unit == "one record, features and label"
    both = compose(Gaussian(mu), labels.RandomisedResponse(1.0, CLASSES))
    assert found.epsilon == pytest.approx(both.epsilon(1e-5), rel=1e-9)
    features, _, label = found.alternatives
    assert features.epsilon == pytest.approx(Gaussian(mu).epsilon(1e-5))
    assert features.epsilon < found.epsilon < features.epsilon + 1.0
    assert label.epsilon <= 1.0
    assert not any("labels: " in text for text in found.not_covered)
    assert not any("labels" in text for text in found.public)
    assert any("drawn once by randomised response" in t for t in found.assumptions)
    # a record used more often costs nothing more for its label
    assert stated(run.learner, small, 40).alternatives[-1] == label


def test_members_with_noise_of_their_own_draw_labels_of_their_own(small):
    learner = supervised(Dense(), TX, INPUTS, label_noise=NOISE)
    one, own, joint = (
        stated(each, small).alternatives[-1].epsilon
        for each in (learner, ensemble(learner, 3), ensemble(learner, 3, joint=True))
    )
    assert joint == one
    assert 2 * one < own <= 3 * one * (1 + 1e-3)


def test_noisy_labels_on_clean_images_are_said_to_hide_the_label_alone(small):
    learner = supervised(Dense(Additive(0.5)), TX, label_noise=NOISE)
    found = stated(learner, small)
    assert found.kind == "none"
    assert "hide the label alone" in found.statement
    assert learner.mechanism.private, "their secret has to be one"


def test_a_label_noise_that_does_not_fit_is_refused(small):
    with pytest.raises(InputError, match=r"^label_noise has 4 classes and the model 3"):
        supervised(tiny(), TX, label_noise=LabelNoise(1.0, 4))
    with pytest.raises(InputError, match=r"^epsilon = -1\.0"):
        LabelNoise(-1.0, 3)
    with pytest.raises(InputError, match=r"^label_epsilon = 1\.0, classes = None"):
        feature_guarantee(
            **{"input_noise": 1.0, "delta": 1e-5, "participations": 1, "bound": 1.0},
            **{"bound_enforced": True, "constants_public": True},
            **{"releases_clean_statistics": False, "label_epsilon": 1.0},
        )


def test_a_joint_ensemble_learns_from_the_labels_of_one_draw(small):
    joint = ensemble(supervised(Dense(), TX, label_noise=NOISE), 2, joint=True)
    state = start(joint, small)
    batch = batch_of(small, range(8))
    _, info = jax.jit(joint.step)(jax.random.key(0), state, batch)
    told = batch._replace(labels=jnp.asarray(NOISE.reported(state, batch).labels))
    kept = replace(NOISE, epsilon=40.0)
    plain = ensemble(supervised(Dense(), TX, label_noise=kept), 2, joint=True)
    _, other = jax.jit(plain.step)(jax.random.key(0), state, told)
    assert info["accuracy"] == other["accuracy"]
    assert info["loss"] != other["loss"]
