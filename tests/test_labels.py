"""Randomised response on labels, alone and beside a guarantee for the features."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as distributions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from rpjax.errors import InputError
from rpjax.privacy import labels
from rpjax.privacy.algebra import compose, distribution, least_noise
from rpjax.privacy.curves import Gaussian, Point
from rpjax.privacy.labels import RandomisedResponse

epsilons = st.floats(0.0, 12.0)
counts = st.integers(2, 100)


@given(epsilons, counts)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_row_of_the_confusion_matrix_is_a_law_and_two_rows_are_epsilon_apart(
    epsilon, classes
):
    matrix = labels.confusion(epsilon, classes)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)
    ratios = matrix[0] / matrix[1]
    assert math.log(ratios.max()) == pytest.approx(epsilon, abs=1e-9)
    assert math.log(ratios.min()) == pytest.approx(-epsilon, abs=1e-9)
    assert labels.epsilon_of(matrix[0, 0], classes) == pytest.approx(epsilon, abs=1e-9)


@given(epsilons, counts, st.floats(0, 13))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_delta_is_the_excess_of_one_row_over_another(epsilon, classes, at):
    matrix = labels.confusion(epsilon, classes)
    expected = np.maximum(0.0, matrix[0] - math.exp(at) * matrix[1]).sum()
    found = RandomisedResponse(epsilon, classes).delta(at)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_curve_is_that_of_dp_accountings_mechanism(classes):
    curve = RandomisedResponse(2.0, classes)
    # there, a label is redrawn from all classes with this probability
    redrawn = (1 - curve.keep) * classes / (classes - 1)
    theirs = distributions.from_randomized_response(
        redrawn, classes, value_discretization_interval=0.01
    )
    ours = distribution(curve, 0.01)
    for at in (0.0, 0.5, 1.3, 1.99, 2.5):
        assert curve.delta(at) == pytest.approx(
            theirs.get_delta_for_epsilon(at), abs=1e-12
        )
        assert curve.delta(at) == pytest.approx(
            ours.get_delta_for_epsilon(at), abs=1e-12
        )


def test_two_classes_are_the_hardest_case_and_more_are_easier_to_hide_among():
    pair, point = RandomisedResponse(1.5, 2), Point(1.5)
    many = RandomisedResponse(1.5, 10)
    for at in (0.0, 0.7, 1.4):
        assert pair.delta(at) == pytest.approx(point.delta(at), rel=1e-12)
        assert many.delta(at) < 0.5 * point.delta(at)
    for delta in (0.0, 0.01, 0.2):
        assert pair.epsilon(delta) == pytest.approx(point.epsilon(delta), rel=1e-12)


def test_the_best_attack_reads_the_report():
    # likeliest first: the label itself, the others that say nothing, the other label
    curve, (p, q) = RandomisedResponse(1.0, 4), labels.confusion(1.0, 4)[0][:2]
    corners = np.array([[0, 0], [q, p], [3 * q, p + 2 * q], [1, 1]])
    rates = np.linspace(0, 1, 41)
    np.testing.assert_allclose(
        curve.tpr(rates), np.interp(rates, *corners.T), atol=1e-9
    )


@pytest.mark.parametrize(
    ("mu", "epsilon", "classes"), [(1.0, 1.0, 10), (0.3, 2.0, 2), (2.0, 4.0, 100)]
)
@pytest.mark.parametrize("delta", [1e-8, 1e-5, 1e-2])
def test_features_and_labels_together_are_the_product_of_their_laws(
    mu, epsilon, classes, delta
):
    matrix = labels.confusion(epsilon, classes)
    losses = np.log(matrix[0] / matrix[1])

    # given the report, the noisy features have the rest of epsilon to exceed
    def exact(at):
        return matrix[0] @ Gaussian(mu).profile(at - losses)

    expected = brentq(lambda e: math.log(max(exact(e), 1e-300) / delta), 0, 30)
    whole = compose(Gaussian(mu), RandomisedResponse(epsilon, classes))
    assert expected * (1 - 1e-9) <= whole.epsilon(delta) <= expected * 1.001
    # never above the sum of the two
    assert whole.epsilon(delta) < Gaussian(mu).epsilon(delta) + epsilon


def test_labels_are_calibrated_within_a_target_for_the_whole_record():
    features = Gaussian(0.5)
    # noise on the labels: the inverse of their epsilon
    noise = least_noise(
        lambda noise: compose(features, RandomisedResponse(1 / noise, 10)), 4.0, 1e-5
    )
    spent = 1 / noise
    assert compose(features, RandomisedResponse(spent, 10)).epsilon(1e-5) <= 4.0
    assert 4.0 - features.epsilon(1e-5) < spent < 4.0


def test_the_forward_corrected_loss_is_least_at_the_true_law():
    # -E log sum_y p[y] T[y, z] over reports z of true labels y ~ truth
    matrix, truth = labels.confusion(1.0, 3), np.array([0.7, 0.2, 0.1])

    def loss(p):
        return -(truth @ matrix) @ np.log(p @ matrix)

    rng = np.random.default_rng(0)
    others = rng.dirichlet(50 * truth, 200)
    assert all(loss(truth) < loss(p) for p in others)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: RandomisedResponse(-1.0, 2), "epsilon"),
        (lambda: RandomisedResponse(math.inf, 2), "epsilon"),
        (lambda: RandomisedResponse(1.0, 1), "classes"),
        (lambda: labels.confusion(1.0, 0), "classes"),
        (lambda: labels.epsilon_of(0.05, 10), "keep"),
        (lambda: labels.epsilon_of(1.0, 10), "keep"),
    ],
)
def test_settings_that_report_nothing_are_refused(call, field):
    with pytest.raises(InputError, match=f"^{field}"):
        call()
