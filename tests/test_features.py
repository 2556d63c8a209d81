"""Noisy features: what is released, what a head may know, and what it makes of it."""

import dataclasses
import functools
import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from support import assert_binomial, assert_normal, assert_uncorrelated

import rpjax as rp
from rpjax import cli, features
from rpjax.data.records import numbered
from rpjax.errors import InputError
from rpjax.features import directions, drawings, estimates, framing, heads, releasing
from rpjax.features.trunk import Sample, Trunk
from rpjax.privacy import gdp

WIDTH = 12


@jax.jit
def _pixels(images):
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


def plain_trunk(classes=1, bound=1.0, dimension=WIDTH, sample=None, **fields):
    """Pixels are the features; centres at zero, unless a sample has others."""
    centres = np.zeros((classes, dimension)) if sample is None else sample.centres
    spread = fields.pop("spread", np.eye(dimension) / dimension)
    return Trunk("plain", "nothing", _pixels, centres, bound, spread, sample, **fields)


def private(count, classes=3, seed=0, width=WIDTH):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, width, 1)).astype(np.uint8)
    return numbered(images, rng.integers(0, classes, count).astype(np.int32), 50)


def gaussian_release(means, covariance, count, noise, seed, **fields):
    """Released features of Gaussian classes that no bound has touched."""
    rng = np.random.default_rng(seed)
    classes, dimension = means.shape
    labels = np.repeat(np.arange(classes), count)
    clean = rng.multivariate_normal(np.zeros(dimension), covariance, len(labels))
    noisy = means[labels] + clean + noise * rng.standard_normal(clean.shape)
    trunk = plain_trunk(bound=100.0, dimension=dimension, **fields)
    return features.Released(noisy, labels, classes, trunk, noise, 1e-5, "fixed")


# --------------------------------------------------------------------- what is released


@pytest.fixture(scope="module")
def released():
    trunk = plain_trunk(bound=0.7)
    return features.release(trunk, private(2000), epsilon=2.0, seed=5)


def noise_of(released, records):
    """What was added to the clipped features."""
    clean = released.trunk(records.images)
    norms = np.linalg.norm(clean, axis=1, keepdims=True)
    assert (norms > released.trunk.bound).mean() > 0.9
    return released.features - clean * np.minimum(1, released.trunk.bound / norms)


def test_a_release_is_the_clipped_features_and_noise_of_the_stated_size(released):
    """Error rate 1e-4; 10 % too much or too little noise, or no clipping, is seen."""
    expected = 2 * 0.7 / gdp.mu_from(2.0, 1e-5)
    assert released.input_noise == pytest.approx(expected, rel=1e-9)
    assert_normal(noise_of(released, private(2000)), expected)


def test_no_record_leaves_the_ball_around_its_public_centre():
    rng = np.random.default_rng(0)
    far = 5 * rng.standard_normal((300, 7))
    clipped = releasing.noisy(far, np.arange(300, dtype=np.int32), 0.5, 0.0)
    norms = np.linalg.norm(clipped, axis=1)
    np.testing.assert_allclose(norms, 0.5, rtol=1e-6)
    cosines = (far * clipped).sum(1) / np.linalg.norm(far, axis=1) / norms
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    near = far / np.linalg.norm(far, axis=1, keepdims=True) * 0.4
    kept = releasing.noisy(near, np.arange(300, dtype=np.int32), 0.5, 0.0)
    np.testing.assert_allclose(kept, near, rtol=1e-6)


def test_records_have_noise_of_their_own_once(released):
    """Error rate 6e-5 for each of the three correlations."""
    records = private(2000)
    noise = noise_of(released, records)
    assert_uncorrelated(noise[:-1], noise[1:])
    other = features.release(released.trunk, records, epsilon=2.0, seed=6)
    assert_uncorrelated(noise, noise_of(other, records))
    assert_uncorrelated(noise[:, :-1], noise[:, 1:])
    again = features.release(released.trunk, records, epsilon=2.0, seed=5)
    np.testing.assert_array_equal(again.features, released.features)


