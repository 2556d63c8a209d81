"""Who is in which training set: fixed, recorded designs for membership inference.

Positions count into a pool of records. Every design follows from one seed and is made
of plain arrays, so that any attack can be repeated on it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from rpjax.errors import InputError

Protocol = Literal["halves", "quarters"]


@dataclass(frozen=True)
class Design:
    """A target's and its shadow models' training sets.

    protocol: see `design`.
    members, non_members: positions in and out of the target's training set, sorted.
    shadow_members, shadow_non_members: the same for each shadow model, (shadows, n).
    seed: from which all of it follows.
    """

    protocol: Protocol
    members: Int[np.ndarray, " n"]
    non_members: Int[np.ndarray, " o"]
    shadow_members: Int[np.ndarray, "shadows n"]
    shadow_non_members: Int[np.ndarray, "shadows p"]
    seed: int


def design(
    pool: int, shadows: int, seed: int = 0, protocol: Protocol = "halves"
) -> Design:
    """Training sets for one target and `shadows` shadow models.

    "halves": the target has a random half of the pool, and each shadow model another
    random half: the attacker knows the pool, but not who of it is in.
    "quarters": the pool is cut into four (Salem et al., arXiv 1806.01246): target in,
    target out, and two that the attacker owns; each shadow model splits the attacker's
    two afresh. No record of the target's is seen by a shadow model.
    """
    if protocol not in ("halves", "quarters"):
        raise InputError(f"protocol is {protocol!r}; it is 'halves' or 'quarters'")
    if shadows < 0:
        raise InputError(f"shadows is {shadows}; it must be >= 0")
    if pool < 4:
        raise InputError(f"the pool has {pool} records; a design needs at least 4")
    rng = np.random.default_rng([seed, 0xDE51])
    order = rng.permutation(pool)
    if protocol == "halves":
        size, target, owned = pool // 2, order, order
    else:
        size = pool // 4
        target, owned = order[: 2 * size], order[2 * size : 4 * size]
    splits = [rng.permutation(owned) for _ in range(shadows)]
    shuffled = np.array(splits, dtype=int).reshape(shadows, len(owned))
    return Design(
        protocol=protocol,
        members=np.sort(target[:size]),
        non_members=np.sort(target[size:]),
        shadow_members=np.sort(shuffled[:, :size], axis=1),
        shadow_non_members=np.sort(shuffled[:, size:], axis=1),
        seed=seed,
    )
