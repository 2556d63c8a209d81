"""Scores of membership: functions of log-probabilities and labels, large = member.

All in float64 on the host, so they serve answers from any framework. Log-probabilities
are normalised once more: those that a net gives in float32 are exactly 0 for every
probability above 1 - 3e-8, where records that were learnt by heart lie.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

LogProbs = Float[np.ndarray, "n k"]
Labels = Int[np.ndarray, " n"]
Scores = npt.NDArray[np.float64]

# stands for the logarithm of 0: scores stay finite, and below those of any float32
LOWEST = -1e300


def loss(log_probs: LogProbs, labels: Labels) -> Scores:
    """Minus the cross-entropy (Yeom et al., arXiv 1709.01604)."""
    return _of_label(_normalised(log_probs), labels)


def confidence(log_probs: LogProbs, labels: Labels) -> Scores:
    """Logit of the largest posterior (Salem et al., arXiv 1806.01246, adversary 3).

    The logit orders records as the posterior does, and keeps apart those near 1.
    """
    log_probs = _normalised(log_probs)
    top = log_probs.argmax(-1)
    return _of_label(log_probs, top) - _log_rest(log_probs, top)


def modified_entropy(log_probs: LogProbs, labels: Labels) -> Scores:
    """Minus the modified entropy (Song and Mittal, arXiv 2003.10595, equation 8).

    ``-(1 - p_y) log p_y - sum_{j != y} p_j log(1 - p_j)``: like the entropy, but
    falling in the probability of the right label.
    """
    log_probs = _normalised(log_probs)
    own = np.arange(log_probs.shape[1]) == np.asarray(labels)[:, None]
    log_others = np.stack(
        [_log_rest(log_probs, np.full(len(labels), j)) for j in range(own.shape[1])], 1
    )
    terms = np.where(
        own, np.exp(log_others) * log_probs, np.exp(log_probs) * log_others
    )
    total: Scores = terms.sum(-1)
    return total


def top_posteriors(log_probs: LogProbs, k: int) -> Float[np.ndarray, "n top"]:
    """The `k` largest probabilities, descending: the features of Salem et al."""
    return np.sort(np.exp(_normalised(log_probs)), -1)[:, ::-1][:, :k]


def _normalised(log_probs: LogProbs) -> Scores:
    finite = np.maximum(np.asarray(log_probs, np.float64), LOWEST)
    normalised: Scores = finite - np.logaddexp.reduce(finite, -1, keepdims=True)
    return normalised


def _of_label(log_probs: Scores, labels: Labels) -> Scores:
    picked: Scores = np.take_along_axis(log_probs, np.asarray(labels)[:, None], 1)
    return picked[:, 0]


def _log_rest(log_probs: Scores, labels: Labels) -> Scores:
    """Logarithm of the probability of all classes but the label's, without 1 - p."""
    others = log_probs.copy()
    np.put_along_axis(others, np.asarray(labels)[:, None], -np.inf, 1)
    rest: Scores = np.logaddexp.reduce(others, axis=-1)
    return rest