def test_the_noise_of_a_record_goes_with_its_id(released):
    order = np.random.default_rng(1).permutation(2000)
    other = features.release(
        released.trunk, private(2000).take(order), epsilon=2.0, seed=5
    )
    np.testing.assert_allclose(other.features, released.features[order], atol=1e-6)


def test_noise_is_secret_unless_a_seed_is_given(released):
    one, two = (
        features.release(released.trunk, private(2000), epsilon=2.0) for _ in range(2)
    )
    assert_uncorrelated(*(noise_of(each, private(2000)) for each in (one, two)))
    assert one.noise_seed == "secret"
    assert "seed" in str(released.guarantee())
    assert released.noise_seed == "fixed"


def test_the_centre_of_a_class_is_public_and_not_noisy():
    sample = Sample(np.repeat(np.eye(3, WIDTH) * 9, 4, 0), np.repeat(np.arange(3), 4))
    trunk = plain_trunk(bound=0.5, sample=sample)
    records = private(300)
    out = features.release(trunk, records, epsilon=8.0, seed=0)
    assert np.linalg.norm(out.deviations, axis=1).max() < 0.5 + 6 * out.input_noise * 4
    np.testing.assert_allclose(
        out.features - out.deviations, sample.centres[records.labels]
    )
    # a released vector lies around its class's centre, not where its pixels are
    assert np.linalg.norm(out.features, axis=1).mean() > 5


# ------------------------------------------------------------------------ the guarantee


@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_the_guarantee_is_the_closed_form_for_one_copy_of_each_record(epsilon):
    trunk = plain_trunk(bound=3.0)
    out = features.release(trunk, private(20), epsilon=epsilon, delta=1e-6)
    proved = out.guarantee()
    assert proved.mu == pytest.approx(2 * 3.0 / out.input_noise, rel=1e-12)
    assert proved.epsilon == pytest.approx(epsilon, rel=1e-6)
    assert proved.epsilon <= epsilon
    assert proved.adjacency == "replace one record's features, labels equal"
    assert out.guarantee(1e-5).epsilon == pytest.approx(
        gdp.epsilon(1e-5, proved.mu), rel=1e-9
    )


def test_two_replaced_images_are_told_apart_as_well_as_the_curve_allows():
    """Two images at distance 2R: error rate 1e-4 that a right release fails.

    The likelihood ratio at 5 % false alarms; twice the noise or half of it is seen.
    """
    count, bound = 20_000, 1.5
    ids = np.arange(count, dtype=np.int32)
    apart = np.zeros((count, 3))
    apart[:, 1] = 10.0
    noise = releasing._noise(bound, 4.0, 1e-5)
    mu = gdp.mu_from(4.0, 1e-5)
    one = releasing.noisy(apart, ids, bound, noise, seed=1)[:, 1]
    two = releasing.noisy(-apart, ids, bound, noise, seed=2)[:, 1]
    level = -bound + noise * 1.6448536
    assert_binomial((two > level).sum(), count, 0.05)
    assert_binomial((one > level).sum(), count, float(gdp.tpr(0.05, mu)))


def test_without_noise_nothing_is_proved_and_nothing_is_clipped():
    trunk, records = plain_trunk(bound=0.1), private(50)
    out = features.release(trunk, records, epsilon=math.inf)
    assert out.guarantee().kind == "none"
    np.testing.assert_array_equal(out.features, trunk(records.images))
    assert features.stand_ins(out).features is out.features


def test_a_trunk_fitted_on_private_records_is_refused():
    records = private(40)
    seen = features.trunk.digests(records.images[7:8])
    trunk = plain_trunk(seen=seen)
    with pytest.raises(InputError, match="fitted on 1 of these records"):
        features.release(trunk, records, epsilon=1.0)
    without = records.take(np.delete(np.arange(40), 7))
    assert len(features.release(trunk, without, epsilon=1.0).features) == 39


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": 1.0, "delta": 0.0}, "delta"),
        ({"epsilon": math.nan}, "epsilon"),
    ],
)
def test_a_release_that_cannot_be_is_refused(change, words):
    with pytest.raises(InputError, match=f"^{words}"):
        features.release(plain_trunk(), private(10), **change)


