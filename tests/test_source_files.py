"""Sources that are files: MNIST, npz, folders of images, prepared tfds sets."""

import gzip
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import images, refused

from rpjax.data import load
from rpjax.data import tfds as rp_tfds

# MNIST


def write_idx(path, array):
    header = struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder, ending=".gz"):
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 5), ("t10k", 3)):
        labels = np.arange(count, dtype=np.uint8)
        pixels = images(count, 28, 28, seed=count)
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", labels)
    return folder


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_mnist_is_read_from_its_idx_files(tmp_path, ending, subfolder):
    write_mnist(tmp_path / subfolder, ending)
    data = load("mnist", tmp_path)
    np.testing.assert_array_equal(data.train.images[..., 0], images(5, 28, 28, seed=5))
    np.testing.assert_array_equal(data.test.images[..., 0], images(3, 28, 28, seed=3))
    np.testing.assert_array_equal(data.test.labels, [0, 1, 2])
    np.testing.assert_array_equal(data.train.ids, range(5))
    np.testing.assert_array_equal(data.test.ids, [5, 6, 7])


def test_mnist_refuses_a_missing_file_and_names_it(tmp_path):
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    message = refused(load, "mnist", tmp_path)
    assert "t10k-labels-idx1-ubyte.gz is missing" in message
    assert str(tmp_path) in message
    assert refused(load, "mnist").startswith("data_dir: ")


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("train-images-idx3-ubyte.gz", lambda b: b[: len(b) // 2], "truncated"),
        ("train-images-idx3-ubyte.gz", lambda b: b"\0" * len(b), "damaged"),
        ("train-images-idx3-ubyte.gz", lambda b: b[:40] + b"\xff" * 99, "damaged"),
        (
            "t10k-labels-idx1-ubyte",
            lambda b: b"\0\0\x08\x03" + b[4:],
            "magic number 0x00000803",
        ),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1], "2 bytes after the header"),
        ("t10k-labels-idx1-ubyte", lambda b: b + b"\0", "4 bytes after the header"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:6], "bytes after the header"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:7] + b"\2\0\1", "2 labels for the 3"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0a", "label 10"),
        ("train-images-idx3-ubyte", lambda b: b"", "magic number"),
    ],
)
def test_mnist_refuses_damaged_files(tmp_path, file, damage, words):
    path = write_mnist(tmp_path, Path(file).suffix) / file
    path.write_bytes(damage(path.read_bytes()))
    assert words in refused(load, "mnist", tmp_path)


