"""A data set from the arrays of one .npz file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from rpjax.data.records import Dataset, divided, numbered
from rpjax.data.splits import Split
from rpjax.errors import InputError

PARTS = ("x_train", "y_train", "x_test", "y_test")
POOL = ("images", "labels")
# TypeError: the file is a single array (.npy) under the wrong name.
_UNREADABLE = (
    ValueError,
    TypeError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path, split: Split) -> Dataset:
    """A data set from an .npz file.

    Arrays: x_train, y_train, x_test, y_test; or images, labels, which `split` divides.
    Images are [n, h, w] or [n, h, w, c], uint8, or floats in [0, 1], which become
    round(255 x). Labels are whole numbers, one for each image. Optional: `classes`, a
    whole number, and `class_names`, one string for each class; without them there are
    as many classes as labels, and every one has a record. Nothing is unpickled.

    Raises:
        InputError: one line that names the file and the array.
    """
    try:
        return _dataset(path, _arrays(path), split)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _dataset(path: Path, arrays: dict[str, np.ndarray], split: Split) -> Dataset:
    if "x_train" in arrays:
        train = numbered(*_pair(arrays, *PARTS[:2]))
        test = numbered(*_pair(arrays, *PARTS[2:]), start=len(train))
        how = "its own test part"
    else:
        train, test = divided(numbered(*_pair(arrays, *POOL)), split)
        how = str(split)
    names = _class_names(arrays, np.union1d(train.labels, test.labels))
    return Dataset(
        path.stem, train, test, len(names), names, f"Arrays of {path.name}; {how}."
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError("no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = set(archive.files)
            layout = next((names for names in (PARTS, POOL) if set(names) <= held), ())
            arrays = {
                name: archive[name]
                for name in (*layout, "classes", "class_names")
                if name in held
            }
    except _UNREADABLE as error:
        raise InputError(
            "not a readable .npz file, or one with pickled objects; save plain arrays "
            "with numpy.savez"
        ) from error
    if not layout:
        raise InputError(
            f"holds {', '.join(sorted(held)) or 'no array'}; needs {', '.join(PARTS)}, "
            f"or {', '.join(POOL)}"
        )
    return arrays


def _pair(
    arrays: dict[str, np.ndarray], images: str, labels: str
) -> tuple[np.ndarray, np.ndarray]:
    x, y = _images(images, arrays[images]), _labels(labels, arrays[labels])
    if len(x) != len(y):
        raise InputError(f"{labels}: {len(y)} labels for {len(x)} images of {images}")
    return x, y


def _images(name: str, images: np.ndarray) -> np.ndarray:
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"{name}: shape {images.shape}; must be [n, h, w] or [n, h, w, c] with at "
            "least one image"
        )
    if images.dtype.kind == "f":
        images = _to_bytes(name, images)
    if images.dtype != np.uint8:
        raise InputError(
            f"{name}: dtype {images.dtype}; must be uint8, or floats in [0, 1]"
        )
    return images if images.ndim == 4 else images[..., None]


def _to_bytes(name: str, images: np.ndarray) -> np.ndarray:
    if not np.isfinite(images).all():
        raise InputError(f"{name}: holds NaN or infinite pixels; pixels must be finite")
    if images.min() < 0 or images.max() > 1:
        raise InputError(
            f"{name}: float pixels from {images.min():g} to {images.max():g}; must lie "
            "in [0, 1] (or store uint8)"
        )
    levels: np.ndarray = np.rint(images * 255).astype(np.uint8)
    return levels


def _labels(name: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 1:
        raise InputError(f"{name}: shape {labels.shape}; must be [n], one label each")
    if labels.dtype.kind not in "iu":
        raise InputError(f"{name}: dtype {labels.dtype}; must be whole numbers")
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise InputError(
            f"{name}: labels from {labels.min()} to {labels.max()}; must lie between 0 "
            "and the number of classes less one"
        )
    return labels


def _class_names(arrays: dict[str, np.ndarray], seen: np.ndarray) -> tuple[str, ...]:
    """One name for each class; `seen`: the labels that occur, ascending."""
    stored = arrays.get("class_names")
    if stored is not None and (stored.ndim != 1 or stored.dtype.kind != "U"):
        raise InputError(
            f"class_names: shape {stored.shape}, dtype {stored.dtype}; must be a list "
            "of strings"
        )
    if "classes" in arrays:
        classes = _count(arrays["classes"])
    else:
        classes = len(seen) if stored is None else len(stored)
    if seen[-1] >= classes:
        raise InputError(
            f"labels: {seen[-1]} occurs, with {classes} classes; must lie between 0 "
            f"and {classes - 1}: number the classes from 0 or store `classes`"
        )
    names = [str(n) for n in (range(classes) if stored is None else stored)]
    if len(names) != classes:
        raise InputError(f"class_names: {len(names)} names for {classes} classes")
    return tuple(names)


def _count(classes: np.ndarray) -> int:
    if classes.shape != () or classes.dtype.kind not in "iu":
        raise InputError(
            f"classes: shape {classes.shape}, dtype {classes.dtype}; must be one whole "
            "number"
        )
    return int(classes)
