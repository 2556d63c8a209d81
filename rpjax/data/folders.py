"""A data set from a folder with one subfolder of image files for each class."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rpjax.data.decoding import Form
from rpjax.data.records import Dataset, divided, separated
from rpjax.data.splits import Split
from rpjax.data.stored import Files
from rpjax.data.survey import (
    Broken,
    Tell,
    common_size,
    in_memory,
    records_of,
    silent,
    survey,
    usable,
)
from rpjax.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg")
TEST_PARTS = ("test", "val", "validation")


class Listing(NamedTuple):
    """The image files of a folder: part by part, class by class, by file name.

    parts: the name of each part ("train", then perhaps one of `TEST_PARTS`) and how
        many files it has.
    """

    files: Files
    class_names: tuple[str, ...]
    parts: dict[str, int]


def read_folder(
    root: Path,
    split: Split,
    image_size: tuple[int, int] | None = None,
    *,
    stored: bool = False,
    broken: Broken = "refuse",
    workers: int = 0,
    tell: Tell = silent,
) -> Dataset:
    """Images (.png, .jpg, .jpeg) from root/train/<class> and root/test/<class>.

    The second may be root/val or root/validation (ImageNet's layout, whose test folder
    has no classes and is left alone). Without such folders, from root/<class>, which
    `split` divides. Classes and files go by name; that order (train first, broken ones
    counted) gives the ids. Hidden files are left out. If all images are grey they keep
    one channel, otherwise all become RGB; transparency is dropped.
    image_size: (height, width) to which images are resized and cut
        (`rpjax.data.decoding.pixels`); without it they must have one size.
    stored: leave the images on disk, and decode them when they are needed.
    broken: what to do about images that cannot be decoded to their end.
    workers: processes that decode; 0 is threads. tell: hears how far it is.

    Raises:
        InputError: one line that names the file or folder: none there, a class without
            images, an unreadable image, one of another size or of 16 bits per pixel.
    """
    listing = listed(root)
    files, names = listing.files, listing.class_names
    found = survey(files, tell, workers)
    rows, left_out = usable(files, found, broken)
    check_classes(files, rows, names)
    mode = "L" if found.grey[rows].all() else "RGB"
    size = image_size or common_size(files, found, rows)
    form = Form(mode, *size, resize=image_size is not None)
    pool = records_of(files, found, rows, form)
    if len(listing.parts) > 1:
        first = rows < listing.parts["train"]
        train, test = separated(pool, first)
        how = f"its own {list(listing.parts)[1]} folder"
    else:
        train, test = divided(pool, split)
        how = str(split)
    resized = f" Resized to {form.height} x {form.width}." if image_size else ""
    name = root.resolve().name
    return Dataset(
        name=name,
        train=train if stored else in_memory(train, tell, workers),
        test=test if stored else in_memory(test, tell, workers),
        classes=len(names),
        class_names=names,
        source=f"Image files of the folder {name}; {how}.{resized}{left_out}",
    )


def listed(root: Path) -> Listing:
    """The image files below a folder, none of them opened."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    folders = {"train": root}
    if (root / "train").is_dir():
        tests = [name for name in TEST_PARTS if _classes(root / name)]
        if tests:
            folders = {part: root / part for part in ("train", tests[0])}
    names: dict[str, list[str]] = {}
    paths: list[str] = []
    labels: list[int] = []
    counts: dict[str, int] = {}
    for part, folder in folders.items():
        names[part] = _class_names(folder)
        before = len(paths)
        for label, name in enumerate(names[part]):
            images = _images(folder / name)
            paths += [str(path.relative_to(root)) for path in images]
            labels += [label] * len(images)
        counts[part] = len(paths) - before
    _check_same_classes(root, names)
    files = Files(root, paths, np.array(labels, np.int32))
    return Listing(files, tuple(names["train"]), counts)


def check_classes(files: Files, rows: np.ndarray, names: tuple[str, ...]) -> None:
    """Every class must have kept an image."""
    for label in np.setdiff1d(np.arange(len(names)), files.labels[rows]):
        raise InputError(
            f"{files.root}: class {names[label]!r} has no image that can be used"
        )


def _classes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in _visible(folder) if path.is_dir()]


def _class_names(folder: Path) -> list[str]:
    found = _classes(folder)
    if len(found) < 2:
        raise InputError(
            f"{folder}: holds {len(found)} class folders; needs two or more, or train/ "
            "and test/ (or val/) with them"
        )
    return [path.name for path in found]


def _images(folder: Path) -> list[Path]:
    images = [path for path in _visible(folder) if path.suffix.lower() in ENDINGS]
    if not images:
        raise InputError(
            f"{folder}: class without images; needs files that end in "
            f"{', '.join(ENDINGS)}"
        )
    return images


def _visible(folder: Path) -> list[Path]:
    # Hidden names: file managers leave such things, some of them with image endings.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _check_same_classes(root: Path, names: dict[str, list[str]]) -> None:
    train, *others = names.values()
    for part, other in zip(list(names)[1:], others, strict=True):
        differ = sorted(set(train) ^ set(other))
        if differ:
            raise InputError(
                f"{root}: class {differ[0]!r} is not in both train and {part}"
            )
