"""Looking at every stored image once: its size, its label, whether it can be decoded.

A survey of many images takes minutes, so one that took long is remembered in the
person's cache folder, under the names, sizes and times of change of the files.
"""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rpjax.data.decoding import Form, examined
from rpjax.data.records import Records
from rpjax.data.stored import Source, StoredImages, StoredRecords
from rpjax.data.streaming import Workers
from rpjax.errors import InputError

Broken = Literal["refuse", "skip"]
Tell = Callable[[int, int], None]
"""(done, total): how far some long work is."""

CHUNK = 64
REMEMBERED_SECONDS = 2.0


def silent(done: int, total: int) -> None:
    """Tells nobody."""


class Survey(NamedTuple):
    """What is known of each stored image, in the source's order.

    sizes: (n, 2), height and width; grey: (n,); labels: (n,); digests: uint8 (n, 32),
    the sha256 of the encoded image; reasons: (n,), why it cannot be used, or "".
    """

    sizes: np.ndarray
    grey: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    reasons: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        """Places of the images that cannot be used."""
        return np.flatnonzero(self.reasons != "")


def survey(source: Source, tell: Tell = silent, workers: int = 0) -> Survey:
    """Read and decode every image of `source` once, or remember having done so."""
    file = _remembered(source)
    known = _read(file, len(source))
    if known is not None:
        return known
    began = time.monotonic()
    found = _made(source, tell, workers)
    if time.monotonic() - began > REMEMBERED_SECONDS:
        _write(file, found)
    return found


def usable(source: Source, found: Survey, broken: Broken) -> tuple[np.ndarray, str]:
    """Places of the images that can be used, and the words for a data set's `source`.

    Raises:
        InputError: if one cannot and `broken` is "refuse": names the first, and how
            many there are; or if none can be used.
    """
    bad, total = found.broken, len(source)
    if broken not in ("refuse", "skip"):
        raise InputError(f"broken is {broken!r}; it is 'refuse' or 'skip'")
    if len(bad) and (broken == "refuse" or len(bad) == total):
        first = int(bad[0])
        raise InputError(
            f"{source.name(first)}: {found.reasons[first]} ({len(bad)} of {total} "
            "images cannot be used); replace or remove it, or leave out all such "
            "images by broken = skip"
        )
    words = (
        f" {len(bad)} of {total} images are broken and left out." if len(bad) else ""
    )
    return np.flatnonzero(found.reasons == ""), words


def common_size(source: Source, found: Survey, rows: np.ndarray) -> tuple[int, int]:
    """The one size that all images at these places have, or an InputError."""
    sizes, first = found.sizes[rows], int(rows[0])
    others = np.flatnonzero((sizes != sizes[0]).any(1))
    if len(others):
        other = int(rows[others[0]])
        one, this = (" x ".join(map(str, found.sizes[at])) for at in (first, other))
        raise InputError(
            f"{source.name(other)}: {this} pixels; {source.name(first)} has {one}; "
            "images must have one shape: give image_size to resize all"
        )
    return int(sizes[0][0]), int(sizes[0][1])


def records_of(
    source: Source, found: Survey, rows: np.ndarray, form: Form
) -> StoredRecords:
    """The images at these places as records that stay on disk; a place is an id."""
    return StoredRecords(
        StoredImages(source, rows, form),
        found.labels[rows],
        rows.astype(np.int32),
        digests=found.digests[rows],
    )


def in_memory(records: Records, tell: Tell = silent, workers: int = 0) -> Records:
    """The same stored records, decoded once and for all."""
    stored: Any = records.images
    images = np.empty(stored.shape, np.uint8)
    chunks = _chunks(len(stored))
    with Workers(stored.batch, workers) as decoders:
        for chunk, decoded in zip(chunks, decoders.stream(chunks), strict=True):
            images[chunk] = decoded
            tell(int(chunk[-1]) + 1, len(stored))
    return Records(images, records.labels, records.ids)


class _Examine:
    """(places) -> what is found there; sent to worker processes."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self, places: np.ndarray) -> Survey:
        rows = []
        for at in places:
            content, label = self.source[int(at)]
            facts, digest = examined(content), hashlib.sha256(content).digest()
            rows.append((*facts, label, digest))
        heights, widths, grey, reasons, labels, digests = zip(*rows, strict=True)
        return Survey(
            np.array([heights, widths], np.int32).T,
            np.array(grey),
            np.array(labels, np.int32),
            np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
            np.array(reasons),
        )


def _made(source: Source, tell: Tell, workers: int) -> Survey:
    total = len(source)
    chunks = _chunks(total)
    parts = []
    with Workers(_Examine(source), workers) as examiners:
        for chunk, part in zip(chunks, examiners.stream(chunks), strict=True):
            parts.append(part)
            tell(int(chunk[-1]) + 1, total)
    return Survey(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _chunks(total: int) -> list[np.ndarray]:
    return np.array_split(np.arange(total), max(1, -(-total // CHUNK)))


def _remembered(source: Source) -> Path:
    digest = hashlib.sha256(type(source).__name__.encode())
    for stamp in source.stamps():
        digest.update(f"\n{stamp}".encode())
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rpjax" / "surveys" / f"{digest.hexdigest()}.npz"


def _read(file: Path, total: int) -> Survey | None:
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = Survey(*(archive[name] for name in Survey._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # never written, or damaged: look again
    return found if all(len(array) == total for array in found) else None


def _write(file: Path, found: Survey) -> None:
    temporary = file.with_name(f"{file.stem}.{os.getpid()}.tmp.npz")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **found._asdict())
        temporary.chmod(0o600)  # who has an image can tell from its sum that it is here
        os.replace(temporary, file)
    except OSError:  # a cache that cannot be written costs time, and nothing else
        temporary.unlink(missing_ok=True)
