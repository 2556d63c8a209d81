"""Epsilon of DP-SGD with Poisson sampling, by dp-accounting.

The mechanism: each step takes every record with probability q, independently, clips
each record's gradient to norm C, and adds Gaussian noise of standard deviation sigma C
to the sum. Nothing is computed here that dp-accounting computes; what is added is the
allowance for batches that overflow a fixed capacity, and the search for sigma.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from rpjax.errors import InputError
from rpjax.privacy import checks

# dp_accounting is imported where it is used: it takes half a second, and a run without
# DP-SGD has no need of it.

Accountant = Literal["pld", "rdp"]
Adjacency = Literal["add_remove", "replace_one"]


class OverflowTooLikely(InputError):
    """Batches exceed the capacity so often that no epsilon holds at this delta."""


def epsilon(
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
) -> float:
    """Upper bound on epsilon at `delta` of DP-SGD with Poisson sampling.

    Args:
        noise_multiplier: sigma, standard deviation of the noise on the sum of clipped
            gradients divided by the clip norm; infinite epsilon at 0.
        sampling_probability: q in (0, 1].
        steps: number of noisy updates, empty batches included.
        delta: in (0, 1), well below 1 / records to mean something.
        accountant: "pld", privacy loss distributions (tight), or "rdp", Renyi
            composition (looser, the figure most papers print).
        adjacency: "add_remove", one record more or less, or "replace_one", one record
            exchanged for another ("pld" alone can do it).
        overflow_probability: bound on the chance that one step's Poisson batch exceeds
            the capacity of a fixed-size batch and is cut, uniformly at random; for all
            neighbouring data sets. See `overflow_probability`, and `_with_overflow` for
            how it is paid.

    Raises:
        InputError: a field outside its range, or an overflow too likely for `delta`.

    >>> f"{epsilon(10.0, 4096 / 50_000, 875, 1e-5):.3f}"
    '0.904'
    """
    run = _Run(
        sampling_probability, steps, delta, accountant, adjacency, overflow_probability
    )
    return run.epsilon(noise_multiplier)


def tpr(
    fpr: npt.ArrayLike,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
) -> np.float64 | npt.NDArray[np.float64]:
    """Largest true-positive rate of any test at these false-positive rates.

    The ROC curve that no membership attack on the run can rise above: every point
    (epsilon, delta) of the privacy curve gives TPR <= e^epsilon FPR + delta and
    1 - TPR >= e^-epsilon (1 - delta - FPR), and the least of all is taken. Source:
    Kairouz, Oh, Viswanath, "The Composition Theorem for Differential Privacy", 2015;
    the curve is the PLD accountant's, at 400 values of epsilon.

    >>> f"{tpr(0.01, 10.0, 4096 / 50_000, 875):.3f}"
    '0.019'
    """
    rates = np.asarray(fpr, dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("fpr: every rate must lie in [0, 1]")
    run = _Run(
        sampling_probability, steps, 1e-5, "pld", adjacency, overflow_probability
    )
    run.check()
    checks.positive("noise_multiplier", noise_multiplier)
    losses = run.losses(noise_multiplier)
    # beyond the epsilon of delta 1e-9 the curve no longer lowers any rate of interest
    grid = np.linspace(0.0, min(losses.get_epsilon_for_delta(1e-9), 700.0), 400)
    growth = np.exp(grid)
    curve = np.asarray(losses.get_delta_for_epsilon(grid))
    curve = curve + (1 + growth) * steps * overflow_probability
    direct = growth * rates[..., None] + curve
    reverse = 1 - (1 - curve - rates[..., None]) / growth
    bound: npt.NDArray[np.float64] = np.minimum(direct, reverse).min(axis=-1)
    return np.clip(bound, rates, 1.0)[()]


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
) -> float:
    """Smallest noise multiplier whose `epsilon` is at most the target.

    The answer meets the target and is at most 0.01 % above the smallest that does;
    arguments as for `epsilon`.

    Raises:
        InputError: the target is out of reach below a noise multiplier of 1e6.

    >>> f"{noise_multiplier_for(8.0, 1e-5, 0.02, 1000):.3f}"
    '0.734'
    """
    checks.positive("epsilon", epsilon)
    run = _Run(
        sampling_probability, steps, delta, accountant, adjacency, overflow_probability
    )

    def excess(log_sigma: float) -> float:
        try:
            reached = run.epsilon(math.exp(log_sigma))
        except OverflowTooLikely:
            return 1e3
        return min(1e3, math.log(max(reached, 1e-9) / epsilon))

    low, high = _bracket(excess)
    log_sigma = float(scipy.optimize.brentq(excess, low, high, xtol=2e-5, rtol=1e-6))
    while excess(log_sigma) > 0:
        log_sigma += 2e-5
    return math.exp(log_sigma)


def overflow_probability(
    records: int, sampling_probability: float, capacity: int
) -> float:
    """Chance that one Poisson batch holds more than `capacity` of the records.

    P[Binomial(records, q) > capacity]. A guarantee for adding or removing a record
    needs it for the larger neighbour: pass the number of training records plus one.

    >>> f"{overflow_probability(50_000, 0.08192, 4352):.1e}"
    '1.7e-05'
    """
    checks.whole("records", records)
    checks.rate("sampling_probability", sampling_probability)
    checks.whole("capacity", capacity)
    return float(scipy.stats.binom.sf(capacity, records, sampling_probability))


def capacity(records: int, sampling_probability: float, probability: float) -> int:
    """Smallest capacity that a Poisson batch exceeds with at most `probability`.

    Epsilon pays for an overflow with steps (1 + exp(epsilon)) probability of its delta,
    so `probability` has to be very small, and replace-one figures need it smaller
    still; going from 1e-12 to 1e-20 costs few places in the batch.

    >>> capacity(50_000, 0.08192, 1e-12), capacity(50_000, 0.08192, 1e-20)
    (4534, 4676)
    """
    checks.fraction("probability", probability)
    low, high = 1, records
    while low < high:
        middle = (low + high) // 2
        if overflow_probability(records, sampling_probability, middle) <= probability:
            high = middle
        else:
            low = middle + 1
    return low


class _Run(NamedTuple):
    """Everything that fixes epsilon but the noise multiplier."""

    sampling_probability: float
    steps: int
    delta: float
    accountant: Accountant
    adjacency: Adjacency
    overflow_probability: float

    def check(self) -> None:
        checks.rate("sampling_probability", self.sampling_probability)
        checks.whole("steps", self.steps)
        checks.fraction("delta", self.delta)
        checks.one_of("accountant", self.accountant, ("pld", "rdp"))
        checks.one_of("adjacency", self.adjacency, ("add_remove", "replace_one"))
        checks.probability("overflow_probability", self.overflow_probability)
        if (self.accountant, self.adjacency) == ("rdp", "replace_one"):
            raise InputError("accountant = 'rdp': replace_one needs accountant='pld'")

    def epsilon(self, noise_multiplier: float) -> float:
        self.check()
        checks.not_negative("noise_multiplier", noise_multiplier)
        if noise_multiplier == 0:
            return math.inf
        by_delta = (
            self.renyi(noise_multiplier).get_epsilon
            if self.accountant == "rdp"
            else self.losses(noise_multiplier).get_epsilon_for_delta
        )
        overflow = self.steps * self.overflow_probability
        if overflow == 0:
            return float(by_delta(self.delta))
        return _with_overflow(by_delta, self.delta, overflow)

    def renyi(
        self, noise_multiplier: float, orders: Sequence[int] | None = None
    ) -> Any:
        """The Renyi accountant that has seen all steps."""
        from dp_accounting import dp_event, rdp

        step = dp_event.PoissonSampledDpEvent(
            self.sampling_probability, dp_event.GaussianDpEvent(noise_multiplier)
        )
        with _without_convergence_notes():
            return rdp.RdpAccountant(orders).compose(step, self.steps)

    def losses(self, noise_multiplier: float) -> Any:
        """The privacy loss distribution of all steps."""
        from dp_accounting import NeighboringRelation
        from dp_accounting.pld import privacy_loss_distribution

        # The grid only ever rounds epsilon upward. It is 1e-3 for epsilons from 1 to
        # 1000; smaller ones deserve a finer grid, larger ones would need gigabytes.
        # Whole orders are enough to tell how large it will be.
        orders = (*range(2, 65), 128, 256, 512, 1024)
        rough = self.renyi(noise_multiplier, orders).get_epsilon(self.delta)
        grid = max(1e-3 * min(1.0, max(rough, 1e-2)), 1e-6 * rough)
        relation = {
            "add_remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
            "replace_one": NeighboringRelation.REPLACE_ONE,
        }[self.adjacency]
        step = privacy_loss_distribution.from_gaussian_mechanism(
            standard_deviation=noise_multiplier,
            value_discretization_interval=grid,
            sampling_prob=self.sampling_probability,
            neighboring_relation=relation,
        )
        return step.self_compose(self.steps)


@contextlib.contextmanager
def _without_convergence_notes() -> Iterator[None]:
    """Drop dp-accounting's notes on single Renyi orders that fail to converge.

    Such an order is left out, which can only raise epsilon.
    """

    def keep(record: logging.LogRecord) -> bool:
        return "failed to converge" not in record.getMessage()

    log = logging.getLogger("absl")
    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)


def _with_overflow(
    epsilon_at: Callable[[float], float], delta: float, overflow: float
) -> float:
    """Epsilon of the run whose batches are cut, from that of the run without a limit.

    The two runs can be coupled so that they differ only if some batch overflows, with a
    probability of at most `overflow` for either neighbour. Changing both sides of
    P[S] <= e^eps Q[S] + delta' by that much gives (eps, delta' + (1 + e^eps) overflow).
    So eps is valid once epsilon_at(delta - (1 + e^eps) overflow) <= eps. The left side
    grows with eps; iterating it from below climbs to the least solution, and the small
    step added each time makes the loop end just above it, where the inequality holds.
    """

    def demanded(candidate: float) -> float:
        left = delta - (1 + math.exp(min(candidate, 700.0))) * overflow
        if left <= 0:
            raise OverflowTooLikely(
                f"overflow_probability: {overflow:.1e} over all steps is too much for "
                f"delta = {delta:g}; enlarge the batch capacity"
            )
        return float(epsilon_at(left))

    candidate = demanded(0.0)
    while (needed := demanded(candidate)) > candidate:
        candidate = needed + 1e-5
    return candidate


def _bracket(excess: Callable[[float], float]) -> tuple[float, float]:
    """Logarithms of two noise multipliers: too small, and large enough."""
    high = 0.0
    while excess(high) > 0:
        high += math.log(2)
        if high > math.log(1e6):
            raise InputError(
                "epsilon: out of reach at this delta; allow a larger delta, fewer "
                "steps, or a larger capacity"
            )
    low = high - math.log(2)
    while excess(low) <= 0:
        low -= math.log(2)
        if low < math.log(1e-3):
            raise InputError("epsilon: so large that no noise worth the name is needed")
    return low, min(high, low + math.log(2))
