"""Reconstruction finds the image that made the gradient or the features, and no other.

Each attack that succeeds here is also run where it must not: on another image's
gradient, under strong noise, and with the noise that the attacker does not know.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import record_keys

import rpjax as rp
from benchmarks.reconstruction_nets import Small
from rpjax.attacks import reconstruction as rec
from rpjax.attacks.reconstruction.gradient_inversion import cosine_distance
from rpjax.errors import InputError
from rpjax.gradients import Flat

SHAPE = (8, 8, 1)
SEARCH = rec.Descent(iterations=150, restarts=1, total_variation=1e-3)
NET = Small(10, width=4)


@pytest.fixture(scope="module")
def digits():
    return rp.data.load("digits").train


@pytest.fixture(scope="module")
def pixels(digits):
    return np.asarray(rp.Inputs().clean(jnp.asarray(digits.images)))


@pytest.fixture(scope="module")
def state(digits):
    learner = rp.supervised(NET, rec.READING)
    return jax.jit(learner.init)(rp.keys.root(0), jnp.asarray(digits.images[:1]))


def batch(digits, at):
    part = digits.take(at)
    arrays = (part.images, part.labels, part.ids)
    return rp.learners.Batch(*map(jnp.asarray, arrays), jnp.ones(len(at), bool))


def released(learner, state, batch):
    return jax.jit(partial(rec.released_gradient, learner))(
        rp.keys.root(0), state, batch
    )


def stacked(*trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.fixture(scope="module")
def steps(digits, state):
    """Gradients of plain steps on each of three records, and under DP-SGD's noise."""
    plain = rp.supervised(NET, rec.READING)
    strong = rp.dpsgd(
        NET, rec.READING, clip_norm=1.0, noise_multiplier=1.0, batch_size=1
    )
    return [
        released(learner, state, batch(digits, [at]))
        for learner in (plain, strong)
        for at in range(3)
    ]


@pytest.fixture(scope="module")
def inverted(steps, state):
    """All of them in one program, labels read."""
    found = rec.invert_gradients(
        rec.Imitation(NET),
        state.params,
        stacked(*steps),
        SHAPE,
        rp.keys.root(1),
        settings=SEARCH,
    )
    return np.asarray(found.images)[:, 0]


def test_a_released_gradient_is_the_gradient(digits, state, steps):
    """That of a plain mean loss, written here; and DP-SGD's is longer by its noise."""

    def loss(params, at):
        logits = NET.apply({"params": params}, None, rp.Inputs().clean(at.images))
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), at.labels[:, None], 1)
        return -picked.mean()

    own = jax.jit(jax.grad(loss))(state.params, batch(digits, [0]))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), own, steps[0])
    noise = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(steps[3])])
    assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_the_exact_gradient_shows_its_image_and_no_other(inverted, pixels, digits):
    """Of three gradients each gives its own image, far above what luck gives."""
    for at in range(3):
        own = rec.psnr(inverted[at], pixels[at])
        others = rec.psnr(np.stack([inverted[at]] * 2), np.delete(pixels[:3], at, 0))
        luck = rec.baselines(
            pixels[at : at + 1],
            digits.labels[at : at + 1],
            pixels[3:],
            digits.labels[3:],
        )
        known = [rec.psnr(guess[0], pixels[at]) for guess in luck]
        assert own > max(*known, *others) + 8
        assert rec.ssim(inverted[at], pixels[at]) > 0.9


def test_dpsgd_at_a_strong_noise_stays_at_what_luck_gives(inverted, pixels, digits):
    luck = rec.baselines(pixels[:3], digits.labels[:3], pixels[3:], digits.labels[3:])
    best = rec.psnr(luck.class_mean, pixels[:3]).mean()
    assert rec.psnr(inverted[3:], pixels[:3]).mean() < best
    assert rec.ssim(inverted[3:], pixels[:3]).mean() < 0.4