@pytest.mark.data
@pytest.mark.skipif("RPJAX_DATA" not in os.environ, reason="RPJAX_DATA is not set")
def test_the_real_mnist_has_the_known_class_counts():
    data = load("mnist", os.environ["RPJAX_DATA"])
    assert np.bincount(data.train.labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert np.bincount(data.test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    assert (data.train.images.shape, len(data.test)) == ((60_000, 28, 28, 1), 10_000)


# npz


def parts(**changes):
    labels = np.arange(6) % 3
    arrays = {
        "x_train": images(6, 4, 5, 3),
        "y_train": labels,
        "x_test": images(3, 4, 5, 3, seed=1),
        "y_test": labels[:3],
        **changes,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def saved(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def test_npz_parts_are_read_as_they_are(tmp_path):
    path = saved(tmp_path, **parts(classes=4, class_names=list("wxyz"), more=1))
    data = load(str(path))
    np.testing.assert_array_equal(data.train.images, parts()["x_train"])
    np.testing.assert_array_equal(data.test.images, parts()["x_test"])
    np.testing.assert_array_equal(data.test.labels, [0, 1, 2])
    np.testing.assert_array_equal(data.test.ids, [6, 7, 8])
    assert (data.name, data.classes, data.class_names) == ("set", 4, tuple("wxyz"))
    assert data.data_hash == load("npz:set.npz", tmp_path).data_hash


def test_npz_images_without_channels_get_one_and_a_pool_is_split(tmp_path):
    pixels, labels = images(30, 4, 5), np.repeat([0, 1], 15)
    path = saved(tmp_path, images=pixels, labels=labels)
    data = load(f"npz:{path}", test_fraction=0.4, seed=5)
    assert data.shape == (4, 5, 1)
    assert np.bincount(data.test.labels).tolist() == [6, 6]
    for part in (data.train, data.test):
        np.testing.assert_array_equal(part.images[..., 0], pixels[part.ids])
        np.testing.assert_array_equal(part.labels, labels[part.ids])
    assert "test fraction 0.4, seed 5" in data.source


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz_floats_are_rounded_to_the_nearest_level(tmp_path, dtype):
    levels = np.arange(256).reshape(1, 16, 16)
    pixels = (levels / 255).astype(dtype)
    both = np.concatenate([pixels, pixels])
    path = saved(
        tmp_path,
        **parts(x_train=both, y_train=[0, 1], x_test=both[:1])
        | {"y_test": np.array([0])},
    )
    np.testing.assert_array_equal(load(str(path)).train.images[0, ..., 0], levels[0])


NAN, FAR = np.zeros((6, 4, 5, 3)), np.zeros((6, 4, 5, 3), np.float32)
NAN[3, 1, 1, 1], FAR[0, 0, 0, 0] = np.nan, 255


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": NAN}, "x_train: holds NaN"),
        ({"x_train": FAR}, "x_train: float pixels from 0 to 255"),
        ({"x_train": FAR - 0.1}, "x_train: float pixels from -0.1"),
        ({"x_train": FAR.astype(np.int64)}, "x_train: dtype int64"),
        ({"x_train": images(6, 4)}, "x_train: shape (6, 4)"),
        ({"x_train": images(0, 4, 5, 3)}, "x_train: shape (0, 4, 5, 3)"),
        ({"x_test": images(3, 5, 5, 3)}, "test: images of shape (5, 5, 3)"),
        ({"y_train": np.arange(5)}, "y_train: 5 labels for 6 images"),
        ({"y_train": np.arange(6) - 1}, "y_train: labels from -1 to 4"),
        ({"y_train": np.arange(6) + 2**31}, "y_train: labels from 2147483648"),
        ({"y_train": np.arange(6.0)}, "y_train: dtype float64"),
        ({"y_train": np.eye(6, dtype=int)}, "y_train: shape (6, 6)"),
        ({"y_train": np.arange(1, 7) % 4 * 7}, "labels: 21 occurs, with 6 classes"),
        ({"classes": 2}, "labels: 2 occurs, with 2 classes"),
        ({"classes": 2.5}, "classes: shape (), dtype float64"),
        ({"class_names": ["a", "b"]}, "labels: 2 occurs, with 2 classes"),
        ({"class_names": ["a"], "classes": 3}, "class_names: 1 names for 3"),
        ({"class_names": [1, 2, 3]}, "class_names: shape (3,), dtype int64"),
        ({"x_test": None}, "holds x_train, y_test, y_train; needs x_train"),
        ({"x_train": np.array([None])}, "pickled objects"),
    ],
)
def test_npz_refuses_what_is_not_images_and_labels(tmp_path, changes, words):
    path = saved(tmp_path, **parts(**changes))
    message = refused(load, str(path))
    assert message.startswith(f"{path}: ")
    assert words in message


def test_npz_refuses_a_huge_label_before_it_counts_classes(tmp_path):
    path = saved(tmp_path, images=images(9, 2, 2), labels=[0, 1, 2**31 - 1] * 3)
    assert "labels: 2147483647 occurs, with 3 classes" in refused(load, str(path))


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "flipped", "npy"])
def test_npz_refuses_a_file_that_cannot_be_read(tmp_path, damage):
    path = saved(tmp_path, **parts())
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        content[300] ^= 0xFF
        bad = {"text": b"hello", "cut": content[:500], "flipped": content}
        path.write_bytes(bad[damage])
    assert refused(load, str(path)).startswith(f"{path}: no")


# A folder of class folders


