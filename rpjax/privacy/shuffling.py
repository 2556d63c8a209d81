"""Amplification by shuffling: noisy records in a secret order hide among each other.

Setting. n records, each released through a local randomiser in an order drawn uniformly
at random; a randomiser may depend on earlier outputs. Neighbours differ in one record's
features. Preconditions: the order is uniform, independent of the features, and stays
hidden (the seed behind it is secret, as is which record a step used). Labels are
visible, so that a record hides among those of its own class only: n is the class count
n_y, and a rare class gets less. Fresh noise in each epoch makes each epoch a pass. One
noisy copy per record, kept, is a single pass however many epochs use it: in secret
order the copies are an unordered set, and training is post-processing of that set.

Theorem (clones; Feldman, McMillan, Talwar, "Hiding Among the Clones", arXiv 2012.12803,
Theorem 3.1). Where each randomiser is epsilon_0-DP, a pass is no easier to tell apart
than (A + D, C - A + 1 - D) from (A + 1 - D, C - A + D), with

    C ~ Bin(n - 1, e^-epsilon_0),  A ~ Bin(C, 1/2),  D ~ Bern(e^e0 / (1 + e^e0)).

`Clones` sums its delta exactly. For randomisers that are (epsilon_0, delta_0)-DP, such
as Gaussians, a pass is within (1 + e^-epsilon_0 / 2) n delta_0 in total variation of a
pass of epsilon_0-DP ones (`distance`); and where both laws are within t of two others,
delta is larger than theirs by (e^epsilon + 1) t at most: `ShuffledGaussian`.

Proof of `distance`. Let P and Q be the outputs for the two versions of the record.
Moving delta_0 / (1 + e^e0) of mass between where p > e^e0 q and where q > e^e0 p makes
them epsilon_0-DP. Another record's law falls short of e^-e0 (P + Q) / 2 by e^-e0
(delta_0 + delta_0 / (1 + e^e0)) at most. The sum over n records is below the term in
the theorem, as e^-e0 (1 + 1 / (1 + e^e0)) <= 1 + e^-e0 / 2 for epsilon_0 >= 0.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.privacy import checks, gdp
from rpjax.privacy.algebra import repeated
from rpjax.privacy.curve import Curve

Floats = npt.NDArray[np.float64]
Form = Literal["larger", "first", "code"]

# the window of C in standard deviations; what is outside counts with its worst delta
SPREAD = 9.0
# relative error allowed to the binomial tails of the libraries below
ROUNDING = 1e-11
# points of the grid of losses to an epsilon of one pass, where passes are composed
FINENESS = 128
AT_ONCE = 2**18


@dataclasses.dataclass(frozen=True)
class Clones(Curve):
    """One pass over n records in a secret order, each by an epsilon_0-DP randomiser.

    Never below the true delta of the clones: whatever is not summed is counted with the
    largest value that it can have. (The authors' published program takes the maximum of
    one end of each segment of C with itself, where the other end is meant; its upper
    bound is not certain for one of the two orders.) Both orders have the same delta, by
    exchanging the two counts.

    local_epsilon: epsilon_0.
    records: n, the record itself among them; of the same label.

    >>> f"{Clones(1.0, 6000).epsilon(1e-5):.4f} {Clones(1.0, 6000).epsilon(0.0):.1f}"
    '0.0576 1.0'
    """

    local_epsilon: float
    records: int

    def __post_init__(self) -> None:
        checks.not_negative("local_epsilon", self.local_epsilon)
        checks.whole("records", self.records)

    def _pure(self) -> float:
        return self.local_epsilon

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        at = np.asarray(epsilons, dtype=np.float64)
        counts, weights, outside = self._window
        step = max(1, AT_ONCE // len(counts))
        # clipping leaves out part of what is subtracted, where e^epsilon overflows
        column = np.minimum(at, min(self.local_epsilon, 700.0)).reshape(-1, 1)
        parts = [
            self._given(column[i : i + step], counts) @ weights
            for i in range(0, at.size, step)
        ]
        found = np.concatenate(parts).reshape(at.shape)
        found = found + outside * self._alone(at)
        return np.where(at >= self.local_epsilon, 0.0, found)[()]

    @functools.cached_property
    def _window(self) -> tuple[Floats, Floats, float]:
        """Values of C, their probabilities, and the probability of all others."""
        law = scipy.stats.binom(self.records - 1, math.exp(-self.local_epsilon))
        reach = SPREAD * law.std() + SPREAD**2
        low = max(0, math.floor(law.mean() - reach))
        high = min(self.records - 1, math.ceil(law.mean() + reach))
        counts = np.arange(low, high + 1, dtype=np.float64)
        outside = float(law.cdf(low - 1) + law.sf(high))
        return counts, law.pmf(counts) * (1 + ROUNDING), outside * (1 + ROUNDING)

    def _alone(self, epsilons: Floats) -> Floats:
        """Delta without clones, C = 0; more clones only add coins."""
        hidden = -np.expm1(np.minimum(epsilons - self.local_epsilon, 0.0))
        return np.asarray(hidden / (1 + math.exp(-self.local_epsilon)))

    def _given(self, epsilons: Floats, counts: Floats) -> Floats:
        """Delta given C. The ratio of the two laws at A + D = a rises with a."""
        e0 = max(self.local_epsilon, 1e-300)
        share = -np.expm1(-epsilons - e0) / (1 + np.exp(-epsilons)) / -math.expm1(-e0)
        # the last a at which the second law, times e^epsilon, is not smaller
        last = np.minimum(np.floor(share * (counts + 1)), counts)
        here = self._alone(epsilons) * scipy.stats.binom.pmf(last, counts, 0.5)
        beyond = np.expm1(epsilons) * scipy.stats.binom.sf(last, counts, 0.5)
        return np.asarray(
            np.maximum(here * (1 + ROUNDING) - beyond * (1 - ROUNDING), 0.0)
        )

    def __str__(self) -> str:
        return f"{self.local_epsilon:.4g}-DP, shuffled among {self.records}"


@dataclasses.dataclass(frozen=True)
class ShuffledGaussian(Curve):
    """Noisy inputs used in a secret order, shuffled anew for each epoch.

    The smaller of two bounds: that of the clones for (epsilon_0, delta_0)-DP
    randomisers, and what the noise proves for a known order, mu sqrt(epochs)-GDP.

    mu: of one noisy copy, diameter / pi.
    records: n_y, the records of the class, the record itself among them.
    local_delta: delta_0; any is valid, `best_local_delta` finds a good one.
    epochs: passes with fresh noise; 1 for copies that are kept.

    >>> s = ShuffledGaussian(0.2, 6000, local_delta=1e-10)
    >>> f"{s.local_epsilon:.3f} {s.epsilon(1e-5):.4f} {gdp.epsilon(1e-5, s.mu):.4f}"
    '1.182 0.0752 0.7255'
    """

    mu: float
    records: int
    local_delta: float
    epochs: int = 1

    def __post_init__(self) -> None:
        checks.positive("mu", self.mu)
        checks.whole("records", self.records)
        checks.whole("epochs", self.epochs)
        checks.fraction("local_delta", self.local_delta)

    @functools.cached_property
    def local_epsilon(self) -> float:
        """epsilon_0 of one noisy copy at delta_0."""
        return gdp.epsilon(self.local_delta, self.mu)

    def _deltas(self, epsilons: gdp.Floats) -> gdp.Floats:
        # what holds at a smaller epsilon holds here
        at = np.minimum(epsilons, self._turn)
        known_order = gdp.delta(epsilons, self.mu * math.sqrt(self.epochs))
        return np.asarray(np.minimum(self._shuffled(at), known_order))[()]

    def _shuffled(self, epsilons: gdp.Floats) -> gdp.Floats:
        apart = self.epochs * distance(
            self.local_epsilon, self.local_delta, self.records
        )
        return self._clones._deltas(epsilons) + (np.exp(epsilons) + 1) * apart

    @functools.cached_property
    def _clones(self) -> Curve:
        once = Clones(self.local_epsilon, self.records)
        if self.epochs == 1 or self.local_epsilon == 0:
            return once
        return repeated(once, self.epochs, once.epsilon(1e-6) / FINENESS)

    @functools.cached_property
    def _turn(self) -> float:
        """Where the bound by clones is least: beyond it e^epsilon makes it grow."""
        most = min(self.epochs * self.local_epsilon, 600.0)
        found = scipy.optimize.minimize_scalar(
            lambda e: float(np.log(self._shuffled(np.float64(e)))),
            bounds=(0.0, max(most, 1e-9)),
            method="bounded",
        )
        return float(found.x)

    def __str__(self) -> str:
        passes = "a pass" if self.epochs == 1 else f"{self.epochs} passes"
        return f"{self.mu:.4g}-GDP copies, {passes} shuffled among {self.records}"


def distance(local_epsilon: float, local_delta: float, records: int) -> float:
    """Total variation of a pass from one of epsilon_0-DP randomisers, at most.

    (1 + e^-epsilon_0 / 2) n delta_0; delta grows by (e^epsilon + 1) times this.
    """
    checks.not_negative("local_epsilon", local_epsilon)
    checks.probability("local_delta", local_delta)
    checks.whole("records", records)
    return (1 + math.exp(-local_epsilon) / 2) * records * local_delta


def best_local_delta(mu: float, records: int, epochs: int, delta: float) -> float:
    """The delta_0 for which `ShuffledGaussian` has the least epsilon at `delta`.

    Searched between 1e-12 of delta / (2 epochs n) and that, where `distance` alone
    would be delta / 2.
    """
    checks.fraction("delta", delta)
    most = delta / (2 * epochs * records)

    def epsilon(log_share: float) -> float:
        curve = ShuffledGaussian(mu, records, most * math.exp(log_share), epochs)
        return curve.epsilon(delta)

    found = scipy.optimize.minimize_scalar(
        epsilon, bounds=(-28.0, 0.0), method="bounded", options={"xatol": 0.05}
    )
    return most * math.exp(found.x)


def shuffled_gaussian(
    mu: float, records: int, epochs: int = 1, delta: float = 1e-5
) -> ShuffledGaussian:
    """`ShuffledGaussian` with the delta_0 that suits this delta; valid at all others.

    >>> f"{shuffled_gaussian(0.2, 6000).epsilon(1e-5):.4f}"
    '0.0742'
    """
    best = best_local_delta(mu, records, epochs, delta)
    return ShuffledGaussian(mu, records, best, epochs)


def input_noise_for(
    epsilon: float, delta: float, *, diameter: float, records: int, epochs: int = 1
) -> float:
    """Least input noise pi with which shuffled epochs are (epsilon, delta)-DP.

    To a thousandth, from above. Other arguments as of `ShuffledGaussian`; diameter / pi
    is its mu.

    >>> f"{input_noise_for(1.0, 1e-5, diameter=1.0, records=6000):.2f}"
    '1.40'
    """
    checks.positive("epsilon", epsilon)
    checks.fraction("delta", delta)
    checks.positive("diameter", diameter)
    checks.whole("epochs", epochs)

    def enough(noise: float, local_delta: float) -> bool:
        curve = ShuffledGaussian(diameter / noise, records, local_delta, epochs)
        return curve.delta(epsilon) <= delta

    def holds(noise: float) -> bool:
        curve = shuffled_gaussian(diameter / noise, records, epochs, delta)
        return curve.delta(epsilon) <= delta

    # without shuffling, which is always enough
    most = diameter * math.sqrt(epochs) / gdp.mu_from(epsilon, delta) * (1 + 1e-10)
    guess = delta / (100 * epochs * records)
    rough = _least(functools.partial(enough, local_delta=guess), most)
    best = best_local_delta(diameter / rough, records, epochs, delta)
    noise = _least(functools.partial(enough, local_delta=best), most)
    # its delta_0 is searched again by whoever asks for the guarantee
    while noise < most and not holds(noise):
        noise *= 1 + 1e-4
    return min(noise, most)


def closed_form_epsilon(
    local_epsilon: float, records: int, delta: float, form: Form = "larger"
) -> float:
    """Epsilon of one shuffled pass by a closed form; looser than `Clones`.

    With A = 8 sqrt(e^e0 log(4/delta) / n), C = 8 e^e0 / n, e0 = epsilon_0:

    "first": log(1 + (e^e0 - 1) / (e^e0 + 1) (A + C)), for e0 <= log(n / (16
    log(2/delta))): Theorem 3.1's corollary in the paper, as recalled.
    "code": log(1 + (1 - e^-e0) / (1 + e^(-e0 - e1)) (A + C)), e1 = log(1 + A + C), for
    e0 <= log(n / (16 log(4/delta))): the form in the authors' published program.
    "larger": the larger of the two, which is the second, as e1 > 0.

    Beyond the range of e0 nothing is amplified: epsilon_0 itself. Nor is a value above
    epsilon_0 ever returned.

    >>> f"{closed_form_epsilon(1.0, 50_000, 1e-6):.6f}"
    '0.106276'
    """
    checks.not_negative("local_epsilon", local_epsilon)
    checks.whole("records", records)
    checks.fraction("delta", delta)
    checks.one_of("form", form, ("larger", "first", "code"))
    inside = 2 if form == "first" else 4
    if local_epsilon > math.log(records / (16 * math.log(inside / delta))):
        return local_epsilon
    grown = math.exp(local_epsilon)
    both = 8 * math.sqrt(grown * math.log(4 / delta) / records) + 8 * grown / records
    first = (grown - 1) / (grown + 1) * both
    code = (1 - 1 / grown) / (1 + 1 / (grown * (1 + both))) * both
    found = {"first": first, "code": code, "larger": max(first, code)}[form]
    return min(math.log1p(found), local_epsilon)


def _least(enough: Callable[[float], bool], most: float) -> float:
    """Least noise that is enough, to 1e-4 of itself, where `most` is."""
    low, high = most / 2, most
    while enough(low):
        low, high = low / 2, low
    while high > low * (1 + 1e-4):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
