"""Metrics of imbalanced classes: scikit-learn, worked cases, coverage of intervals."""

import json
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rpjax import metrics
from rpjax.errors import InputError
from rpjax.intervals import clopper_pearson

WORKED = metrics.Binary(80, 20, 30, 70)
SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)
PREDICTED = hnp.arrays(np.int64, 30, elements=st.integers(0, 3))


def logits_for(predicted, classes=4):
    return np.eye(classes)[predicted]


# ------------------------------------------------------------------- one class against


def test_the_worked_confusion_table():
    """TP 80, FN 20, FP 30, TN 70."""
    table = np.array([[80, 20], [30, 70]])
    assert metrics.one_vs_rest(table, 0) == WORKED
    expected = {
        "tpr": 0.8,
        "tnr": 0.7,
        "ppv": 0.727273,
        "npv": 0.777778,
        "youden": 0.5,
        "likelihood_positive": 2.666667,
        "likelihood_negative": 0.285714,
        "index_of_balanced_accuracy": 0.5656,
        "optimized_precision": 0.683333,
        "discriminant_power": 1.231444,
        "weighted_accuracy": 0.75,
    }
    for name, value in expected.items():
        assert float(getattr(WORKED, name)()) == pytest.approx(value, abs=1e-6), name
    assert float(WORKED.discriminant_power("10")) == pytest.approx(0.534809, abs=1e-6)
    assert float(metrics.accuracy(table)) == 0.75
    assert float(metrics.balanced_accuracy(table)) == pytest.approx(0.75)
    assert float(metrics.g_mean(table)) == pytest.approx(0.748331, abs=1e-6)
    assert metrics.f_scores(table)[0] == pytest.approx(0.761905, abs=1e-6)
    assert metrics.f_scores(table, 2.0)[0] == pytest.approx(0.784314, abs=1e-6)
    assert float(metrics.matthews(table)) == pytest.approx(0.502519, abs=1e-6)


def test_edges_are_infinite_or_undefined_and_never_a_wrong_number():
    perfect, nothing = metrics.Binary(5, 0, 0, 5), metrics.Binary(0, 5, 0, 5)
    assert perfect.likelihood_positive() == math.inf
    assert perfect.likelihood_negative() == 0
    assert perfect.discriminant_power() == math.inf
    assert np.isnan(nothing.likelihood_positive())
    assert np.isnan(nothing.discriminant_power())
    assert np.isnan(nothing.ppv())
    assert np.isnan(metrics.Binary(0, 0, 1, 5).tpr())
    assert np.isnan(metrics.Binary(0, 3, 5, 0).optimized_precision())
    assert metrics.Binary(0, 3, 5, 0).index_of_balanced_accuracy() == 0


# ------------------------------------------------------------------------ scikit-learn


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@SETTINGS
@given(PREDICTED, PREDICTED)
def test_metrics_are_those_of_scikit_learn(labels, predicted):
    table = metrics.confusion(logits_for(predicted), labels)
    own = {"labels": range(4)}
    reference = sklearn.metrics.confusion_matrix(labels, predicted, **own)
    np.testing.assert_array_equal(table, reference)
    there = np.unique(labels)
    found = metrics.recalls(table)
    expected = sklearn.metrics.recall_score(
        labels, predicted, average=None, zero_division=np.nan, **own
    )
    np.testing.assert_allclose(found, expected)
    assert np.isnan(found).sum() == 4 - len(there)
    with np.errstate(all="ignore"):
        matthews = sklearn.metrics.matthews_corrcoef(labels, predicted)
    assert float(metrics.matthews(table)) == pytest.approx(matthews)
    for beta in (0.5, 1.0, 2.0):
        scores = sklearn.metrics.fbeta_score(
            labels, predicted, beta=beta, average=None, zero_division=np.nan, **own
        )
        np.testing.assert_allclose(metrics.f_scores(table, beta), scores)
    if len(there) == 4:
        balanced = sklearn.metrics.balanced_accuracy_score(labels, predicted)
        assert float(metrics.balanced_accuracy(table)) == pytest.approx(balanced)
        assert float(metrics.g_mean(table)) == pytest.approx(np.prod(found) ** 0.25)


@SETTINGS
@given(PREDICTED, PREDICTED)
def test_metrics_are_those_of_imbalanced_learn(labels, predicted):
    oracle = pytest.importorskip("imblearn.metrics")
    labels, predicted = labels % 2, predicted % 2
    if len(np.unique(labels)) < 2:
        return
    table = metrics.confusion(logits_for(predicted, 2), labels)
    rest = metrics.one_vs_rest(table, 1)
    iba = oracle.make_index_balanced_accuracy(alpha=0.1, squared=True)
    pairs = [
        (rest.tpr(), oracle.sensitivity_score),
        (rest.tnr(), oracle.specificity_score),
        (metrics.g_mean(table), oracle.geometric_mean_score),
        (rest.index_of_balanced_accuracy(), iba(oracle.geometric_mean_score)),
    ]
    for found, reference in pairs:
        expected = reference(labels, predicted, average="binary")
        assert float(found) == pytest.approx(expected)


def test_areas_are_those_of_scikit_learn_ties_and_all():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(3), (60, 20, 5)))
    logits = rng.integers(0, 4, (85, 3)) + 1.5 * np.eye(3)[labels]
    probs = metrics.softmax(logits)
    expected = sklearn.metrics.roc_auc_score(
        labels, probs.round(12), multi_class="ovr", average=None
    )
    found = metrics.auc_one_vs_rest(logits, labels)
    np.testing.assert_allclose([e.value for e in found], expected)
    macro = metrics.macro_auc(logits, labels, replicates=200)
    assert macro.value == pytest.approx(expected.mean())
    assert macro.low < macro.value < macro.high
    assert macro.method == "stratified bootstrap"


