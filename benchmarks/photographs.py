"""Generated photographs on disk: JPEG files of many sizes, to be decoded."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.workloads import CLASSES
from rpjax.data.decoding import Form
from rpjax.data.stored import Files, StoredImages, StoredRecords

QUALITY = 90
COARSE = 8


def photographs(
    folder: Path, count: int, sides: tuple[int, int], size: int, seed: int
) -> StoredRecords:
    """So many new files in `folder`, as records that stay on disk.

    sides: the least and the most pixels of a side; size: of the square that an image is
    brought to when it is decoded.
    """
    names = [f"{number:06}.JPEG" for number in range(count)]

    def write(number: int) -> bytes:
        content = jpeg(np.random.default_rng((seed, number)), sides)
        (folder / names[number]).write_bytes(content)
        return hashlib.sha256(content).digest()

    with ThreadPoolExecutor() as pool:
        digests = b"".join(pool.map(write, range(count)))
    rows = np.arange(count, dtype=np.int32)
    labels = rows % CLASSES
    return StoredRecords(
        StoredImages(Files(folder, names, labels), rows, Form("RGB", size, size, True)),
        labels,
        rows,
        digests=np.frombuffer(digests, np.uint8).reshape(count, -1),
    )


def jpeg(rng: np.random.Generator, sides: tuple[int, int]) -> bytes:
    """One image whose detail is that of a soft photograph."""
    height, width = (int(side) for side in rng.integers(sides[0], sides[1] + 1, 2))
    shape = (-(-height // COARSE), -(-width // COARSE), 3)
    coarse = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
