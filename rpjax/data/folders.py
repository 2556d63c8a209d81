"""A data set from a folder with one subfolder of image files for each class."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rpjax.data.records import Dataset, Records, divided, numbered
from rpjax.data.splits import Split
from rpjax.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg")
GREY_MODES = ("1", "L", "LA", "La")


class Listing(NamedTuple):
    """The images of one part, class by class, each class in the order of file names."""

    class_names: tuple[str, ...]
    paths: list[Path]
    labels: np.ndarray


class Form(NamedTuple):
    """What every image is brought to: Pillow's mode, "L" or "RGB", and its size."""

    mode: str
    height: int
    width: int


def read_folder(
    root: Path, split: Split, image_size: tuple[int, int] | None = None
) -> Dataset:
    """Images (.png, .jpg, .jpeg) from root/train/<class> and root/test/<class>.

    Without those two folders, from root/<class>, which `split` divides. Classes and
    files go by name; that order (train first) gives the ids. Hidden files are left
    out. If all images are grey they keep one channel, otherwise all become RGB;
    transparency is dropped.
    image_size: (height, width) to which images are resized (bilinear); without it they
    must have one size.

    Raises:
        InputError: one line that names the file or folder: none there, a class without
            images, an unreadable image, one of another size or of 16 bits per pixel.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    halves = [root / "train", root / "test"]
    own_test = all(half.is_dir() for half in halves)
    listings = [_listing(folder) for folder in (halves if own_test else [root])]
    form = _form([path for part in listings for path in part.paths], image_size)
    if own_test:
        _check_same_classes(root, *listings)
        train = _read(listings[0], form)
        test, how = _read(listings[1], form, len(train)), "its own test folder"
    else:
        train, test = divided(_read(listings[0], form), split)
        how = str(split)
    names = listings[0].class_names
    resized = f" Resized to {form.height} x {form.width}." if image_size else ""
    name = root.resolve().name
    source = f"Image files of the folder {name}; {how}.{resized}"
    return Dataset(name, train, test, len(names), names, source)


def _listing(root: Path) -> Listing:
    folders = [p for p in _visible(root) if p.is_dir()]
    if len(folders) < 2:
        raise InputError(
            f"{root}: holds {len(folders)} class folders; needs two or more, or train/ "
            "and test/ with them"
        )
    files = [
        [path for path in _visible(folder) if path.suffix.lower() in ENDINGS]
        for folder in folders
    ]
    for folder, images in zip(folders, files, strict=True):
        if not images:
            raise InputError(
                f"{folder}: class without images; needs files that end in "
                f"{', '.join(ENDINGS)}"
            )
    return Listing(
        class_names=tuple(folder.name for folder in folders),
        paths=[path for images in files for path in images],
        labels=np.repeat(np.arange(len(files)), [len(images) for images in files]),
    )


def _visible(folder: Path) -> list[Path]:
    # Hidden names: file managers leave such things, some of them with image endings.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _check_same_classes(root: Path, train: Listing, test: Listing) -> None:
    differ = sorted(set(train.class_names) ^ set(test.class_names))
    if differ:
        raise InputError(f"{root}: class {differ[0]!r} is not in both train and test")


def _form(paths: list[Path], image_size: tuple[int, int] | None) -> Form:
    """Reads the headers alone, so that a misfit is found before any decoding."""
    mode, size = "L", image_size
    for path in paths:
        with _opened(path) as image:
            if image.mode[0] in "IF":
                raise InputError(f"{path}: more than 8 bits per pixel; convert it")
            if image.mode not in GREY_MODES:
                mode = "RGB"
            found = (image.height, image.width)
        size = size or found
        if image_size is None and found != size:
            raise InputError(
                f"{path}: {found[0]} x {found[1]} pixels; {paths[0].name} has "
                f"{size[0]} x {size[1]}; give image_size to resize all"
            )
    assert size is not None
    return Form(mode, *size)


def _read(listing: Listing, form: Form, start: int = 0) -> Records:
    channels = 1 if form.mode == "L" else 3
    shape = (len(listing.paths), form.height, form.width, channels)
    images = np.empty(shape, np.uint8)
    for row, path in zip(images, listing.paths, strict=True):
        with _opened(path) as image:
            row[:] = _pixels(image, form).reshape(row.shape)
    return numbered(images, listing.labels, start)


def _pixels(image: Any, form: Form) -> np.ndarray:
    """`image`: a PIL.Image.Image; Pillow is imported only once a folder is read."""
    from PIL import Image

    image, size = image.convert(form.mode), (form.width, form.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: not a readable image; remove or replace it"
        ) from error
