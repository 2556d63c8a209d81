"""No epsilon where a premise of its theorem did not hold, and the premise is named."""

import math
import sys
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, batch_of, pixels, tiny, variables

from rpjax import keys
from rpjax.averaging import averaged
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.learners import Inputs, State, dpsgd, supervised
from rpjax.perturbations import Additive, clip_to_ball, noisy_input
from rpjax.privacy import Guarantee, gdp
from rpjax.training import Budget, fit, guarantee
from rpjax.training.loop import sampler_for

TX = optax.sgd(0.1)
SHIFTS = Augmentation(crop=2, flip=True)
FIRST = Inputs(noise=4.0, bound=1.5, augmentation=SHIFTS, order="augment_then_noise")
PLAIN_ORDER = Inputs(noise=4.0, bound=1.5)
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


@pytest.fixture(scope="module")
def augmented_first(small):
    return fit(learner(), small, **TRAINING)


def test_augmented_first_a_record_has_as_many_noisy_copies_as_participations(
    augmented_first, noisy
):
    """The figure is that of the other order: fresh noise each time, clipped images."""
    one, other = augmented_first.guarantee(), noisy.guarantee()
    assert one.mu == other.mu == pytest.approx(2 * 1.5 * 2**0.5 / 4.0)
    assert any("centring and augmentation" in text for text in one.assumptions)
    assert not any("and augmentation and" in text for text in other.assumptions)


def test_kept_noise_on_augmented_images_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"^draw is 'record' and noise_order"):
        learner(FIRST, draw="record")


def test_kept_noise_on_augmented_images_proves_nothing(augmented_first):
    """A learner of one's own may do it all the same."""
    facts = replace(augmented_first.learner.mechanism, draw="record")
    own = augmented_first.learner._replace(mechanism=facts)
    run = replace(augmented_first, learner=own)
    refused(run.guarantee(), "one noise per record meets several augmented views")


def test_augmenting_what_is_noisy_already_is_sound_for_kept_noise(small):
    inputs = Inputs(noise=4.0, bound=1.5, augmentation=SHIFTS)
    kept = learner(inputs, draw="record")
    assert kept.mechanism.augmentation == "after_noise"
    facts = {"delta": 1e-5, "noise_seed": "secret"}
    found = guarantee(kept, sampler_for(kept, 16, 4), 5, small.shape, **facts)
    assert found.mu == pytest.approx(2 * 1.5 / 4.0)


# ---------------------------------------------------------------------------- the bound


def test_augmented_images_without_a_bound_are_bounded_by_nothing(small):
    free = Inputs(noise=4.0, augmentation=SHIFTS, order="augment_then_noise")
    run = fit(learner(free), small, **TRAINING)
    refused(run.guarantee(), "the norm bound on the inputs is not enforced")


def test_constants_from_the_private_records_leave_no_figure(small):
    own = Inputs(mean=0.42, noise=4.0, bound=1.5, constants_public=False)
    run = fit(learner(own), small, **TRAINING)
    refused(run.guarantee(), "were computed from the private records")


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_order_is_refused():
    with pytest.raises(InputError, match=r"^noise_order is 'both'; it is 'noise_then"):
        Inputs(order="both")


# ---------------------------------------------------------- participations, all counted


@pytest.fixture(scope="module")
def noisy(small):
    """One training with a guarantee: two participations of each record."""
    return fit(learner(PLAIN_ORDER), small, **TRAINING)


@pytest.fixture(scope="module")
def private_run(small):
    learner = dpsgd(
        Dense(), TX, clip_norm=1.0, noise_multiplier=1.5, batch_size=4, engine="vmap"
    )
    return fit(learner, small, batch_size=4, steps=20)


@pytest.fixture(scope="module")
def again(small):
    return fit(learner(PLAIN_ORDER), small, **TRAINING | {"steps": 9}, seed=1)


def test_weights_that_have_taken_more_steps_than_stated_prove_nothing(noisy):
    fewer = replace(noisy, steps=4)
    refused(fewer.guarantee(), "the weights have taken 5 steps, and 4 are stated")
    assert noisy.guarantee().kind == "gdp"


def test_trainings_on_the_same_records_compose(noisy, again):
    one, other = noisy.guarantee(), again.guarantee()
    both = again.guarantee(earlier=[noisy])
    assert both.mu == pytest.approx(math.hypot(one.mu, other.mu), rel=1e-12)
    assert both.mu == pytest.approx(2 * 1.5 * math.sqrt(2 + 3) / 4.0)
    assert both.epsilon == pytest.approx(gdp.epsilon(1e-5, both.mu), rel=1e-9)
    assert "1 earlier training on the same records" in both.statement
    assert both.parameters["earlier"] == 1
    assert Guarantee.from_dict(both.as_dict()) == both


