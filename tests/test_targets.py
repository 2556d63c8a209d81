"""The noise that a target needs, and how `account` says it."""

import json
import re

import pytest
from tiny_experiment import rpjax

from rpjax.errors import InputError
from rpjax.experiments.config import ExperimentConfig, NoiseConfig, TrainingConfig
from rpjax.experiments.methods import plan
from rpjax.experiments.presets import COMMON, MNIST, fill
from rpjax.experiments.targets import needed, rounded_up
from rpjax.privacy import documents, residual
from rpjax.privacy.labels import RandomisedResponse

SHAPE, RECORDS, CLASSES = (28, 28, 1), 6_000, 10
ACCOUNT = ["account", "--records", RECORDS, "--shape", *SHAPE, "--data", "mnist"]
CONFIG = fill(ExperimentConfig(), MNIST, COMMON)


def refused(said):
    assert said.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line.removeprefix("rpjax: error: ")


@pytest.mark.parametrize("method", ["strategy1", "strategy2", "ensemble", "dpsgd"])
def test_the_noise_reaches_the_target_and_a_thousandth_less_does_not(method):
    found = needed(CONFIG, method, CLASSES, RECORDS, SHAPE, 3.0, 1e-6)
    proved = found.plan.guarantee(SHAPE)
    assert (proved.delta, proved.epsilon <= 3.0) == (1e-6, True)
    assert proved.parameters[found.option[2:].replace("-", "_")] == found.noise
    group = "dp" if method == "dpsgd" else "noise"
    part = getattr(found.plan.config, group)
    fields = {**vars(part), found.option[2:].replace("-", "_"): found.noise * 0.998}
    less = type(CONFIG)(**{**vars(found.plan.config), group: type(part)(**fields)})
    assert plan(less, method, CLASSES, RECORDS).guarantee(SHAPE).epsilon > 3.0


def test_the_input_noise_is_that_of_the_closed_form():
    found = needed(CONFIG, "strategy1", CLASSES, RECORDS, SHAPE, 4.0, 1e-5)
    exact = residual.input_noise_for(4.0, 1e-5, diameter=56.0, participations=6)
    assert found.noise == rounded_up(exact)
    own = needed(CONFIG, "ensemble", CLASSES, RECORDS, SHAPE, 4.0, 1e-5)
    assert own.noise == pytest.approx(exact * 5**0.5, rel=1e-3)


def test_plain_training_is_refused_and_noise_on_the_blocks_is_said_to_be_none():
    with pytest.raises(InputError, match=r"^plain training adds no noise"):
        needed(CONFIG, "plain", CLASSES, RECORDS, SHAPE, 4.0, 1e-5)
    found = needed(CONFIG, "strategy1", CLASSES, RECORDS, SHAPE, 4.0, 1e-5)
    assert str(found).startswith("needs --input-noise ")
    assert str(found).endswith(
        "noise on the blocks alone reaches no target, whatever γ is"
    )
    with_some = fill(
        ExperimentConfig(noise=type(CONFIG.noise)(input_noise=2)), MNIST, COMMON
    )
    again = needed(with_some, "strategy1", CLASSES, RECORDS, SHAPE, 4.0, 1e-5)
    assert str(again).endswith("(now 2)")


def test_a_training_that_no_noise_makes_private_is_refused_with_the_reason():
    noise = NoiseConfig(noise_order="augment_then_noise")
    training = TrainingConfig(flip=True)
    config = fill(ExperimentConfig(noise=noise, training=training), MNIST, COMMON)
    with pytest.raises(InputError, match="no noise on the input reaches it, since"):
        needed(config, "strategy1", CLASSES, RECORDS, SHAPE, 4.0, 1e-5)


# ----------------------------------------------------------------------------- account


