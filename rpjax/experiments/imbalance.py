"""Imbalanced classes: which records are kept, the loss, and the counts that it knows.

Three sources of counts, as `rpjax.counts` has them. "data" is counted on the records
that are trained on, which no DP-SGD learner takes. "public" is what the user says that
everyone knows: the class counts of the pool, in proportion to the records trained on,
so that they do not tell which of the pool these are. "released" are those of the
records trained on, with noise, and DP-SGD pays for them.
"""

import dataclasses
import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rpjax.counts import Counts, Release, counted, tally
from rpjax.data.imbalance import (
    Imbalance,
    exponential_counts,
    step_counts,
    thinned,
    weighted_counts,
    with_counts,
)
from rpjax.data.records import Dataset
from rpjax.errors import InputError
from rpjax.experiments.config import ExperimentConfig, ImbalanceConfig, LossConfig
from rpjax.learners import losses
from rpjax.learners.losses import Losses
from rpjax.privacy.histogram import Histogram

# the others look at a record alone, or at its batch
COUNTED = (
    *("class_weighted", "class_balanced", "ldam_drw", "logit_adjusted"),
    *("balanced_softmax", "mfe"),
)
# classes are reported one by one where the largest is so many times the smallest
UNEVEN = 1.5


# --------------------------------------------------------------------------- the split


def split(
    config: ExperimentConfig, dataset: Dataset
) -> tuple[Dataset, Imbalance | None]:
    """The data set with the configured imbalance; its test part stays as it is."""
    options = config.imbalance
    if options.split == "none":
        return dataset, None
    labels = dataset.train.labels
    available = tally(labels, dataset.classes).tolist()
    counts = split_counts(options, dataset.classes, available)
    seed = config.seed if options.seed is None else options.seed
    made = with_counts(labels, counts, seed)
    if options.split in ("step", "exponential"):
        made = dataclasses.replace(made, kind=options.split, ratio=options.ratio)
    return thinned(dataset, made), made


def split_counts(
    options: ImbalanceConfig, classes: int, available: Sequence[int] | None
) -> tuple[int, ...]:
    """Records of each class that a split keeps.

    available: how many there are, where that is known.

    Raises:
        InputError: a class that has too few records, or a split that cannot be told
            without knowing how many there are.
    """
    largest = options.largest
    if available is None and (options.split == "weights" or largest is None):
        raise InputError(
            f"imbalance.split is {options.split}, whose counts follow from those of "
            "the data, which are not looked at here; say step or exponential and "
            "imbalance.largest"
        )
    if options.split == "weights":
        assert available is not None
        return weighted_counts(available, options.weights)
    if largest is None:
        assert available is not None
        largest = min(available)
    makers = {"step": step_counts, "exponential": exponential_counts}
    counts = makers[options.split](largest, classes, options.ratio)
    for label, (count, had) in enumerate(zip(counts, available or counts, strict=True)):
        if count < 1:
            raise InputError(
                f"imbalance.ratio is {options.ratio:g}, which leaves nothing of class "
                f"{label}; imbalance.largest is {largest}"
            )
        if count > had:
            raise InputError(
                f"imbalance.largest is {largest}, which takes {count} records of class "
                f"{label}; there are {had} (data.size is small: all of them by "
                "--size full)"
            )
    return counts


def uneven(counts: Sequence[int]) -> bool:
    """Whether classes differ so much that accuracy alone says little."""
    return max(counts) >= UNEVEN * min(counts)


# -------------------------------------------------------------------------- the counts


def knows_counts(options: LossConfig) -> bool:
    """Whether a loss is made of class counts."""
    return options.name in COUNTED


def releases(options: LossConfig) -> bool:
    """Whether counts are released for it."""
    return knows_counts(options) and options.counts == "released"


def secret_of(config: ExperimentConfig) -> bytes:
    """What the noise on released counts comes from: fresh, or repeatable as all."""
    if config.training.noise_seed == "secret":
        return secrets.token_bytes(32)
    return hashlib.sha256(f"rpjax class counts {config.seed}".encode()).digest()


