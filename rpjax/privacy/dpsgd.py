"""Epsilon of DP-SGD, by dp-accounting: sampled by coins, or in shuffled epochs.

The mechanism: each step takes some records, bounds each one's gradient, and adds
Gaussian noise to the sum, of standard deviation sigma times the most that one record
can change it. How gradients are bounded (`rpjax.gradients`) is no matter here, as long
as sigma is relative to that; which records a step takes is. Nothing is computed here
that dp-accounting computes; what is added is the choice of what to ask it, the
allowance for batches of fixed capacity, and the searches.
"""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from rpjax.counts import Release
from rpjax.errors import InputError
from rpjax.privacy import calibration, checks, gdp
from rpjax.privacy.accountants import Adjacency, Step
from rpjax.privacy.curve import Curve
from rpjax.privacy.private_run import (
    Accountant,
    PrivateRun,
    Sampling,
    participations,
    release_curve,
)
from rpjax.privacy.truncation import (
    OverflowTooLikely,
    Truncation,
    capacity,
    overflow_probability,
)

__all__ = [
    "Accountant",
    "Adjacency",
    "OverflowTooLikely",
    "Sampling",
    "Truncation",
    "capacity",
    "curve",
    "epsilon",
    "event",
    "noise_multiplier_for",
    "overflow_probability",
    "participations",
    "steps_for",
    "tpr",
]

MOST_STEPS = 10**9


def epsilon(
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
    *,
    sampling: Sampling = "poisson",
    truncation: Truncation | None = None,
    members: int = 1,
    releases: Sequence[Release] = (),
) -> float:
    """Upper bound on epsilon at `delta` of DP-SGD.

    Args:
        noise_multiplier: sigma, standard deviation of the noise on the sum of clipped
            gradients over the most that one record changes it. Epsilon is infinite
            below 1e-4, and where it would exceed 1e8.
        sampling_probability: q in (0, 1], the (expected) batch over the records.
        steps: number of noisy updates, empty batches included.
        delta: in (0, 1), well below 1 / records to mean something.
        accountant: "pld", privacy loss distributions (tight), or "rdp", Renyi
            composition (looser, the figure most papers print).
        adjacency: "add_remove", one record more or less; "zero_out", one record
            replaced by one without a gradient, so that the number of records is public;
            or "replace_one", one record exchanged for another, for which "rdp" has no
            answer under Poisson sampling.
        overflow_probability: bound on the chance that one step's Poisson batch exceeds
            the capacity of a fixed-size batch and is cut, uniformly at random; for all
            neighbouring data sets; folded into delta. Better, say
        truncation: how batches are cut, and leave its account to
            `rpjax.privacy.truncation`.
        sampling: "poisson", each record enters each step by its own coin; or
            "shuffled", each epoch takes every record once, in a fresh random order cut
            into batches of equal size. Shuffling is not amplified: a record meets one
            Gaussian mechanism an epoch, sigma for "zero_out" and sigma / 2 for
            "replace_one"; the closed form of their composition takes the place of
            "pld". "add_remove" is refused, because one record more shifts all batches
            after it.
        members: trainings on the same records, each with its own sampling and noise.
        releases: class counts that were released from the same records, once each
            (`rpjax.privacy.histogram`), whose cost is composed with the training's.

    Raises:
        InputError: a field outside its range, or an overflow too likely for `delta`.

    >>> f"{epsilon(10.0, 4096 / 50_000, 875, 1e-5):.3f}"
    '0.904'
    >>> shuffled = {"adjacency": "zero_out", "sampling": "shuffled"}
    >>> f"{epsilon(10.0, 4096 / 50_000, 875, 1e-5, **shuffled):.3f}"
    '3.652'
    """
    run = PrivateRun(
        *(sampling_probability, steps, delta, accountant, adjacency),
        *(overflow_probability, sampling, truncation, members, tuple(releases)),
    )
    return run.epsilon(noise_multiplier)


def curve(
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
    *,
    sampling: Sampling = "poisson",
    truncation: Truncation | None = None,
    members: int = 1,
    delta: float = 1e-5,
) -> Curve:
    """The whole guarantee for its own neighbours: epsilon, delta, attack ceilings.

    By "pld" a privacy loss distribution, or, of shuffled epochs, a Gaussian; by "rdp"
    Renyi divergences. An overflow that is folded into delta is added to the curve.
    Curves for different neighbours are not to be composed.

    Args:
        noise_multiplier: as for `epsilon`, and so are the others; but for
        sampling_probability: as there.
        steps: as there.
        accountant: as there.
        adjacency: as there.
        overflow_probability: as there.
        sampling: as there.
        truncation: as there.
        members: as there.
        delta: where the grid, and the account of truncation, are to be at their best;
            the curve is valid everywhere.

    >>> run = curve(10.0, 4096 / 50_000, 875)
    >>> f"{run.epsilon(1e-5):.3f} {run.epsilon(1e-6):.3f} {run.tpr(0.01):.4f}"
    '0.904 1.036 0.0187'
    """
    run = PrivateRun(
        *(sampling_probability, steps, delta, accountant, adjacency),
        *(overflow_probability, sampling, truncation, members),
    )
    return run.curve(noise_multiplier)


