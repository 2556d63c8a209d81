"""Where data come from: one function for each source, and `load`, which picks one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rpjax.data.folders import listed, read_folder
from rpjax.data.mnist import read_mnist
from rpjax.data.npz import read_npz
from rpjax.data.records import Dataset, divided, numbered
from rpjax.data.splits import SPLIT_SEED, Split
from rpjax.data.stored import Source
from rpjax.data.survey import Broken, Survey, Tell, silent, survey
from rpjax.data.tfds import read_tfds, surveyed_tfds
from rpjax.errors import InputError


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    test_fraction: float = 0.2,
    seed: int = SPLIT_SEED,
    image_size: tuple[int, int] | None = None,
    stored: bool = False,
    broken: Broken = "refuse",
    workers: int = 0,
    tell: Tell = silent,
) -> Dataset:
    """The data set of this name.

    name: "digits"; "mnist"; "cifar10"; "tfds:NAME", any prepared TFDS image set;
        "npz:PATH" or a path that ends in .npz; "folder:PATH" or the path of a folder
        with class folders.
    data_dir: where files are looked for; a relative PATH starts there.
    test_fraction, seed: the stratified split of a source without a test part of its
        own; the others keep theirs. The `source` of the result says which was done.
    image_size: (height, width) to which images of a folder or of TFDS are resized and
        cut. Of these two, too: stored leaves the images on disk and decodes them when
        they are needed; broken says what to do about files that cannot be decoded,
        "refuse" or "skip"; workers is how many processes decode (0: threads); and
        tell(done, total) hears how far it is.

    Raises:
        InputError: in one line, for a name that is not known, or what a reader finds.

    >>> data = load("digits")
    >>> data.train, data.test, data.classes
    (Records(1437 of shape (8, 8, 1)), Records(360 of shape (8, 8, 1)), 10)
    """
    folder = None if data_dir is None else Path(data_dir).expanduser()
    kind, argument = _parse(name, folder)
    on_disk = kind in ("folder:", "tfds:", "cifar10")
    if image_size is not None and (not on_disk or min(image_size) < 1):
        raise InputError(
            f"image_size: {image_size} for {name!r}; must be a positive height and "
            "width, and only images of a folder or of TFDS are resized"
        )
    if stored and not on_disk:
        raise InputError(
            f"stored: on for {name!r}; only images of a folder or of TFDS can stay on "
            "disk"
        )
    split = Split(test_fraction, seed)
    request = Request(
        argument, folder, split, image_size, stored, broken, workers, tell
    )
    return SOURCES[kind](request)


def surveyed(
    name: str,
    data_dir: str | Path | None = None,
    *,
    workers: int = 0,
    tell: Tell = silent,
) -> tuple[Source, Survey]:
    """Every image of a folder or of a TFDS set, looked at; see `load`."""
    folder = None if data_dir is None else Path(data_dir).expanduser()
    kind, argument = _parse(name, folder)
    if kind == "folder:":
        files = listed(_path(argument, folder)).files
        return files, survey(files, tell, workers)
    if kind in ("tfds:", "cifar10"):
        return surveyed_tfds(argument or kind, folder, workers, tell)
    raise InputError(f"images is {name!r}; only those of a folder or of TFDS are files")


@dataclasses.dataclass(frozen=True)
class Request:
    """What a source is asked for. argument: what stood after the colon of the name.

    The other fields: see `load`.
    """

    argument: str
    data_dir: Path | None
    split: Split
    image_size: tuple[int, int] | None
    stored: bool = False
    broken: Broken = "refuse"
    workers: int = 0
    tell: Tell = silent

    @property
    def reading(self) -> dict[str, Any]:
        """What the readers of image files take by name."""
        names = ("stored", "broken", "workers", "tell")
        return {name: getattr(self, name) for name in names}

    @property
    def path(self) -> Path:
        """The argument as a path; a relative one starts in data_dir."""
        return _path(self.argument, self.data_dir)


Reader = Callable[[Request], Dataset]

# A name that ends in a colon takes an argument. To add a source, write a function from
# a request to a data set and put `@source("name")` before it.
SOURCES: dict[str, Reader] = {}


def source(name: str) -> Callable[[Reader], Reader]:
    """Makes the function below it the source of this name."""

    def register(reader: Reader) -> Reader:
        SOURCES[name] = reader
        return reader

    return register


@source("digits")
def _digits(request: Request) -> Dataset:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, which come with the package.

    Grey levels v = 0, ..., 16 become (255 v + 8) // 16, that is 0, 16, 32, ..., 255.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = digits.images.astype(np.int64)
    images = ((255 * levels + 8) // 16).astype(np.uint8)
    train, test = divided(numbered(images[..., None], digits.target), request.split)
    return Dataset(
        name="digits",
        train=train,
        test=test,
        classes=10,
        class_names=tuple(str(digit) for digit in range(10)),
        source=f"scikit-learn's load_digits, scaled to 0-255; {request.split}.",
    )


@source("mnist")
def _mnist(request: Request) -> Dataset:
    if request.data_dir is None:
        raise InputError(
            "data_dir: not given; mnist needs the folder with the four idx files"
        )
    return read_mnist(request.data_dir)


@source("cifar10")
def _cifar10(request: Request) -> Dataset:
    data = read_tfds(
        "cifar10",
        request.data_dir,
        request.split,
        request.image_size,
        **request.reading,
    )
    return dataclasses.replace(data, name="cifar10")


@source("tfds:")
def _tfds(request: Request) -> Dataset:
    return read_tfds(
        request.argument,
        request.data_dir,
        request.split,
        request.image_size,
        **request.reading,
    )


@source("npz:")
def _npz(request: Request) -> Dataset:
    return read_npz(request.path, request.split)


@source("folder:")
def _folder(request: Request) -> Dataset:
    return read_folder(
        request.path, request.split, request.image_size, **request.reading
    )


def _parse(name: str, data_dir: Path | None) -> tuple[str, str]:
    """A key of SOURCES and the argument that it takes, if it takes one."""
    head, colon, argument = name.partition(":")
    if head + colon in SOURCES and bool(colon) == bool(argument):
        return head + colon, argument
    if name.endswith(".npz"):
        return "npz:", name
    if name and _path(name, data_dir).is_dir():
        return "folder:", name
    known = ", ".join(key + ("..." if key.endswith(":") else "") for key in SOURCES)
    raise InputError(
        f"data: {name!r} is not known; choose among {known}, or give the path of an "
        ".npz file or of a folder with class folders"
    )


def _path(text: str, data_dir: Path | None) -> Path:
    return (data_dir or Path()) / Path(text).expanduser()
