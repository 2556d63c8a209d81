"""Prepared TensorFlow Datasets, read without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np

from rpjax.data.records import Dataset, Records, divided, numbered
from rpjax.data.splits import Split
from rpjax.errors import InputError


def read_tfds(name: str, data_dir: Path | None, split: Split) -> Dataset:
    """An image classification set that TFDS has prepared under `data_dir`.

    name: as in TFDS: "cifar10", "cifar10:3.0.2", "name/config".
    data_dir: None for TFDS's own default, ~/tensorflow_datasets.
    The train part and the test part, or else validation; `split` divides a set that
    has train alone. Everything is decoded once. Ids number the records as the files
    hold them, train first: a fixed order, but TFDS shuffled it once when it prepared
    the set, so it is not the order of the original archives. Nothing is downloaded.

    Raises:
        InputError: if the set is not prepared in a random-access format, or is not one
            of labelled uint8 images of one shape.
    """
    try:
        return _dataset(name, _prepared(name, data_dir), split)
    except InputError as error:
        raise InputError(f"tfds:{name}: {error}") from error


def _dataset(name: str, builder: Any, split: Split) -> Dataset:
    keys, class_names = _supervision(builder.info)
    parts = set(builder.info.splits)
    tests = [part for part in ("test", "validation") if part in parts]
    if "train" not in parts:
        raise InputError(f"holds {', '.join(sorted(parts))}; needs a part named train")
    train = _decoded(_rows(name, builder, "train"), "train", keys)
    if tests:
        how = f"its own {tests[0]} part"
        rows = _rows(name, builder, tests[0])
        test = _decoded(rows, tests[0], keys, start=len(train))
    else:
        how = str(split)
        train, test = divided(train, split)
    return Dataset(
        name=f"tfds:{name}",
        train=train,
        test=test,
        classes=len(class_names),
        class_names=class_names,
        source=f"TensorFlow Datasets {builder.info.full_name}; {how}.",
    )


def _prepared(name: str, data_dir: Path | None) -> Any:
    """The builder of a set that lies on disk; its generating code is not needed."""
    try:
        import tensorflow_datasets as tfds

        # The package's __init__ swallows import errors, which show up only here.
        from_files = tfds.core.read_only_builder.builder_from_files
    except (ImportError, AttributeError) as error:
        raise InputError(
            "tensorflow-datasets cannot be imported; install it with "
            "importlib_resources and array-record"
        ) from error
    try:
        return from_files(name, data_dir=None if data_dir is None else str(data_dir))
    except (ValueError, RuntimeError) as error:
        where = data_dir or "the default folder of TFDS"
        raise InputError(_remedy(name, f"not in {where}")) from error


def _remedy(name: str, what: str) -> str:
    return (
        f"{what}; prepare it once, with rpjax[prepare] installed: "
        f"tfds.builder({name!r}, data_dir=..., file_format='array_record')"
        ".download_and_prepare()"
    )


def _supervision(info: Any) -> tuple[tuple[str, str], tuple[str, ...]]:
    """The names of the image and of the label, and the names of the classes."""
    import tensorflow_datasets as tfds

    keys, wanted = info.supervised_keys, (tfds.features.Image, tfds.features.ClassLabel)
    # A key can also be a dictionary of several features.
    found = [info.features[k] if isinstance(k, str) else None for k in keys or ()]
    if len(found) != 2 or not all(map(isinstance, found, wanted)):
        raise InputError(f"supervised_keys {keys}; must be an image and a class label")
    return keys, tuple(info.features[keys[1]].names)


def _rows(name: str, builder: Any, part: str) -> Any:
    """The part as a sequence of dictionaries, each decoded when it is asked for."""
    try:
        return builder.as_data_source(split=part)
    except NotImplementedError as error:
        what = "prepared in a format without random access"
        raise InputError(_remedy(name, what)) from error
    except ImportError as error:
        raise InputError(
            "array-record cannot be imported; install it (Linux), or read the set "
            "from an .npz file"
        ) from error


def _decoded(rows: Any, part: str, keys: tuple[str, str], start: int = 0) -> Records:
    image, label = keys
    first = rows[0][image]
    images = np.empty((len(rows), *first.shape), first.dtype)
    labels = np.empty(len(rows), np.int32)
    for at in range(len(rows)):
        row = rows[at]
        if row[image].shape != first.shape:
            raise InputError(
                f"{part} image {at} has shape {row[image].shape}, the first "
                f"{first.shape}; images must have one shape"
            )
        images[at], labels[at] = row[image], row[label]
    return numbered(images, labels, start)