def tpr(
    fpr: npt.ArrayLike,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
    *,
    sampling: Sampling = "poisson",
    truncation: Truncation | None = None,
    members: int = 1,
) -> gdp.Floats:
    """Largest true-positive rate of any test at these false-positive rates.

    The ROC curve that no membership attack on the run can rise above: that of `curve`,
    by the PLD accountant. Arguments as for `epsilon`.

    >>> f"{tpr(0.01, 10.0, 4096 / 50_000, 875):.3f}"
    '0.019'
    """
    run = PrivateRun(
        *(sampling_probability, steps, 1e-5, "pld", adjacency),
        *(overflow_probability, sampling, truncation, members),
    )
    return run.tpr(fpr, noise_multiplier)


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
    *,
    sampling: Sampling = "poisson",
    truncation: Truncation | None = None,
    members: int = 1,
    releases: Sequence[Release] = (),
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
    run = PrivateRun(
        *(sampling_probability, steps, delta, accountant, adjacency),
        *(overflow_probability, sampling, truncation, members, tuple(releases)),
    )
    for release in run.releases:
        alone = release_curve(release, adjacency).epsilon(delta)
        if alone >= epsilon:
            raise InputError(
                f"epsilon = {epsilon:g}: releasing class counts alone costs "
                f"{alone:.4g} at delta = {delta:g}; give them more noise than "
                f"{release.scale:g} records, or allow a larger epsilon"
            )
    return calibration.least_noise(run.epsilon, epsilon, delta)


def steps_for(
    epsilon: float,
    delta: float,
    noise_multiplier: float,
    sampling_probability: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add_remove",
    overflow_probability: float = 0.0,
    *,
    sampling: Sampling = "poisson",
    truncation: Truncation | None = None,
    members: int = 1,
    releases: Sequence[Release] = (),
) -> int:
    """Largest number of steps whose `epsilon` is at most the target.

    Arguments as for `epsilon`.

    Raises:
        InputError: the target does not allow a single step, or more than 1e9.

    >>> steps_for(8.0, 1e-5, noise_multiplier=0.8, sampling_probability=0.02)
    1550
    """
    checks.positive("epsilon", epsilon)

    def epsilon_at(steps: int) -> float:
        run = PrivateRun(
            *(sampling_probability, steps, delta, accountant, adjacency),
            *(overflow_probability, sampling, truncation, members, tuple(releases)),
        )
        return run.epsilon(noise_multiplier)

    found = calibration.most_steps(epsilon_at, epsilon, MOST_STEPS)
    if found == 0:
        raise InputError(
            f"epsilon = {epsilon:g}: one step exceeds it at delta = {delta:g}; add "
            "noise, or take a smaller sampling probability"
        )
    if found == MOST_STEPS:
        raise InputError(
            f"epsilon = {epsilon:g}: allows more than {MOST_STEPS:g} steps; no "
            "training takes so many"
        )
    return found


def event(
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    *,
    sampling: Sampling = "poisson",
    truncation: Truncation | None = None,
    members: int = 1,
) -> Any:
    """The run as a `dp_accounting.DpEvent`, for other libraries and accountants.

    Poisson steps are `PoissonSampledDpEvent`s of a Gaussian, or, with `truncation`,
    `TruncatedSubsampledGaussianDpEvent`s on a data set of its size. Shuffled epochs are
    the Gaussians that one record meets, unsampled: an accountant has to be told
    REPLACE_SPECIAL, which is "zero_out" here, and never ADD_OR_REMOVE_ONE. For
    REPLACE_ONE dp-accounting's PLD accountant doubles the sensitivity of a Gaussian by
    itself, and its RDP accountant does not: halve the noise multiplier for that one.
    Arguments as for `epsilon`.

    >>> event(10.0, 0.08, 875)  # doctest: +ELLIPSIS
    SelfComposedDpEvent(event=PoissonSampledDpEvent(sampling_probability=0.08, ...
    """
    from dp_accounting import dp_event

    checks.not_negative("noise_multiplier", noise_multiplier)
    run = PrivateRun(
        *(sampling_probability, steps, 1e-5, "pld", "zero_out"),
        *(0.0, sampling, truncation, members),
    )
    run.check()
    if sampling == "shuffled":
        one: Any = dp_event.GaussianDpEvent(noise_multiplier)
    elif truncation is None:
        one = Step(noise_multiplier, sampling_probability).event()
    else:
        size, places, _ = truncation
        one = Step(noise_multiplier, sampling_probability, size, places).event()
    return dp_event.SelfComposedDpEvent(one, run.uses)