def write_folder(root, classes=("cat", "ant"), count=5, mode="L", size=(4, 6)):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            colour = 10 * label + number
            picture = Image.new("L", size[::-1], colour).convert(mode)
            picture.save(root / name / f"{number}.png")
    return root


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    data = load(str(write_folder(tmp_path)), test_fraction=0.4)
    assert (data.shape, data.class_names) == ((4, 6, 1), ("ant", "cat"))
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    levels = np.array([10, 11, 12, 13, 14, 0, 1, 2, 3, 4])
    for part in (data.train, data.test):
        assert np.all(part.images == levels[part.ids][:, None, None, None])
        np.testing.assert_array_equal(part.labels, part.ids // 5)
    assert data.data_hash == load("folder:.", tmp_path, test_fraction=0.4).data_hash


def test_a_folder_with_train_and_test_keeps_them(tmp_path):
    write_folder(tmp_path / "train", count=3)
    write_folder(tmp_path / "test", count=2)
    data = load(f"folder:{tmp_path}")
    assert (len(data.train), len(data.test)) == (6, 4)
    np.testing.assert_array_equal(data.test.ids, [6, 7, 8, 9])
    np.testing.assert_array_equal(data.test.images[:, 0, 0, 0], [10, 11, 0, 1])


def test_one_colour_image_makes_all_of_them_rgb(tmp_path):
    write_folder(tmp_path)
    Image.new("RGBA", (6, 4), (1, 2, 3, 9)).save(tmp_path / "cat" / "2.png")
    data = load(str(tmp_path))
    pixels = np.concatenate([data.train.images, data.test.images])
    ids = np.concatenate([data.train.ids, data.test.ids])
    assert data.shape == (4, 6, 3)
    np.testing.assert_array_equal(pixels[ids == 7][0, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(pixels[ids == 1][0, 0, 0], [11, 11, 11])


def test_hidden_and_other_files_are_left_out_and_jpeg_is_read(tmp_path):
    write_folder(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "ant" / "._0.png").write_text("hello")
    (tmp_path / "ant" / "notes.txt").write_text("hello")
    Image.new("L", (6, 4), 200).save(tmp_path / "ant" / "9.JPG")
    data = load(str(tmp_path))
    assert len(data.train) + len(data.test) == 11
    assert max(data.train.images.max(), data.test.images.max()) == 200


def test_images_of_several_sizes_need_image_size(tmp_path):
    write_folder(tmp_path)
    Image.new("L", (8, 4), 7).save(tmp_path / "cat" / "1.png")
    message = refused(load, str(tmp_path))
    assert message.startswith(f"{tmp_path / 'cat' / '1.png'}: 4 x 8 pixels")
    data = load(str(tmp_path), image_size=(3, 5))
    assert data.shape == (3, 5, 1)
    assert "3 x 5" in data.source


def cut_short(path):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: (r / "cat" / "1.png").write_text("hello"), "cat/1.png: not a read"),
        (lambda r: cut_short(r / "cat" / "1.png"), "cat/1.png: not a readable"),
        (
            lambda r: Image.new("I;16", (6, 4)).save(r / "cat" / "1.png"),
            "cat/1.png: more than 8 bits",
        ),
        (lambda r: (r / "bee").mkdir(), "bee: class without images"),
        (lambda r: (r / "cat").rename(r.parent / "gone"), "holds 1 class folders"),
        (lambda r: r.rename(r.parent / "gone"), "no such folder"),
    ],
)
def test_a_folder_refuses_what_it_cannot_use(tmp_path, spoil, words):
    root = write_folder(tmp_path / "root")
    spoil(root)
    assert words in refused(load, f"folder:{root}")


