"""A curve of every kind, for the tests of curves and of their algebra."""

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as distributions
from hypothesis import settings
from hypothesis import strategies as st

from rpjax.privacy.couplings import Coupled, Worst
from rpjax.privacy.curves import Gaussian, Mixture, Numerical, Point, Renyi
from rpjax.privacy.labels import RandomisedResponse

RATES = np.array([0.0, 1e-12, 1e-5, 1e-3, 0.1, 0.5, 0.9, 1.0])
ORDERS = tuple(1 + np.geomspace(1e-2, 200, 80))

few = settings(max_examples=10, deadline=None, derandomize=True)


def laplace():
    return Numerical(distributions.from_laplace_mechanism(0.7))


def sampled():
    """Two directions that differ."""
    one = distributions.from_gaussian_mechanism(
        0.8, sampling_prob=0.1, value_discretization_interval=1e-3
    )
    return Numerical(one.self_compose(20))


def two(weight, first, second):
    return Mixture((weight, 1 - weight), (Gaussian(first), Gaussian(second)))


KINDS = {
    "Gaussian": lambda: Gaussian(1.3),
    "Point": lambda: Point(2.0, 1e-6),
    "pure": lambda: Point(1.5),
    "Mixture": lambda: Mixture(
        (0.2, 0.5, 0.3), (Gaussian(0.0), Gaussian(2.0), Point(1.0, 0.01))
    ),
    "Renyi": lambda: Renyi(ORDERS, tuple(a * 0.4 for a in ORDERS)),
    "labels": lambda: RandomisedResponse(2.0, 10),
    "Laplace": laplace,
    "sampled": sampled,
    "Worst": lambda: Worst((Gaussian(0.9), Point(2.0))),
    "Coupled": lambda: Coupled(Gaussian(1.0), 1e-7),
}

# built in the tests: hypothesis minds that checking types draws numbers
recipes = st.one_of(
    st.tuples(st.just(Gaussian), st.floats(0.01, 5)),
    st.tuples(st.just(Point), st.floats(0.01, 5), st.sampled_from([0.0, 1e-7, 1e-3])),
    st.tuples(st.just(RandomisedResponse), st.floats(0.1, 4), st.integers(2, 20)),
    st.tuples(st.just(two), st.floats(0, 1), st.floats(0, 3), st.floats(0.01, 3)),
)
