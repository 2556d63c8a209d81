"""Records that stay on disk and are decoded when they are needed."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from rpjax.data.decoding import Form, UnusableError, pixels
from rpjax.data.records import Records, checked_positions
from rpjax.errors import InputError

LEFT_EMPTY = -1


@runtime_checkable
class Source(Protocol):
    """Encoded images in a fixed order, with random access; sent to worker processes."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, at: int) -> tuple[bytes, int]:
        """The encoded image at a place, and its label."""
        ...

    def name(self, at: int) -> str:
        """What to call it in a message."""
        ...

    def stamps(self) -> Iterator[str]:
        """What changes when the stored images do: names, sizes, times of change."""
        ...


class Files:
    """Image files, in the given order.

    root: the folder that holds them; names: relative to it; labels: one for each.
    """

    def __init__(self, root: Path, names: Sequence[str], labels: np.ndarray) -> None:
        self.root, self.names, self.labels = root, list(names), labels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, at: int) -> tuple[bytes, int]:
        try:
            return (self.root / self.names[at]).read_bytes(), int(self.labels[at])
        except OSError as error:
            raise InputError(f"{self.name(at)}: cannot be read ({error})") from error

    def name(self, at: int) -> str:
        """The file's path."""
        return str(self.root / self.names[at])

    def stamps(self) -> Iterator[str]:
        """The folder; each file's name, size and time of change."""
        yield str(self.root.resolve())
        for name in self.names:
            facts = (self.root / name).stat()
            yield f"{name} {facts.st_size} {facts.st_mtime_ns}"


class StoredImages:
    """Images on disk that look like an array, uint8 [records, height, width, channels].

    source: encoded images; rows: places in it, one for each record; form: what they are
        brought to (`rpjax.data.decoding.pixels` says how).

    ``images[positions]`` decodes those, as many at a time as there are processors.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, source: Source, rows: np.ndarray, form: Form) -> None:
        self.source, self.rows, self.form = source, rows, form

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"StoredImages{self.shape}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of an array."""
        return len(self.rows), *self.form.shape

    def __getitem__(self, at: Any) -> np.ndarray:
        rows = self.rows[at]
        if rows.ndim == 0:
            return self._decoded(int(rows))
        images = np.empty((*rows.shape, *self.form.shape), np.uint8)
        places = list(np.ndindex(rows.shape))

        def fill(place: tuple[int, ...]) -> None:
            images[place] = self._decoded(int(rows[place]))

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(fill, places):
                pass
        return images

    def batch(
        self, positions: Int[np.ndarray, "..."]
    ) -> UInt8[np.ndarray, "... h w c"]:
        """The images at these positions, decoded by this thread alone.

        A position of `LEFT_EMPTY` is a slot that nobody looks at: it stays zero.
        """
        images = np.zeros((*positions.shape, *self.form.shape), np.uint8)
        for place in np.argwhere(positions != LEFT_EMPTY):
            at = tuple(place)
            images[at] = self._decoded(int(self.rows[positions[at]]))
        return images

    def take(self, positions: np.ndarray) -> "StoredImages":
        """Those at these positions, still on disk."""
        return StoredImages(self.source, self.rows[positions], self.form)

    def _decoded(self, row: int) -> np.ndarray:
        try:
            return pixels(self.source[row][0], self.form)
        except UnusableError as error:
            raise InputError(f"{self.source.name(row)}: {error}") from error


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredRecords(Records):
    """Records whose images stay on disk; labels and ids are in memory.

    images: a `StoredImages`.
    digests: uint8 [records, 32], the sha256 of each encoded image.
    """

    digests: np.ndarray = dataclasses.field(kw_only=True)

    def __repr__(self) -> str:
        return f"StoredRecords({len(self)} of shape {self.shape})"

    def take(self, positions: np.ndarray | Sequence[int]) -> "StoredRecords":
        """The records at these positions, in this order, with their ids; not decoded.

        positions: whole numbers in 0, ..., len(self) - 1; a position may occur twice.
        """
        at = checked_positions(positions, len(self))
        images: Any = self.images
        return dataclasses.replace(
            self,
            images=images.take(at),
            labels=self.labels[at],
            ids=self.ids[at],
            digests=self.digests[at],
        )

    def hashed(self) -> Iterator[tuple[str, np.ndarray]]:
        """What goes into a data set's hash: the files' own sums, and their form."""
        images: Any = self.images
        yield f"stored {tuple(images.form)}", self.digests
        yield from self.hashed_numbers()
