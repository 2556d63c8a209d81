"""No epsilon where a premise of its theorem did not hold, and the premise is named."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, batch_of

from rpjax import keys
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.learners import Inputs, State, supervised
from rpjax.perturbations import Additive, clip_to_ball, noisy_input
from rpjax.training import fit

TX = optax.sgd(0.1)
SHIFTS = Augmentation(crop=2, flip=True)
FIRST = Inputs(noise=4.0, bound=1.5, augmentation=SHIFTS, order="augment_then_noise")
TRAINING = {"batch_size": 4, "steps": 5}


def learner(inputs=FIRST, **options):
    return supervised(Dense(Additive(0.5)), TX, inputs, **options)


def refused(guarantee, reason):
    """That nothing is stated, and that this is why."""
    assert guarantee.kind == "none"
    assert (guarantee.epsilon, guarantee.delta, guarantee.mu) == (None, None, None)
    assert reason in guarantee.statement


# -------------------------------------------------------- augmentation before the noise


def pixels_of(inputs, data, step=3, views=None):
    secret = jnp.arange(8, dtype=jnp.uint32)
    state = State(jnp.int32(step), {}, {}, (), secret)
    batch = batch_of(data, range(len(data)))
    return np.asarray(inputs.training(keys.root(0), state, "step", batch, views))


def test_in_the_other_order_images_are_augmented_clipped_and_then_noised(small):
    """To the bit: the noise of either order is the record's own at that step."""
    quiet = Inputs(augmentation=SHIFTS)
    augmented = jnp.asarray(pixels_of(quiet, small))
    assert np.abs(augmented - quiet.normalised(jnp.asarray(small.images))).max() > 0
    clipped = clip_to_ball(augmented, FIRST.bound)
    secret = keys.domain(
        keys.from_secret(jnp.arange(8, dtype=jnp.uint32)), "input_noise"
    )
    own = keys.per_record(keys.at_step(secret, 3), jnp.asarray(small.ids))
    expected = noisy_input(own, clipped, FIRST.noise)
    found = pixels_of(FIRST, small)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    # without noise the norm is the bound's, which a shift after clipping cannot show:
    # a flip and a crop never lengthen an image, but adding to it would
    still = pixels_of(Inputs(bound=1.5, augmentation=SHIFTS, order=FIRST.order), small)
    norms = np.linalg.norm(still.reshape(len(small), -1), axis=1)
    assert norms.max() <= 1.5 * (1 + 1e-6)
    assert norms.max() == pytest.approx(1.5)


def test_each_view_has_noise_of_its_own(small):
    views = pixels_of(FIRST, small, views=3)
    assert views.shape == (16, 3, *small.shape)
    signal = pixels_of(
        Inputs(bound=1.5, augmentation=SHIFTS, order=FIRST.order), small, views=3
    )
    noise = (views - signal).reshape(16, 3, -1) / FIRST.noise
    # 16 x 36 products of independent standard normals: five standard errors, 6e-7 each
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((noise[:, one] * noise[:, other]).mean()) < 5 / 24
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_augmented_first_a_record_has_as_many_noisy_copies_as_participations(small):
    """The figure is that of the other order: fresh noise each time, clipped images."""
    after = Inputs(noise=4.0, bound=1.5, augmentation=SHIFTS)
    one, other = (
        fit(learner(i), small, **TRAINING).guarantee() for i in (FIRST, after)
    )
    assert one.mu == other.mu == pytest.approx(2 * 1.5 * 2**0.5 / 4.0)


def test_kept_noise_on_augmented_images_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"^draw is 'record' and noise_order"):
        learner(FIRST, draw="record")


def test_kept_noise_on_augmented_images_proves_nothing(small):
    """A learner of one's own may do it all the same."""
    kept = learner(FIRST)
    facts = kept.mechanism.__class__(**{**vars(kept.mechanism), "draw": "record"})
    run = fit(kept._replace(mechanism=facts, using=None), small, **TRAINING)
    refused(run.guarantee(), "one noise per record meets several augmented views")


def test_augmenting_what_is_noisy_already_is_sound_for_kept_noise(small):
    inputs = Inputs(noise=4.0, bound=1.5, augmentation=SHIFTS)
    run = fit(learner(inputs, draw="record"), small, **TRAINING)
    assert run.guarantee().mu == pytest.approx(2 * 1.5 / 4.0)


# ---------------------------------------------------------------------------- the bound


def test_augmented_images_without_a_bound_are_bounded_by_nothing(small):
    free = Inputs(noise=4.0, augmentation=SHIFTS, order="augment_then_noise")
    run = fit(learner(free), small, **TRAINING)
    refused(run.guarantee(), "the norm bound on the inputs is not enforced")
    assert fit(learner(Inputs(noise=4.0)), small, **TRAINING).guarantee().mu > 0


def test_constants_from_the_private_records_leave_no_figure(small):
    own = Inputs(mean=0.42, noise=4.0, bound=1.5, constants_public=False)
    run = fit(learner(own), small, **TRAINING)
    refused(run.guarantee(), "were computed from the private records")


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_order_is_refused():
    with pytest.raises(InputError, match=r"^noise_order is 'both'; it is 'noise_then"):
        Inputs(order="both")