def test_a_training_that_was_told_of_earlier_ones_counts_them(noisy, again, small):
    told = fit(learner(PLAIN_ORDER), small, **TRAINING, seed=2, earlier=[noisy])
    assert told.guarantee().mu == pytest.approx(noisy.guarantee().mu * math.sqrt(2))
    more = told.guarantee(earlier=[again]).mu
    assert more == pytest.approx(math.hypot(told.guarantee().mu, again.guarantee().mu))


def test_a_resumed_training_counts_the_steps_before_the_break(small, tmp_path):
    options = {"batch_size": 4, "checkpoints": tmp_path}
    fit(learner(PLAIN_ORDER), small, **options, steps=5)
    whole = fit(learner(PLAIN_ORDER), small, **options, steps=13)
    assert whole.guarantee().mu == pytest.approx(2 * 1.5 * math.sqrt(4) / 4.0)


def test_after_a_training_that_guarantees_nothing_nothing_is_guaranteed(noisy, small):
    bare = fit(learner(Inputs()), small, **TRAINING)
    after = noisy.guarantee(earlier=[bare])
    refused(after, "an earlier training on the same records guarantees nothing")
    assert "guarantees nothing by itself" in after.statement


def test_guarantees_for_other_neighbours_do_not_compose(noisy, private_run):
    after = noisy.guarantee(earlier=[private_run])
    refused(after, "has its guarantee for other neighbours (add or remove one record)")


def test_two_trainings_by_dpsgd_compose_to_nearly_one_twice_as_long(private_run):
    """By way of tables, so from above; by less than a twentieth."""
    again = replace(
        private_run, state=private_run.state._replace(secret=np.ones(8, np.uint32))
    )
    both = again.guarantee(1e-3, earlier=[private_run])
    twice = replace(private_run, steps=2 * private_run.steps).guarantee(1e-3)
    assert twice.epsilon <= both.epsilon <= 1.05 * twice.epsilon


def test_the_same_noise_twice_proves_nothing(small):
    """A fixed seed, used again on the same records: the noises are no longer apart."""
    fixed = {"noise_seed": "fixed", "seed": 4}
    one = fit(learner(PLAIN_ORDER), small, **TRAINING, **fixed)
    more = TRAINING | {"steps": 6}
    other = fit(learner(PLAIN_ORDER), small, **more, **fixed, earlier=[one])
    refused(other.guarantee(), "the noise was used before")
    apart = replace(other, earlier=())
    assert apart.guarantee().kind == one.guarantee().kind == "gdp"
    refused(apart.guarantee(earlier=[one]), "the noise was used before")


def test_a_fixed_seed_of_an_earlier_training_is_said(noisy, again):
    known = replace(noisy, noise_seed="fixed")
    assert "fixed noise seed" in again.guarantee(earlier=[known]).statement
    assert "fixed noise seed" not in again.guarantee(earlier=[noisy]).statement


def test_a_budget_beside_earlier_trainings_is_refused(noisy, small):
    with pytest.raises(InputError, match=r"^budget is .* and earlier names 1 train"):
        fit(
            *(learner(PLAIN_ORDER), small),
            **TRAINING,
            budget=Budget(100.0),
            earlier=[noisy],
        )


# --------------------------------------------------------- nothing clean on its way out


class Normed(nn.Module):
    """A linear net behind a batch normalisation."""

    norm: str = "batch"

    @nn.compact
    def __call__(self, record_keys, images, train=False):
        x = nn.BatchNorm(use_running_average=not train)(images)
        return nn.Dense(3)(x.reshape(len(x), -1))


def test_batch_statistics_that_were_re_estimated_leave_no_figure(small):
    model = Normed()
    run = fit(supervised(model, TX, PLAIN_ORDER), small, **TRAINING)
    assert run.guarantee().kind == "gdp"
    clean = PLAIN_ORDER.clean(jnp.asarray(small.images))
    variables = {"params": run.state.params, "batch_stats": run.state.stats}
    _, updates = model.apply(variables, None, clean, True, mutable=["batch_stats"])
    state = run.state._replace(stats=updates["batch_stats"])
    refused(replace(run, state=state).guarantee(), "batch statistics were re-estimated")


