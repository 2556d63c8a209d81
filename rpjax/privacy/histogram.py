"""Class counts released with noise: a mechanism of its own, paid for once.

One record more or less changes one count by one: l1 and l2 sensitivity 1. A record that
is replaced by one of another class changes two: l1 sensitivity 2, l2 sensitivity root
2. What is computed from the released counts costs nothing more (post-processing), such
as class weights, margins and shifts of logits (`rpjax.learners.losses`).

Released counts are rounded to whole numbers and raised to at least 1, both
post-processing. Rounding also takes away the low-order bits by which floating-point
noise can be taken apart.

Class losses (`release_losses`) are sums of the same kind: each record's loss is cut to
a bound, and a record moves the sum of its class by that bound at most.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.counts import ClassLosses, Counts, Noise, Release, tally
from rpjax.errors import InputError
from rpjax.privacy import algebra, checks
from rpjax.privacy.curves import Curve, Gaussian, Numerical

Adjacency = Literal["add_remove", "replace_one"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Independent noise on each class's count.

    scale: of the noise, in records. "gaussian": its standard deviation.
        "geometric": b, where a noise of z has a probability in proportion to
        exp(-|z| / b) (two-sided geometric, or discrete Laplace).
    noise: which of the two.

    Guarantee: the counts are `curve(adjacency)`-private, in so far as 64-bit floating
    point is real arithmetic and the random bits are.

    >>> h = Histogram(10.0)
    >>> f"{h.curve().epsilon(1e-5):.4f} {h.curve('replace_one').epsilon(1e-5):.4f}"
    '0.3407 0.4970'
    """

    scale: float
    noise: Noise = "gaussian"

    def __post_init__(self) -> None:
        checks.positive("scale", self.scale)
        checks.one_of("noise", self.noise, ("gaussian", "geometric"))

    def curve(self, adjacency: Adjacency = "add_remove") -> Curve:
        """What is guaranteed, to be composed with that of a training.

        Of Gaussian noise exactly; of geometric noise for one changed count exactly, by
        dp-accounting, and for two as the composition of both.
        """
        changed = _changed(adjacency)
        if self.noise == "gaussian":
            return Gaussian(math.sqrt(changed) / self.scale)
        from dp_accounting.pld import privacy_loss_distribution as distributions

        # losses are multiples of 1 / scale, which the grid then meets exactly
        grid = 1 / self.scale / max(1, math.ceil(1e3 / self.scale))
        one = distributions.from_discrete_laplace_mechanism(
            1 / self.scale, value_discretization_interval=grid
        )
        return Numerical(one if changed == 1 else one.self_compose(changed))

    def event(self, adjacency: Adjacency = "add_remove") -> Any:
        """The release as a `dp_accounting.DpEvent`, to be composed with DP-SGD's.

        For Gaussian noise dp-accounting's PLD accountant takes a replacement to move
        a sum by twice its sensitivity. Counts move by root 2 only, so the event for
        "replace_one" has the noise multiplier root 2 times scale, and is right for
        that accountant alone. dp-accounting takes no geometric noise for "replace_one":
        use `curve`.

        Raises:
            InputError: geometric noise with "replace_one".
        """
        from dp_accounting import dp_event

        changed = _changed(adjacency)
        if self.noise == "gaussian":
            return dp_event.GaussianDpEvent(math.sqrt(changed) * self.scale)
        if changed != 1:
            raise InputError(
                "noise = 'geometric': dp-accounting has no event for 'replace_one'; "
                "compose curve('replace_one') instead"
            )
        return dp_event.DiscreteLaplaceDpEvent(1 / self.scale, 1)

    def release(
        self, labels: npt.ArrayLike, classes: int, secret: bytes | None = None
    ) -> Counts:
        """The noisy counts, whole and at least 1, with source "released".

        They name this mechanism, so that the guarantee of a DP-SGD learner whose loss
        is made of them composes with it.

        secret: 32 bytes that make it repeatable, which protects nobody; None takes
            fresh ones from the operating system. A second release is a second cost.
        """
        exact = tally(labels, classes)
        words = _words(secret, 2 * classes, b"counts")
        if self.noise == "gaussian":
            noisy = exact + self.scale * _normals(words[:classes])
        else:
            noisy = exact + _geometric(words, self.scale)
        whole = np.maximum(np.rint(noisy), 1)
        return Counts(
            tuple(whole.tolist()), "released", Release(self.scale, self.noise)
        )


