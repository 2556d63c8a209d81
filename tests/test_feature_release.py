"""Noisy features: what is released, and what is proved of it."""

import dataclasses
import math

import numpy as np
import pytest
from plain_features import WIDTH, plain_trunk, private
from support import assert_binomial, assert_normal, assert_uncorrelated

from rpjax import features
from rpjax.errors import InputError
from rpjax.features import releasing
from rpjax.features.trunk import Sample
from rpjax.privacy import gdp

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
