"""A made-up set of JPEG files in ImageNet's layout, to try a training on.

Classes can be told apart by their colour, so that a net learns something of them; the
rest of a picture is noise.
"""

import colorsys
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from rpjax.errors import InputError

COARSE = 5


def generate_folder(
    root: Path,
    *,
    classes: int = 4,
    train: int = 64,
    val: int = 16,
    size: int = 48,
    seed: int = 0,
) -> Path:
    """Writes root/train/<class>/*.JPEG and root/val/<class>/*.JPEG, all or nothing.

    classes: at least two; train, val: images of each part, dealt out to the classes.
    size: pixels of a picture's shorter side; the longer has up to half as many more.

    Raises:
        InputError: a number that cannot be, or a folder that holds something.
    """
    if classes < 2:
        raise InputError(f"classes is {classes}; it must be >= 2")
    for name, value, least in (
        ("train", train, classes),
        ("val", val, classes),
        ("size", size, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value}; it must be >= {least}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} holds something; name a new folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(f"{root.name}.{os.getpid()}.tmp")
    rng = np.random.default_rng(seed)
    try:
        for part, count in (("train", train), ("val", val)):
            for number in range(count):
                label = number % classes
                name = f"class{label:04d}"
                folder = unfinished / part / name
                folder.mkdir(parents=True, exist_ok=True)
                file = folder / f"{name}_{number:06d}.JPEG"
                _picture(label, classes, size, rng).save(file, "JPEG", quality=90)
        if root.exists():
            root.rmdir()
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _picture(
    label: int, classes: int, size: int, rng: np.random.Generator
) -> Image.Image:
    """Noise around the class's colour, in a shape of its own."""
    colour = 165 * np.array(colorsys.hsv_to_rgb(label / classes, 1.0, 1.0))
    coarse = colour + rng.integers(0, 90, (COARSE, COARSE, 3))
    sides = (size, int(rng.integers(size, size + size // 2 + 1)))
    image = Image.fromarray(coarse.astype(np.uint8))
    return image.resize(
        sides if rng.integers(2) else sides[::-1], Image.Resampling.BICUBIC
    )
