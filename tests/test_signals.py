"""Scores of membership: the published formulas, where float32 has long run out too."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from rpjax.attacks import signals

P = np.log([[0.7, 0.2, 0.1]])
SCORES = (signals.loss, signals.confidence, signals.modified_entropy)
MARGINS = (signals.logit, signals.hinge)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, -1, keepdims=True)


def in_float32(logits):
    """Log-probabilities as a net gives them."""
    logits = np.asarray(logits, np.float32)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def answers():
    """Log-probabilities (200, 5) and labels, none of them extreme."""
    rng = np.random.default_rng(0)
    return log_softmax(2 * rng.normal(size=(200, 5))), rng.integers(0, 5, 200)


# ------------------------------------------------------------------- values, formulas


@pytest.mark.parametrize(("label", "entropy"), [(0, 0.162167), (1, 2.140867)])
def test_modified_entropy_has_the_published_check_values(label, entropy):
    score = signals.modified_entropy(P, np.array([label]))
    np.testing.assert_allclose(score, [-entropy], atol=5e-7)


def test_confidence_is_the_logit_of_the_largest_posterior():
    """For the logits (2, 0.5, -1) it is 1.298587, whatever the label is."""
    log_probs = np.repeat(log_softmax([[2.0, 0.5, -1.0]]), 3, 0)
    score = signals.confidence(log_probs, np.arange(3))
    np.testing.assert_allclose(score, 1.298587, atol=5e-7)


def test_loss_is_the_log_probability_of_the_label():
    np.testing.assert_allclose(
        signals.loss(np.repeat(P, 3, 0), np.arange(3)), np.log([0.7, 0.2, 0.1])
    )


def test_logit_and_hinge_have_the_published_check_values():
    logits = np.array([[2.0, 0.5, -1.0]])
    for signal, expected in ((signals.logit, 1.298587), (signals.hinge, 1.5)):
        for constant in (0.0, 40.0):  # log-probabilities and logits alike
            found = signal(logits + constant, np.array([0]))
            np.testing.assert_allclose(found, [expected], atol=5e-7)


def test_two_draws_have_the_published_means():
    draws = np.log([[[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]]])
    label = np.array([0])
    np.testing.assert_allclose(signals.prob_mean(draws, label), [0.847298], atol=5e-7)
    np.testing.assert_allclose(signals.logit_mean(draws, label), [1.098612], atol=5e-7)


def test_a_mean_over_one_draw_or_equal_draws_is_the_logit(answers):
    log_probs, labels = answers
    expected = signals.logit(log_probs, labels)
    for draws in (1, 3):
        many = np.repeat(log_probs[:, None], draws, 1)
        for mean in (signals.prob_mean, signals.logit_mean):
            np.testing.assert_allclose(mean(many, labels), expected, rtol=1e-9)


def test_margins_labels_and_temperatures_follow_their_formulas(answers):
    log_probs, labels = answers
    p, rows = np.exp(log_probs), np.arange(len(labels))
    right = p[rows, labels]
    expected = np.log(right / (1 - right))
    np.testing.assert_allclose(signals.logit(log_probs, labels), expected, rtol=1e-9)
    others = np.where(np.arange(5) == labels[:, None], 0, p).max(1)
    np.testing.assert_allclose(
        signals.hinge(log_probs, labels), np.log(right / others), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_array_equal(
        signals.correct(log_probs, labels), 1.0 * (right > others)
    )
    warm = p**0.5 / (p**0.5).sum(1, keepdims=True)
    np.testing.assert_allclose(
        signals.tempered_loss(log_probs, labels), np.log(warm[rows, labels]), rtol=1e-9
    )


def test_signals_of_many_models_and_queries_are_those_of_each_answer():
    rng = np.random.default_rng(1)
    log_probs = log_softmax(rng.normal(size=(2, 7, 3, 4)))
    labels = rng.integers(0, 4, 7)
    for signal in (*SCORES, *MARGINS, signals.correct):
        found = signals.of_models(signal, log_probs, labels)
        assert found.shape == (2, 7, 3)
        for model in range(2):
            for query in range(3):
                own = signal(log_probs[model, :, query], labels)
                np.testing.assert_array_equal(found[model, :, query], own)


def naive_modified_entropy(p, label):
    total = -(1 - p[label]) * np.log(p[label])
    for j in range(len(p)):
        if j != label:
            total -= p[j] * np.log(1 - p[j])
    return total


def test_scores_follow_their_formulas_record_by_record(answers):
    log_probs, labels = answers
    naive = {signals.loss: [], signals.confidence: [], signals.modified_entropy: []}
    for p, label in zip(np.exp(log_probs), labels, strict=True):
        naive[signals.loss].append(np.log(p[label]))
        naive[signals.confidence].append(np.log(max(p) / (1 - max(p))))
        naive[signals.modified_entropy].append(-naive_modified_entropy(p, label))
    for score, expected in naive.items():
        np.testing.assert_allclose(score(log_probs, labels), expected, rtol=1e-9)


def test_confidence_orders_records_as_their_largest_posterior_does(answers):
    log_probs, labels = answers
    score = signals.confidence(log_probs, labels)
    assert (np.argsort(score) == np.argsort(log_probs.max(-1))).all()


def test_top_posteriors_are_the_largest_in_descending_order(answers):
    log_probs, _ = answers
    top = signals.top_posteriors(log_probs, 3)
    expected = [sorted(p, reverse=True)[:3] for p in np.exp(log_probs)]
    np.testing.assert_allclose(top, expected)


def test_scores_are_float64_and_do_not_ask_for_normalised_input(answers):
    log_probs, labels = answers
    for score in SCORES:
        of_float32 = score(log_probs.astype(np.float32) + np.float32(1e-3), labels)
        assert of_float32.dtype == np.float64
        np.testing.assert_allclose(of_float32, score(log_probs, labels), rtol=1e-4)


# -------------------------------------------------------------------------- extremes


def exactly(gap, label):
    """Loss, confidence and modified entropy of the logits (gap, 0, 0), to 60 digits."""
    with localcontext() as context:
        context.prec = 600
        weights = [Decimal(gap).exp(), Decimal(1), Decimal(1)]
        p = [w / sum(weights) for w in weights]
        entropy = -(1 - p[label]) * p[label].ln()
        entropy -= sum(p[j] * (1 - p[j]).ln() for j in range(3) if j != label)
        rest = p[1] + p[2]
        return tuple(map(float, (p[label].ln(), (p[0] / rest).ln(), -entropy)))


@pytest.mark.parametrize("gap", [10, 30, 100, 300])
@pytest.mark.parametrize("label", [0, 1])
def test_scores_are_exact_where_one_less_the_probability_underflows(gap, label):
    """At a gap of 30 float32 says p = 1, and at 100 float64 says so too."""
    log_probs = in_float32([[gap, 0, 0]])
    assert gap < 30 or log_probs[0, 0] == 0
    found = [score(log_probs, np.array([label]))[0] for score in SCORES]
    np.testing.assert_allclose(found, exactly(gap, label), rtol=1e-5)


@pytest.mark.parametrize("gap", [10, 30, 100, 300])
def test_the_logit_is_exact_where_one_less_the_probability_underflows(gap):
    """And rises with no end, where a guard of 1e-45 would stop it at 103."""
    log_probs = in_float32([[gap, 0, 0]])
    right, wrong = (signals.logit(log_probs, np.array([y]))[0] for y in (0, 1))
    assert right == pytest.approx(gap - np.log(2), rel=1e-6)
    assert wrong == pytest.approx(-np.logaddexp(gap, 0), rel=1e-6)
    assert signals.hinge(log_probs, np.array([0]))[0] == pytest.approx(gap, rel=1e-6)


def test_scores_tell_apart_records_that_float32_calls_certain():
    """Ever surer of the right label: every score rises; of a wrong one: two fall."""
    gaps = np.arange(2.0, 300.0)
    log_probs = in_float32(np.stack([gaps, 0 * gaps, 0 * gaps - 1], 1))
    right, wrong = np.zeros(len(gaps), int), np.ones(len(gaps), int)
    for score in SCORES:
        assert (np.diff(score(log_probs, right)) > 0).all(), score.__name__
    for score in (signals.loss, signals.modified_entropy):
        assert (np.diff(score(log_probs, wrong)) < 0).all(), score.__name__


def test_impossible_classes_give_finite_scores_in_the_right_order():
    """Certain and right, merely sure, undecided, certain and wrong."""
    inf = np.inf
    log_probs = np.array(
        [
            [0, -inf, -inf],
            np.log([0.9, 0.05, 0.05]),
            np.log([1 / 3] * 3),
            [-inf, 0, -inf],
        ]
    )
    labels = np.zeros(4, int)
    for score in SCORES:
        assert np.isfinite(score(log_probs, labels)).all(), score.__name__
    for score in MARGINS:
        assert np.isfinite(score(log_probs, labels)).all(), score.__name__
    for score in (signals.loss, signals.modified_entropy, *MARGINS):
        assert (np.diff(score(log_probs, labels)) < 0).all(), score.__name__
    confidence = signals.confidence(log_probs, labels)
    assert confidence[0] == confidence[3] > confidence[1] > confidence[2]
    np.testing.assert_allclose(signals.top_posteriors(log_probs, 2)[3], [1, 0])


def test_no_finite_answer_scores_below_an_impossible_one():
    log_probs = np.array([[-np.inf, 0.0], [-3e38, 0.0]])
    for score in (signals.loss, signals.modified_entropy):
        impossible, finite = score(log_probs, np.zeros(2, int))
        assert impossible < finite, score.__name__
