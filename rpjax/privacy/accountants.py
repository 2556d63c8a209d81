"""Where dp-accounting is asked: Renyi curves and privacy loss distributions of steps.

Nothing is computed here that dp-accounting computes. One step's curve is kept, so that
epsilon for another number of the same steps costs one composition.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

# dp_accounting is imported where it is used: it takes half a second, and a run without
# DP-SGD has no need of it.

Adjacency = Literal["add_remove", "replace_one", "zero_out"]

# whole orders are enough to tell how large an epsilon will be
ROUGH_ORDERS = (*range(2, 65), 128, 256, 512, 1024)


class Step(NamedTuple):
    """One noisy step of DP-SGD under Poisson sampling.

    noise_multiplier, sampling_probability: sigma and q; q = 1 is a Gaussian mechanism.
    size, capacity: of a data set whose batches are cut to so many records, uniformly at
        random; None where batches take all that are sampled.
    """

    noise_multiplier: float
    sampling_probability: float
    size: int | None = None
    capacity: int | None = None

    def event(self) -> Any:
        """The step as a `dp_accounting.DpEvent`."""
        from dp_accounting import dp_event

        if self.size is not None:
            return dp_event.TruncatedSubsampledGaussianDpEvent(
                dataset_size=self.size,
                sampling_probability=self.sampling_probability,
                truncated_batch_size=self.capacity,
                noise_multiplier=self.noise_multiplier,
            )
        return dp_event.PoissonSampledDpEvent(
            self.sampling_probability, dp_event.GaussianDpEvent(self.noise_multiplier)
        )


def renyi(step: Step, steps: int) -> Callable[[float], float]:
    """(delta) -> epsilon of so many steps, by Renyi divergences."""
    return functools.partial(_renyi_epsilon, step, steps, None)


def divergences(step: Step, steps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Renyi orders, and the divergence of so many steps at each."""
    orders, curve = _renyi_step(step, None)
    return tuple(map(float, orders)), tuple(float(steps * each) for each in curve)


def losses(step: Step, steps: int, delta: float, adjacency: Adjacency) -> Any:
    """The privacy loss distribution of so many steps, on a grid that suits `delta`.

    The grid only ever rounds epsilon upward.
    """
    grid = _grid(rough(step._replace(size=None, capacity=None), steps, delta))
    return _step_losses(step, grid, adjacency).self_compose(steps)


def rough(step: Step, steps: int, delta: float) -> float:
    """How large epsilon will be: by Renyi divergences of whole orders."""
    return _renyi_epsilon(step, steps, ROUGH_ORDERS, delta)


def relation(adjacency: Adjacency) -> Any:
    """dp-accounting's name for the neighbours."""
    from dp_accounting import NeighboringRelation

    return {
        "add_remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
        "replace_one": NeighboringRelation.REPLACE_ONE,
        "zero_out": NeighboringRelation.REPLACE_SPECIAL,
    }[adjacency]


def _renyi_epsilon(
    step: Step, steps: int, orders: tuple[int, ...] | None, delta: float
) -> float:
    from dp_accounting import rdp

    at, curve = _renyi_step(step, orders)
    return float(rdp.compute_epsilon(at, steps * curve, delta)[0])


@functools.lru_cache(maxsize=64)
def _renyi_step(step: Step, orders: tuple[int, ...] | None) -> tuple[Any, Any]:
    from dp_accounting import rdp

    with _without_convergence_notes():
        accountant = rdp.RdpAccountant(orders).compose(step.event())
    return accountant.orders, accountant.rdp


@functools.lru_cache(maxsize=8)
def _step_losses(step: Step, grid: float, adjacency: Adjacency) -> Any:
    from dp_accounting.pld import privacy_loss_distribution

    if step.size is None:
        return privacy_loss_distribution.from_gaussian_mechanism(
            standard_deviation=step.noise_multiplier,
            value_discretization_interval=grid,
            sampling_prob=step.sampling_probability,
            neighboring_relation=relation(adjacency),
        )
    return privacy_loss_distribution.from_truncated_subsampled_gaussian_mechanism(
        dataset_size=step.size,
        sampling_probability=step.sampling_probability,
        truncated_batch_size=step.capacity,
        noise_multiplier=step.noise_multiplier,
        value_discretization_interval=grid,
        neighboring_relation=relation(adjacency),
    )


def _grid(about: float) -> float:
    """1e-3 for epsilons from 1 to 1000, finer for smaller ones, coarser for larger.

    Small epsilons would be rounded up by a tenth, large ones would need gigabytes. In
    powers of two, so that neighbouring numbers of steps share one step's distribution.
    """
    finer = round(math.log2(min(max(about, 1e-2), 1.0)))
    coarser = math.ceil(math.log2(max(about / 1000, 1.0)))
    return 1e-3 * 2.0 ** (finer + coarser)


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
