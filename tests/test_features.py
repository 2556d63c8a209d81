"""Public trunks, and the whole way from images to accuracy against epsilon."""

import functools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import rpjax as rp
from rpjax import cli, features
from rpjax.errors import InputError
from rpjax.features import directions, drawings, framing

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
