"""What else the same release could be: shuffled, with private labels, or misread.

Shuffled: where the noisy records reach the trainer in a secret random order, less
noise meets the same epsilon (`rpjax.privacy.shuffling`), for the rarest class. Private
labels: each is drawn once by randomised response, and the guarantee is for a whole
record replaced. Misread: a head trained on noisy features as if they were clean.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import rpjax as rp
from benchmarks.benchmark import Row
from rpjax.features.accuracy import figures
from rpjax.features.estimates import clipping_slope, raw_shifts, shrunk
from rpjax.features.heads import STEPS, Head, fit_head, trained
from rpjax.features.releasing import Released, noisy
from rpjax.features.trunk import Sample, Trunk
from rpjax.privacy import gdp, residual, shuffling
from rpjax.privacy.algebra import compose
from rpjax.privacy.curves import Gaussian
from rpjax.privacy.labels import RandomisedResponse

FEATURES = "replace one record's features, labels equal"
SHUFFLED = (
    "replace one record's features, labels equal; noisy records arrive in a secret "
    "uniform order"
)
WHOLE = "replace one record, image and label"
LABEL_EPSILONS = (2.0, 4.0)
SHUFFLED_AT = (1.0, 8.0)
LABELS_AT = 8.0


def rows(
    clean: Released,
    data: rp.Dataset,
    test: tuple[np.ndarray, np.ndarray],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    delta: float,
) -> Iterator[Row]:
    """The misread head at each epsilon; the other two at a few.

    clean: the features without noise; test: features and labels.
    """
    trunk = clean.trunk
    common = {**facts(trunk, delta), "head": "linear"}
    for epsilon in epsilons:
        noise = local_noise(trunk, epsilon, delta)
        released = _noised(clean, data, noise, seeds[0])
        sample = Sample(released.features, released.labels)
        hits = [_right(trained(trunk, sample, "linear", STEPS, 0), test)]
        name = {"method": "noise ignored", "adjacency": FEATURES, **common}
        yield {**name, "input_noise": noise, **figures(epsilon, hits)}
    for epsilon in sorted(set(SHUFFLED_AT) & set(epsilons)):
        noise = _shuffled_noise(trunk, clean.labels, epsilon, delta)
        hits = [
            _right(fit_head(_noised(clean, data, noise, seed)), test) for seed in seeds
        ]
        name = {"method": "shuffled", "adjacency": SHUFFLED, **common}
        local = gdp.epsilon(delta, 2 * trunk.bound / noise)
        name |= {"input_noise": noise, "local_epsilon": local}
        yield {**name, **figures(epsilon, hits)}
    if trunk.sample is not None and LABELS_AT in epsilons:
        for label_epsilon in LABEL_EPSILONS:
            yield _private_labels(clean, data, test, label_epsilon, seeds, delta)


def local_noise(trunk: Trunk, epsilon: float, delta: float) -> float:
    """The noise of a release without any shuffling."""
    return residual.input_noise_for(epsilon, delta, bound=trunk.bound, draw="record")


def _right(head: Head, test: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    right: np.ndarray = head.of_features(test[0]).argmax(1) == test[1]
    return right


def facts(trunk: Trunk, delta: float) -> dict[str, Any]:
    """What a row says of its trunk."""
    return {"trunk": trunk.name, "dimension": trunk.dimension, "delta": delta}


def _shuffled_noise(
    trunk: Trunk, labels: np.ndarray, epsilon: float, delta: float
) -> float:
    rarest = int(np.bincount(labels).min())
    return shuffling.input_noise_for(
        epsilon, delta, diameter=residual.ball_diameter(trunk.bound), records=rarest
    )


def _noised(clean: Released, data: rp.Dataset, noise: float, seed: int) -> Released:
    """A release with this much noise, whatever it is worth."""
    bound = clean.trunk.bound
    kept = noisy(clean.deviations, data.train.ids, bound, noise, seed)
    centres = clean.trunk.centre_of(clean.labels)
    return dataclasses.replace(
        clean, features=centres + kept, input_noise=noise, noise_seed="fixed"
    )


# ----------------------------------------------------------------------- private labels


def _private_labels(
    clean: Released,
    data: rp.Dataset,
    test: tuple[np.ndarray, np.ndarray],
    label_epsilon: float,
    seeds: Sequence[int],
    delta: float,
) -> Row:
    trunk = clean.trunk
    noise = local_noise(trunk, LABELS_AT, delta)
    response = RandomisedResponse(label_epsilon, data.classes)
    whole = compose(Gaussian(2 * trunk.bound / noise), response).epsilon(delta)
    hits = []
    for seed in seeds:
        reported = _reported(clean.labels, response, data.classes, seed)
        # the centre is that of the reported label: the true one must not be used
        released = _noised(
            dataclasses.replace(clean, labels=reported), data, noise, seed
        )
        hits.append(_right(_corrected(released, response.keep), test))
    return {
        "method": f"labels too (ε = {label_epsilon:g} of it)",
        "adjacency": WHOLE,
        **facts(trunk, delta),
        "head": "linear",
        "input_noise": noise,
        **figures(whole, hits),
        "label_epsilon": label_epsilon,
        "feature_epsilon": LABELS_AT,
    }


def _reported(
    labels: np.ndarray, response: RandomisedResponse, classes: int, seed: int
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    others = rng.integers(1, classes, len(labels))
    moved = (labels + others) % classes
    kept = rng.random(len(labels)) < response.keep
    return np.where(kept, labels, moved)


def _corrected(released: Released, keep: float) -> Head:
    """A head from class means of which a known share belongs to other classes.

    With classes of one size, a reported class has the share `keep` of its own records
    and (1 - keep) / (k - 1) of every other, whose clipped means around this centre the
    public sample tells.
    """
    trunk, sample = released.trunk, released.trunk.sample
    assert sample is not None
    classes, slope = released.classes, clipping_slope(sample, trunk.bound)
    shifts, errors = raw_shifts(released)
    strangers = np.stack([_strangers(sample, trunk, c) for c in range(classes)])
    own = (shifts * slope - (1 - keep) * strangers) / (keep * slope)
    told, doubt = shrunk(own, errors / keep**2, np.diag(trunk.spread))
    rng = np.random.default_rng(0)
    moved = sample.features + told[sample.labels]
    moved += np.sqrt(doubt[sample.labels]) * rng.standard_normal(moved.shape)
    return trained(trunk, Sample(moved, sample.labels), "linear", STEPS, 0)


def _strangers(sample: Sample, trunk: Trunk, c: int) -> np.ndarray:
    """The mean of the other classes' public features, clipped around class c."""
    away = sample.features[sample.labels != c] - trunk.centres[c]
    norms = np.linalg.norm(away, axis=1, keepdims=True)
    mean: np.ndarray = (away * np.minimum(1.0, trunk.bound / norms)).mean(0)
    return mean
