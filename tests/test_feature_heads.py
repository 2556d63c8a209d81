"""Heads that know the noise: what it leaves, and what they make of it."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from plain_features import WIDTH, gaussian_release, plain_trunk, private

from rpjax import features
from rpjax.errors import InputError
from rpjax.features import estimates, heads
from rpjax.features.trunk import Sample

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
