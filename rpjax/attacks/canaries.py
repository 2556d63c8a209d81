"""Canaries: records planted in training sets by coins, to see whether they show.

A leak is measured on the records that an attacker would choose. Averages over ordinary
records hide it: Aerni, Zhang and Tramèr (CCS 2024, arXiv 2404.17399) found 28 to 74 %
of mislabelled canaries where the usual figures had been 1 to 7 %. The kind and the
number are to be chosen before any audited coin is looked at.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from rpjax.attacks.membership import Membership
from rpjax.attacks.questions import View
from rpjax.audits import Coins
from rpjax.data.records import Records
from rpjax.errors import InputError

Kind = Literal[
    "clean",
    "mislabelled",
    "near_duplicate",
    "out_of_distribution",
    "blank",
    "opposite",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

# above that share of the training records, canaries cost accuracy
HARMLESS = 0.02


@dataclass(frozen=True, eq=False)
class Planted:
    """Training records with canaries among them.

    pool: all records; those that were made have ids of their own.
    fixed, canaries: see `Membership`; pairs only for the kind "opposite".
    """

    kind: Kind
    pool: Records
    fixed: Int[np.ndarray, " f"]
    canaries: Int[np.ndarray, "m ..."]

    @property
    def share(self) -> float:
        """Canaries per record that every model is trained on."""
        return len(self.canaries) / len(self.fixed)

    @property
    def asked(self) -> Records:
        """The canaries, as models are asked about them; of pairs both, in turns."""
        return self.pool.take(self.canaries.reshape(-1))

    def scores(self, scores: npt.ArrayLike) -> Float[np.ndarray, "models m ..."]:
        """One score for each coin, from scores (models, asked, ...) of membership.

        Of a pair it is the first one's score less the second's.
        """
        found = np.asarray(scores, np.float64)
        if found.ndim < 2 or found.shape[1] != self.canaries.size:
            raise InputError(
                f"scores: shape {found.shape}; must be (models, {self.canaries.size}, "
                "...), of the records in `asked`"
            )
        if self.canaries.ndim == 1:
            return found
        difference: np.ndarray = found[:, 0::2] - found[:, 1::2]
        return difference

    def membership(self, coins: Coins) -> Membership:
        """Who trains which model, by these coins."""
        return Membership(self.pool, self.fixed, self.canaries, coins.inside)


def plant(
    records: Records,
    kind: Kind,
    count: int,
    *,
    seed: int = 0,
    others: Records | None = None,
) -> Planted:
    """`count` canaries among the training records.

    kind: "clean" are training records as they are. "mislabelled" are training records
        with a random wrong label. "near_duplicate" are copies of training records,
        moved by a pixel, with a random wrong label; the originals stay in training.
        "out_of_distribution" are records of `others`, with random labels. "blank" are
        images of one colour each, with random labels. "opposite" are pairs of a
        training record and its negative, of the same label: in normalised pixels they
        are as far apart as two images of that norm can be, and a coin says which of the
        two is trained on. That is the neighbour of residual perturbation's guarantee;
        all other kinds are there or not.
    seed: from which records, labels and colours follow.
    others: of the same shape; only for "out_of_distribution".

    Raises:
        InputError: more canaries than there are records or colours; `others` missing,
            of another shape, or given for another kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; it is one of {', '.join(KINDS)}")
    if (others is not None) != (kind == "out_of_distribution"):
        raise InputError(
            f"others is {others}, and kind {kind!r}; 'out_of_distribution' needs it, "
            "and no other kind does"
        )
    source = records if others is None else others
    if source.shape != records.shape:
        raise InputError(
            f"others has images of {source.shape}, and the records {records.shape}"
        )
    most = len(source) if kind != "blank" else _colours(records)
    if not 1 <= count <= most:
        raise InputError(
            f"count is {count}; there are {most} to choose {kind} canaries from"
        )
    rng = np.random.default_rng([seed, 0xCA, KINDS.index(kind)])
    classes = int(records.labels.max()) + 1
    if kind == "blank":
        images = _blank(count, records.shape, rng)
        return _added(records, kind, images, rng.integers(0, classes, count))
    chosen = rng.permutation(len(source))[:count]
    labels, images = source.labels[chosen], np.asarray(source.images[np.sort(chosen)])
    images = images[np.argsort(np.argsort(chosen))]
    if kind == "out_of_distribution":
        return _added(records, kind, images, rng.integers(0, classes, count))
    if kind == "near_duplicate":
        moved = View(right=1).of(images)
        return _added(records, kind, moved, _wrong(labels, classes, rng))
    rest = np.setdiff1d(np.arange(len(records)), chosen)
    if kind == "clean":
        return Planted(kind, records, rest, chosen)
    if kind == "mislabelled":
        changed = records.labels.copy()
        changed[chosen] = _wrong(labels, classes, rng)
        relabelled = Records(records.images, changed, records.ids)
        return Planted(kind, relabelled, rest, chosen)
    both = _joined(records, 255 - images, labels)
    pairs = np.stack([chosen, len(records) + np.arange(count)], axis=1)
    return Planted(kind, both, rest, pairs)


def _added(
    records: Records, kind: Kind, images: np.ndarray, labels: np.ndarray
) -> Planted:
    """Canaries that come on top of all training records."""
    positions = len(records) + np.arange(len(images))
    pool = _joined(records, images, labels)
    return Planted(kind, pool, np.arange(len(records)), positions)


def _joined(records: Records, images: np.ndarray, labels: np.ndarray) -> Records:
    ids = int(records.ids.max()) + 1 + np.arange(len(images))
    return Records(
        np.concatenate([np.asarray(records.images[:]), images]),
        np.concatenate([records.labels, labels.astype(np.int32)]),
        np.concatenate([records.ids, ids.astype(np.int32)]),
    )


def _wrong(
    labels: np.ndarray, classes: int, rng: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """A uniformly random one of the other classes."""
    if classes < 2:
        raise InputError("records has one class; a wrong label needs at least two")
    other: np.ndarray = (labels + rng.integers(1, classes, len(labels))) % classes
    return other


def _colours(records: Records) -> int:
    return int(256 ** records.shape[-1])


def _blank(
    count: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Images of one colour each, no two of the same."""
    height, width, channels = shape
    numbers = rng.choice(256**channels, count, replace=False)
    powers = 256 ** np.arange(channels)
    colours = (numbers[:, None] // powers % 256).astype(np.uint8)
    return np.broadcast_to(
        colours[:, None, None, :], (count, height, width, channels)
    ).copy()
