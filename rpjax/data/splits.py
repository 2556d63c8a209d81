"""Fixed random choices among records: the same on every machine and NumPy version."""

import dataclasses
import math

import numpy as np

from rpjax.errors import InputError

# The split of every source that comes without a test part, unless the caller asks for
# another. It is a constant of the library: changing it changes everyone's results.
SPLIT_SEED = 20_211


@dataclasses.dataclass(frozen=True)
class Split:
    """How a source without a test part is divided.

    test_fraction: share of the records that become test records, rounded up.
    seed: at least 0; the split is a function of it and of the labels, nothing else.
    """

    test_fraction: float = 0.2
    seed: int = SPLIT_SEED

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise InputError(
                f"test_fraction: {self.test_fraction}; must lie between 0 and 1"
            )
        _check_seed(self.seed)

    def positions(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the train and of the test records, each ascending."""
        # Rounding up a hair early keeps 0.07 * 100 = 7.000000000000001 at seven.
        size = math.ceil(self.test_fraction * len(labels) - 1e-9)
        if not 0 < size < len(labels):
            raise InputError(
                f"test_fraction: {self.test_fraction} of {len(labels)} records leaves "
                "no train or no test record; give more records or another fraction"
            )
        test = stratified(labels, size, self.seed)
        return np.setdiff1d(np.arange(len(labels)), test), test

    def __str__(self) -> str:
        """The words for a data set's `source`."""
        return f"stratified split, test fraction {self.test_fraction}, seed {self.seed}"


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Ascending positions of `size` random records, the classes in proportion.

    Every class is within one record of its exact share (largest remainder; ties go to
    the lower class), and each subset of a class is equally likely.

    Raises:
        InputError: unless 1 <= size <= number of records and seed >= 0.
    """
    if not 1 <= size <= len(labels):
        raise InputError(f"size: {size}; must lie between 1 and {len(labels)}")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = shuffled(len(labels), seed)
    by_class = order[np.argsort(classes[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[rank < np.repeat(_shares(counts, size), counts)])


def shuffled(size: int, seed: int) -> np.ndarray:
    """A random order of 0, ..., size - 1.

    Made from the raw output of PCG64, which NumPy promises never to change; it makes
    no such promise for `Generator.permutation`.
    """
    _check_seed(seed)
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")


def _shares(counts: np.ndarray, size: int) -> np.ndarray:
    """Whole numbers in proportion to `counts` that add up to `size`."""
    shares, remainders = np.divmod(counts.astype(np.int64) * size, counts.sum())
    left = size - shares.sum()
    shares[np.argsort(-remainders, kind="stable")[:left]] += 1
    return shares


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"seed: {seed}; must be 0 or more")
