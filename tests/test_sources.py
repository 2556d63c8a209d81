import dataclasses
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from rpjax.data import Dataset, Records, load
from rpjax.data import tfds as rp_tfds
from rpjax.data.records import numbered
from rpjax.data.sources import SOURCES, Request, source
from rpjax.data.splits import Split, shuffled, stratified
from rpjax.errors import InputError

DIGITS = "sha256:5c4b6f4a8ff4f30755e847f02881651934453aead6023d761b8a1861b9dcedf1"


def refused(function, *args, **kwargs) -> str:
    """The message with which the call is refused: one line."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def images(count, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def records(count=6, start=0):
    labels = np.arange(count, dtype=np.int32) % 3
    return numbered(images(count, 2, 3, 1), labels, start)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


# Records and Dataset


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("images", lambda x: x[..., 0]),
        ("images", lambda x: x.astype(np.float32)),
        ("images", lambda x: x[:, :0]),
        ("labels", lambda x: x.astype(np.int64)),
        ("labels", lambda x: x[:-1]),
        ("labels", lambda x: x[:, None]),
        ("labels", lambda x: x - 1),
        ("ids", lambda x: x.astype(np.float32)),
        ("ids", lambda x: x[:-1]),
        ("ids", lambda x: x - 1),
    ],
)
def test_records_refuse_a_field_that_does_not_fit(field, change):
    good = records()
    message = refused(
        dataclasses.replace, good, **{field: change(getattr(good, field))}
    )
    assert message.startswith(f"{field}: ")


def test_records_refuse_to_be_empty():
    none = np.zeros(0, np.int32)
    assert "at least one" in refused(Records, images(0, 2, 2, 1), none, none)
    assert refused(records().take, []).startswith("positions: ")


def test_records_cannot_be_written_to_and_leave_the_callers_array_alone():
    pixels = images(3, 2, 2, 1)
    made = numbered(pixels, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="read-only"):
        made.images[0] = 0
    pixels[0] = 7


def test_take_keeps_image_label_and_id_together():
    pool = records(6, start=10)
    taken = pool.take([4, 0, 4]).take(np.array([2, 1]))
    np.testing.assert_array_equal(taken.ids, [14, 10])
    np.testing.assert_array_equal(taken.labels, pool.labels[[4, 0]])
    np.testing.assert_array_equal(taken.images, pool.images[[4, 0]])


@pytest.mark.parametrize("positions", [[-1], [6], [0.5], [[0]], [True] * 6])
def test_take_refuses_what_is_not_a_position(positions):
    assert refused(records(6).take, np.array(positions)).startswith("positions: ")


def small(**changes) -> Dataset:
    fields = {
        "name": "small",
        "train": records(6),
        "test": records(3, start=6),
        "classes": 3,
        "class_names": ("a", "b", "c"),
        "source": "Made up.",
    }
    return Dataset(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"test": records(3, start=5)}, "ids: "),
        ({"test": numbered(images(3, 3, 2, 1), np.zeros(3), 6)}, "test: images"),
        ({"classes": 1, "class_names": ("a",)}, "classes: 1"),
        ({"classes": 2, "class_names": ("a", "b")}, "train: label 2"),
        ({"class_names": ("a", "b")}, "class_names: 2"),
    ],
)
def test_a_dataset_refuses_parts_that_do_not_fit(changes, start):
    assert refused(small, **changes).startswith(start)


def test_the_hash_sees_every_pixel_label_and_id():
    base, train = small(), records(6)
    pixels, labels = train.images.copy(), train.labels.copy()
    pixels[-1, -1, -1, -1] ^= 1
    labels[0] = 1
    others = [
        small(train=Records(pixels, train.labels, train.ids)),
        small(train=Records(train.images, labels, train.ids)),
        small(train=Records(train.images, train.labels, train.ids + 100)),
        small(test=train.take([0, 1, 2]), train=records(6, start=6)),
    ]
    assert base.data_hash == small(name="other").data_hash
    assert len({data.data_hash for data in [base, *others]}) == 5


# Splits


def test_a_stratified_choice_is_within_one_record_of_proportion():
    labels = np.repeat([0, 3, 7], [50, 31, 19])
    for size in range(1, 101):
        chosen = stratified(labels, size, seed=size)
        assert len(np.unique(chosen)) == size
        counts = np.bincount(labels[chosen], minlength=8)[[0, 3, 7]]
        assert np.all(np.abs(counts - np.array([50, 31, 19]) * size / 100) < 1)


def test_every_record_of_a_class_is_chosen_equally_often():
    # Two tests at level 1e-3. The seeds are fixed, and so is the stream of PCG64, so
    # that what passed once passes always.
    labels = np.repeat([0, 1], [12, 8])
    counts = np.zeros(20)
    for seed in range(2_000):
        counts[stratified(labels, 5, seed)] += 1
    assert counts.sum() == 10_000
    for part, share in ((counts[:12], 3 / 12), (counts[12:], 2 / 8)):
        spread = 2_000 * share * (1 - share) * len(part) / (len(part) - 1)
        statistic = np.sum((part - 2_000 * share) ** 2) / spread
        assert scipy.stats.chi2.sf(statistic, len(part) - 1) > 1e-3


def test_the_order_for_a_seed_never_changes():
    np.testing.assert_array_equal(shuffled(8, seed=0), [3, 2, 1, 6, 0, 7, 4, 5])


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"test_fraction": 0.0}, "test_fraction: 0.0"),
        ({"test_fraction": 1.0}, "test_fraction: 1.0"),
        ({"test_fraction": float("nan")}, "test_fraction: nan"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_load_refuses_an_impossible_split(settings, start):
    assert refused(load, "digits", **settings).startswith(start)


def test_a_split_refuses_to_leave_a_part_empty():
    assert "test_fraction: 0.9" in refused(Split(0.9).positions, np.zeros(3, int))


def test_a_test_fraction_is_rounded_up_but_not_by_rounding_error():
    assert len(Split(0.07).positions(np.zeros(100, int))[1]) == 7
    assert len(Split(0.071).positions(np.zeros(100, int))[1]) == 8


# digits, limit


def test_digits_are_the_same_everywhere(digits):
    assert digits.data_hash == DIGITS
    assert load("digits").data_hash == DIGITS
    assert load("digits", seed=1).data_hash != DIGITS


def test_digits_are_split_by_class_and_every_record_is_kept(digits):
    assert (len(digits.train), len(digits.test), digits.shape) == (1437, 360, (8, 8, 1))
    parts = np.bincount(digits.train.labels), np.bincount(digits.test.labels)
    assert np.all(np.abs(parts[1] - 360 / 1797 * (parts[0] + parts[1])) < 1)
    ids = np.concatenate([digits.train.ids, digits.test.ids])
    np.testing.assert_array_equal(np.sort(ids), np.arange(1797))


def test_an_id_is_the_place_in_the_source(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    for part in (digits.train, digits.test):
        np.testing.assert_array_equal(part.labels, original.target[part.ids])
        levels = np.rint(original.images[part.ids] * 255 / 16)
        # 255 v / 16 ends in .5 for v = 8 alone, which goes up to 128.
        np.testing.assert_array_equal(part.images[..., 0], levels)


def test_limit_keeps_ids_order_and_proportions_and_says_so(digits):
    few = digits.limit(train=200, test=50, seed=3)
    assert (len(few.train), len(few.test)) == (200, 50)
    for part, whole in ((few.train, digits.train), (few.test, digits.test)):
        at = np.flatnonzero(np.isin(whole.ids, part.ids))
        np.testing.assert_array_equal(part.ids, whole.ids[at])
        np.testing.assert_array_equal(part.images, whole.images[at])
        shares = np.bincount(whole.labels) * len(part) / len(whole)
        assert np.all(np.abs(np.bincount(part.labels) - shares) < 1)
    assert "200 of 1437 train" in few.source
    assert "50 of 360 test" in few.source
    assert "seed 3" in few.source
    assert few.data_hash == digits.limit(train=200, test=50, seed=3).data_hash
    assert few.data_hash != digits.limit(train=200, test=50, seed=4).data_hash


def test_limit_leaves_a_part_whole_unless_told(digits):
    same = digits.limit()
    assert same.data_hash == DIGITS
    assert same.source == digits.source
    assert len(digits.limit(test=10).train) == 1437


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"train": 1438}, "train: 1438"),
        ({"test": 0}, "test: 0"),
        ({"train": 5, "seed": -1}, "seed: -1"),
    ],
)
def test_limit_refuses_what_is_not_there(digits, settings, start):
    assert refused(digits.limit, **settings).startswith(start)


# load


@pytest.mark.parametrize("name", ["nope", "", "digits:3", "npz:", "tfds", "a:b"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    message = refused(load, name)
    assert all(known in message for known in ("digits", "mnist", "cifar10", "tfds:"))


def test_a_source_is_one_function(monkeypatch):
    monkeypatch.setitem(SOURCES, "mine:", None)

    @source("mine:")
    def mine(request: Request) -> Dataset:
        return small(name=f"{request.path} {request.split.seed}")

    assert load("mine:x", "/data", seed=4).name == "/data/x 4"
    assert "mine:" in refused(load, "mine")


def test_image_size_is_refused_where_it_would_do_nothing(tmp_path):
    assert refused(load, "digits", image_size=(8, 8)).startswith("image_size: ")
    assert refused(load, str(tmp_path), image_size=(0, 8)).startswith("image_size: ")


def test_importing_the_data_package_imports_no_data_library():
    code = (
        "import sys, rpjax.data; print([name for name in "
        "('tensorflow_datasets', 'tensorflow', 'sklearn', 'PIL') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


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
