"""Records on disk: the same pixels as in memory, and no broken image unnoticed."""

import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from stored_images import CLASSES, SIZE, stored, truncate, write_imagenet

from rpjax.data import load
from rpjax.data import survey as surveys
from rpjax.data.decoding import Form, UnusableError, examined, pixels
from rpjax.data.stored import LEFT_EMPTY, StoredRecords
from rpjax.errors import InputError

pytest_plugins = ["stored_images"]


def refused(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoded(image, kind="JPEG"):
    file = io.BytesIO()
    image.save(file, kind, quality=95)
    return file.getvalue()


# ----------------------------------------------------------------------------- decoding


def test_the_centre_is_cut_out_and_proportions_are_kept():
    """Red, green and blue thirds: a square from the middle is green alone."""
    stripes = np.zeros((30, 90, 3), np.uint8)
    for part in range(3):
        stripes[:, 30 * part :][:, :30, part] = 200
    for kind in ("PNG", "JPEG"):
        content = encoded(Image.fromarray(stripes), kind)
        square = pixels(content, Form("RGB", 10, 10, resize=True)).astype(int)
        assert (abs(square[:, 2:8].mean((0, 1)) - [0, 200, 0]) < 6).all()
        wide = pixels(content, Form("RGB", 10, 30, resize=True)).astype(int)
        assert (abs(wide[5, [2, 15, 27]] - 200 * np.eye(3)) < 12).all()


def test_a_large_jpeg_decoded_at_a_fraction_is_the_same_picture():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    large = coarse.resize((400, 300), Image.Resampling.BICUBIC)
    form = Form("RGB", 24, 32, resize=True)
    fast = pixels(encoded(large), form).astype(float)
    slow = pixels(encoded(large, "PNG"), form).astype(float)
    assert abs(fast - slow).mean() < 3
    assert abs(fast - slow[:, ::-1]).mean() > 20, "another picture would be noticed"


def test_without_resizing_another_size_is_refused():
    content = encoded(Image.new("L", (5, 4)))
    assert pixels(content, Form("L", 4, 5)).shape == (4, 5, 1)
    with pytest.raises(UnusableError, match="4 x 5 pixels and not 5 x 4"):
        pixels(content, Form("L", 5, 4))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_every_truncation_is_found_though_the_header_is_fine(kind):
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    assert examined(content) == (40, 50, False, "")
    for kept in np.linspace(0, len(content) - 40, 25).astype(int):
        assert examined(content[:kept]).reason, kept


# ------------------------------------------------------------------------------ records


def test_imagenets_layout_is_read_in_the_order_of_file_names(imagenet, on_disk):
    assert on_disk.class_names == CLASSES
    assert (len(on_disk.train), len(on_disk.test)) == (24, 9)
    assert on_disk.shape == (*SIZE, 3)
    np.testing.assert_array_equal(on_disk.test.ids, np.arange(24, 33))
    assert isinstance(on_disk.train, StoredRecords)
    assert "its own val folder. Resized to 12 x 12." in on_disk.source
    files = sorted(imagenet.glob("train/*/*.JPEG"))
    form = Form("RGB", *SIZE, resize=True)
    for record in (0, 9, 23):
        expected = pixels(files[record].read_bytes(), form)
        np.testing.assert_array_equal(on_disk.train.images[record], expected)
        assert files[record].parent.name == CLASSES[on_disk.train.labels[record]]


def test_on_disk_and_in_memory_are_the_same_records(imagenet, on_disk, decoded):
    eager = load(f"folder:{imagenet}", image_size=SIZE)
    for part in ("train", "test"):
        disk, memory = getattr(on_disk, part), getattr(decoded, part)
        np.testing.assert_array_equal(disk.images[:], memory.images)
        np.testing.assert_array_equal(getattr(eager, part).images, memory.images)
        for name in ("labels", "ids"):
            np.testing.assert_array_equal(getattr(disk, name), getattr(memory, name))
    assert eager.data_hash == decoded.data_hash != on_disk.data_hash
    assert eager.source == on_disk.source


def test_images_on_disk_are_indexed_like_an_array(on_disk, decoded):
    disk, memory = on_disk.train.images, decoded.train.images
    assert (disk.shape, disk.dtype, len(disk)) == (memory.shape, memory.dtype, 24)
    for at in (5, slice(2, 5), np.array([3, 3, 0]), np.array([[1, 2], [3, 4]])):
        np.testing.assert_array_equal(disk[at], memory[at])
    batch = disk.batch(np.array([[4, LEFT_EMPTY], [0, 4]]))
    np.testing.assert_array_equal(batch[1], memory[[0, 4]])
    assert not batch[0, 1].any()
    again = pickle.loads(pickle.dumps(disk))
    np.testing.assert_array_equal(again[7], memory[7])


def test_taking_decodes_nothing_and_keeps_ids(on_disk, decoded, monkeypatch):
    monkeypatch.setattr("rpjax.data.stored.pixels", None)
    few = on_disk.train.take([7, 3]).take(np.array([1, 0, 1]))
    monkeypatch.undo()
    assert isinstance(few, StoredRecords)
    np.testing.assert_array_equal(few.ids, [3, 7, 3])
    np.testing.assert_array_equal(few.images[:], decoded.train.images[[3, 7, 3]])
    assert refused(on_disk.train.take, [24]).startswith("positions: ")


def test_the_hash_of_records_on_disk_sees_files_and_form(tmp_path, on_disk):
    write_imagenet(tmp_path)
    assert stored(tmp_path).data_hash == on_disk.data_hash
    other = load(f"folder:{tmp_path}", image_size=(12, 11), stored=True)
    assert other.data_hash != on_disk.data_hash
    file = next(tmp_path.glob("train/*/*.JPEG"))
    with Image.open(file) as image:
        again = image.convert("RGB")
    again.save(file, quality=91)
    assert stored(tmp_path).data_hash != on_disk.data_hash


def test_a_stored_set_may_be_limited_and_split(tmp_path, on_disk):
    assert isinstance(on_disk.limit(train=12).train, StoredRecords)
    write_imagenet(tmp_path / "root")
    pool = stored(tmp_path / "root" / "train", test_fraction=0.25)
    assert (len(pool.train), len(pool.test)) == (18, 6)
    assert "stratified split" in pool.source
    assert isinstance(pool.test, StoredRecords)


# ------------------------------------------------------------------------ broken images


@pytest.fixture
def damaged(tmp_path):
    """Two of 33 images are broken: one truncated, one no image at all."""
    root = write_imagenet(tmp_path / "images")
    truncate(root / "train" / CLASSES[0] / f"{CLASSES[0]}_3.JPEG")
    (root / "val" / CLASSES[2] / f"{CLASSES[2]}_1.JPEG").write_text("hello")
    return root


@pytest.mark.parametrize("on_disk", [True, False])
def test_broken_images_are_refused_by_name_and_counted(damaged, on_disk):
    message = refused(load, str(damaged), image_size=SIZE, stored=on_disk)
    assert message.startswith(str(damaged / "train" / CLASSES[0]))
    assert f"{CLASSES[0]}_3.JPEG: not a readable image" in message
    assert "(2 of 33 images cannot be used)" in message


def test_broken_images_are_left_out_if_asked_and_the_source_says_so(damaged, on_disk):
    data = stored(damaged, broken="skip")
    assert "2 of 33 images are broken and left out." in data.source
    assert (len(data.train), len(data.test)) == (23, 8)
    np.testing.assert_array_equal(data.train.ids, np.delete(np.arange(24), 3))
    whole = np.delete(on_disk.train.images[:], 3, axis=0)
    np.testing.assert_array_equal(data.train.images[:], whole)


def test_an_unknown_wish_about_broken_images_is_refused(imagenet, unchecked):
    assert "broken is 'maybe'" in refused(stored, imagenet, broken="maybe")


def test_a_class_of_broken_images_alone_is_refused(tmp_path):
    root = write_imagenet(tmp_path, {"train": 2, "val": 1})
    for file in root.glob(f"*/{CLASSES[1]}/*.JPEG"):
        truncate(file)
    message = refused(stored, root, broken="skip")
    assert f"class '{CLASSES[1]}' has no image that can be used" in message


def test_an_image_that_breaks_later_is_named_when_it_is_needed(tmp_path):
    root = write_imagenet(tmp_path)
    train = stored(root).train
    file = root / "train" / CLASSES[0] / f"{CLASSES[0]}_5.JPEG"
    truncate(file)
    assert refused(train.images.__getitem__, slice(4, 7)).startswith(f"{file}: not a")
    file.unlink()
    assert f"{file}: cannot be read" in refused(train.images.__getitem__, 5)


def test_a_long_survey_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
    root = write_imagenet(tmp_path / "images")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(surveys, "REMEMBERED_SECONDS", -1.0)
    told = []

    def tell(done, total):
        told.append((done, total))

    first = stored(root, tell=tell)
    assert told == [(33, 33)]
    assert stored(root, tell=tell).data_hash == first.data_hash
    assert len(told) == 1, "nothing was decoded again"
    file = root / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    truncate(file)
    os.utime(file, ns=(0, 0))
    assert "(1 of 33 images" in refused(stored, root, tell=tell)
    assert len(told) == 2
    memories = list((tmp_path / "cache").rglob("*.*"))
    assert {memory.suffixes[0] for memory in memories} == {".npz"}
    for memory in memories:
        assert memory.stat().st_mode & 0o077 == 0, "others may read it"
        memory.write_bytes(b"damaged")
    assert "(1 of 33 images" in refused(stored, root, tell=tell)
    assert len(told) == 3


def test_what_is_no_file_cannot_stay_on_disk():
    assert refused(load, "digits", stored=True).startswith("stored: on for 'digits'")
    assert refused(load, "digits", image_size=(8, 8)).startswith("image_size: ")