def scale_for(
    epsilon: float,
    delta: float,
    noise: Noise = "gaussian",
    adjacency: Adjacency = "add_remove",
) -> float:
    """The least scale at which `Histogram` is (epsilon, delta)-DP.

    Geometric noise is pure: with delta 0 its scale is the number of changed counts
    over epsilon.

    >>> f"{scale_for(0.5, 1e-5):.3f} {scale_for(0.5, 0.0, 'geometric'):.3f}"
    '7.032 2.000'
    """
    checks.positive("epsilon", epsilon)
    checks.one_of("noise", noise, ("gaussian", "geometric"))
    if noise == "geometric":
        checks.probability("delta", delta)
        return _changed(adjacency) / epsilon
    root = math.sqrt(_changed(adjacency))
    return algebra.least_noise(lambda scale: Gaussian(root / scale), epsilon, delta)


def release_losses(
    losses: npt.ArrayLike,
    labels: npt.ArrayLike,
    counts: Counts,
    bound: float,
    noise_multiplier: float,
    secret: bytes | None = None,
) -> ClassLosses:
    """Mean loss of each class, with Gaussian noise: what MSFE needs under DP-SGD.

    Each record's loss is cut to [0, bound]; its class's sum gets noise of standard
    deviation noise_multiplier times bound, and is divided by the given count. Where
    noise makes it negative it is raised to 0, and to `bound` where it exceeds that.

    losses: float (n,). labels: int (n,). counts: public or released ones of the same
    records.

    Guarantee: `losses_curve(noise_multiplier)`.

    Raises:
        InputError: counts with source "data", shapes that do not fit, a loss that is
            not a number.
    """
    if not counts.private:
        raise InputError("counts: source is 'data'; release them first (Histogram)")
    checks.positive("bound", bound)
    checks.positive("noise_multiplier", noise_multiplier)
    own, y = np.asarray(losses, np.float64), np.asarray(labels)
    if own.shape != y.shape or np.isnan(own).any():
        raise InputError(
            f"losses: shape {own.shape}, {np.isnan(own).sum()} not numbers; one for "
            f"each of {y.size} labels"
        )
    tally(y, counts.classes)
    sums = np.bincount(y, np.clip(own, 0, bound), counts.classes)
    words = _words(secret, counts.classes, b"losses")
    noisy = sums + noise_multiplier * bound * _normals(words)
    means = np.clip(noisy / counts.positive(), 0, bound)
    return ClassLosses(tuple(means.tolist()), "released")


def losses_curve(noise_multiplier: float, adjacency: Adjacency = "add_remove") -> Curve:
    """The guarantee of one `release_losses`.

    A record moves one sum by `bound` at most; one that is replaced moves two sums by so
    much, or one, upward or downward, by no more: losses lie in [0, bound].
    """
    checks.positive("noise_multiplier", noise_multiplier)
    return Gaussian(math.sqrt(_changed(adjacency)) / noise_multiplier)


def _changed(adjacency: Adjacency) -> int:
    """How many counts a change of one record can change, each by one."""
    checks.one_of("adjacency", adjacency, ("add_remove", "replace_one"))
    return 1 if adjacency == "add_remove" else 2


def _words(secret: bytes | None, size: int, purpose: bytes) -> npt.NDArray[np.uint64]:
    """Random 64-bit words: SHAKE-256 of the secret and of what they are for."""
    if secret is None:
        secret = secrets.token_bytes(32)
    if len(secret) != 32:
        raise InputError(f"secret: {len(secret)} bytes; must be 32")
    digest = hashlib.shake_256(b"rpjax.privacy.histogram/1 " + purpose + secret)
    return np.frombuffer(digest.digest(8 * size), "<u8")


def _uniforms(words: npt.NDArray[np.uint64]) -> Floats:
    """In (0, 1), with 53 bits: symmetric about one half."""
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _normals(words: npt.NDArray[np.uint64]) -> Floats:
    # a sign and a small uniform, whose tail is finer than that of a large one
    signs = 1.0 - 2.0 * (words & np.uint64(1)).astype(np.float64)
    return np.asarray(signs * scipy.special.ndtri(_uniforms(words) / 2))


def _geometric(words: npt.NDArray[np.uint64], scale: float) -> Floats:
    """The difference of two geometric variables, one for each half of the words."""
    up, down = np.floor(-scale * np.log(_uniforms(words))).reshape(2, -1)
    return np.asarray(up - down)