def test_one_id_for_two_records_would_share_their_noise_and_is_refused():
    records = private(10)
    twice = dataclasses.replace(records, ids=np.full(10, 3, np.int32))
    with pytest.raises(InputError, match=r"^records holds an id twice"):
        features.release(plain_trunk(), twice, epsilon=1.0)


def test_a_class_that_the_trunk_does_not_know_is_refused():
    sample = Sample(np.eye(2, WIDTH), np.arange(2))
    with pytest.raises(InputError, match=r"^labels go up to 2; the trunk knows 2"):
        features.release(plain_trunk(sample=sample), private(30), epsilon=1.0)


# ----------------------------------------------------------------- what noise leaves


def test_the_known_noise_is_subtracted_from_the_covariance():
    """Unbiased: within 4 standard errors, 1e-4; the naive one is off by the noise."""
    covariance = np.diag([0.5, 0.2, 0.1]) + 0.05
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        clean = rng.multivariate_normal(np.zeros(3), covariance, 400)
        noisy = clean + 1.5 * rng.standard_normal(clean.shape)
        found.append(estimates.clean_covariance(noisy, 1.5))
    error = np.std(found, axis=0) / math.sqrt(200)
    off = np.abs(np.mean(found, axis=0) - covariance)
    assert (off < 4 * error).all()
    naive = np.mean(found, axis=0) + 1.5**2 * np.eye(3)
    assert (np.abs(np.diag(naive - covariance)) > 50 * np.diag(error)).all()


def test_the_error_of_a_covariance_is_that_of_gaussians():
    """Wishart: E of the squared error is (tr^2 + sum of squares) / n; to 10 %."""
    rng = np.random.default_rng(1)
    root = np.diag([2.0, 1.0, 0.5, 0.5])
    draws = [rng.standard_normal((300, 4)) @ root for _ in range(400)]
    each = [((d.T @ d / 300 - root**2) ** 2).sum() for d in draws]
    expected = np.mean([estimates.covariance_error(d) for d in draws])
    assert np.mean(each) == pytest.approx(expected, rel=0.1)


def test_a_shift_is_shrunk_by_the_share_of_its_error():
    """James and Stein's rule where all directions are alike."""
    rng = np.random.default_rng(2)
    shifts = rng.standard_normal((5, 40))
    told, doubt = estimates.shrunk(shifts, np.full(5, 0.25), np.ones(40))
    for part in (slice(0, 4), slice(4, 40)):
        prior = (shifts[:, part] ** 2).mean() - 0.25
        share = prior / (prior + 0.25)
        np.testing.assert_allclose(told[:, part], share * shifts[:, part])
        np.testing.assert_allclose(doubt[:, part], 0.25 * share)


def test_shrinking_beats_both_the_raw_means_and_the_public_ones():
    """Mean squared errors over 50 data sets; each gap is above 10 standard errors."""
    rng = np.random.default_rng(3)
    errors = np.full(10, 1.0)
    raw, public, told, claimed = [], [], [], []
    for _ in range(50):
        true = 0.7 * rng.standard_normal((10, 30))
        seen = true + rng.standard_normal(true.shape)
        mean, doubt = estimates.shrunk(seen, errors, np.ones(30))
        raw.append(((seen - true) ** 2).mean())
        public.append((true**2).mean())
        told.append(((mean - true) ** 2).mean())
        claimed.append(doubt.mean())
    assert np.mean(told) < 0.8 * min(np.mean(raw), np.mean(public))
    # and what it says is left is what is left
    assert np.mean(claimed) == pytest.approx(np.mean(told), rel=0.1)


