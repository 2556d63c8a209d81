"""Who is in which training set: coins for canaries, and records that all models see."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from rpjax.audits.protocol import Adjacency
from rpjax.data.records import Records
from rpjax.errors import InputError


@dataclass(frozen=True, eq=False)
class Membership:
    """Who trains which model: records that all see, and canaries that coins decide.

    pool: all records. fixed: positions of those that every model is trained on.
    canaries: positions, (m,), in or out; or pairs of them, (m, 2), of one label each,
        the first of which is in where the coin says so, and the second where not.
    inside: the coins, bool (models, m).

    Raises:
        InputError: for shapes that do not fit, or a record that is named twice.
    """

    pool: Records
    fixed: Int[np.ndarray, " f"]
    canaries: Int[np.ndarray, "m ..."]
    inside: Bool[np.ndarray, "models m"]

    def __post_init__(self) -> None:
        pairs = self.canaries.ndim == 2 and self.canaries.shape[1] == 2
        if not pairs and self.canaries.ndim != 1:
            raise InputError(
                f"canaries has shape {self.canaries.shape}; it is (m,), or (m, 2) for "
                "pairs"
            )
        if self.inside.ndim != 2 or self.inside.shape[1] != len(self.canaries):
            raise InputError(
                f"inside has shape {self.inside.shape}; it is (models, "
                f"{len(self.canaries)}), a coin for each canary"
            )
        named = np.concatenate([self.fixed, self.canaries.reshape(-1)])
        if len(np.unique(named)) < len(named):
            raise InputError("fixed and canaries name a record twice; name each once")
        if named.min() < 0 or named.max() >= len(self.pool):
            raise InputError(
                f"fixed and canaries must lie between 0 and {len(self.pool) - 1}"
            )
        if pairs:
            first, second = self.pool.labels[self.canaries.T]
            if (first != second).any():
                raise InputError(
                    "canaries has a pair of two labels; the two of a pair share one"
                )

    @property
    def paired(self) -> bool:
        """Whether a coin decides between two records, and not between in and out."""
        return self.canaries.ndim == 2

    @property
    def adjacency(self) -> Adjacency:
        """What two training sets differ in that differ in one coin."""
        if self.paired:
            return "replace a canary by its pair, label equal"
        return "add or remove one canary"

    @property
    def expected(self) -> float:
        """Records that a model is trained on, on average over fair coins."""
        share = 1.0 if self.paired else 0.5
        return len(self.fixed) + share * len(self.canaries)

    def lists(self) -> Int[np.ndarray, "models n"]:
        """Each model's training records, -1 where it has fewer than it could."""
        fixed = np.broadcast_to(self.fixed, (len(self.inside), len(self.fixed)))
        if self.paired:
            chosen = np.where(self.inside, *self.canaries.T)
            return np.concatenate([fixed, chosen], axis=1)
        chosen = np.where(self.inside, self.canaries, -1)
        # those that are in first, in their order
        first = np.argsort(~self.inside, axis=1, kind="stable")
        return np.concatenate([fixed, np.take_along_axis(chosen, first, 1)], axis=1)
