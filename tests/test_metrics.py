import math

import numpy as np
import pytest

from rpjax.errors import InputError
from rpjax.metrics import (
    correct,
    cross_entropy,
    expected_calibration_error,
    per_class_recall,
    softmax,
)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (200, 4))


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 4, 200)


def test_softmax_rows_sum_to_one_and_ignore_a_common_shift(logits):
    p = softmax(logits)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(softmax(logits + 1e4), p, rtol=1e-10)
    np.testing.assert_allclose(softmax([[0.0, math.log(3)]]), [[0.25, 0.75]])


def test_cross_entropy_is_minus_the_log_of_the_labels_probability(logits, labels):
    expected = -np.log(softmax(logits)[np.arange(200), labels])
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-12)


def test_cross_entropy_keeps_tiny_and_huge_losses():
    losses = cross_entropy([[60.0, 0.0], [0.0, 800.0], [800.0, 0.0]], [0, 0, 0])
    assert losses[0] == pytest.approx(math.exp(-60), rel=1e-12)
    assert losses[1] == 800.0
    assert losses[2] == pytest.approx(0.0, abs=1e-300)


def test_a_record_is_correct_when_its_label_has_the_largest_logit():
    z = [[1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.0, -1.0]]
    assert correct(z, [1, 1, 0]).tolist() == [True, False, True]


def test_recall_is_counted_over_the_records_of_each_class():
    z = np.eye(4)[[0, 0, 1, 2, 2]]
    recall = per_class_recall(z, [0, 0, 0, 2, 1])
    np.testing.assert_allclose(recall, [2 / 3, 0.0, 1.0, np.nan])


def test_recalls_weighted_by_class_make_the_accuracy(logits, labels):
    weights = np.bincount(labels, minlength=4) / 200
    recall = per_class_recall(logits, labels)
    assert weights @ recall == pytest.approx(correct(logits, labels).mean())


def test_calibration_error_is_the_distance_of_confidence_from_accuracy():
    # 100 records at confidence 0.9, 60 of them right; 100 at 0.6, all right
    sure, unsure = [math.log(9), 0.0], [math.log(1.5), 0.0]
    z = np.array([sure] * 100 + [unsure] * 100)
    y = np.array([0] * 60 + [1] * 40 + [0] * 100)
    assert expected_calibration_error(z, y) == pytest.approx((0.3 + 0.4) / 2)
    assert expected_calibration_error(z, y, bins=1) == pytest.approx(0.05)


def test_full_confidence_falls_in_the_last_bin():
    assert expected_calibration_error([[800.0, 0.0]], [0]) == 0.0
    assert expected_calibration_error([[800.0, 0.0]], [1]) == 1.0
    # a wrong record at 1 and a right one at 0.97 share a bin: |1 - 0.03| / 2
    z = [[800.0, 0.0], [math.log(97 / 3), 0.0]]
    assert expected_calibration_error(z, [1, 0]) == pytest.approx(0.485)


@pytest.mark.parametrize(
    ("z", "y", "field"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "logits of shape"),
        (np.zeros((2, 3)), [0], "logits of shape"),
        (np.zeros(3), [0, 1, 2], "logits of shape"),
        ([[math.nan, 1.0]], [0], "logits: not finite"),
        ([[0.0, 1.0]], [2], "labels from 2 to 2"),
        ([[0.0, 1.0]], [-1], "labels from -1"),
        ([[0.0, 1.0]], [0.0], "labels of type"),
    ],
)
def test_bad_input_is_refused_in_one_line(z, y, field):
    for metric in (correct, cross_entropy, per_class_recall):
        with pytest.raises(InputError, match=field):
            metric(z, y)
