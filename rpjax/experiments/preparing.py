"""An experiment made ready: data, who is in which training set, learners; or a refusal.

Nothing is written here, and whatever cannot work is refused before anything is.
"""

from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from rpjax.counts import Counts, tally
from rpjax.data import Dataset, load
from rpjax.data.imbalance import Imbalance
from rpjax.data.membership import Design, design
from rpjax.errors import InputError
from rpjax.experiments import imbalance
from rpjax.experiments.checks import check, check_crop
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.methods import Plan, plan
from rpjax.experiments.presets import resolved, sized
from rpjax.experiments.transfer import check_start
from rpjax.training import counter, devices
from rpjax.training.loop import sampler_for, split_slots


class Prepared(NamedTuple):
    """A checked experiment, before anything is written.

    imbalance: how the data set was thinned out, if it was. counts: those of the classes
    that the loss knows, if it knows any.
    """

    config: ExperimentConfig
    dataset: Dataset
    design: Design
    plans: tuple[Plan, ...]
    imbalance: Imbalance | None = None
    counts: Counts | None = None

    @property
    def training_positions(self) -> np.ndarray:
        """Which of the pool's records the targets are trained on."""
        return _trained_on(self.config, self.dataset, self.design)

    @property
    def uneven(self) -> bool:
        """Whether classes are looked at one by one."""
        return self.imbalance is not None or imbalance.uneven(self.class_counts)

    @property
    def class_counts(self) -> list[int]:
        """Of the pool, as it was thinned out."""
        return _tally(self.dataset, np.arange(len(self.dataset.train)))

    @property
    def member_class_counts(self) -> list[int]:
        """Of the records that targets are trained on."""
        return _tally(self.dataset, self.training_positions)


def _trained_on(
    config: ExperimentConfig, dataset: Dataset, membership: Design
) -> np.ndarray:
    if config.train_on == "all":
        return np.arange(len(dataset.train))
    return membership.members


def _tally(dataset: Dataset, positions: np.ndarray) -> list[int]:
    counts: list[int] = tally(dataset.train.labels[positions], dataset.classes).tolist()
    return counts


def prepare(
    config: ExperimentConfig,
    console: Console | None = None,
    *,
    kept: dict[str, Any] | None = None,
    secret: bytes | None = None,
) -> Prepared:
    """Load the data, fill in the preset and build every learner, or refuse.

    kept: class counts that were released before, for this very experiment; None draws
        them, from `secret` where that is given.
    """
    check(config)
    dataset = sized(config, loaded(config, console))
    dataset, thinned = imbalance.split(config, dataset)
    config = resolved(config, dataset)
    check_crop(config, dataset.shape)
    shadows = config.attack.shadows
    if shadows is None or shadows < 1:
        raise InputError(f"shadows is {shadows}; the attacks need at least 1")
    pool = len(dataset.train)
    membership = design(pool, shadows, config.seed, config.attack.protocol)
    positions = _trained_on(config, dataset, membership)
    records = len(positions)
    if kept is None:
        secret = secret or imbalance.secret_of(config)
        counts = imbalance.known(config, dataset, positions, secret)
    else:
        counts = imbalance.from_dict(kept)
    plans = tuple(
        plan(config, name, dataset.classes, records, counts) for name in config.methods
    )
    for each in plans:
        check_start(config.transfer, dataset, each.learner.mechanism.private)
        each.guarantee(dataset.shape)
        sampler = sampler_for(each.learner, each.records, each.batch_size)
        devices.layout(
            config.training.devices, each.learner.members, split_slots(sampler)
        )
    return Prepared(config, dataset, membership, plans, thinned, counts)


def loaded(config: ExperimentConfig, console: Console | None = None) -> Dataset:
    """The configured data set, all of it."""
    options = config.data
    size = options.image_size
    with counter("images", console) as tell:
        return load(
            options.name,
            options.dir,
            image_size=None if size is None else (size, size),
            stored=options.stored,
            broken=options.broken,
            workers=options.workers,
            tell=tell,
        )
