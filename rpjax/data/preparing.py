"""Image files into a prepared TFDS set (array_record), without TensorFlow.

A prepared set is a few large files with random access, which network file systems like
better than a million small ones; `rpjax.data.tfds` reads it. Encoded images are copied
as they are. What became of the files (how they were divided, how many were left out)
is written into the set and stands in the `source` of every data set read from it.
"""

import contextlib
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from rpjax.data.folders import check_classes, listed
from rpjax.data.splits import SPLIT_SEED, Split, shuffled
from rpjax.data.stored import Files
from rpjax.data.survey import Broken, Tell, silent, survey, usable
from rpjax.data.tfds import NOTE
from rpjax.errors import InputError

VERSION = "1.0.0"
IDC_FOLDER = "IDC_regular_ps50_idx5"
IDC_CLASSES = ("non_idc", "idc")
IDC_FILE = re.compile(r"(\d+)_idx5_x(\d+)_y(\d+)_class([01])\.png")


class Content(NamedTuple):
    """What goes into a set.

    parts: name -> rows of `files`; extra: (row) -> further features of an example;
    features: (tfds) -> their types; note: the words for a data set's `source`;
    facts: plain values that are kept with it.
    """

    files: Files
    class_names: tuple[str, ...]
    parts: dict[str, np.ndarray]
    grey: bool
    note: str
    extra: Callable[[int], dict[str, Any]] = lambda row: {}
    features: Callable[[Any], dict[str, Any]] = lambda tfds: {}
    facts: Mapping[str, Any] = MappingProxyType({})


def prepare_folder(
    root: Path,
    out: Path,
    name: str,
    *,
    broken: Broken = "refuse",
    workers: int = 0,
    tell: Tell = silent,
) -> Path:
    """A folder of class folders (see `rpjax.data.folders`) as the set `name`.

    A folder with train and test (or val) keeps them; one without becomes a part named
    train, which whoever reads it divides.
    """
    _free(out, name)
    listing = listed(root)
    found = survey(listing.files, tell, workers)
    rows, left_out = usable(listing.files, found, broken)
    check_classes(listing.files, rows, listing.class_names)
    parts, start = {}, 0
    for part, count in listing.parts.items():
        inside = (rows >= start) & (rows < start + count)
        parts["test" if start else part] = rows[inside]
        start += count
    note = f"Prepared from image files of the folder {root.resolve().name}.{left_out}"
    grey = bool(found.grey[rows].all())
    content = Content(listing.files, listing.class_names, parts, grey, note)
    return _write(content, out, name, tell)


def prepare_idc(
    root: Path,
    out: Path,
    name: str = "idc",
    *,
    test_fraction: float = 0.2,
    seed: int = SPLIT_SEED,
    broken: Broken = "refuse",
    workers: int = 0,
    tell: Tell = silent,
) -> Path:
    """The breast histopathology patches, divided **by patient**.

    root: holds IDC_regular_ps50_idx5/<patient>/<0|1>/*.png, or the patients themselves.
    test_fraction: share of the patients (not of the patches) that are test, rounded up.
    seed: of that choice. Every patch keeps its patient and its place on the slide.
    Patches at a slide's border are smaller than 50 x 50: read with an image_size.
    """
    _free(out, name)
    split = Split(test_fraction, seed)
    files, patients = _idc_files(root)
    found = survey(files, tell, workers)
    rows, left_out = usable(files, found, broken)
    check_classes(files, rows, IDC_CLASSES)
    test = held_out_patients(patients[rows], split)
    inside = np.isin(patients[rows], test)
    count = len(np.unique(patients[rows]))
    note = (
        f"Divided by patient: {len(test)} of {count} patients are test, seed {seed}."
        f"{left_out}"
    )

    def extra(row: int) -> dict[str, Any]:
        match = IDC_FILE.fullmatch(Path(files.names[row]).name)
        assert match is not None
        patient, x, y, _ = match.groups()
        return {"patient": patient, "x": int(x), "y": int(y)}

    content = Content(
        files,
        IDC_CLASSES,
        {"train": rows[~inside], "test": rows[inside]},
        grey=False,
        note=note,
        extra=extra,
        features=lambda tfds: {
            "patient": tfds.features.Text(),
            "x": np.int32,
            "y": np.int32,
        },
        facts={"seed": seed, "test_patients": [str(patient) for patient in test]},
    )
    return _write(content, out, name, tell)


