"""Canaries of several kinds in the same training sets: one set of models for all.

Every canary has its own coin, whatever its kind, so each kind can be attacked and
audited as if it were alone; to the models of one kind's canaries, the others are a part
of the training set that their own coins decide. As many more canaries disturb training
more, they are few of each kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from rpjax.attacks.canaries import Kind, Planted, plant
from rpjax.attacks.membership import Membership
from rpjax.attacks.shadow_models import ShadowModels
from rpjax.audits import Coins
from rpjax.data.records import Records
from rpjax.errors import InputError


@dataclass(frozen=True, eq=False)
class Mixture:
    """Training records with canaries of several kinds among them.

    pool, fixed: as in `Planted`. planted: the canaries of each kind, in one order; all
    with this pool and these fixed records.
    """

    pool: Records
    fixed: Int[np.ndarray, " f"]
    planted: tuple[Planted, ...]

    @property
    def canaries(self) -> Int[np.ndarray, "m ..."]:
        """Those of all kinds, in the order of the coins."""
        return np.concatenate([each.canaries for each in self.planted])

    @property
    def asked(self) -> Records:
        """All canaries, as models are asked about them."""
        return self.pool.take(self.canaries.reshape(-1))

    def membership(self, coins: Coins) -> Membership:
        """Who trains which model, by these coins."""
        return Membership(self.pool, self.fixed, self.canaries, coins.inside)

    def coins(self, kind: Kind, coins: Coins) -> Coins:
        """Those of one kind's canaries."""
        return replace(coins, inside=coins.inside[:, self._place(kind, 1)])

    def only(
        self, kind: Kind, models: ShadowModels, about: Sequence[str]
    ) -> ShadowModels:
        """What models answered about one kind's canaries.

        about: the questions that were about all canaries (`asked`).
        """
        planted = next(each for each in self.planted if each.kind == kind)
        inside = models.membership.inside[:, self._place(kind, 1)]
        asked = self._place(kind, planted.canaries.ndim)
        return ShadowModels(
            Membership(self.pool, self.fixed, planted.canaries, inside),
            models.seeds,
            {name: models.answers[name][..., asked, :] for name in about},
        )

    def _place(self, kind: Kind, records_per_coin: int) -> slice:
        """Where a kind's coins, or its asked records, are among all."""
        first = 0
        for each in self.planted:
            count = len(each.canaries) * records_per_coin
            if each.kind == kind:
                return slice(first, first + count)
            first += count
        raise InputError(
            f"kind is {kind!r}; planted were {', '.join(p.kind for p in self.planted)}"
        )


def plant_kinds(
    records: Records,
    kinds: Sequence[Kind],
    count: int,
    *,
    seed: int = 0,
    others: Records | None = None,
) -> Mixture:
    """`count` canaries of each kind among the training records, no record twice.

    Arguments as for `plant`; others: for the kind "out_of_distribution", if it is one.

    Raises:
        InputError: as `plant`; no kind, one twice, or "opposite" pairs among others,
            whose coins mean something else.
    """
    if not kinds or len(set(kinds)) < len(kinds):
        raise InputError(f"kinds is {tuple(kinds)}; name one or more, each once")
    if "opposite" in kinds and len(kinds) > 1:
        raise InputError(
            "kinds has 'opposite' among others; its coins choose between two records, "
            "those of the others between in and out: audit it by itself"
        )
    if count * len(kinds) >= len(records):
        raise InputError(
            f"count is {count} of {len(kinds)} kinds; there are {len(records)} records "
            "to plant them among"
        )
    pool, fixed = records, np.arange(len(records))
    canaries: dict[Kind, np.ndarray] = {}
    # copies last: their originals stay in training, and are nobody's canaries
    for kind in sorted(kinds, key=lambda kind: kind == "near_duplicate"):
        given = others if kind == "out_of_distribution" else None
        new = plant(pool.take(fixed), kind, count, seed=seed, others=given)
        pool, place = _with(pool, fixed, new)
        fixed = place[new.fixed]
        canaries[kind] = place[new.canaries]
    planted = tuple(Planted(kind, pool, fixed, canaries[kind]) for kind in kinds)
    return Mixture(pool, fixed, planted)


def _with(pool: Records, fixed: np.ndarray, new: Planted) -> tuple[Records, np.ndarray]:
    """The pool with what was planted among its fixed records; and where these are now.

    Planting relabels some of the fixed records, and adds others behind them.
    """
    labels = pool.labels.copy()
    labels[fixed] = new.pool.labels[: len(fixed)]
    images = np.asarray(pool.images[:])
    added = slice(len(fixed), None)
    extra = len(new.pool) - len(fixed)
    ids = int(pool.ids.max()) + 1 + np.arange(extra)
    joined = Records(
        np.concatenate([images, np.asarray(new.pool.images[:])[added]]),
        np.concatenate([labels, new.pool.labels[added]]),
        np.concatenate([pool.ids, ids.astype(np.int32)]),
    )
    return joined, np.concatenate([fixed, len(pool) + np.arange(extra)])