def test_pure_noise_leaves_the_public_means_and_no_noise_leaves_the_private():
    shifts = np.array([[0.1, -0.1, 0.1], [-0.1, 0.1, -0.1]])
    told, _ = estimates.shrunk(shifts, np.full(2, 1.0), np.ones(3))
    assert (told == 0).all()
    told, doubt = estimates.shrunk(shifts, np.zeros(2), np.ones(3))
    np.testing.assert_allclose(told, shifts)
    assert (doubt == 0).all()
    told, doubt = estimates.shrunk(shifts, np.array([0.001, np.inf]), np.ones(3))
    assert (told[1] == 0).all()
    assert (doubt[1] > 0.005).all()


def test_clipping_shortens_a_shift_by_the_slope_that_is_told():
    rng = np.random.default_rng(4)
    drawn = rng.standard_normal((200_000, 6))
    sample = Sample(np.vstack([drawn, -drawn]), np.zeros(400_000, int))
    norms = lambda x: np.linalg.norm(x, axis=1, keepdims=True)
    clip = lambda x: x * np.minimum(1, 2.0 / norms(x))
    step = np.array([0.05, 0, 0, 0, 0, 0])
    ahead, back = clip(sample.features + step), clip(sample.features - step)
    slope = (ahead - back).mean(0)[0] / 0.1
    assert estimates.clipping_slope(sample, 2.0) == pytest.approx(slope, rel=0.01)


def test_moments_find_the_clean_law_behind_noise_ten_times_as_wide():
    means = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]])
    covariance = np.diag([0.02, 0.01, 0.03])
    spread = np.diag([0.02, 0.02, 0.02])
    out = gaussian_release(means, covariance, 40_000, 1.5, seed=5, spread=spread)
    told = features.moments(out)
    # the standard error of a mean is 1.5 / 200
    np.testing.assert_allclose(told.means, means, atol=5 * 1.5 / 200)
    # that of a variance is 1.5^2 sqrt(2 / 120 000) = 0.009
    np.testing.assert_allclose(told.covariance, covariance, atol=5 * 0.009)
    assert (np.linalg.eigvalsh(told.covariance) > 0).all()
    assert np.mean(told.uncertainty) == pytest.approx((1.5 / 200) ** 2, rel=0.1)


def test_stand_ins_have_the_clean_law_and_labels():
    means = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]])
    spread = np.diag([0.04, 0.04, 0.04])
    out = gaussian_release(means, spread, 20_000, 1.0, seed=6, spread=spread)
    made = features.stand_ins(out)
    for c in range(3):
        own = made.features[made.labels == c]
        np.testing.assert_allclose(own.mean(0), means[c], atol=0.06)
        # against 1.04 of what was released
        assert own.var(0) == pytest.approx(np.full(3, 0.04), rel=0.4)


def test_public_features_move_to_where_the_private_class_lies():
    """To 5 standard errors of a mean, 1.0 / sqrt(10 000)."""
    rng = np.random.default_rng(9)
    labels = np.repeat(np.arange(3), 500)
    means = np.eye(3) * 4
    sample = Sample(means[labels] + 0.3 * rng.standard_normal((1500, 3)), labels)
    moved = means + np.array([[0.5, 0, 0], [0, 0, -0.5], [0, 0.5, 0]])
    out = gaussian_release(
        moved, 0.09 * np.eye(3), 10_000, 1.0, 10, sample=sample, spread=0.09 * np.eye(3)
    )
    made = features.stand_ins(out)
    np.testing.assert_array_equal(made.labels, labels)
    for c in range(3):
        own = made.features[labels == c]
        np.testing.assert_allclose(own.mean(0), moved[c], atol=0.05)
        # the shape stays the public one
        away = own - sample.features[labels == c]
        assert away.std(0).max() < 0.02