def held_out_patients(patients: np.ndarray, split: Split) -> np.ndarray:
    """The patients who are test, each as likely as the others; sorted."""
    everyone = np.unique(patients)
    size = math.ceil(split.test_fraction * len(everyone) - 1e-9)
    if not 0 < size < len(everyone):
        raise InputError(
            f"test_fraction: {split.test_fraction} of {len(everyone)} patients leaves "
            "no train or no test patient; give more patients or another fraction"
        )
    return np.sort(everyone[shuffled(len(everyone), split.seed)[:size]])


def _idc_files(root: Path) -> tuple[Files, np.ndarray]:
    """All patches by name, and the patient of each."""
    base = root / IDC_FOLDER if (root / IDC_FOLDER).is_dir() else root
    # some copies hold the tree twice, at the top and nested: one fixed depth
    paths = sorted(base.glob("[0-9]*/[01]/*.png"))
    if not paths:
        raise InputError(f"{root}: no {IDC_FOLDER}/<patient>/<0|1>/*.png in it")
    labels, patients = [], []
    for path in paths:
        match = IDC_FILE.fullmatch(path.name)
        label, patient = path.parent.name, path.parent.parent.name
        if match is None or (match[1], match[4]) != (patient, label):
            raise InputError(
                f"{path}: not {patient}_idx5_x<X>_y<Y>_class{label}.png; the folders "
                "must say what the name says"
            )
        labels.append(int(label))
        patients.append(patient)
    names = [str(path.relative_to(base)) for path in paths]
    return Files(base, names, np.array(labels, np.int32)), np.array(patients)


def _free(out: Path, name: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(
            f"name is {name!r}; it must begin with a small letter and hold small "
            "letters, digits and _ only"
        )
    if (out / name / VERSION).exists():
        raise InputError(
            f"{out / name / VERSION} is there already; choose another name, or remove "
            "it first"
        )


def _write(content: Content, out: Path, name: str, tell: Tell) -> Path:
    """Write the set under another name, and rename it once it is complete."""
    import tensorflow_datasets as tfds

    total, done = sum(map(len, content.parts.values())), itertools.count(1)

    def info(self: Any) -> Any:
        features = {
            "image": tfds.features.Image(shape=(None, None, 1 if content.grey else 3)),
            "label": tfds.features.ClassLabel(names=list(content.class_names)),
            **content.features(tfds),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict({NOTE: content.note, **content.facts}),
        )

    def examples(self: Any, rows: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in map(int, rows):
            yield (
                content.files.names[row],
                {
                    "image": content.files.name(row),
                    "label": int(content.files.labels[row]),
                    **content.extra(row),
                },
            )
            tell(next(done), total)

    def generators(self: Any, downloads: Any) -> dict[str, Any]:
        parts = content.parts.items()
        return {part: self._generate_examples(rows) for part, rows in parts}

    body = {
        "__module__": __name__,
        "name": name,
        "VERSION": tfds.core.Version(VERSION),
        "_info": info,
        "_generate_examples": examples,
        "_split_generators": generators,
    }
    with tfds.core.registered.skip_registration():
        kind = type("Prepared", (tfds.core.GeneratorBasedBuilder,), body)
    # what tfds says on the terminal, the caller says better
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder = kind(data_dir=str(out), file_format="array_record")
            builder.download_and_prepare()
    finally:
        tfds.enable_progress_bar()
    downloads = out / "downloads"
    for empty in (downloads / "extracted", downloads):
        with contextlib.suppress(OSError):
            empty.rmdir()
    return out / name / VERSION