def known(
    config: ExperimentConfig, dataset: Dataset, positions: np.ndarray, secret: bytes
) -> Counts | None:
    """The counts that the configured loss knows; None where it knows none.

    positions: of the pool's records, those that are trained on.
    """
    options, labels = config.loss, dataset.train.labels
    if not knows_counts(options):
        return None
    if options.counts == "public":
        return _in_proportion(tally(labels, dataset.classes).tolist(), len(positions))
    if options.counts == "released":
        histogram = Histogram(options.count_noise, options.count_noise_kind)
        return histogram.release(labels[positions], dataset.classes, secret)
    return counted(labels[positions], dataset.classes)


def on_paper(
    config: ExperimentConfig, classes: int, records: int, pool: Sequence[int] | None
) -> Counts | None:
    """As `known`, where there are no labels: no figure depends on the values.

    pool: class counts of the pool; None takes classes for equal.
    """
    options = config.loss
    if not knows_counts(options):
        return None
    values = _in_proportion(pool or [1] * classes, records).values
    release = None
    if options.counts == "released":
        release = Release(options.count_noise, options.count_noise_kind)
    return Counts(values, options.counts, release)


def _in_proportion(pool: Sequence[int], records: int) -> Counts:
    total = sum(pool)
    return Counts(tuple(count * records / total for count in pool), "public")


def as_dict(counts: Counts) -> dict[str, Any]:
    """Counts as JSON values."""
    return {
        "values": list(counts.values),
        "source": counts.source,
        "release": None if counts.release is None else counts.release._asdict(),
    }


def from_dict(values: dict[str, Any]) -> Counts:
    """The counts that `as_dict` wrote."""
    release = values["release"]
    return Counts(
        tuple(values["values"]),
        values["source"],
        None if release is None else Release(**release),
    )


# ---------------------------------------------------------------------------- the loss


def loss_of(options: LossConfig, counts: Counts | None, steps: int) -> Losses:
    """The configured loss, for a training of so many steps.

    Raises:
        InputError: one that knows class counts, where there are none.
    """
    if counts is None and knows_counts(options):
        raise InputError(f"loss.name is {options.name}; no class counts are known")
    plain: dict[str, Callable[[], Losses]] = {
        "cross_entropy": lambda: losses.cross_entropy,
        "focal": lambda: losses.focal(options.exponent),
        "msfe": losses.msfe,
    }
    if counts is None:
        return plain[options.name]()
    of_counts: dict[str, Callable[[Counts], Losses]] = {
        "class_weighted": losses.class_weighted,
        "class_balanced": lambda n: losses.class_balanced(n, options.beta),
        "ldam_drw": lambda n: losses.deferred(
            n,
            max(1, round(options.deferred * steps)),
            options.beta,
            losses.ldam(n, options.margin, options.scale),
        ),
        "logit_adjusted": lambda n: losses.logit_adjusted(n, options.tau),
        "balanced_softmax": losses.balanced_softmax,
        "mfe": losses.mfe,
    }
    return of_counts[options.name](counts)


def private_loss_of(options: LossConfig, counts: Counts | None, steps: int) -> Losses:
    """The same for DP-SGD.

    Raises:
        InputError: one that is not private, in the configuration's words.
    """
    if options.name == "msfe":
        raise InputError(
            "loss.name is msfe, whose weights come from the records of a batch: not "
            "private under DP-SGD; mfe with public or released counts is"
        )
    if knows_counts(options) and options.counts == "data":
        raise InputError(
            f"loss.counts is data and loss.name {options.name}: under DP-SGD the class "
            "counts of the training records are data; say --loss-counts public if "
            "everyone may know them, or released to have noise on them, which the "
            "guarantee pays for"
        )
    return loss_of(options, counts, steps)


def described(
    options: LossConfig, loss: Losses, counts: Counts | None
) -> dict[str, Any]:
    """A loss as results.json has it: its name, and the counts that it knows."""
    return {
        "name": getattr(loss, "name", options.name.replace("_", "-")),
        "counts": None if counts is None else as_dict(counts),
    }