def test_stand_ins_are_wider_where_the_mean_is_in_doubt():
    """A variance of 2000 draws is known to 3 %; the doubt makes it a multiple."""
    means = np.zeros((3, 2))
    out = gaussian_release(means, 0.01 * np.eye(2), 50, 1.0, 11, spread=np.eye(2) / 100)
    out.features[:] += 0.3 * np.array([[1, -1], [-1, 1], [1, 1]])[out.labels]
    told = features.moments(out)
    assert told.uncertainty.min() > 0.01
    own = features.stand_ins(out)
    for c in range(3):
        found = own.features[own.labels == c].var(0)
        wanted = np.diag(told.covariance) + told.uncertainty[c]
        np.testing.assert_allclose(found, wanted, rtol=0.2)


def test_a_head_that_knows_the_noise_beats_one_that_does_not():
    """Classes that differ along a direction of small clean variance.

    Noise hides that it is small, so the naive rule weighs all directions alike.
    """
    means = np.array([[0.12, 0.5], [-0.12, 0.5]]) * np.array([1.0, 0.0])
    covariance = np.array([[1.0, 0.95], [0.95, 1.0]])
    out = gaussian_release(means, covariance, 30_000, 2.0, seed=7, spread=np.eye(2))
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], 20_000)
    clean = means[labels] + rng.multivariate_normal(np.zeros(2), covariance, 40_000)
    aware = (
        features.fit_head(out, "linear", steps=400).of_features(clean).argmax(1)
        == labels
    )
    naive = heads.trained(out.trunk, Sample(out.features, out.labels), "linear", 400, 0)
    naive = naive.of_features(clean).argmax(1) == labels
    best = scipy.stats.norm.cdf(
        math.sqrt(np.array([0.12, 0]) @ np.linalg.solve(covariance, [0.12, 0]))
    )
    assert aware.mean() == pytest.approx(best, abs=0.02)
    assert naive.mean() < aware.mean() - 0.05


def test_a_head_sees_nothing_but_what_was_released():
    def refuse(images):
        raise AssertionError("a head asked for features of images")

    out = features.release(plain_trunk(bound=0.7), private(300), epsilon=8.0, seed=0)
    blind = dataclasses.replace(
        out, trunk=dataclasses.replace(out.trunk, features=refuse)
    )
    held = [f.name for f in dataclasses.fields(blind)]
    assert held == [
        *("features", "labels", "classes", "trunk", "input_noise", "delta"),
        "noise_seed",
    ]
    for kind in ("linear", "mlp"):
        head = features.fit_head(blind, kind, steps=5)
        seen = features.fit_head(out, kind, steps=5)
        some = np.random.default_rng(0).standard_normal((4, WIDTH))
        np.testing.assert_array_equal(head.of_features(some), seen.of_features(some))


def test_an_unknown_head_is_refused(unchecked):
    out = features.release(plain_trunk(), private(30), epsilon=8.0)
    with pytest.raises(InputError, match=r"^kind is 'forest'"):
        features.fit_head(out, "forest")
    with pytest.raises(InputError, match="knows no classes"):
        features.zero_shot(plain_trunk())


# ------------------------------------------------------------------------ public trunks


def figure_of(angle=0.0, size=1.0, down=0.0):
    """A smooth figure, asymmetric, on 40 x 40."""
    lines, columns = np.indices((40, 40)) - 19.5
    lines = (lines - down) / size
    columns = columns / size - angle * lines
    spot = lambda y, x, s: np.exp(-((lines - y) ** 2 + (columns - x) ** 2) / s)
    return (spot(-5, 0, 9) + spot(0, 1, 9) + 0.8 * spot(5, 3, 12)).astype(np.float32)


@pytest.mark.parametrize("change", [{"angle": 0.4}, {"size": 1.4}, {"down": 4.0}])
def test_a_frame_takes_off_slant_size_and_place(change):
    frame = jax.jit(framing.framed)
    plain, moved = (np.asarray(frame(figure_of(**c))) for c in ({}, change))
    assert plain.max() == pytest.approx(1)
    assert np.abs(plain - moved).max() < 0.06
    assert np.abs(plain - plain.T).max() > 0.3


