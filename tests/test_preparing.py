"""From image files to a prepared set, without TensorFlow, and back again."""

import os
import sys

import numpy as np
import pytest
from PIL import Image
from stored_images import CLASSES, SIZE, truncate, write_imagenet
from tiny_experiment import experiment, rpjax

from rpjax.data import load
from rpjax.data.preparing import held_out_patients, prepare_folder, prepare_idc
from rpjax.data.splits import Split
from rpjax.data.stored import StoredRecords
from rpjax.errors import InputError

pytest_plugins = ["stored_images", "tiny_experiment"]


def refused(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def prepared(imagenet, tmp_path_factory):
    """The folder of the prepared set "mine"."""
    out = tmp_path_factory.mktemp("prepared")
    said = rpjax("data", "prepare", f"folder:{imagenet}", "--out", out, "--name=mine")
    assert (said.code, said.err) == (0, "")
    assert "--data tfds:mine --data-dir" in said.out
    return out


def pairs(records):
    """Labels with their images, in whatever order."""
    return set(zip(records.labels, map(bytes, records.images[:]), strict=True))


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_prepared_set_holds_the_folder_s_images(prepared, imagenet, on_disk):
    folder = load(str(imagenet), image_size=SIZE)
    options = {"image_size": SIZE, "stored": on_disk}
    data = load("tfds:mine", prepared, **options)
    assert isinstance(data.train, StoredRecords) == on_disk
    assert data.class_names == CLASSES
    for part in ("train", "test"):
        ours, theirs = getattr(data, part), getattr(folder, part)
        assert len(ours) == len(theirs)
        assert pairs(ours) == pairs(theirs)
    assert "its own test part. Resized to 12 x 12." in data.source
    assert f"image files of the folder {imagenet.name}." in data.source
    assert "tensorflow" not in sys.modules


def test_a_prepared_set_is_left_alone_and_names_are_checked(prepared, imagenet):
    before = sorted(prepared.rglob("*"))
    assert "is there already" in refused(prepare_folder, imagenet, prepared, "mine")
    assert "name is 'My-Set'" in refused(prepare_folder, imagenet, prepared, "My-Set")
    assert sorted(prepared.rglob("*")) == before
    assert {p.name for p in prepared.iterdir()} == {"mine"}


def test_broken_images_are_refused_or_counted_when_a_set_is_prepared(tmp_path):
    root, out = write_imagenet(tmp_path / "images"), tmp_path / "out"
    truncate(root / "val" / CLASSES[1] / f"{CLASSES[1]}_0.JPEG")
    said = rpjax("data", "check", root)
    assert said.code == 2
    assert f"{CLASSES[1]}_0.JPEG: not a readable image" in said.out
    assert said.err.startswith("rpjax: error: 1 of 33 images cannot be used; ")
    words = ["data", "prepare", f"folder:{root}", "--out", out]
    said = rpjax(*words)
    assert (said.code, out.exists()) == (2, False)
    assert "(1 of 33 images cannot be used)" in said.err
    assert rpjax(*words, "--broken", "skip").code == 0
    data = load("tfds:images", out, image_size=SIZE)
    assert len(data.test) == 8
    assert "1 of 33 images are broken and left out." in data.source
    assert rpjax("data", "check", "tfds:images", "--data-dir", out).code == 0


def test_what_cannot_be_prepared_or_checked_is_one_line(tmp_path):
    for words, message in {
        ("check", "digits"): "images is 'digits'; only",
        ("check", "folder:/nowhere"): "/nowhere: no such folder",
        ("prepare", "digits", "--out", tmp_path): "images is 'digits'; it is folder:",
        ("prepare", f"idc:{tmp_path}", "--out", tmp_path): f"{tmp_path}: no IDC_",
    }.items():
        said = rpjax("data", *words)
        assert said.code == 2
        assert said.err.startswith(f"rpjax: error: {message}")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------- IDC


def write_idc(root, patches):
    """patches: (patient, label, x, y, image)."""
    for patient, label, x, y, image in patches:
        folder = root / "IDC_regular_ps50_idx5" / str(patient) / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{patient}_idx5_x{x}_y{y}_class{label}.png"
        Image.fromarray(image).save(folder / name)
    return root


@pytest.fixture(scope="module")
def patches():
    """Ten patients with six patches each; those at the border are smaller."""
    rng = np.random.default_rng(0)
    return [
        (
            9000 + patient,
            place % 2,
            50 * place,
            patient,
            rng.integers(0, 255, (50, 50 if place else 23, 3), dtype=np.uint8),
        )
        for patient in range(10)
        for place in range(6)
    ]


def rows(folder, part):
    from tensorflow_datasets.core import read_only_builder

    builder = read_only_builder.builder_from_files("idc", data_dir=str(folder))
    return list(builder.as_data_source(part)), builder.info.metadata


def test_idc_is_divided_by_patient_and_says_so(tmp_path, patches):
    root = write_idc(tmp_path / "source", patches)
    truncate(next(root.rglob("9004_idx5_x50_*.png")))
    prepare_idc(root, tmp_path, seed=3, broken="skip")
    found = {part: rows(tmp_path, part)[0] for part in ("train", "test")}
    who = {part: {row["patient"] for row in found[part]} for part in found}
    assert not who["train"] & who["test"]
    assert (len(who["train"]), len(who["test"])) == (8, 2)
    facts = rows(tmp_path, "test")[1]
    assert sorted(p.decode() for p in who["test"]) == facts["test_patients"]
    assert facts["seed"] == 3
    data = load("tfds:idc", tmp_path, image_size=(50, 50))
    assert len(data.train) + len(data.test) == 59
    for words in (
        "Divided by patient: 2 of 10 patients are test, seed 3.",
        "1 of 60 images are broken and left out.",
    ):
        assert words in data.source
    originals = {(str(p), x): (label, image) for p, label, x, _, image in patches}
    for row in found["test"]:
        label, image = originals[row["patient"].decode(), row["x"]]
        assert row["label"] == label
        np.testing.assert_array_equal(row["image"], image)
    assert "images must have one shape" in refused(load, "tfds:idc", tmp_path)


def test_every_patient_is_equally_likely_to_be_held_out():
    """An error rate of 1e-3 for fixed seeds; a patient's patches do not count."""
    patients = np.repeat(["a", "b", "c", "d", "e"], [1, 1, 1, 1, 96])
    chosen = [held_out_patients(patients, Split(0.4, seed)) for seed in range(500)]
    counts = np.unique(np.concatenate(chosen), return_counts=True)[1]
    assert all(len(set(test)) == 2 for test in chosen)
    assert ((counts - 200) ** 2 / 120).sum() < 18.5
    assert "of 1 patients leaves no train" in refused(
        held_out_patients, np.array(["a"]), Split()
    )


def test_an_idc_file_whose_name_contradicts_its_folder_is_refused(tmp_path, patches):
    root = write_idc(tmp_path, patches[:4])
    file = next(root.rglob("*class1.png"))
    file.rename(file.with_name(file.name.replace("9000_", "9001_")))
    assert "the folders must say what the name says" in refused(
        prepare_idc, root, tmp_path / "out"
    )


@pytest.mark.data
@pytest.mark.skipif("RPJAX_DATA" not in os.environ, reason="RPJAX_DATA is not set")
def test_real_idc_patches_are_prepared_and_read(tmp_path):
    file = os.path.join(os.environ["RPJAX_DATA"], "idc_20_patches_sample.npz")
    with np.load(file) as sample:
        arrays = [sample[name] for name in ("patient", "y", "xy", "x")]
    real = [(p, y, *xy, x) for p, y, xy, x in zip(*arrays, strict=True)]
    said = rpjax(
        *("data", "prepare", f"idc:{write_idc(tmp_path, real)}"),
        *("--out", tmp_path / "out", "--seed", 1),
    )
    assert said.code == 0, said.err
    data = load("tfds:idc", tmp_path / "out")
    assert (data.shape, data.class_names) == ((50, 50, 3), ("non_idc", "idc"))
    ours = {bytes(i) for part in (data.train, data.test) for i in part.images}
    assert ours == {bytes(x) for x in arrays[-1]}
    assert "1 of 5 patients are test" in data.source


# --------------------------------------------------------------------------- end to end


def test_the_command_trains_and_evaluates_on_images_that_stay_on_disk(
    imagenet, tmp_path, monkeypatch
):
    """ImageNet's layout and stem; resumed after an interruption; as from memory."""
    monkeypatch.setenv("COLUMNS", "160")
    words = [
        *("train", "--data", f"folder:{imagenet}", "--image-size", 16),
        *("--depth", 8, "--stem", "imagenet", "--groups", 4),
        *("--epochs", 2, "--batch-size", 8, "--crop", 1, "--method", "plain"),
    ]
    out = tmp_path / "out"
    assert rpjax(*words, "--stored", "--out", out).code == 0
    one = experiment(out)
    assert one.results["data"]["source"].startswith("Image files of the folder")
    assert one.results["data"]["members"] == 24
    (out / "methods" / "plain.json").unlink()
    again = rpjax(*words, "--stored", "--out", out, "--resume", "--workers", 1)
    assert again.code == 0, again.err
    same = experiment(out)
    for key in ("utility", "guarantee"):
        assert same.method("plain")[key] == one.method("plain")[key]
    said = rpjax("evaluate", out)
    assert said.code == 0, said.err
    assert "Plain" in said.out
    changed = rpjax(*words, "--out", out, "--resume")
    assert "data.stored differs from the run" in changed.err


def test_options_of_images_are_checked_before_anything_is_written(tmp_path, imagenet):
    for words, message in {
        ("--image-size", 0): "data.image_size is 0; it must be >= 1",
        ("--image-size", 8): "image_size: (8, 8) for 'digits'",
        ("--stored",): "stored: on for 'digits'",
        ("--workers", -1): "data.workers is -1; it must be >= 0",
        ("--data", f"folder:{imagenet}"): f"{imagenet}/train/",
    }.items():
        said = rpjax("train", *words, "--out", tmp_path / "out")
        assert said.code == 2
        assert said.err.startswith(f"rpjax: error: {message}")
    assert list(tmp_path.iterdir()) == []