def test_a_folder_refuses_a_class_that_only_one_part_has(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", classes=("ant", "dog"))
    assert "class 'cat' is not in both" in refused(load, str(tmp_path))


# TFDS


def prepare(folder, name="Tiny", keys=("image", "label"), shape=(4, 5, 1), **counts):
    """Prepares a set without TensorFlow; image number i has the grey level i."""
    tfds = pytest.importorskip("tensorflow_datasets")

    def info(self):
        features = {
            "image": tfds.features.Image(shape=shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=keys,
        )

    def examples(self, count):
        for i in range(count):
            width = 5 if shape[1] or i else 6
            picture = Image.fromarray(np.full((4, width), i, np.uint8))
            yield i, {"image": picture, "label": i % 3}

    def generators(self, _):
        return {part: self._generate_examples(n) for part, n in counts.items()}

    body = {
        "__module__": __name__,
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_generate_examples": examples,
        "_split_generators": generators,
    }
    with tfds.core.registered.skip_registration():
        kind = type(name, (tfds.core.GeneratorBasedBuilder,), body)
    kind(data_dir=folder, file_format="array_record").download_and_prepare()


def test_a_prepared_tfds_set_is_read_without_tensorflow(tmp_path):
    before = "tensorflow" in sys.modules
    prepare(tmp_path, train=7, test=3, validation=2)
    data = load("tfds:tiny", tmp_path)
    assert (data.name, data.shape, data.classes) == ("tfds:tiny", (4, 5, 1), 3)
    assert (len(data.train), len(data.test)) == (7, 3)
    assert data.class_names == ("a", "b", "c")
    for part in (data.train, data.test):
        levels = part.images[:, 0, 0, 0]
        np.testing.assert_array_equal(np.sort(levels), range(len(part)))
        np.testing.assert_array_equal(part.labels, levels % 3)
    np.testing.assert_array_equal(data.test.ids, [7, 8, 9])
    assert data.data_hash == load("tfds:tiny:1.0.0", tmp_path).data_hash
    assert ("tensorflow" in sys.modules) == before


def test_tfds_ids_are_the_order_of_the_data_source(tmp_path):
    import tensorflow_datasets as tfds

    prepare(tmp_path, train=7)
    builder = tfds.core.read_only_builder.builder_from_files("tiny", data_dir=tmp_path)
    order = np.array([row["image"][0, 0, 0] for row in builder.as_data_source("train")])
    data = load("tfds:tiny", tmp_path)
    assert len(data.test) == 2
    assert "stratified" in data.source
    for part in (data.train, data.test):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], order[part.ids])


def test_cifar10_is_the_prepared_tfds_set(tmp_path):
    prepare(tmp_path, name="Cifar10", train=4, validation=2)
    data = load("cifar10", tmp_path)
    assert (data.name, len(data.train), len(data.test)) == ("cifar10", 4, 2)


@pytest.mark.parametrize("name", ["cifar10", "tfds:nope", "tfds:a:b:c", "tfds:A b/c:1"])
def test_tfds_says_how_to_prepare_what_is_not_there(tmp_path, name):
    message = refused(load, name, tmp_path)
    assert f"not in {tmp_path}; prepare it once" in message
    assert "file_format='array_record').download_and_prepare()" in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"keys": None, "train": 3}, "supervised_keys None"),
        (
            {"keys": ("label", "image"), "train": 3},
            "supervised_keys ('label', 'image')",
        ),
        ({"shape": (None, None, 1), "train": 5}, "images must have one shape"),
        ({"validation": 3}, "holds validation; needs a part named train"),
    ],
)
def test_tfds_refuses_what_is_not_labelled_images(tmp_path, settings, words):
    prepare(tmp_path, **settings)
    message = refused(load, "tfds:tiny", tmp_path)
    assert message.startswith("tfds:tiny: ")
    assert words in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotImplementedError("a\nb"), "without random access"),
        (ImportError("a\nb"), "array-record cannot be imported"),
    ],
)
def test_tfds_explains_files_that_cannot_be_opened(error, words):
    class Builder:
        def as_data_source(self, split, decoders):
            raise error

    assert words in refused(rp_tfds._rows, "tiny", Builder(), "train", "image")


def test_tfds_refuses_when_the_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "cannot be imported" in refused(load, "tfds:tiny", tmp_path)
