"""Records, each with an id that it keeps, and data sets, made of two parts of them."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rpjax.data.splits import Split, stratified
from rpjax.errors import InputError


@runtime_checkable
class Images(Protocol):
    """What looks like an array of images: one, or what is decoded when it is needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Records, height, width, channels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, at: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Records:
    """Labelled images in host memory. The arrays are kept as read-only views.

    images: uint8 [records, height, width, channels]; `rpjax.data.stored` has records
        whose images stay on disk.
    labels: int32 [records], 0 or more.
    ids: int32 [records], 0 or more; the record's place in its source's order. An id
        stays with its record whatever is taken, shuffled or left out.

    Raises:
        InputError: for a wrong rank or dtype, lengths that differ, or no record.
    """

    images: Images
    labels: np.ndarray
    ids: np.ndarray

    def __post_init__(self) -> None:
        _check_images(self.images)
        for name in ("labels", "ids"):
            _check_numbers(name, getattr(self, name), len(self.images))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                view = value.view()
                view.flags.writeable = False
                object.__setattr__(self, field.name, view)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Records({len(self)} of shape {self.shape})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, positions: np.ndarray | Sequence[int]) -> "Records":
        """The records at these positions, in this order, with their ids.

        positions: whole numbers in 0, ..., len(self) - 1; a position may occur twice.
        """
        at = checked_positions(positions, len(self))
        images = self.images[at]
        return dataclasses.replace(
            self, images=images, labels=self.labels[at], ids=self.ids[at]
        )

    def hashed(self) -> Iterator[tuple[str, np.ndarray]]:
        """What goes into a data set's hash: arrays, each under a name."""
        yield "u1", np.asarray(self.images)
        yield from self.hashed_numbers()

    def hashed_numbers(self) -> Iterator[tuple[str, np.ndarray]]:
        """The part of `hashed` that is in memory, wherever the images are."""
        yield "<i4", self.labels.astype("<i4", copy=False)
        yield "<i4", self.ids.astype("<i4", copy=False)


def checked_positions(
    positions: np.ndarray | Sequence[int], records: int
) -> np.ndarray:
    """`positions` as an array, if they are those of some of so many records."""
    at = np.asarray(positions)
    if at.ndim != 1 or at.dtype.kind not in "iu" or not at.size:
        raise InputError(
            f"positions: shape {at.shape}, dtype {at.dtype}; must be a non-empty "
            "list of whole numbers"
        )
    if at.min() < 0 or at.max() >= records:
        raise InputError(
            f"positions: {at.min()} to {at.max()}; must lie between 0 and {records - 1}"
        )
    return at


def numbered(images: np.ndarray, labels: np.ndarray, start: int = 0) -> Records:
    """Records in their source's order: ids start, start + 1, ..."""
    ids = np.arange(start, start + len(images), dtype=np.int32)
    return Records(images, labels.astype(np.int32), ids)


def divided(pool: Records, split: Split) -> tuple[Records, Records]:
    """The train and the test records of a source without a test part."""
    train, test = split.positions(pool.labels)
    return pool.take(train), pool.take(test)


def separated(pool: Records, train: np.ndarray) -> tuple[Records, Records]:
    """The records at which `train` is True, and the others."""
    return pool.take(np.flatnonzero(train)), pool.take(np.flatnonzero(~train))


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A train and a test part of one source.

    No id is in both parts: a source that has two parts is numbered train first.
    classes: at least 2; labels are below it. class_names: one for each.
    source: where the records come from and how they were divided, in words.

    Raises:
        InputError: if the parts do not fit each other, the classes or the names.
    """

    name: str
    train: Records
    test: Records
    classes: int
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if self.train.shape != self.test.shape:
            raise InputError(
                f"test: images of shape {self.test.shape}; train has {self.train.shape}"
            )
        if np.intersect1d(self.train.ids, self.test.ids).size:
            raise InputError("ids: some are in both train and test; divide them again")
        self._check_classes()

    def _check_classes(self) -> None:
        if self.classes < 2:
            raise InputError(f"classes: {self.classes}; must be 2 or more")
        if len(self.class_names) != self.classes:
            raise InputError(
                f"class_names: {len(self.class_names)} for {self.classes} classes; "
                "give one name for each"
            )
        for part in ("train", "test"):
            top = getattr(self, part).labels.max()
            if top >= self.classes:
                raise InputError(
                    f"{part}: label {top}; must be below {self.classes}, the number of "
                    "classes"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.train.shape

    @functools.cached_property
    def data_hash(self) -> str:
        """The sha256 of the pixels, labels and ids of train, then of test.

        "sha256:" and 64 hexadecimal digits. Each array enters as a line with its type
        and shape, then its bytes, row-major and little-endian. Images that stay on disk
        are represented by the sha256 of each encoded one and by the form that decoding
        brings them to.
        """
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            for what, array in part.hashed():
                digest.update(f"{what} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return f"sha256:{digest.hexdigest()}"

    def limit(
        self, train: int | None = None, test: int | None = None, seed: int = 0
    ) -> "Dataset":
        """A fixed stratified random subset of this many train and test records.

        None keeps a part whole. Records keep their ids and their order; `source`
        records the sizes and the seed.

        Raises:
            InputError: if a size is not between 1 and the part's size, or seed < 0.
        """
        train_part, train_words = _subset("train", self.train, train, seed)
        test_part, test_words = _subset("test", self.test, test, seed)
        source = self.source + train_words + test_words
        return dataclasses.replace(
            self, train=train_part, test=test_part, source=source
        )


def _check_images(images: Any) -> None:
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"images: shape {images.shape}; must be [records, height, width, channels] "
            "with at least one of each"
        )
    if images.dtype != np.uint8:
        raise InputError(f"images: dtype {images.dtype}; must be uint8")


def _check_numbers(name: str, values: np.ndarray, records: int) -> None:
    if values.shape != (records,):
        raise InputError(
            f"{name}: shape {values.shape}; must be ({records},), one for each image"
        )
    if values.dtype != np.int32:
        raise InputError(f"{name}: dtype {values.dtype}; must be int32")
    if values.min() < 0:
        raise InputError(f"{name}: {values.min()}; must be 0 or more")


def _subset(
    name: str, part: Records, size: int | None, seed: int
) -> tuple[Records, str]:
    """The part's random subset, and the words for `source`."""
    if size is None:
        return part, ""
    if not 1 <= size <= len(part):
        raise InputError(f"{name}: {size}; must lie between 1 and {len(part)}")
    words = f" {size} of {len(part)} {name} records kept (stratified, seed {seed})."
    return part.take(stratified(part.labels, size, seed)), words
