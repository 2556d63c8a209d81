"""The published tables of residual perturbation's guarantees, to the digits printed."""

import numpy as np
import pytest

from rpjax.privacy import depth, gdp, labels, participation, residual, theorem
from rpjax.privacy.curves import Gaussian, Renyi

# orders fine enough for four digits
ORDERS = 1 + np.geomspace(0.02, 200, 4000)


def recalled(uses, split=None):
    return lambda epsilon: theorem.noise_for(epsilon, 1e-5, 1.0, uses, split)


def exact(uses):
    inputs = residual.NoisyInputs(2.0, participations=uses)
    return lambda epsilon: inputs.noise_for(epsilon, 1e-5)


def implied(noise, members=1):
    return lambda uses: (
        residual.NoisyInputs(2.0, participations=uses, members=members)
        .curve(noise)
        .epsilon(1e-5)
    )


def converted(delta, by):
    curve = {
        "gdp": Gaussian,
        "Mironov": lambda mu: theorem.RecalledTheorem(mu**2 / 2),
        "improved": lambda mu: Renyi(
            tuple(ORDERS.tolist()), tuple((ORDERS * mu**2 / 2).tolist())
        ),
    }[by]
    return lambda mu: curve(mu).epsilon(delta)


def deep(constant, input_noise=0.0):
    return lambda layers: (
        depth.curve(1.0, [constant] * layers, [1.0] * layers, input_noise).mu
    )


EPSILONS, USES, MUS = (1, 2, 4, 8, 10), (1, 10, 50, 200), (0.5, 1, 2)

# what, as a function of the column; columns; what is printed
ROWS = {
    "A, recalled, E=1": (recalled(1), EPSILONS, "9.801 4.999 2.592 1.381 1.136"),
    "A, exact, E=1": (exact(1), EPSILONS, "7.461 3.988 2.162 1.200 1.000"),
    "A, recalled, E=10": (recalled(10), EPSILONS, "30.994 15.807 8.197 4.366 3.592"),
    "A, exact, E=10": (exact(10), EPSILONS, "23.595 12.610 6.838 3.796 3.162"),
    "A, recalled, E=50": (recalled(50), EPSILONS, "69.304 35.345 18.329 9.763 8.031"),
    "A, exact, E=50": (exact(50), EPSILONS, "52.759 28.197 15.290 8.489 7.069"),
    "A, recalled, E=100": (
        *(recalled(100), EPSILONS),
        "98.011 49.986 25.922 13.807 11.358",
    ),
    "A, exact, E=100": (exact(100), EPSILONS, "74.613 39.876 21.623 12.005 9.998"),
    "A, recalled, E=200": (
        *(recalled(200), EPSILONS),
        "138.609 70.691 36.659 19.526 16.063",
    ),
    "A, exact, E=200": (exact(200), EPSILONS, "105.518 56.394 30.580 16.977 14.139"),
    "recalled, even split": (
        *(recalled(1, split=0.5), EPSILONS),
        "9.803 5.003 2.599 1.393 1.149",
    ),
    "best split": (
        *(lambda epsilon: theorem.best_split(epsilon, 1e-5), EPSILONS),
        "0.51 0.52 0.54 0.57 0.58",
    ),
    "B, 0.05": (implied(0.05), USES, "969.65 8538.49 41205.3 162411.6"),
    "B, 0.1": (implied(0.1), USES, "284.39 2268.77 10602.16 41205.3"),
    "B, 0.25": (implied(0.25), USES, "65.32 426.97 1840.29 6881.54"),
    "B, 0.5": (implied(0.5), USES, "24.38 133.09 519.70 1840.29"),
    "B, 1": (implied(1.0), USES, "10.00 46.21 159.44 519.70"),
    "B, 2": (implied(2.0), USES, "4.38 17.86 54.38 159.44"),
    "B, 5": (implied(5.0), USES, "1.55 5.76 15.46 39.38"),
    "B, 10": (implied(10.0), USES, "0.73 2.59 6.57 15.46"),
    "B, 20": (implied(20.0), USES, "0.34 1.20 2.94 6.57"),
    "B, 50": (implied(50.0), USES, "0.13 0.44 1.06 2.29"),
    "B, 100": (implied(100.0), USES, "0.06 0.21 0.50 1.06"),
    "one net": (implied(15.29), (50,), "4.00"),
    "five members with noise of their own": (implied(15.29, 5), (50,), "10.42"),
    "4, delta 1e-5": (
        *(converted(1e-5, "gdp"), (0.1, 0.25, 0.5, 1, 2, 3, 4, 5)),
        "0.340669 0.926342 1.993091 4.377178 9.997256 16.675494 24.381611 33.103732",
    ),
    "4, delta 1e-6": (
        *(converted(1e-6, "gdp"), (0.1, 0.25, 0.5, 1, 2, 3, 4, 5)),
        "0.396857 1.060702 2.254085 4.886554 10.997151 18.163446 26.356964 35.566344",
    ),
    "4, Mironov": (converted(1e-5, "Mironov"), MUS, "2.5243 5.2985 11.5971"),
    "4, improved": (converted(1e-5, "improved"), MUS, "2.1657 4.7284 10.7248"),
    "4, inverse": (
        *(lambda epsilon: gdp.mu_from(epsilon, 1e-5), EPSILONS),
        "0.268051 0.501552 0.924931 1.666031 2.000446",
    ),
    "Poisson participation, in units of 1e-8": (
        lambda mu: 1e8 * participation.poisson(mu, 5000, 0.01).delta(4.0),
        *((0.1,), "4.07"),
    ),
    "fifty participations, in units of 1e-9": (
        lambda mu: 1e9 * residual.NoisyInputs(mu, 50).curve(1.0).delta(4.0),
        *((0.1,), "6.34"),
    ),
    "8, two classes": (
        *(lambda epsilon: labels.keep_probability(epsilon, 2), (1, 2, 4)),
        "0.731059 0.880797 0.982014",
    ),
    "8, ten classes": (
        *(lambda epsilon: labels.keep_probability(epsilon, 10), (1, 2, 4)),
        "0.231969 0.450853 0.858486",
    ),
    "10, c = 0.9": (deep(0.9), (1, 3, 9, 18), "0.9000 0.4642 0.1832 0.0662"),
    "10, c = 1.0": (deep(1.0), (1, 3, 9, 18), "1.0000 0.5774 0.3333 0.2357"),
    "10, c = 1.1": (deep(1.1), (1, 3, 9, 18), "1.1000 0.6944 0.5060 0.4659"),
    "10, c = 1.5": (deep(1.5), (1, 3, 9, 18), "1.5000 1.1706 1.1184 1.1180"),
    "10, c = 1, input noise": (deep(1.0, 1.0), (3,), "0.5"),
    "10, c = 0.9, input noise": (deep(0.9, 1.0), (9,), "0.180180"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_tables_is_reproduced_to_the_digits_printed(row):
    value, columns, texts = ROWS[row]
    for column, text in zip(columns, texts.split(), strict=True):
        half_a_digit = 0.5 * 10.0 ** -len(text.partition(".")[2])
        assert abs(value(column) - float(text)) <= half_a_digit * (1 + 1e-6), column