def test_the_true_batch_has_no_distance_under_clipping_and_known_noise(digits, state):
    """And any other has: other images, another clip norm, other noise."""
    model = NET.clone(perturbation=rp.Additive(0.5))
    some = batch(digits, [0, 1, 2])
    learner = rp.dpsgd(
        model, rec.READING, clip_norm=0.5, noise_multiplier=0.0, batch_size=3
    )
    seen = released(learner, state, some)
    noise = rec.step_noise(state, some.ids)
    images = rp.Inputs().clean(some.images)

    @partial(jax.jit, static_argnums=0)
    def distance(clip_norm, keys, images):
        imitation = rec.Imitation(model, Flat(clip_norm))
        guess = imitation.gradient(state.params, keys, images, some.labels)
        return cosine_distance(guess, seen)

    assert abs(distance(0.5, noise, images)) < 1e-5
    assert distance(0.5, noise, -images) > 1e-2
    assert distance(0.5, record_keys(3), images) > 1e-2
    assert distance(1e3, noise, images) > 1e-5  # each record's own weight


def test_a_gradient_of_zero_has_no_direction_and_breaks_nothing():
    """As of a record that a trained net is sure of; and tiny ones still have theirs."""
    one = {"w": jnp.arange(1.0, 4.0), "b": jnp.ones(2)}
    nothing = jax.tree.map(jnp.zeros_like, one)
    tiny = jax.tree.map(lambda leaf: 1e-9 * leaf, one)
    both = jax.jit(jax.value_and_grad(cosine_distance))
    for first, second, expected in (
        (one, nothing, 1.0),
        (nothing, one, 1.0),
        (nothing, nothing, 1.0),
        (tiny, tiny, 0.0),
        (tiny, one, 0.0),
        (one, jax.tree.map(jnp.negative, one), 2.0),
    ):
        value, slope = both(first, second)
        assert value == pytest.approx(expected, abs=1e-5)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_a_batch_of_two_is_found_in_some_order(digits, state, pixels):
    """Labels in the other order bring the images in the other order."""
    seen = released(rp.supervised(NET, rec.READING), state, batch(digits, [0, 1]))
    found = rec.invert_gradient(
        rec.Imitation(NET),
        state.params,
        seen,
        SHAPE,
        rp.keys.root(1),
        labels=jnp.asarray(digits.labels[[1, 0]]),
        settings=SEARCH,
    )
    images = np.asarray(found.images)
    order = rec.matched(images, pixels[:2])
    np.testing.assert_array_equal(order, [1, 0])
    assert rec.psnr(images[order], pixels[:2]).min() > 15
    assert rec.psnr(images, pixels[:2]).max() < 15


def test_noise_that_is_known_hides_nothing_and_unknown_hides_some(
    digits, state, pixels
):
    model = NET.clone(perturbation=rp.Additive(2.0))
    some = batch(digits, [0])
    seen = released(rp.supervised(model, rec.READING), state, some)
    quality = {}
    for noise in (rec.step_noise(state, some.ids), None):
        found = rec.invert_gradient(
            rec.Imitation(model, draws=1),
            state.params,
            seen,
            SHAPE,
            rp.keys.root(1),
            noise=noise,
            settings=SEARCH,
        )
        quality[noise is None] = rec.psnr(found.images[0], pixels[0])
    assert quality[False] > 18
    assert quality[True] < quality[False] - 5


@pytest.mark.parametrize("noise", [rp.Additive(0.5), rp.Multiplicative(0.5)])
def test_the_expected_gradient_is_the_mean_over_draws(digits, state, noise):
    some, key = batch(digits, [0, 1]), rp.keys.root(5)
    pixels = rp.Inputs().clean(some.images)
    imitation = rec.Imitation(NET.clone(perturbation=noise), draws=3)
    one = jax.jit(imitation.gradient)
    drawn = [
        one(
            state.params,
            rp.keys.per_record(rp.keys.view(key, number), jnp.arange(2)),
            pixels,
            some.labels,
        )
        for number in range(3)
    ]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *drawn)
    found = jax.jit(imitation.expected)(state.params, key, pixels, some.labels)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), found, mean)
    assert cosine_distance(drawn[0], drawn[1]) > 1e-3


# ---------------------------------------------------------------------------- features


