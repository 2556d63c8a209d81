"""MFE and MSFE: losses of classes rather than of records.

With L_c the mean loss of class c, zero where there is no record of it::

    MFE  = sum_c L_c,        MSFE = sum_c L_c^2.

Of two classes MSFE is ((L_0 + L_1)^2 + (L_0 - L_1)^2) / 2: it also counts the gap.
Source: Wang et al., "Training deep neural networks on imbalanced data sets", IJCNN
2016, for two classes and `squared_error`.

The gradient of MSFE is 2 sum_c L_c grad L_c, that of MFE with class weights 2 L_c.
Both divide by the batch's own class counts, so that a record changes the weight of
others: under DP-SGD counts have to be given, and for MSFE the L_c as well, released
with noise (`rpjax.privacy.histogram.release_losses`), from time to time: stale ones
keep every step per example.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rpjax.counts import ClassLosses, Counts
from rpjax.errors import InputError
from rpjax.learners.losses.loss import Loss, Losses, Phase, Tally, unweighted
from rpjax.learners.losses.plain import cross_entropy

# of an MSFE weight, where a class was released with a loss of zero
LEAST_LOSS = 1e-6


def mfe(counts: Counts | None = None, base: Losses = cross_entropy) -> Loss:
    """Mean false error: the sum over classes of their mean `base` loss.

    counts: None divides by each batch's class counts, as published, and is refused by
        DP-SGD. Given, a record of class c weighs N / n_c: MFE over all records, and K
        times `class_weighted`.
    """
    _, values, sources = unweighted(base)
    if counts is None:
        return Loss("MFE of the batch", values, (), sources, _mfe_weights)
    weights = tuple((counts.total / counts.positive()).tolist())
    return Loss("MFE", values, (Phase(0, weights),), (counts, *sources))


def msfe(
    counts: Counts | None = None,
    class_losses: ClassLosses | None = None,
    base: Losses = cross_entropy,
) -> Loss:
    """Mean squared false error: the sum over classes of their squared mean loss.

    counts, class_losses: both or none. Without them, those of each batch, refused by
        DP-SGD. With them a record of class c weighs 2 L_c N / n_c (L_c at least 1e-6):
        the gradient of MSFE where class losses are L. Make a new learner when they are
        released anew.
    """
    _, values, sources = unweighted(base)
    if (counts is None) != (class_losses is None):
        raise InputError("msfe takes counts and class_losses together, or neither")
    if counts is None or class_losses is None:
        return Loss("MSFE of the batch", values, (), sources, _msfe_weights)
    if len(class_losses.values) != counts.classes:
        raise InputError(
            f"class_losses: {len(class_losses.values)} for {counts.classes} classes"
        )
    at = np.maximum(np.array(class_losses.values), LEAST_LOSS)
    weights = tuple((2 * at * counts.total / counts.positive()).tolist())
    made_of = (counts, class_losses, *sources)
    return Loss("MSFE", values, (Phase(0, weights),), made_of)


def tally(
    losses: Float[Array, " b"],
    labels: Int[Array, " b"],
    valid: Array,
    classes: int,
) -> Tally:
    """Sums of the valid records' losses, and their number, by class."""
    own = jax.nn.one_hot(labels, classes, dtype=jnp.float32) * valid[:, None]
    kept = jnp.where(valid, losses, 0.0)
    return Tally(jnp.tensordot(kept, own, 1, precision="highest"), own.sum(0))


def mean_by_class(
    losses: Float[Array, " b"],
    labels: Int[Array, " b"],
    valid: Array,
    classes: int,
) -> Float[Array, " k"]:
    """L_c, the mean loss of each class's valid records; 0 for a class without any.

    MFE is the sum of these, MSFE that of their squares.
    """
    return _means(tally(losses, labels, valid, classes))


def _means(found: Tally) -> Array:
    return found.losses / jnp.maximum(found.counts, 1)


def _mfe_weights(found: Tally) -> Array:
    """B / n_c, so that the mean over the batch of B records is MFE."""
    return jnp.sum(found.counts) / jnp.maximum(found.counts, 1)


def _msfe_weights(found: Tally) -> Array:
    return 2 * _means(found) * _mfe_weights(found)
