"""A small set of JPEG files in ImageNet's layout, generated once for all tests.

A test file names this module in `pytest_plugins` to have its fixtures, and imports from
it before pytest could look at its asserts: PYTEST_DONT_REWRITE.
"""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from rpjax.data import load
from rpjax.data.survey import in_memory

CLASSES = ("n01440764", "n01443537", "n01484850")
PER_CLASS = {"train": 8, "val": 3}
SIZE = (12, 12)


def picture(label, rng):
    """Of any size and full of noise; its brightest channel tells its class."""
    height, width = rng.integers(20, 60, 2)
    coarse = rng.integers(0, 90, (5, 5, 3))
    coarse[..., label] += 120
    image = Image.fromarray(coarse.astype(np.uint8))
    return image.resize((int(width), int(height)), Image.Resampling.BICUBIC)


def write_imagenet(root, per_class=PER_CLASS, seed=0):
    """root/train and root/val with <class>/*.JPEG, and a test without classes."""
    rng = np.random.default_rng(seed)
    for part, count in per_class.items():
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture(label, rng).save(folder / f"{name}_{number}.JPEG", quality=90)
    (root / "test").mkdir()
    picture(0, rng).save(root / "test" / "ILSVRC2012_test_00000001.JPEG")
    return root


def truncate(path):
    """Cut a file in the middle of its pixels; its header stays perfect."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def stored(root, **options):
    return load(f"folder:{root}", image_size=SIZE, stored=True, **options)


def resident(dataset):
    """The same records, decoded and in memory."""
    parts = {name: in_memory(getattr(dataset, name)) for name in ("train", "test")}
    return dataclasses.replace(dataset, **parts)


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """The folder; to be left as it is."""
    return write_imagenet(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="session")
def on_disk(imagenet):
    """Its records, on disk."""
    return stored(imagenet)


@pytest.fixture(scope="session")
def decoded(on_disk):
    """The same, in memory."""
    return resident(on_disk)
