"""MNIST at the size of scikit-learn's digits, as public data for the example sweeps.

Digits are 32 x 32 bitmaps of which each block of 4 x 4 was counted. MNIST's 28 x 28
pixels get a margin of two, and each block of 4 x 4 its mean.

    python -m benchmarks.sweeps.small_mnist --data-dir DATA --out mnist8.npz
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro

import rpjax as rp
from rpjax.data.records import Records
from rpjax.files import write_arrays


@dataclass(frozen=True)
class Options:
    """Write MNIST with 8 x 8 pixels."""

    data_dir: Path | None = None
    """Folder that holds MNIST."""
    out: Path = Path("mnist8.npz")
    """File for the images and labels."""


def blocks(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Means of 4 x 4 pixels, rounded: (n, 28, 28, 1) -> (n, 8, 8)."""
    padded = np.pad(images[..., 0], ((0, 0), (2, 2), (2, 2)))
    return np.rint(padded.reshape(-1, 8, 4, 8, 4).mean((2, 4))).astype(np.uint8)


def main(options: Options) -> None:
    """Read MNIST, write it small."""
    data = rp.data.load("mnist", options.data_dir)
    arrays = {}
    parts: tuple[tuple[str, Records], ...] = (
        ("train", data.train),
        ("test", data.test),
    )
    for name, part in parts:
        arrays[f"x_{name}"] = blocks(np.asarray(part.images[:]))
        arrays[f"y_{name}"] = np.asarray(part.labels)
    write_arrays(options.out, arrays)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options))
