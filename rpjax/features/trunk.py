"""A public trunk: a fixed map from images to vectors that knows no private record.

With it come the public constants of a release: around which point features are clipped
(one for each class where the trunk knows the classes: labels are public under the
guarantee's neighbours) and to which norm. Everything here was computed from public
images, and the trunk remembers which they were.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rpjax.data.records import Records
from rpjax.errors import InputError

Features = Float[np.ndarray, "n d"]
Map = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Sample:
    """Public features with their classes: what a trunk knows before any private data.

    features: float64 (n, d). labels: (n,), each class at least once.
    """

    features: Any = field(repr=False)
    labels: Any = field(repr=False)

    @property
    def centres(self) -> Float[np.ndarray, "k d"]:
        """The mean of each class."""
        return class_means(self.features, self.labels, int(self.labels.max()) + 1)


@dataclass(frozen=True, eq=False)
class Trunk:
    """See the module.

    name: in a word or two. source: what it was fitted on, in words.
    features: uint8 images (b, h, w, c) -> (b, d), compiled.
    centres: (k, d) for k classes, or (1, d), around which features are clipped.
    bound: l2 norm to which their distance from the centre is clipped (paper: R).
    spread: (d, d), the covariance of public features about their centre.
    sample: public labelled features, if there are any.
    seen: digests of the images that it was fitted on.
    """

    name: str
    source: str
    features: Map = field(repr=False)
    centres: Any = field(repr=False)
    bound: float
    spread: Any = field(repr=False)
    sample: Sample | None = field(default=None, repr=False)
    seen: frozenset[bytes] = field(default=frozenset(), repr=False)

    @property
    def dimension(self) -> int:
        """Entries of a feature vector."""
        return int(self.centres.shape[1])

    def __call__(self, images: Any) -> Features:
        """Features of stored images (n, h, w, c), without noise."""
        return in_batches(self.features, images)

    def centre_of(self, labels: Int[np.ndarray, " n"]) -> Features:
        """The public centre that goes with each label."""
        own = labels if len(self.centres) > 1 else np.zeros_like(labels)
        centres: np.ndarray = self.centres[own]
        return centres

    def check_unseen(self, records: Records) -> None:
        """Refuse records that the trunk was fitted on: it would not be public."""
        known = self.seen & digests(records.images)
        if known:
            raise InputError(
                f"trunk was fitted on {len(known)} of these records; a trunk must be "
                "fitted on public images alone"
            )
        classes = int(records.labels.max()) + 1
        if 1 < len(self.centres) < classes:
            raise InputError(
                f"labels go up to {classes - 1}; the trunk knows {len(self.centres)} "
                "classes"
            )


def digests(images: Any) -> frozenset[bytes]:
    """What identifies images: a digest of the shape and the pixels of each."""
    shape = str(images.shape[1:]).encode()
    return frozenset(
        hashlib.blake2b(
            np.ascontiguousarray(image).tobytes(), digest_size=16, key=shape
        ).digest()
        for image in np.asarray(images[:])
    )


def class_means(
    features: Features, labels: Int[np.ndarray, " n"], classes: int
) -> Float[np.ndarray, "k d"]:
    """The mean of each class; a class without a record has none.

    >>> class_means(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1]), 2)
    array([[2.],
           [5.]])
    """
    count = np.bincount(labels, minlength=classes)
    if not count.all():
        raise InputError(f"labels has no record of class {int(count.argmin())}")
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features)
    return sums / count[:, None]


def in_batches(function: Map, images: Any, size: int = 500) -> Features:
    """`function` of all images, so many at a time, the last ones padded."""
    found = []
    size = min(size, len(images))
    for start in range(0, len(images), size):
        some = np.asarray(images[start : start + size])
        fill = ((0, size - len(some)),) + ((0, 0),) * (some.ndim - 1)
        found += [np.asarray(function(jnp.asarray(np.pad(some, fill))))[: len(some)]]
    return np.concatenate(found).astype(np.float64)
