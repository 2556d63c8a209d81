"""Amplification by depth: exact for linear chains, never exceeded by nonlinear ones."""

import functools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rpjax.errors import InputError
from rpjax.privacy import depth, gdp

chains = st.lists(
    st.tuples(st.floats(0.2, 3), st.floats(0, 2)), min_size=1, max_size=6
).filter(lambda layers: any(gamma > 0.01 for _, gamma in layers))


@given(chains, st.floats(0, 2), st.floats(0.1, 4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_for_linear_maps_it_is_the_shift_over_the_standard_deviation(
    layers, input_noise, diameter
):
    # the law of the last layer, layer by layer
    shift, variance = diameter, input_noise**2
    for constant, gamma in layers:
        shift, variance = constant * shift, constant**2 * variance + gamma**2
    constants, gammas = map(list, zip(*layers, strict=True))
    found = depth.curve(diameter, constants, gammas, input_noise)
    assert found.mu == pytest.approx(shift / math.sqrt(variance), rel=1e-12)


@given(chains, st.floats(0.1, 4), st.integers(0, 5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_more_noise_helps_and_a_longer_stretch_does_not(layers, diameter, which):
    constants, gammas = map(list, zip(*layers, strict=True))
    at = which % len(layers)
    base = depth.curve(diameter, constants, gammas).mu
    louder = [g + 0.5 * (i == at) for i, g in enumerate(gammas)]
    assert depth.curve(diameter, constants, louder).mu < base
    stretched = [c * (1 + (i == at)) for i, c in enumerate(constants)]
    assert depth.curve(diameter, stretched, gammas).mu >= base
    assert depth.curve(diameter, constants, gammas, 0.3).mu < base


GRID = np.linspace(-12, 12, 1201)

MAPS = {
    "tanh": (lambda x: 1.5 * np.tanh(x), 1.5),
    "relu block": (lambda x: x + 0.5 * np.maximum(x, 0), 1.5),
    "sine block": (lambda x: x + 0.4 * np.sin(2 * x), 1.8),
    "clipped": (lambda x: np.clip(x, -1, 1), 1.0),
    "shrunk": (lambda x: 0.8 * np.abs(x), 0.8),
    "identity": (lambda x: x, 1.0),
}


@functools.cache
def step(name, gamma):
    """The law of the next layer for each point of the grid, (to, from)."""
    return scipy.stats.norm.pdf(GRID[:, None], MAPS[name][0](GRID)[None, :], gamma)


def law(start, maps, gammas, input_noise):
    """The last layer's masses on the grid, by quadrature layer after layer."""
    masses = scipy.stats.norm.pdf(GRID, start, input_noise)
    masses /= masses.sum()
    for name, gamma in zip(maps, gammas, strict=True):
        masses = step(name, gamma) @ masses
        masses /= masses.sum()
    return masses


@pytest.mark.parametrize(
    "maps",
    [
        ("tanh", "sine block", "relu block"),
        ("relu block", "relu block", "clipped"),
        ("shrunk", "tanh"),
        ("sine block", "clipped", "shrunk", "identity"),
        ("identity", "identity", "identity"),
    ],
)
@pytest.mark.parametrize("centre", [-0.5, 0.3])
def test_no_lipschitz_chain_tells_two_inputs_apart_better_than_the_bound(maps, centre):
    gammas, input_noise, diameter = (0.5, 0.8, 0.6, 0.7)[: len(maps)], 0.4, 0.9
    p, q = (
        law(centre + side * diameter / 2, maps, gammas, input_noise) for side in (1, -1)
    )
    constants = [MAPS[name][1] for name in maps]
    bound = depth.curve(diameter, constants, gammas, input_noise)
    # a linear chain attains the bound, to the quadrature's step
    linear = set(maps) == {"identity"}
    rounding = 3e-5 if linear else 1e-7
    for epsilon in np.linspace(0, 3, 31):
        for first, second in ((p, q), (q, p)):
            found = np.maximum(0, first - math.exp(epsilon) * second).sum()
            assert found <= bound.delta(epsilon) + rounding
            assert not linear or found >= bound.delta(epsilon) - rounding


def test_a_smaller_constant_than_the_true_one_would_be_caught():
    """The power of the test above: a bound for maps that stretch less fails it."""
    maps, gammas = ("relu block",) * 3, (0.5, 0.8, 0.6)
    p, q = (law(1.0 + side * 0.45, maps, gammas, 0.4) for side in (1, -1))
    found = np.maximum(0, p - q).sum()
    assert found <= depth.curve(0.9, [1.5] * 3, gammas, 0.4).advantage + 1e-7
    assert found > depth.curve(0.9, [1.3] * 3, gammas, 0.4).advantage + 1e-3


def test_copies_count_as_participations_do():
    once = depth.curve(1.0, [1.0, 0.9], [1.0, 2.0])
    assert depth.curve(1.0, [1.0, 0.9], [1.0, 2.0], copies=16).mu == 4 * once.mu


@given(
    epsilon=st.floats(0.1, 50),
    delta=st.floats(1e-9, 0.1),
    constants=st.lists(st.floats(0.5, 2), min_size=1, max_size=5),
    input_noise=st.floats(0, 0.01),
    copies=st.integers(1, 20),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_gamma_for_a_target_meets_it_and_a_little_less_does_not(
    epsilon, delta, constants, input_noise, copies
):
    gamma = depth.gamma_for(epsilon, delta, 2.0, constants, input_noise, copies)

    def reached(gamma):
        gammas = [gamma] * len(constants)
        curve = depth.curve(2.0, constants, gammas, input_noise, copies)
        return curve.epsilon(delta)

    assert reached(gamma) <= epsilon < reached(0.999 * gamma)


def test_enough_input_noise_needs_no_gamma():
    needed = 2.0 / gdp.mu_from(1.0, 1e-5)
    assert depth.gamma_for(1.0, 1e-5, 2.0, [1.0], 1.001 * needed) == 0
    assert depth.gamma_for(1.0, 1e-5, 2.0, [1.0], 0.999 * needed) > 0


def test_very_deep_chains_neither_overflow_nor_promise_everything():
    grows = depth.curve(1.0, [2.0] * 3000, [1.0] * 3000).mu
    assert grows == pytest.approx(math.sqrt(3), rel=1e-12)
    fades = depth.curve(1.0, [0.5] * 3000, [1.0] * 3000).mu
    assert 0 < fades < 1e-200


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: depth.curve(0.0, [1.0], [1.0]), "diameter"),
        (lambda: depth.curve(1.0, [1.0], [0.0]), "gammas: all are 0"),
        (lambda: depth.curve(1.0, [0.0], [1.0]), "lipschitz"),
        (lambda: depth.curve(1.0, [1.0], [-1.0]), "gammas"),
        (lambda: depth.curve(1.0, [1.0], [1.0, 2.0]), "gammas: 2 for 1"),
        (lambda: depth.curve(1.0, [1.0], [1.0], copies=0), "copies"),
        (lambda: depth.gamma_for(0.0, 1e-5, 1.0, [1.0]), "epsilon"),
    ],
)
def test_settings_outside_the_theorem_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
