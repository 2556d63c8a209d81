"""MNIST from its four original idx files."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from rpjax.data.records import Dataset, Records, numbered
from rpjax.errors import InputError


def read_mnist(folder: Path) -> Dataset:
    """MNIST from `folder` or `folder`/mnist, each file compressed (.gz) or not.

    Images uint8 [n, 28, 28, 1], 0 = background. Ids number the train file, then the
    test file. Fashion-MNIST has the same four file names: give each its own folder.
    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998.

    Raises:
        InputError: if a file is missing, damaged, or does not fit its partner.
    """
    train = _part(folder, "train")
    return Dataset(
        name="mnist",
        train=train,
        test=_part(folder, "t10k", start=len(train)),
        classes=10,
        class_names=tuple(str(digit) for digit in range(10)),
        source="MNIST (LeCun, Cortes, Burges), from the idx files; their own test set.",
    )


def _part(folder: Path, part: str, start: int = 0) -> Records:
    images_at = _find(folder, f"{part}-images-idx3-ubyte")
    labels_at = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_at, rank=3), read_idx(labels_at, rank=1)
    if len(images) != len(labels):
        raise InputError(
            f"{labels_at}: {len(labels)} labels for the {len(images)} images of "
            f"{images_at.name}; fetch both again"
        )
    return numbered(images[..., None], labels, start)


def _find(folder: Path, name: str) -> Path:
    for path in (
        place / file
        for place in (folder, folder / "mnist")
        for file in (f"{name}.gz", name)
    ):
        if path.is_file():
            return path
    raise InputError(
        f"data_dir: {name}.gz is missing in {folder} (and in its subfolder mnist); put "
        "the four original MNIST files there"
    )


def read_idx(path: Path, rank: int) -> np.ndarray:
    """The uint8 array of an idx file: magic number, sizes (big-endian), then bytes."""
    raw, header = _bytes(path), 4 * (rank + 1)
    magic, *shape = np.frombuffer(raw[:header].ljust(header, b"\0"), ">u4").tolist()
    if magic != 0x0800 + rank:
        raise InputError(
            f"{path}: magic number {magic:#010x}; must be {0x0800 + rank:#010x} (idx, "
            f"unsigned bytes, rank {rank})"
        )
    if len(raw) - header != math.prod(shape):
        raise InputError(
            f"{path}: {len(raw) - header} bytes after the header; its sizes {shape} "
            f"need {math.prod(shape)}; fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or truncated gzip file; fetch it again"
        ) from error
