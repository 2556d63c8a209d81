"""Places365 to ImageNet: planned as published, and trained on a small made-up set."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import assert_close, assert_same, differ
from tiny_experiment import rpjax
from two_processes import CLI, finished

from rpjax.data import load
from rpjax.experiments import ExperimentConfig, recipes
from rpjax.experiments.methods import plan
from rpjax.experiments.planning import given
from rpjax.experiments.schedules import rising, steps_of_warmup
from rpjax.experiments.transfer import opened
from rpjax.privacy import dpsgd

pytest_plugins = ["two_processes"]

BOTH = ("places365-pretrain", "imagenet-dp")
RECORDS = {"train": 64, "val": 16}
# the recipes' nets and steps, with few channels on few pixels
TINY = (
    *("--image-size", 32, "--channels", 2, "--devices", 8),
    *("--noise-seed", "fixed"),
)


def config_of(name):
    recipe = recipes.named(name)
    config = recipes.followed(recipe, ExperimentConfig(train_on="all"))
    return given(config, recipe.data)


# ------------------------------------------------------------------------- as published


def test_the_published_noise_has_the_epsilon_that_is_known_of_it():
    facts, dp = recipes.named("imagenet-dp").data, config_of("imagenet-dp").dp
    run = (1.312707, dp.batch_size / facts.records, 1368, dp.delta)
    assert dpsgd.epsilon(*run, "rdp") == pytest.approx(9.9726, abs=0.01)
    assert dpsgd.epsilon(*run) == pytest.approx(9.2901, abs=0.01)


def theirs(step, warmup, epochs, per_epoch):
    """The share of the learning rate in update `step`, from 1: the authors' code."""
    epoch = step / per_epoch
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + np.cos(np.pi * (epoch - warmup) / (epochs - warmup)))


@pytest.mark.parametrize("name", BOTH)
def test_the_learning_rate_is_the_published_one_up_to_an_update(name):
    records, config = recipes.named(name).data.records, config_of(name)
    own = config.dp if name == "imagenet-dp" else config.training
    per_epoch = records / own.batch_size
    steps = round(own.epochs * per_epoch)
    first = steps_of_warmup("dp", own.warmup, per_epoch, steps)
    found = rising(1.0, "cosine", first, steps)(np.arange(steps))
    wanted = [theirs(n + 1, own.warmup, own.epochs, per_epoch) for n in range(steps)]
    assert np.abs(np.asarray(found) - wanted).max() < 1.05 / first
    assert found[0] > 0


def planned(tmp_path, *words):
    """What `rpjax plan` wrote, and what it printed; nothing is compiled."""
    file = tmp_path / "plan.json"
    said = rpjax(
        *("plan", *words, "--no-compile", "--flops-per-second", 1e14, "--json", file)
    )
    assert said.code == 0, said.err
    return json.loads(file.read_text()), said.out


@pytest.mark.slow
def test_imagenet_is_planned_where_there_is_none_of_it(tmp_path, monkeypatch):
    """Figures by hand, or of the paper."""
    monkeypatch.chdir(tmp_path)
    found, printed = planned(tmp_path, "--recipe", "imagenet-dp", "--devices", 8)
    assert found["data"]["records"] == 1_281_167
    assert found["data"]["shape"] == [224, 224, 3]
    assert "as the recipe says" in found["data"]["how"]
    assert found["start"].startswith("places365, not here")
    training = found["training"]
    assert (training["steps"], training["batch_size"]) == (1368, 65_536)
    assert training["records_per_device"] == 8192
    assert training["microbatch"] == 128
    assert 8192 < training["slots_per_device"] < 9000
    proved = found["guarantee"]
    assert (proved["delta"], proved["adjacency"]) == (1e-6, "add or remove one record")
    assert 9.99 < proved["epsilon"] <= 10
    assert 1.2 < found["noise_multiplier"] < 1.312707
    # stage 4 of two basic blocks with a projection, 11.7 million parameters in all
    conv = 9 * 512 * 512
    stage = 9 * 256 * 512 + 256 * 512 + 3 * conv + 2 * 256 + 3 * 2 * 512
    assert found["parameters"]["groups"][4]["trained"] == stage
    head = 2 * 512 + 512 * 1000 + 1000
    assert found["parameters"]["trained"] == stage + head
    assert 11.6e6 < found["parameters"]["all"] < 11.8e6
    # 1.8 billion multiplications and additions forward; gradients of one stage of four
    assert 3.6e9 < found["time"]["flops_per_record"] < 3 * 3.6e9
    time = found["time"]
    seconds = time["flops_per_step"] / (8 * 1e14)
    assert time["step_seconds"] == pytest.approx(seconds)
    assert time["total_seconds"] == pytest.approx(1368 * seconds)
    memory = found["memory"]
    images = 2 * training["slots_per_device"] * 224 * 224 * 3
    assert (memory["images"], memory["data"]) == (images, 0)
    assert memory["parameters"] == 4 * found["parameters"]["all"]
    for words in ("1,281,167 records", "not here", "1,368, 69.98 epochs"):
        assert words in " ".join(printed.split())


def test_what_freezing_spares_is_what_is_planned_less(tmp_path):
    words = ("--records", 1000, "--method", "dpsgd", "--dp-batch-size", 100)
    words = (*words, "--dp-epochs", 1, "--noise-multiplier", 1, "--channels", 2)
    whole, _ = planned(tmp_path, *words)
    start = ("--start", tmp_path / "none", "--frozen-groups", 3)
    part, _ = planned(tmp_path, *words, *start)
    assert whole["parameters"]["all"] == part["parameters"]["all"]
    assert whole["parameters"]["frozen"] == 0 < part["parameters"]["frozen"]
    assert part["guarantee"]["epsilon"] == whole["guarantee"]["epsilon"]
    assert part["time"]["flops_per_step"] < 0.8 * whole["time"]["flops_per_step"]
    assert part["memory"]["optimiser"] < whole["memory"]["optimiser"]