def test_saturated_probabilities_are_still_in_order():
    """Softmax rounds all of these to 1, the log odds do not."""
    logits = np.array([[50.0, 0.0], [60.0, 0.0], [70.0, 0.0], [80.0, 0.0]])
    found = metrics.auc_one_vs_rest(logits, [1, 1, 0, 0])
    assert found[0].value == 1.0


# --------------------------------------------------------------------------- intervals


def test_recalls_have_clopper_pearson_intervals():
    table = np.array([[8, 2, 0], [1, 0, 0], [0, 0, 0]])
    first, single, absent = metrics.recalls_with_intervals(table)
    assert first == clopper_pearson(8, 10)
    assert (single.value, single.n) == (0.0, 1)
    assert single.high == pytest.approx(0.975)
    assert absent is None


def test_the_bootstrap_of_balanced_accuracy_has_the_spread_of_binomials():
    """Of two classes it is half the sum of two independent shares."""
    table = np.array([[160, 40], [20, 180]])
    found = metrics.bootstrapped(
        metrics.balanced_accuracy, table, replicates=20_000, seed=1
    )
    spread = math.sqrt(0.8 * 0.2 / 200 + 0.9 * 0.1 / 200) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.04)
    assert (found.value, found.n) == (pytest.approx(0.85), 400)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares, sizes = np.array([[0.8, 0.2], [0.4, 0.6]]), (300, 60)
    truth = math.sqrt(0.8 * 0.6)
    hits = 0
    for seed in range(300):
        table = np.stack(
            [rng.multinomial(n, p) for n, p in zip(sizes, shares, strict=True)]
        )
        found = metrics.bootstrapped(metrics.g_mean, table, replicates=300, seed=seed)
        hits += found.low <= truth <= found.high
    assert 0.90 < hits / 300 < 0.985


def test_the_bootstrap_of_areas_agrees_with_that_of_records():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], (40, 15))
    logits = rng.normal(size=(55, 2)) + 1.2 * np.eye(2)[labels]
    found = metrics.macro_auc(logits, labels, replicates=2000)
    score = logits[:, 1] - logits[:, 0]
    drawn = []
    for _ in range(500):
        at = np.concatenate([rng.choice(40, 40), 40 + rng.choice(15, 15)])
        drawn.append(sklearn.metrics.roc_auc_score(labels[at], score[at]))
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.03)


def test_an_undefined_replicate_opens_the_interval():
    """One false positive in fifty: a third of the replicates have none."""
    table = np.array([[20, 10], [1, 49]])
    ratio = lambda t: metrics.one_vs_rest(t, 0).likelihood_positive()
    found = metrics.bootstrapped(ratio, table)
    assert found.value == pytest.approx((20 / 30) / (1 / 50))
    assert found.high == math.inf
    assert 5 < found.low < found.value
    assert metrics.bootstrapped(ratio, np.array([[20, 10], [0, 50]])) is None


def test_a_bootstrap_follows_from_its_seed():
    table = np.array([[30, 10], [5, 5]])
    one, same, other = (
        metrics.bootstrapped(metrics.matthews, table, seed=s) for s in (0, 0, 1)
    )
    assert one == same
    assert one != other


# ------------------------------------------------------------------------- the report


def test_the_report_of_a_class_with_one_record_and_one_without():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], (50, 20, 1))
    logits = rng.normal(size=(71, 3)) + 2 * np.eye(3)[labels]
    report = metrics.class_report(logits, labels, replicates=200)
    assert report.records == (50, 20, 1)
    assert report.majority == pytest.approx(50 / 71)
    assert report.recalls[2].n == 1
    assert report.balanced_accuracy.value == pytest.approx(
        np.mean([r.value for r in report.recalls])
    )
    missing = metrics.class_report(logits[:70], labels[:70], replicates=200)
    assert missing.recalls[2] is missing.balanced_accuracy is missing.g_mean is None
    assert missing.auc[2] is missing.macro_auc is None
    assert missing.matthews is not None
    for found in (report, missing):
        assert "NaN" not in json.dumps(found.as_dict())


def test_one_large_class_looks_good_on_accuracy_alone():
    labels = np.repeat([0, 1], (95, 5))
    report = metrics.class_report(np.tile([1.0, 0.0], (100, 1)), labels)
    assert report.accuracy.value == report.majority == 0.95
    assert report.balanced_accuracy.value == 0.5
    assert report.g_mean.value == report.matthews.value == 0.0


TABLE = np.array([[1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.recalls([[1, 2, 3]]), "table: shape"),
        (lambda: metrics.recalls([[1, -2], [0, 1]]), "must be a count"),
        (lambda: metrics.f_scores(TABLE, 0.0), "beta = 0.0"),
        (lambda: metrics.one_vs_rest(TABLE, 2), "label = 2"),
        (lambda: WORKED.discriminant_power("2"), "base is '2'"),
        (
            lambda: metrics.bootstrapped(metrics.g_mean, TABLE, 1.0),
            "confidence = 1.0",
        ),
        (
            lambda: metrics.bootstrapped(metrics.g_mean, TABLE, replicates=0),
            "replicates = 0",
        ),
        (lambda: metrics.confusion([[1.0, 2.0]], [2]), "labels from 2"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