def test_between_pixels_a_figure_is_that_of_scipy():
    rng = np.random.default_rng(0)
    figure = rng.random((9, 7)).astype(np.float32)
    lines, columns = rng.uniform(0.1, 6.8, (2, 5, 5)).astype(np.float32)
    columns = columns * 0.85
    found = framing.sampled(
        jnp.asarray(figure), jnp.asarray(lines), jnp.asarray(columns)
    )
    wanted = scipy.ndimage.map_coordinates(figure, [lines, columns], order=1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    outside = framing.sampled(
        jnp.asarray(figure), *map(jnp.asarray, (lines + 20, columns))
    )
    assert (np.asarray(outside) == 0).all()


def test_discriminant_directions_are_white_within_and_find_where_classes_differ():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 4000)
    means = np.zeros((3, 6))
    means[1, 4], means[2, 5] = 3.0, -2.0
    scales = np.array([5.0, 1.0, 1.0, 3.0, 0.5, 0.5])
    x = means[labels] + scales * rng.standard_normal((12_000, 6))
    found = directions.discriminant(x, labels, 4, ridge=1e-6)
    y = found(x)
    own = y - np.stack([y[labels == c].mean(0) for c in range(3)])[labels]
    np.testing.assert_allclose(np.cov(own.T), np.eye(4), atol=1e-3)
    apart = np.stack([y[labels == c].mean(0) for c in range(3)])
    assert np.abs(apart[:, 2:]).max() < 0.1 < 2 < np.abs(apart[:, :2]).max()
    # the third is that of the largest variance otherwise
    assert abs(found.matrix[0, 2]) * 5 == pytest.approx(1, abs=0.02)


def test_principal_directions_are_whitened_by_half():
    rng = np.random.default_rng(2)
    x = 3 + rng.standard_normal((20_000, 4)) * np.array([4.0, 1.0, 0.25, 2.0])
    y = directions.principal(x, 3)(x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(y.T), np.diag([4.0, 2.0, 1.0]), atol=0.1)
    with pytest.raises(InputError, match=r"^dimension is 5"):
        directions.principal(x, 5)


def test_drawings_keep_the_class_and_differ_from_each_other():
    digits = rp.data.load("digits").test.take(np.arange(6))
    figures = drawings.magnified(np.asarray(digits.images))
    drawn = drawings.redrawn(figures, 2, jax.random.key(0))
    assert drawn.shape == (12, 24, 24, 1)
    flat = drawn.reshape(12, -1).astype(float)
    same = [np.corrcoef(flat[i], flat[i + 6])[0, 1] for i in range(6)]
    assert 0.4 < np.median(same) < 0.99


@pytest.fixture(scope="module")
def digits():
    """Public and private records of scikit-learn's digits: no image is in both."""
    data = rp.data.load("digits")
    half = np.arange(len(data.train)) % 2 == 0
    return (*(data.train.take(np.flatnonzero(h)) for h in (half, ~half)), data)


