"""Coins: which canaries each model is trained on, drawn before any training.

Two designs, for the two sets of models that an audit needs. In set A (calibration) the
coins are known to whoever tunes the attack, and every canary is in exactly half of the
models, which wastes no model. In set B (audit) the coins are fair, independent and
secret, because the bounds rest on just that. A balanced set can never be audited: the
coins of all but one model tell the last one's.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rpjax.errors import InputError
from rpjax.privacy import checks

Kind = Literal["balanced", "independent"]


@dataclass(frozen=True, eq=False)
class Coins:
    """Who is in: one coin for each canary and model.

    inside: bool (models, canaries); True where the model is trained on the canary or,
        for pairs, on the first of the two.
    kind: how they were drawn; only "independent" coins can be audited.
    seed: from which they follow.
    """

    inside: npt.NDArray[np.bool_]
    kind: Kind
    seed: int

    def __post_init__(self) -> None:
        """Refuse what is not a table of coins, or not as balanced as it says."""
        checks.one_of("kind", self.kind, ("balanced", "independent"))
        inside = table(self.inside, "inside")
        if self.kind == "balanced" and (2 * inside.sum(axis=0) != len(inside)).any():
            raise InputError("inside: a canary is not in exactly half of the models")


def balanced(models: int, canaries: int, seed: int) -> Coins:
    """Coins for calibration (set A): each canary is in exactly half of the models.

    The first models' coins are the same however many models follow; so are those of
    `independent`.

    Raises:
        InputError: an odd number of models, or fewer than two; no canary.

    >>> balanced(4, 3, seed=0).inside.sum(axis=0)
    array([2, 2, 2])
    """
    checks.whole("models", models, 2)
    checks.whole("canaries", canaries)
    checks.whole("seed", seed, 0)
    if models % 2:
        raise InputError(f"models = {models}: must be even for a balanced design")
    first = np.random.default_rng([seed, 0xA]).random((models // 2, canaries)) < 0.5
    # two and two are each other's opposite, so that more models only add to these
    inside = np.stack([first, ~first], axis=1).reshape(models, canaries)
    return Coins(inside, "balanced", seed)


def independent(models: int, canaries: int, seed: int) -> Coins:
    """Coins that may be audited (set B): fair, and independent of one another.

    Raises:
        InputError: no model or no canary.

    >>> independent(2, 3, seed=0).inside.shape
    (2, 3)
    """
    checks.whole("models", models)
    checks.whole("canaries", canaries)
    checks.whole("seed", seed, 0)
    rng = np.random.default_rng([seed, 0xB])
    return Coins(rng.random((models, canaries)) < 0.5, "independent", seed)


def table(coins: Coins | npt.ArrayLike, field: str) -> npt.NDArray[np.bool_]:
    """Coins as bool (models, canaries); a plain array of zeros and ones will do.

    Raises:
        InputError: another shape, nothing in it, or other values.
    """
    array = np.asarray(coins.inside if isinstance(coins, Coins) else coins)
    if array.ndim != 2 or not array.size:
        raise InputError(f"{field}: shape {array.shape}; must be (models, canaries)")
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{field}: must hold only True and False, or 1 and 0")
    return array.astype(np.bool_)