def test_account_says_what_each_method_needs_and_states_it(tmp_path):
    file = tmp_path / "g.json"
    words = ["--methods", "plain", "strategy1", "dpsgd", "--target-epsilon", 4]
    words += ["--noise-multiplier", 9]
    said = rpjax(*ACCOUNT, *words, "--json", file)
    assert said.code == 0, said.err
    head, plain, one, other = said.out.splitlines()[:4]
    assert head == "For ε = 4 at δ = 1e-05:"
    assert plain.startswith("Plain: plain training adds no noise")
    noise = re.search(r"needs --input-noise (\S+) \(now 0\)", one)[1]
    sigma = re.search(r"needs --noise-multiplier (\S+) \(now 9\)", other)[1]
    assert "Epsilons of different neighbours are not comparable" in said.out
    proved = documents.read(file)
    assert list(proved) == ["strategy1", "dpsgd"]
    for guarantee in proved.values():
        assert 3.98 <= guarantee.epsilon <= 4
        assert str(guarantee) in said.out
    # what is printed, taken at its word, states the same
    words = ["--methods", "strategy1", "dpsgd"]
    words += ["--input-noise", noise, "--noise-multiplier", sigma]
    again = tmp_path / "again.json"
    assert rpjax(*ACCOUNT, *words, "--json", again).code == 0
    for name, guarantee in documents.read(again).items():
        assert (guarantee.epsilon, guarantee.statement) == (
            *(proved[name].epsilon, proved[name].statement),
        )


def test_one_epsilon_needs_no_comparison():
    said = rpjax(*ACCOUNT, "--methods", "plain", "dpsgd", "--noise-multiplier", 3)
    assert "comparable" not in said.out


REFUSALS = {
    "plain alone": (
        ["--methods", "plain", "--target-epsilon", 4],
        "Plain: plain train",
    ),
    "zero": (["--target-epsilon", 0], "target_epsilon is 0.0; it must be finite and"),
    "delta of one": (
        ["--target-epsilon", 4, "--target-delta", 1],
        "target_delta is 1.0; it must lie strictly between 0 and 1",
    ),
    "delta alone": (["--target-delta", 1e-6], "target_delta is 1e-06; it needs a tar"),
    "a budget beside it": (
        [
            *("--methods", "dpsgd", "--noise-multiplier", 3),
            *("--target-epsilon", 4, "--stop-at-epsilon", 8),
        ],
        "DP-SGD (σ = 3): stop_at_epsilon is 8 beside target_epsilon = 4; give one",
    ),
}


@pytest.mark.parametrize(("words", "message"), REFUSALS.values(), ids=list(REFUSALS))
def test_targets_that_cannot_be_are_refused_in_one_line(words, message):
    assert refused(rpjax(*ACCOUNT, *words)).startswith(message)


def test_the_file_of_account_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "g.json"
    file.write_text("before")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    said = rpjax(*ACCOUNT, "--methods", "plain", "--json", file)
    assert said.code == 2
    assert file.read_text() == "before"
    monkeypatch.undo()
    assert rpjax(*ACCOUNT, "--methods", "plain", "--json", file).code == 0
    assert json.loads(file.read_text())["schema"] == documents.SCHEMA


def test_with_noisy_labels_the_target_is_for_whole_records():
    noise = NoiseConfig(label_epsilon=1.0)
    config = fill(ExperimentConfig(noise=noise), MNIST, COMMON)
    found = needed(config, "strategy1", CLASSES, RECORDS, SHAPE, 3.0, 1e-5)
    proved = found.plan.guarantee(SHAPE)
    assert proved.adjacency == "replace one record by another"
    assert 2.99 <= proved.epsilon <= 3.0
    with pytest.raises(InputError, match="the labels alone, by randomised response"):
        needed(config, "strategy1", CLASSES, RECORDS, SHAPE, 0.9, 1e-5)


@pytest.mark.parametrize("classes", [2, 100])
def test_the_number_of_classes_counts_where_labels_are_noisy(classes, tmp_path):
    file = tmp_path / "guarantee.json"
    words = ["--methods", "strategy1", "--input-noise", 60, "--label-epsilon", 2]
    words += ["--classes", classes, "--json", file]
    assert rpjax(*ACCOUNT, *words).code == 0
    proved = documents.read(file)["strategy1"]
    assert proved.parameters["classes"] == classes
    (labels,) = (each for each in proved.alternatives if "label," in each.adjacency)
    exact = RandomisedResponse(2.0, classes).epsilon(proved.delta)
    assert labels.epsilon == pytest.approx(exact, rel=1e-12)


def test_one_class_is_none_to_choose_from():
    assert refused(rpjax(*ACCOUNT, "--classes", 1)) == "classes is 1; it must be >= 2"
