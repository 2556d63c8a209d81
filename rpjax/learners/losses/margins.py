"""Losses that change logits by class: margins, shifts; and the focal factor.

Each is a function of one record's logits and label, and of constants that follow from
counts. Source of `ldam`: Cao et al., "Learning Imbalanced Datasets with
Label-Distribution-Aware Margin Loss", NeurIPS 2019; of `logit_adjusted`: Menon et al.,
"Long-tail learning via logit adjustment", ICLR 2021; of `focal`: Lin et al., "Focal
Loss for Dense Object Detection", ICCV 2017.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int

from rpjax.counts import Counts
from rpjax.errors import InputError
from rpjax.learners.losses.loss import Loss
from rpjax.learners.losses.plain import cross_entropy


def focal(exponent: float = 1.0) -> Loss:
    """``(1 - p_y)^exponent`` times the cross-entropy; 0 is the cross-entropy itself."""
    if not 0 <= exponent < math.inf:
        raise InputError(f"exponent is {exponent}; it must be finite and >= 0")

    def values(
        logits: Float[Array, "b k"], labels: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        wide = logits.astype(jnp.float32)
        own = jax.nn.one_hot(labels, wide.shape[-1], dtype=bool)
        # by logarithms, whose gradient stays finite where p_y rounds to one
        others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, wide), axis=-1)
        log_rest = others - jax.nn.logsumexp(wide, axis=-1)
        return jnp.exp(exponent * log_rest) * cross_entropy(wide, labels)

    return Loss(f"focal (exponent {exponent:g})", values)


def margins(counts: Counts, largest: float = 0.5) -> npt.NDArray[np.float64]:
    """LDAM's margins, in proportion to ``n_c^(-1/4)``, float64 (k,).

    largest: that of the rarest class.

    >>> margins(Counts((10_000, 625), "public")).tolist()
    [0.25, 0.5]
    """
    if not 0 < largest < math.inf:
        raise InputError(f"largest is {largest}; it must be finite and > 0")
    roots = counts.positive() ** -0.25
    return np.asarray(largest * roots / roots.max())


def ldam(counts: Counts, largest: float = 0.5, scale: float = 30.0) -> Loss:
    """Cross-entropy of ``scale (f - m_y e_y)``: the true logit less its margin.

    As published logits are cosines, of normalised features and weights, and scale is
    30. A net whose logits have no such bound wants scale 1. `deferred` with this as its
    base is LDAM-DRW.

    Under DP-SGD: per example with given counts; the scale multiplies gradients before
    clipping, which is as good as a clip norm divided by it.
    """
    if not 0 < scale < math.inf:
        raise InputError(f"scale is {scale}; it must be finite and > 0")
    table = margins(counts, largest).astype(np.float32)

    def values(
        logits: Float[Array, "b k"], labels: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        wide = logits.astype(jnp.float32)
        own = jax.nn.one_hot(labels, len(table), dtype=jnp.float32)
        less = own * jnp.asarray(table)[labels][:, None]
        return cross_entropy(scale * (wide - less), labels)

    return Loss(f"LDAM (margin {largest:g}, scale {scale:g})", values, (), (counts,))


def logit_adjusted(counts: Counts, tau: float = 1.0) -> Loss:
    """Cross-entropy of ``f + tau log pi``, pi the classes' shares.

    The net's own largest logit is then the answer for equally frequent classes.
    """
    return _shifted(f"logit-adjusted (tau {tau:g})", counts, tau)


def balanced_softmax(counts: Counts) -> Loss:
    """``-log(n_y e^(f_y) / sum_c n_c e^(f_c))``: `logit_adjusted` with tau = 1.

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition",
    NeurIPS 2020.
    """
    return _shifted("balanced softmax", counts, 1.0)


def adjusted(
    logits: Float[Array, "... k"], counts: Counts, tau: float = 1.0
) -> Float[Array, "... k"]:
    """``f - tau log pi``: the correction after training of a plain net's logits.

    Post-processing: with released or public counts it costs no privacy.
    """
    shift = jnp.asarray(_log_shares(counts, tau), logits.dtype)
    return logits - jnp.broadcast_to(shift, logits.shape)


def _shifted(name: str, counts: Counts, tau: float) -> Loss:
    shift = _log_shares(counts, tau)

    def values(
        logits: Float[Array, "b k"], labels: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        return cross_entropy(logits.astype(jnp.float32) + shift[None], labels)

    return Loss(name, values, (), (counts,))


def _log_shares(counts: Counts, tau: float) -> npt.NDArray[np.float32]:
    if not 0 <= tau < math.inf:
        raise InputError(f"tau is {tau}; it must be finite and >= 0")
    logs = np.log(counts.positive() / counts.total)
    return np.asarray(tau * logs, np.float32)