@pytest.fixture(scope="module")
def drawn(digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rpjax.features.drawn.BATCH", 32)
        return features.drawn_trunk(
            digits[0], dimension=12, steps=80, draws=1, sample_draws=1
        )


def test_a_drawn_trunk_knows_its_classes_and_a_private_head_them_better(digits, drawn):
    public, own, data = digits
    assert drawn.centres.shape == (10, 12)
    radii = np.linalg.norm(
        drawn.sample.features - drawn.centres[drawn.sample.labels], axis=1
    )
    assert (radii > drawn.bound).mean() == pytest.approx(0.5, abs=0.01)
    few = data.test.take(np.arange(150))
    own = own.take(np.arange(300))
    zero = features.zero_shot(drawn, steps=300).evaluate(few)
    assert zero.low > 0.5
    out = features.release(drawn, own, epsilon=50.0, seed=0)
    for kind in ("linear", "mlp"):
        found = features.fit_head(out, kind, steps=300).evaluate(few)
        assert found.value > zero.value - 0.03
    narrow = features.narrowed(drawn, 4)
    images = few.images[:5]
    np.testing.assert_allclose(narrow(images), drawn(images)[:, :4], atol=1e-5)
    np.testing.assert_allclose(narrow.centres, drawn.centres[:, :4])
    assert narrow.bound < drawn.bound
    with pytest.raises(InputError, match=r"^dimension is 13"):
        features.narrowed(drawn, 13)
    with pytest.raises(InputError, match=rf"fitted on {len(public)} of these"):
        features.release(drawn, public, epsilon=1.0)


def test_the_trunk_of_the_digits_is_fitted_on_all_of_them(monkeypatch, unchecked):
    given = {}
    monkeypatch.setattr(
        "rpjax.features.drawn.drawn_trunk",
        lambda public, seed, **options: given.update(options, public=public, seed=seed),
    )
    features.digits_trunk(3, dimension=7)
    data = rp.data.load("digits")
    both = [features.trunk.digests(part.images) for part in (data.train, data.test)]
    assert features.trunk.digests(given["public"].images) == both[0] | both[1]
    assert (given["seed"], given["dimension"]) == (3, 7)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (features.random_trunk, (8, 8, 1)),
        (features.random_trunk, (16, 16, 3)),
        (features.photograph_trunk, (16, 16, 3)),
    ],
)
def test_a_filter_trunk_keeps_its_features_in_the_ball(make, shape, monkeypatch):
    monkeypatch.setattr("rpjax.features.filters.PUBLIC", 40)
    trunk = make(shape, dimension=5, filters=6)
    images = np.random.default_rng(0).integers(0, 256, (30, *shape)).astype(np.uint8)
    found = trunk(images)
    assert found.shape == (30, 5)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1).max() <= trunk.bound * (1 + 1e-6)
    assert trunk.spread.shape == (5, 5)
    if shape[0] == 8:
        other = make(shape, 1, dimension=5, filters=6)(images)
        assert np.abs(other - found).max() > 0.01


def test_a_trunk_that_does_not_fit_the_images_is_refused():
    with pytest.raises(InputError, match=r"^shape is"):
        features.photograph_trunk((8, 8, 1))
    with pytest.raises(InputError, match=r"^shape is"):
        features.random_trunk((8, 9, 3))
    with pytest.raises(InputError, match=r"^trunk is 'digits'"):
        features.trunk_named("digits", (8, 8, 3))
    with pytest.raises(InputError, match=r"^trunk is 'none'"):
        features.trunk_named("none", (8, 8, 1))


def test_the_command_prints_and_writes_a_curve(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rpjax.features.filters.PUBLIC", 40)
    monkeypatch.setattr("rpjax.features.accuracy.STEPS", 300)
    few = functools.partial(features.random_trunk, filters=4)
    monkeypatch.setitem(features.accuracy.TRUNKS, "random", few)
    out = tmp_path / "curve.json"
    words = ["--data", "digits", "--trunk", "random", "--dimension", "8"]
    words += ["--epsilons", "8", "inf", "--seed", "0", "--out", str(out)]
    assert cli.main(["features", *words]) == 0
    assert "ε at δ = 1e-05" in capsys.readouterr().out
    written = json.loads(out.read_text())
    noisy, clean = written["rows"]
    assert (noisy["epsilon"], clean["epsilon"]) == (8.0, None)
    assert clean["accuracy"] > 0.7
    assert clean["input_noise"] == 0
    assert noisy["accuracy"] < clean["accuracy"]
    assert written["adjacency"] == "replace one record's features, labels equal"


@pytest.mark.data
@pytest.mark.skipif("RPJAX_DATA" not in os.environ, reason="RPJAX_DATA is not set")
def test_random_features_learn_mnist_from_noise():
    data = rp.data.load("mnist", os.path.join(os.environ["RPJAX_DATA"], "mnist"))
    data = data.limit(train=6000, test=1000)
    trunk = features.trunk_named("random", data.shape, dimension=20)
    (row,) = features.curve(trunk, data, epsilons=(8.0,), seeds=(0,))
    assert row["low"] > 0.6
