"""Prepared TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rpjax.data.decoding import Form
from rpjax.data.records import Dataset, divided, separated
from rpjax.data.splits import Split
from rpjax.data.survey import (
    Broken,
    Survey,
    Tell,
    common_size,
    in_memory,
    records_of,
    silent,
    survey,
    usable,
)
from rpjax.errors import InputError

# under this name a prepared set's metadata say what became of the original files
NOTE = "rpjax"


class Rows:
    """The parts of a prepared set as one source of encoded images, train first.

    folder, name: of the set; parts: name -> random access to its rows.
    keys: names of the image and of the label in a row.
    """

    def __init__(
        self, folder: Path, name: str, parts: dict[str, Any], keys: tuple[str, str]
    ) -> None:
        self.folder, self.called, self.parts, self.keys = folder, name, parts, keys
        self.starts = np.cumsum([0, *(len(part) for part in parts.values())])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, at: int) -> tuple[bytes, int]:
        part, place = self._where(at)
        image, label = self.keys
        try:
            row = self.parts[part][place]
        except (ValueError, RuntimeError, IndexError) as error:
            raise InputError(
                f"{self.name(at)}: cannot be read; the files in {self.folder} are "
                "damaged: prepare the set again"
            ) from error
        return row[image], int(row[label])

    def name(self, at: int) -> str:
        """The set, the part and the row's number in it."""
        part, place = self._where(at)
        return f"{self.called}: {part} image {place}"

    def stamps(self) -> Iterator[str]:
        """Each file's name, size and time of change; the parts in use."""
        yield " ".join([str(self.folder), *self.parts, *self.keys])
        for path in sorted(self.folder.iterdir()):
            facts = path.stat()
            yield f"{path.name} {facts.st_size} {facts.st_mtime_ns}"

    def _where(self, at: int) -> tuple[str, int]:
        number = int(np.searchsorted(self.starts, at, side="right")) - 1
        return list(self.parts)[number], int(at - self.starts[number])


def read_tfds(
    name: str,
    data_dir: Path | None,
    split: Split,
    image_size: tuple[int, int] | None = None,
    *,
    stored: bool = False,
    broken: Broken = "refuse",
    workers: int = 0,
    tell: Tell = silent,
) -> Dataset:
    """An image classification set that TFDS has prepared under `data_dir`.

    name: as in TFDS: "cifar10", "cifar10:3.0.2", "name/config".
    data_dir: None for TFDS's own default, ~/tensorflow_datasets.
    image_size, stored, broken, workers, tell: as for `rpjax.data.folders.read_folder`.
    The train part and the test part, or else validation; `split` divides a set that
    has train alone. Ids number the records as the files hold them, train first: a fixed
    order, but TFDS shuffled it once when it prepared the set, so it is not the order of
    the original archives. Nothing is downloaded.

    Raises:
        InputError: if the set is not prepared in a random-access format, or is not one
            of labelled uint8 images of one shape (without `image_size`).
    """
    try:
        builder = _prepared(name, data_dir)
        keys, class_names = _supervision(builder.info)
        source, how = _source(name, builder, keys)
        how = how or str(split)
        found = survey(source, tell, workers)
        rows, left_out = usable(source, found, broken)
        size = image_size or common_size(source, found, rows)
        form = Form(_mode(builder.info.features[keys[0]]), *size, bool(image_size))
        pool = records_of(source, found, rows, form)
    except InputError as error:
        text, prefix = str(error), f"tfds:{name}: "
        raise InputError(text if text.startswith(prefix) else prefix + text) from error
    if len(source.parts) > 1:
        first = rows < source.starts[1]
        train, test = separated(pool, first)
    else:
        train, test = divided(pool, split)
    resized = f" Resized to {form.height} x {form.width}." if image_size else ""
    note = (builder.info.metadata or {}).get(NOTE, "")
    words = f"TensorFlow Datasets {builder.info.full_name}; {how}.{resized}"
    return Dataset(
        name=f"tfds:{name}",
        train=train if stored else in_memory(train, tell, workers),
        test=test if stored else in_memory(test, tell, workers),
        classes=len(class_names),
        class_names=class_names,
        source=f"{words}{left_out} {note}".strip(),
    )


def surveyed_tfds(
    name: str, data_dir: Path | None, workers: int = 0, tell: Tell = silent
) -> tuple[Rows, Survey]:
    """All images of a prepared set, looked at."""
    builder = _prepared(name, data_dir)
    source, _ = _source(name, builder, _supervision(builder.info)[0])
    return source, survey(source, tell, workers)


def _source(name: str, builder: Any, keys: tuple[str, str]) -> tuple[Rows, str | None]:
    """The set's rows, and how it is divided, if it is."""
    parts = set(builder.info.splits)
    tests = [part for part in ("test", "validation") if part in parts]
    if "train" not in parts:
        raise InputError(f"holds {', '.join(sorted(parts))}; needs a part named train")
    used = ["train", *tests[:1]]
    rows = {part: _rows(name, builder, part, keys[0]) for part in used}
    source = Rows(Path(builder.data_dir), f"tfds:{name}", rows, keys)
    return source, f"its own {tests[0]} part" if tests else None


def _mode(image: Any) -> str:
    """Pillow's mode for a TFDS image feature."""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    channels = image.shape[-1]
    if image.np_dtype != np.uint8 or channels not in modes:
        raise InputError(
            f"images of type {np.dtype(image.np_dtype)} and {channels} channels; must "
            "be uint8 with 1, 3 or 4"
        )
    return modes[channels]


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


def _rows(name: str, builder: Any, part: str, image: str) -> Any:
    """The part as a sequence of dictionaries whose image is still encoded."""
    import tensorflow_datasets as tfds

    encoded = {image: tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(split=part, decoders=encoded)
    except NotImplementedError as error:
        what = "prepared in a format without random access"
        raise InputError(_remedy(name, what)) from error
    except ImportError as error:
        raise InputError(
            "array-record cannot be imported; install it (Linux), or read the set "
            "from an .npz file"
        ) from error