@pytest.fixture(scope="module")
def by_gamma(state, digits, pixels):
    """gamma, draws -> PSNR and SSIM of four images from their features."""
    some = jnp.asarray(pixels[:4])
    seen = {
        (0.0, 1): jax.jit(lambda x: rec.features(NET, state.params, None, x, "block0"))(
            some
        )
    }
    for gamma, draws in ((0.3, 1), (3.0, 1), (3.0, 64)):
        model = NET.clone(perturbation=rp.Additive(gamma))
        seen[gamma, draws] = jax.jit(
            lambda x, model=model, draws=draws: rec.seen_features(
                model,
                state.params,
                rp.keys.root(2),
                x,
                jnp.asarray(digits.ids[:4]),
                "block0",
                draws,
            )
        )(some)
    settings = rec.Descent(200, 1, 0.05, 1e-3, signed=False)
    found = rec.invert_features(
        NET,
        state.params,
        jnp.concatenate(list(seen.values())),
        SHAPE,
        rp.keys.root(1),
        settings=settings,
    )
    images = np.asarray(found.images).reshape(len(seen), 4, *SHAPE)
    return {
        key: (rec.psnr(own, pixels[:4]), own)
        for key, own in zip(seen, images, strict=True)
    }


def test_clean_features_show_their_own_image(by_gamma, pixels):
    quality, images = by_gamma[0.0, 1]
    assert quality.min() > 25
    np.testing.assert_array_equal(rec.matched(images, pixels[:4]), np.arange(4))


def test_more_noise_shows_less_and_more_draws_show_more(by_gamma):
    mean = {key: quality.mean() for key, (quality, _) in by_gamma.items()}
    assert mean[0.0, 1] > mean[0.3, 1] + 3
    assert mean[0.3, 1] > mean[3.0, 1] + 3
    assert mean[3.0, 64] > mean[3.0, 1] + 3


def test_the_mean_of_draws_is_that_of_features_and_noise(state, digits, pixels):
    """Their noise has standard deviation gamma / sqrt(draws), fresh for each record."""
    model = NET.clone(perturbation=rp.Additive(2.0))
    ids, some = jnp.asarray(digits.ids[:8]), jnp.asarray(pixels[:8])
    args = (state.params, rp.keys.root(3), some, ids, "block0", 16)
    seen = jax.jit(partial(rec.seen_features, model), static_argnums=(4, 5))(*args)
    clean = rec.features(NET, state.params, None, some, "block0")
    noise = np.asarray(seen - clean)
    assert noise.std() == pytest.approx(0.5, rel=0.06)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.25


# ---------------------------------------------------------------------------- refusals


def test_what_cannot_be_attacked_is_refused_in_one_line(digits, state, unchecked):
    key, seen = rp.keys.root(0), jax.tree.map(jnp.zeros_like, state.params)
    attack = partial(rec.invert_gradient, shape=SHAPE, key=key)
    plain, other = rec.Imitation(NET), rp.supervised(NET, optax.sgd(0.1))
    with pytest.raises(InputError, match="no tree like params"):
        attack(plain, state.params, {"head": seen["head"]})
    with pytest.raises(InputError, match="give labels"):
        rec.read_labels({"last": 0})
    with pytest.raises(InputError, match="draws none"):
        attack(plain, state.params, seen, noise=record_keys(1))
    with pytest.raises(InputError, match="norm is 'batch'"):
        rec.Imitation(rp.models.resnet(depth=8, classes=10, norm="batch"))
    with pytest.raises(InputError, match="does not keep the gradient"):
        rec.released_gradient(other, key, state, batch(digits, [0]))
    with pytest.raises(InputError, match="layer is 'block9'; the net has block0"):
        rec.features(NET, state.params, None, jnp.zeros((1, *SHAPE)), "block9")
    with pytest.raises(InputError, match="seen has shape"):
        rec.invert_features(NET, state.params, jnp.zeros((1, 2, 2, 4)), SHAPE, key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("restarts", 0),
        ("rate", 0.0),
        ("total_variation", -1.0),
        ("pixel_range", (1.0, -1.0)),
    ],
)
def test_a_search_without_sense_is_refused(field, value):
    with pytest.raises(InputError, match=f"{field} is"):
        rec.Descent(**{field: value})
