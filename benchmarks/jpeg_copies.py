"""CIFAR-10 from two .npz files of JPEG copies: one header, and the rest of each."""

import io
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from rpjax.data.records import Dataset, Records, numbered
from rpjax.errors import InputError

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def read_jpeg_copies(folder: Path | None) -> Dataset:
    """All 60,000 images, JPEG quality 75: not the exact pixels of CIFAR-10.

    folder: holds cifar10_jpeg_q75_train.npz and cifar10_jpeg_q75_test.npz, each with
        the arrays header, data, offsets and labels.
    """
    if folder is None:
        raise InputError("data_dir: not given; cifar10 needs its folder")
    train = _part(folder / "cifar10_jpeg_q75_train.npz", 0)
    return Dataset(
        name="cifar10",
        train=train,
        test=_part(folder / "cifar10_jpeg_q75_test.npz", len(train)),
        classes=10,
        class_names=NAMES,
        source="CIFAR-10 as JPEG copies of quality 75; its own test part.",
    )


def _part(path: Path, start: int) -> Records:
    if not path.is_file():
        raise InputError(f"data_dir: no file {path.name} there")
    with np.load(path, allow_pickle=False) as archive:
        head, data = archive["header"].tobytes(), archive["data"].tobytes()
        ends, labels = archive["offsets"], archive["labels"]
    images = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(head + data[a:b])).convert("RGB"))
            for a, b in itertools.pairwise(ends)
        ]
    )
    return numbered(images, labels, start)
