"""The command line refuses what cannot be in one line, and leaves nothing behind."""

import numpy as np
import pytest
from tiny_experiment import FLAGS, refused, rpjax

pytest_plugins = ["tiny_experiment"]

TINY = ["compare", *FLAGS]

# ------------------------------------------------------------------------------ refuses

REFUSED = {
    "--data nothing": "data: 'nothing' is not known",
    "--data mnist": "data_dir: not given",
    "--data mnist --data-dir /nowhere": "data_dir: train-images-idx3",
    "--data npz:/nowhere.npz": "/nowhere.npz: no such file",
    "--train-records 9": "train_records is 9",
    "--train-records 5000": "train_records is 5000",
    "--norm batch": "norm is 'batch'",
    "--delta 1": "delta = 1.0: must lie strictly between 0 and 1",
    "--delta 0 --methods plain": "delta = 0.0",
    "--gamma -1": "gamma is -1.0",
    "--gamma nan": "gamma is nan",
    "--gamma-relative -1": "gamma is -1.0",
    "--floor -1": "floor is -1.0",
    "--input-noise -1": "input_noise is -1.0",
    "--input-bound 0": "input_bound is 0.0",
    "--devices 3": "devices is 3, which does not divide the batch of 64",
    "--devices 16": "devices is 16; there are 8",
    "--devices 0": "devices is 0; there are 8",
    "--epochs 0": "epochs is 0.0",
    "--epochs nan": "training.epochs is nan",
    "--epochs inf": "training.epochs is inf",
    "--batch-size 257": "batch_size is 257",
    "--batch-size 0": "batch_size is 0",
    "--learning-rate -1": "learning_rate is -1.0",
    "--momentum 2": "training.momentum is 2.0",
    "--weight-decay -1": "training.weight_decay is -1.0",
    "--crop 8": "training.crop is 8",
    "--depth 9": "depth is 9",
    "--channels None --depth 9 --width 2": "depth is 9",
    "--depth 10 --width 0": "model.width is 0",
    "--groups 0": "model.groups is 0",
    "--shadows 0": "shadows is 0",
    "--draws 0": "attack.draws is 0",
    "--members 0": "members is 0",
    "--epsilon -1": "epsilon = -1.0",
    "--epsilon -inf": "epsilon = -inf",
    "--clip-norm 0": "clip_norm is 0.0",
    "--noise-multiplier -1": "noise_multiplier is -1.0",
    "--microbatch 0": "microbatch is 0",
    "--dp-epochs 0": "dp-epochs is 0.0",
    "--dp-batch-size 257": "dp-batch-size is 257",
    "--dp-learning-rate 0": "learning_rate is 0.0",
    "--seed -1": "seed is -1",
    "--methods": "methods is empty",
    "--methods plain plain": "methods is plain, plain",
    "--train-on all": "train_on is 'all'",
    "--config /nowhere.yaml": "config is /nowhere.yaml; there is no such file",
    "--config=/": "config is /; there is no such file",
    "--resume --overwrite": "resume and overwrite are both on",
}


@pytest.mark.parametrize(("words", "message"), REFUSED.items(), ids=list(REFUSED))
def test_bad_input_is_one_line_and_leaves_no_folder(words, message, tmp_path):
    said = rpjax(*TINY, *words.split(), "--out", tmp_path / "out")
    assert refused(said).startswith(message)
    assert list(tmp_path.iterdir()) == []


def images(count=40, **changes):
    """Arrays of a small data set that is in order, but for the changes."""
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.random((count, 8, 8, 1)),
        "labels": np.arange(count) % 4,
        "classes": np.array(4),
    }
    return {**arrays, **changes}


BROKEN = {
    "rank": (images(images=np.zeros((40, 64))), "images: shape (40, 64)"),
    "range": (images(labels=np.arange(40)), "labels: 39 occurs, with 4 classes"),
    "negative": (images(labels=np.arange(40) % 4 - 1), "labels: labels from -1"),
    "nan": (images(images=np.full((40, 8, 8, 1), np.nan)), "images: holds NaN"),
    "bright": (images(images=np.full((40, 8, 8, 1), 255.0)), "images: float pixels"),
    "length": (images(labels=np.zeros(3, int)), "labels: 3 labels for 40 images"),
    "names": ({"pictures": np.zeros(3)}, "holds pictures; needs"),
}


@pytest.mark.parametrize(("arrays", "message"), BROKEN.values(), ids=list(BROKEN))
def test_an_npz_file_that_is_not_in_order_is_one_line(arrays, message, tmp_path):
    file, out = tmp_path / "own.npz", tmp_path / "out"
    np.savez(file, **arrays)
    said = refused(rpjax(*TINY, "--data", f"npz:{file}", "--out", out))
    assert said.startswith(f"{file}: {message}")
    assert not out.exists()


def test_an_npz_file_that_is_in_order_is_accepted(tmp_path):
    """The power of the test above: only the changes are refused."""
    np.savez(tmp_path / "own.npz", **images())
    words = ["--data", tmp_path / "own.npz", "--batch-size", 8, "--dp-batch-size", 8]
    said = rpjax("account", *words, "--methods", "plain")
    assert (said.code, said.err) == (0, "")


def test_a_configuration_that_is_not_yaml_is_one_line(tmp_path):
    file = tmp_path / "bad.yaml"
    for text, message in {
        "a: [": "config: not YAML",
        "training: {epoch: 3}": "config.training.epoch is not a field",
        "- plain": "config is ['plain']",
    }.items():
        file.write_text(text)
        said = rpjax("compare", "--config", file, "--out", tmp_path / "out")
        assert refused(said).startswith(message)
    file.write_bytes(b"\xff\xfe\x80")
    said = rpjax("compare", "--config", file, "--out", tmp_path / "out")
    assert "is not a text file" in refused(said)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert refused(rpjax(*TINY, "--out", tmp_path / "file" / "out"))
    assert refused(rpjax(*TINY, "--out", tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    for words in ([], ["--resume"], ["--overwrite"]):
        message = refused(rpjax(*TINY, *words, "--out", tmp_path))
        assert "files of something else" in message
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_holds_another_run_is_left_alone(compared):
    before = (compared.folder / "results.json").stat().st_mtime_ns
    assert "holds another run" in refused(rpjax(*TINY, "--out", compared.folder))
    assert (compared.folder / "results.json").stat().st_mtime_ns == before


def test_training_takes_one_method_and_says_so(tmp_path):
    words = ["train", "--methods", "plain", "dpsgd", "--out", tmp_path / "out"]
    assert refused(rpjax(*words)) == (
        "methods is plain, dpsgd; train takes one, by --method"
    )


@pytest.mark.parametrize("command", ["evaluate", "attack", "report"])
def test_a_folder_without_a_run_is_one_line(command, tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert str(folder) in refused(rpjax(command, folder))
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_not_evaluated_or_attacked(interrupted, tmp_path):
    """Copied as it was left: only plain training is through."""
    source = interrupted.resumed.folder
    (tmp_path / "methods").mkdir()
    for name in ("config.yaml", "methods/plain.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    for command in ("evaluate", "attack"):
        assert "strategy1 is missing" in refused(rpjax(command, tmp_path))
