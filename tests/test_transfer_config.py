"""A start and frozen groups in a configuration: every method, every refusal."""

import dataclasses

import jax
import numpy as np
import pytest
from rich.console import Console
from support import assert_same, differ
from tiny_experiment import rpjax

from rpjax import keys
from rpjax.data import load
from rpjax.errors import InputError
from rpjax.experiments import from_yaml, revisit
from rpjax.experiments.checks import check
from rpjax.experiments.compare import target
from rpjax.experiments.config import METHODS
from rpjax.experiments.methods import net, plan
from rpjax.experiments.presets import resolved
from rpjax.experiments.transfer import carried, check_start, opened
from rpjax.training.checkpoints import newest

SIZE = (
    *("--channels", 2, "--batch-size", 16, "--epochs", 0.5, "--noise-seed", "fixed"),
    *("--dp-batch-size", 8, "--dp-epochs", 0.25, "--noise-multiplier", 1),
)
PUBLIC, OWN = ("--train-records", 32), ("--train-records", 64)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The folder of a training on 32 digits, which play the public data."""
    folder = tmp_path_factory.mktemp("public") / "start"
    words = ("train", "--method", "plain", *SIZE, *PUBLIC, "--out", folder)
    said = rpjax(*words)
    assert said.code == 0, said.err
    return folder


def config_of(start, frozen=0, text="", **model):
    """Of digits, every field filled in."""
    config = from_yaml(f"transfer: {{start: {start}, frozen_groups: {frozen}}}\n{text}")
    own = dataclasses.replace(config.model, **{"channels": 2, **model})
    return resolved(dataclasses.replace(config, model=own), load("digits"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_there_and_freezes_as_many(method, start):
    text = "dp: {batch_size: 8, noise_multiplier: 1.0}\nensemble: {members: 2}"
    learner = plan(config_of(start, 2, text), method, 10, 64).learner
    facts, public = learner.mechanism, opened(start)
    assert facts.trained == ("block1", "block2", "head_norm", "head")
    assert facts.trained_words == "block1, block2, head_norm, head"
    assert facts.pretrained.startswith("digits (32 records, SHA-256 ")
    assert "), 1 steps of plain (SHA-256 " in facts.pretrained
    image = np.zeros((1, 8, 8, 1), np.uint8)
    params = jax.jit(learner.init)(keys.root(0), image).params
    for member in range(2) if learner.members else [...]:
        own = jax.tree.map(lambda leaf, at=member: leaf[at], params)
        assert_same(own, public.params)


def test_a_head_for_other_classes_is_a_fresh_one(start):
    config = config_of(start)
    assert carried(config, net(config, 10)).start.fresh == ()
    assert carried(config, net(config, 5)).start.fresh == ("head",)


@pytest.mark.slow
def test_a_command_starts_there_goes_on_and_is_asked_again(start, tmp_path):
    out = tmp_path / "out"
    words = ("train", "--method", "strategy1", *SIZE, *OWN, "--out", out)
    words = (*words, "--start", start, "--frozen-groups", 2)
    said = rpjax(*words)
    assert said.code == 0, said.err
    after, before = opened(out), opened(start)
    for name in ("stem", "block0"):
        assert_same(after.params[name], before.params[name])
    assert differ(after.params["block1"], before.params["block1"])
    assert f", from {before.source} (SHA-256 " in after.source
    assert rpjax(*words, "--resume").code == 0
    said = rpjax(*words, "--resume", "--frozen-groups", 1)
    assert "transfer.frozen_groups differs from the run in" in said.err
    assert rpjax("evaluate", out).code == 0
    page = (out / "report.html").read_text()
    assert "pre-trained on public data: digits (32 records" in " ".join(page.split())


@pytest.mark.slow
def test_of_a_training_with_an_average_the_average_is_carried_over(tmp_path):
    out = tmp_path / "out"
    words = ("train", "--method", "dpsgd", *SIZE, *PUBLIC, "--out", out)
    words = (*words, "--dp-epochs", 1, "--averages", 0.5, "--average", 0.5)
    assert rpjax(*words).code == 0
    console = Console(quiet=True)
    ready, folder = revisit.opened(out, console)
    run = target(ready, ready.plans[0], folder, console)
    assert_same(opened(out).params, run.state.params)
    last = newest(folder.checkpoints("dpsgd"))["params"]
    assert differ(opened(out).params, last)


def test_a_start_that_changed_is_read_again(start, tmp_path):
    before = opened(start)
    assert opened(start) is before
    results = start / "results.json"
    results.write_text(results.read_text())
    assert opened(start) is not before


# ------------------------------------------------------------------------------ refused

REFUSED = {
    "transfer: {frozen_groups: 2}": (
        "transfer.frozen_groups is 2 without a transfer.start; what is frozen comes "
    ),
    "transfer: {frozen_groups: -1}": "transfer.frozen_groups is -1; it must be >= 0",
    "transfer: {start: x, frozen_groups: 1}\ndp: {trainable: [head]}": (
        "transfer.frozen_groups is 1 and dp.trainable head; both say what is trained"
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_read(text):
    with pytest.raises(InputError) as caught:
        check(from_yaml(text))
    assert str(caught.value).startswith(REFUSED[text])


@pytest.mark.parametrize(
    ("frozen", "model", "message"),
    [
        (5, {}, "transfer.frozen_groups is 5; this net has 5 groups, of which 0 to 4"),
        (0, {"channels": 4}, "model.channels is 4; the net in transfer.start, "),
        (1, {"depth": 20}, "model.depth is 20; the net in transfer.start, "),
        (0, {"stem": "imagenet"}, "model.stem is imagenet; the net in transfer.start"),
    ],
)
def test_a_start_of_another_net_is_refused(frozen, model, message, start):
    with pytest.raises(InputError) as caught:
        plan(config_of(start, frozen, **model), "plain", 10, 64)
    assert str(caught.value).startswith(message)


def test_a_folder_that_holds_no_run_of_one_net_is_refused(start, tmp_path):
    for folder in (tmp_path, tmp_path / "none", start / "checkpoints"):
        with pytest.raises(InputError, match="which holds no finished run; name the f"):
            opened(folder)


def test_a_private_training_does_not_start_from_its_own_records(start):
    said = rpjax(
        *("train", "--method", "dpsgd", *SIZE, *PUBLIC, "--start", start),
        *("--out", start.parent / "own"),
    )
    assert said.code == 2
    assert "which was trained on these very records" in " ".join(said.err.split())
    assert not (start.parent / "own").exists()
    check_start(config_of(start).transfer, load("digits"), private=True)
    said = rpjax(
        *("audit", "--methods", "dpsgd", *SIZE, *PUBLIC, "--start", start),
        *("--models", 8, "--audited", 8, "--canaries", 2),
        *("--out", start.parent / "audited"),
    )
    assert said.code == 2
    assert "which was trained on these very records" in " ".join(said.err.split())


def test_a_start_for_other_channels_is_refused(start):
    digits = load("digits")
    colour = [
        dataclasses.replace(part, images=part.images.repeat(3, -1))
        for part in (digits.train, digits.test)
    ]
    colour = dataclasses.replace(digits, train=colour[0], test=colour[1])
    with pytest.raises(InputError, match="a net for images of 1 channels; these have"):
        check_start(config_of(start).transfer, colour)
