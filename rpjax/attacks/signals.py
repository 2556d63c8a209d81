"""Scores of membership: functions of log-probabilities and labels, large = member.

All in float64 on the host, so they serve answers from any framework. Log-probabilities
are normalised once more: those that a net gives in float32 are exactly 0 for every
probability above 1 - 3e-8, where records that were learnt by heart lie. Logits, which
differ from them by a constant per record, do as well.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

Signal = Callable[[Any, Any], npt.NDArray[np.float64]]
LogProbs = Float[np.ndarray, "n k"]
Draws = Float[np.ndarray, "n draws k"]
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


def logit(log_probs: LogProbs, labels: Labels) -> Scores:
    """Log-odds of the right label, the phi of LiRA (Carlini et al., arXiv 2112.03570).

    Over models it is closer to Gaussian than the loss is. In logits z it is
    ``z_y - log sum_{j != y} exp z_j``: no ``1 - p`` is taken, and no constant added.
    """
    log_probs = _normalised(log_probs)
    return _of_label(log_probs, labels) - _log_rest(log_probs, labels)


def hinge(log_probs: LogProbs, labels: Labels) -> Scores:
    """Margin ``z_y - max_{j != y} z_j`` of the right label over the best other."""
    log_probs = _normalised(log_probs)
    margin: Scores = _of_label(log_probs, labels) - _others(log_probs, labels).max(-1)
    return margin


def correct(log_probs: LogProbs, labels: Labels) -> Scores:
    """1 where the likeliest class is the label, else 0: all that a label gives away."""
    hits: Scores = (np.argmax(log_probs, -1) == labels).astype(np.float64)
    return hits


def tempered_loss(
    log_probs: LogProbs, labels: Labels, temperature: float = 2.0
) -> Scores:
    """Log-probability of the label after a softmax of the logits over `temperature`."""
    return _of_label(_normalised(_normalised(log_probs) / temperature), labels)


def mean_probability(log_probs: Draws) -> LogProbs:
    """Log of the mean over draws of the probabilities: what an ensemble answers."""
    total = np.logaddexp.reduce(_normalised(log_probs), 1)
    mean: Scores = total - np.log(log_probs.shape[1])
    return mean


def prob_mean(log_probs: Draws, labels: Labels) -> Scores:
    """`logit` of the mean probability over draws of the noise."""
    return logit(mean_probability(log_probs), labels)


def logit_mean(log_probs: Draws, labels: Labels) -> Scores:
    """Mean of `logit` over draws of the noise."""
    mean: Scores = of_models(logit, log_probs[None], labels)[0].mean(-1)
    return mean


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


def of_models(
    signal: Callable[[LogProbs, Labels], Scores],
    log_probs: Float[np.ndarray, "models n queries k"],
    labels: Labels,
) -> Float[np.ndarray, "models n queries"]:
    """A signal of the answers of many models to many queries of each record.

    Queries are augmentations and draws of the noise. The result is what the attacks of
    this package take as scores.
    """
    models, n, queries, classes = log_probs.shape
    repeated = np.tile(np.repeat(labels, queries), models)
    return signal(log_probs.reshape(-1, classes), repeated).reshape(models, n, queries)


def _normalised(log_probs: np.ndarray) -> Scores:
    finite = np.maximum(np.asarray(log_probs, np.float64), LOWEST)
    normalised: Scores = finite - np.logaddexp.reduce(finite, -1, keepdims=True)
    return normalised


def _of_label(log_probs: Scores, labels: Labels) -> Scores:
    picked: Scores = np.take_along_axis(log_probs, np.asarray(labels)[:, None], 1)
    return picked[:, 0]


def _log_rest(log_probs: Scores, labels: Labels) -> Scores:
    """Logarithm of the probability of all classes but the label's, without 1 - p."""
    rest: Scores = np.logaddexp.reduce(_others(log_probs, labels), axis=-1)
    return rest


def _others(log_probs: Scores, labels: Labels) -> Scores:
    """The log-probabilities with the label's own taken out."""
    others = log_probs.copy()
    np.put_along_axis(others, np.asarray(labels)[:, None], -np.inf, 1)
    return others
