"""What a classifier's logits say of each record: float64 on the host.

Counts taken from these become estimates with an interval in `rpjax.intervals`.
"""

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError

Floats = npt.NDArray[np.float64]


def softmax(logits: npt.ArrayLike) -> Floats:
    """Class probabilities from logits[..., classes], each row summing to one.

    >>> softmax([[1000.0, 1000.0]])
    array([[0.5, 0.5]])
    """
    z = np.asarray(logits, dtype=np.float64)
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def correct(logits: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether the largest logit is the label's, bool[records].

    Probabilities do as well as logits. Among equal largest values the first class is
    the prediction.

    Args:
        logits: float[records, classes].
        labels: int[records], from 0 to classes - 1.

    Raises:
        InputError: no records, shapes that do not fit, a logit that is not
            finite, or an unknown label.
    """
    z, y = checked(logits, labels)
    return np.asarray(z.argmax(axis=1) == y)


def cross_entropy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """-log p_label of each record in nats, float64[records], from logits.

    Computed as log(1 + sum of exp(z_j - z_label) over the other classes), so that a
    record the model is sure of keeps its small loss instead of rounding to zero.

    >>> f"{cross_entropy([[50.0, 0.0]], [0])[0]:.3e}"
    '1.929e-22'
    """
    z, y = checked(logits, labels)
    rows = np.arange(len(y))
    margins = z - z[rows, y][:, None]
    margins[rows, y] = -np.inf
    return np.asarray(np.logaddexp(0.0, scipy.special.logsumexp(margins, axis=1)))


def per_class_recall(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Share of each class's records that is predicted right, float64[classes].

    A class without records gets NaN.
    """
    z, y = checked(logits, labels)
    hits = np.bincount(y[z.argmax(axis=1) == y], minlength=z.shape[1])
    totals = np.bincount(y, minlength=z.shape[1])
    recall = np.full(z.shape[1], np.nan)
    np.divide(hits, totals, out=recall, where=totals > 0)
    return recall


def expected_calibration_error(
    logits: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence.

    Each bin counts by its share of the records. Source: Guo, Pleiss, Sun and
    Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3. The
    estimate depends on `bins` and is biased upward when bins hold few records.
    """
    if bins < 1:
        raise InputError(f"bins = {bins}: must be at least 1")
    z, y = checked(logits, labels)
    confidence = softmax(z).max(axis=1)
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    surplus = confidence - (z.argmax(axis=1) == y)
    return float(np.abs(np.bincount(which, weights=surplus)).sum() / len(y))


def checked(
    logits: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Logits and labels as arrays, or an `InputError` that says what is wrong."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or z.size == 0:
        raise InputError(
            f"logits of shape {z.shape}, labels of shape {y.shape}: need "
            "[records, classes] and [records], at least one record"
        )
    if not np.isfinite(z).all():
        bad = int((~np.isfinite(z)).any(axis=1).sum())
        raise InputError(f"logits: not finite for {bad} of {len(z)} records")
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"labels of type {y.dtype}: must be whole numbers")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise InputError(
            f"labels from {y.min()} to {y.max()}: must lie in 0..{z.shape[1] - 1}"
        )
    return z, y.astype(np.int64)