@pytest.mark.slow
def test_fifty_layers_have_bottlenecks_and_the_same_groups():
    config = config_of("imagenet-dp")
    model = replace(config.model, depth=50)
    config = replace(config, model=model, transfer=replace(config.transfer, start=None))
    each = plan(config, "dpsgd", 1000, 1_281_167)
    names = each.learner.mechanism.trained_words
    assert names == "block13, block14, block15, head_norm, head"


# --------------------------------------------------------- trained on what is made up


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """Two generated sets."""
    root = tmp_path_factory.mktemp("kurakin")
    for name, classes, seed in (("places", 3, 0), ("imagenet", 4, 1)):
        said = rpjax(
            *("data", "generate", root / name, "--classes", classes, "--seed", seed),
            *("--train", RECORDS["train"], "--val", RECORDS["val"]),
        )
        assert said.code == 0, said.err
        assert f"--data folder:{root / name}" in said.out
    return root


@pytest.fixture(scope="module")
def folder(made_up):
    """The same, with a net trained on the first set by the first recipe."""
    said = rpjax(
        *("train", "--recipe", BOTH[0], "--data", f"folder:{made_up / 'places'}"),
        *(*TINY, "--batch-size", 16, "--epochs", 0.5, "--warmup", 0.25),
        *("--out", made_up / "start"),
    )
    assert said.code == 0, said.err
    return made_up


def private(folder, out, *words):
    """The words of the second recipe, three steps of it."""
    return (
        *("train", "--recipe", BOTH[1], "--data", f"folder:{folder / 'imagenet'}"),
        *(*TINY, "--start", folder / "start", "--dp-batch-size", 16),
        *("--dp-epochs", 0.75, "--dp-warmup", 0.25, "--microbatch", 2),
        *(*words, "--out", out),
    )


@pytest.mark.slow
def test_both_recipes_train_on_eight_devices_and_leave_the_frozen_alone(folder):
    said = rpjax(*private(folder, folder / "private"))
    assert said.code == 0, said.err
    before, after = opened(folder / "start").params, opened(folder / "private").params
    frozen = ("stem", *(f"block{i}" for i in range(6)))
    for name in frozen:
        assert_same(after[name], before[name])
    for name in before.keys() - set(frozen):
        assert differ(after[name], before[name])
    results = json.loads((folder / "private" / "results.json").read_text())
    (part,) = results["methods"]
    assert results["device"]["count"] == 8
    assert part["training"]["steps"] == 3
    assert part["model"]["trained"] == "block6, block7, head_norm, head"
    source = "places (64 records, SHA-256 "
    assert part["model"]["start"].startswith(source)
    assert "2 steps of plain (SHA-256 " in part["model"]["start"]
    assert f"public data: {source}" in part["guarantee"]["mechanism"]
    assert part["guarantee"]["delta"] == 1e-6
    assert 9.9 < part["guarantee"]["epsilon"] <= 10


@pytest.mark.slow
def test_a_plan_counts_the_files_of_a_folder_and_compiles_for_its_devices(folder):
    file = folder / "plan.json"
    words = private(folder, folder)[1:-2]
    said = rpjax("plan", *words, "--flops-per-second", 1e10, "--json", file)
    assert said.code == 0, said.err
    found = json.loads(file.read_text())
    assert found["data"]["how"].startswith("files counted")
    assert (found["data"]["records"], found["data"]["classes"]) == (64, 4)
    assert found["training"]["devices"] == {"member": 1, "data": 8}
    assert found["start"] == str(folder / "start")
    assert "public data: places" in found["guarantee"]["mechanism"]
    memory = found["memory"]
    least = memory["parameters"] + memory["optimiser"] + memory["images"] // 2
    assert least < memory["compiled"]["arguments"] < 2 * least
    assert memory["compiled"]["peak"] > least


def test_generated_pictures_are_the_same_again_and_tell_their_class(made_up, tmp_path):
    data = load(f"folder:{made_up / 'imagenet'}", image_size=(8, 8))
    assert (len(data.train), len(data.test), data.classes) == (64, 16, 4)
    means = data.train.images.mean((1, 2))
    centres = np.stack([means[data.train.labels == k].mean(0) for k in range(4)])
    distances = np.linalg.norm(means[:, None] - centres, axis=-1)
    assert (distances.argmin(1) == data.train.labels).all()
    rpjax("data", "generate", tmp_path / "again", "--seed", 1)
    again = load(f"folder:{tmp_path / 'again'}", image_size=(8, 8))
    assert again.data_hash == data.data_hash
    said = rpjax("data", "generate", tmp_path / "again")
    assert said.code == 2
    assert "holds something; name a new folder" in said.err


@pytest.mark.slow
def test_two_processes_train_it_as_eight_devices_do(start, folder, tmp_path):
    """Two devices in each, and a checkpoint that was written on eight."""
    words = private(folder, tmp_path / "out", "--devices", 4)
    first, _ = finished(start((*CLI, *words)))
    assert "2 processes with 4 cpu devices" in first
    before, after = opened(folder / "start").params, opened(tmp_path / "out").params
    assert_same(after["stem"], before["stem"])
    assert differ(after["head"], before["head"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["device"]["processes"] == 2
    assert_close(after, opened(folder / "private").params, rtol=1e-3, atol=1e-3)