def test_weights_that_were_changed_after_training_leave_no_figure(noisy, private_run):
    for run in (noisy, private_run):
        params = jax.tree.map(lambda leaf: leaf + 1e-3, run.state.params)
        state = run.state._replace(params=params)
        changed = replace(run, state=state).guarantee(1e-3)
        refused(changed, "the weights are not those that training left")


def test_the_average_of_the_weights_keeps_the_guarantee(small):
    tx = averaged(TX, [0.9])
    run = fit(supervised(Dense(), tx, PLAIN_ORDER), small, **TRAINING)
    assert run.averaged(0.9).guarantee() == run.guarantee()


def test_clean_statistics_that_are_released_leave_no_figure(noisy, private_run):
    for run in (noisy, private_run):
        found = run.guarantee(1e-3, releases_clean_statistics=True)
        refused(found, "un-noised training records reaches the release")


def test_initial_weights_come_from_no_record(small):
    """Not even where an initialiser looks at what it is given."""

    class Nosy(nn.Module):
        @nn.compact
        def __call__(self, record_keys, images, train=False):
            start = lambda key: images.mean((0, 1, 2))
            return nn.Dense(3)(images.mean((1, 2)) - self.param("mean", start)[None])

    made = supervised(Nosy(), TX, Inputs()).init(
        keys.root(0), jnp.asarray(small.images)
    )
    np.testing.assert_array_equal(made.params["mean"], -1.0)  # of a black image


# ------------------------------------------------------------------- residual branches


def branches(model, images):
    """F(x) of each block as the net adds it, and x."""
    seen, found = [], variables(model, images.shape[1:])

    def noted(keys, perturbation, x, f):
        seen.append((np.asarray(x, np.float64), np.asarray(f, np.float64)))
        return x + f

    with pytest.MonkeyPatch.context() as patch:
        # the package's `resnet` is the function of that name
        patch.setattr(sys.modules["rpjax.models.resnet"], "euler_step", noted)
        model.apply(found, None, jnp.asarray(images), False)
    return seen


def test_residual_branches_are_clipped_for_each_record(small):
    model = tiny(stages=(2,))
    images = pixels(5).at[2].multiply(30.0)
    norms = lambda f: np.linalg.norm(f.reshape(len(f), -1), axis=1)
    (_, first), _ = branches(model, images)
    bound = float(np.median(norms(first)))
    clipped = branches(model.clone(residual_bound=bound), images)
    scale = np.minimum(1, bound / norms(first))[:, None, None, None]
    np.testing.assert_allclose(clipped[0][1], first * scale, rtol=1e-4, atol=1e-5)
    assert (scale < 1).any()
    assert (scale == 1).any()
    for _, f in clipped:
        assert norms(f).max() <= bound * (1 + 1e-5)


def test_a_clipped_branch_of_zero_has_a_gradient():
    slope = jax.grad(lambda x: clip_to_ball(x, 1.0).sum())(jnp.zeros((2, 3, 3, 1)))
    np.testing.assert_array_equal(slope, 1.0)


@pytest.mark.parametrize("bound", [1.003, 5.017, 7.09, 11.3])
def test_the_norm_of_a_branch_is_taken_in_float32(bound):
    """Ten thousand bfloat16 numbers: scales of eight bits are 0.05 to 0.4 % off.

    Rounding the results moves each by that much, and their norm by next to nothing.
    """
    x = pixels(1, shape=(50, 50, 4)).astype(jnp.bfloat16)
    norm = np.linalg.norm(np.asarray(clip_to_ball(x, bound), np.float64))
    assert norm == pytest.approx(bound, rel=3e-4)


def test_a_clipped_branch_is_stated_and_changes_no_figure(small):
    model = tiny(perturbation=Additive(0.5), residual_bound=2.0)
    clipped = supervised(model, TX, PLAIN_ORDER)
    assert clipped.mechanism.residual_bound == 2.0
    sampler = sampler_for(clipped, 16, 4)
    facts = {"delta": 1e-5, "noise_seed": "secret"}
    found = guarantee(clipped, sampler, 5, small.shape, **facts)
    assert "branches clipped to norm G = 2" in found.mechanism
    assert "adds nothing to the proof by itself" in found.statement
    assert found.mu == pytest.approx(2 * 1.5 * 2**0.5 / 4.0)
    with pytest.raises(InputError, match="residual_bound is -1"):
        tiny(residual_bound=-1.0)
