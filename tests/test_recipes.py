"""Recipes: published settings under a name, with the epsilon that follows from them."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console
from support import assert_same, differ
from tiny_experiment import rpjax

from rpjax.experiments import (
    ExperimentConfig,
    compare,
    from_yaml,
    recipes,
    revisit,
    to_yaml,
)
from rpjax.experiments.checks import check
from rpjax.experiments.compare import target
from rpjax.experiments.methods import plan
from rpjax.experiments.planning import given
from rpjax.experiments.values import overlaid

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"
SHAPES = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1)}


def resolved(name):
    recipe = recipes.named(name)
    config = recipes.followed(recipe, ExperimentConfig(train_on="all"))
    return given(config, recipe.data)


def planned(name, records):
    return plan(resolved(name), "dpsgd", 10, records)


@pytest.fixture(params=recipes.RECIPES)
def name(request):
    return request.param


def test_every_recipe_is_a_configuration_that_survives_yaml(name):
    config = resolved(name)
    check(config)
    assert config.methods == (("plain",) if "pretrain" in name else ("dpsgd",))
    assert from_yaml(to_yaml(config)) == config


# privacy loss distributions and Renyi orders for adding or removing one record, and the
# former for replacing one, as dp-accounting states them for the published settings
REFERENCES = {
    "de2022-wrn16-4-eps1": (0.9040, 0.9877, 1.9248),
    "tan2023-wrn16-4": (6.5797, 7.0985, 14.7117),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_published_settings_have_the_epsilon_that_is_known_of_them(name):
    found = planned(name, 50_000).guarantee(SHAPES["cifar10"])
    others = [other.epsilon for other in found.alternatives]
    assert (found.epsilon, *others) == pytest.approx(REFERENCES[name], abs=0.01)
    assert found.delta == 1e-5


@pytest.mark.parametrize(
    ("name", "records", "target"),
    [("de2022-wrn40-4-eps8", 50_000, 8.0), ("mnist-eps3", 60_000, 3.0)],
)
def test_derived_settings_meet_their_target_and_waste_none_of_it(name, records, target):
    config = resolved(name)
    found = planned(name, records).guarantee(SHAPES[config.data.name])
    assert 0.999 * target < found.epsilon <= target


def test_shuffled_epochs_are_calibrated_for_their_own_neighbours():
    dp = {"sampling": "shuffled", "steps": 100, "batch_size": 100, "epsilon": 4.0}
    config = overlaid(resolved("mnist-eps3"), {"dp": dp}, "test")
    found = plan(config, "dpsgd", 10, 1000).guarantee(SHAPES["mnist"])
    assert found.adjacency == "replace one record by nothing"
    assert 0.999 * 4 < found.epsilon <= 4


def test_de_et_al_are_followed_in_every_setting():
    each = planned("de2022-wrn16-4-eps1", 50_000)
    facts, model = each.learner.mechanism, resolved("de2022-wrn16-4-eps1").model
    assert (each.steps, each.batch_size, each.average) == (875, 4096, 0.999)
    assert (facts.noise_multiplier, facts.clip_norm) == (10.0, 1.0)
    assert (facts.clipping, facts.sampling) == ("normalised", "poisson")
    assert (model.depth, model.width, model.groups) == (16, 4, 16)
    assert (model.norm_last, model.shortcut, model.standardise) == (True, "own", True)


def test_the_record_of_mnist_is_of_this_recipe_and_reaches_its_goal():
    record = json.loads((RECORDS / "train_mnist_dpsgd_eps3.json").read_text())
    for group, values in recipes.named("mnist-eps3").settings.items():
        found = record["config"][group]
        assert values == found or values.items() <= found.items()
    (part,) = record["methods"]
    assert part["utility"]["test_accuracy"]["n"] == 10_000
    assert part["utility"]["test_accuracy"]["low"] >= 0.94
    assert (part["guarantee"]["epsilon"], part["guarantee"]["delta"]) <= (3.0, 1e-5)
    assert part["guarantee"]["adjacency"] == "add or remove one record"


# ------------------------------------------------------------------------ command line


def test_a_recipe_is_named_printed_and_accounted_for():
    said = rpjax("account", "--recipe", "de2022-wrn16-4-eps1", "--records", 50_000)
    assert said.code == 0, said.err
    assert "arXiv 2204.13650, CIFAR-10 from scratch; published settings" in said.out
    assert "(ε = 0.904, δ = 1e-05)" in " ".join(said.out.split())
    assert "Plain" not in said.out  # the recipe's method alone


def test_a_file_comes_on_top_of_a_recipe_and_options_on_top_of_both(tmp_path):
    file, saved = tmp_path / "some.yaml", tmp_path / "saved.yaml"
    file.write_text("dp: {learning_rate: 3.0, clip_norm: 2.0}\n")
    said = rpjax(
        *("compare", "--recipe", "mnist-eps3", "--config", file),
        *("--clip-norm", 0.5, "--save-config", saved),
    )
    assert said.code == 0, said.err
    dp, own = from_yaml(saved.read_text()).dp, resolved("mnist-eps3").dp
    assert (dp.clip_norm, dp.learning_rate) == (0.5, 3.0)
    assert (dp.steps, dp.epsilon, dp.clipping) == (own.steps, 3.0, "normalised")


MISTAKES = {
    "--recipe nope": "recipe is 'nope'; known: de2022-wrn16-4-eps1, ",
    "--dp-steps 3 --dp-epochs 2": "dp.steps is 3 and dp.epochs 2.0; give one",
    "--dp-steps 0": "dp.steps is 0; it must be >= 1",
    "--augmult 0": "dp.augmentation_multiplicity is 0; it must be >= 1",
    "--augmult 4": "augmult is 4; without crop, resized_crop or flip all views of a",
    "--resized-crop 1.5": "resized_crop is (1.5, 1); it must be two shares of th",
    "--crop 2 --resized-crop 0.5": "crop is 2 and resized_crop (0.5, 1); give one",
    "--averages 0.9 --average 0.99": "it must be one of dp.averages, which are: 0.9",
    "--average 0.99": "dp.average is 0.99; it must be one of dp.averages, which are: n",
    "--averages 1.0": "decays holds 1.0; each must lie in [0, 1)",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_setting_that_cannot_be_is_one_line(words):
    size = ("--records", 2000, "--shape", 28, 28, 1)
    said = rpjax("account", "--methods", "dpsgd", *size, *words.split())
    assert said.code == 2
    assert MISTAKES[words] in " ".join(said.err.split())
    assert said.err.count("\n") == 1


# ---------------------------------------------------------------------------- training

SETTINGS = """
methods: [dpsgd]
train_on: all
data: {train_records: 32}
training: {crop: 1, padding: symmetric, noise_seed: fixed}
dp:
  {steps: 3, batch_size: 4, learning_rate: 4, schedule: constant, momentum: 0,
  noise_multiplier: 0.1, clipping: normalised, averages: [0.5, 0.99],
  average: 0.99, augmentation_multiplicity: 2}
"""


def test_what_is_evaluated_is_the_average_that_was_asked_for(tmp_path):
    results = compare(from_yaml(SETTINGS), tmp_path, console=Console(quiet=True))
    (part,) = results["methods"]
    assert (part["training"]["average"], part["training"]["steps"]) == (0.99, 3)
    console = Console(quiet=True)
    ready, folder = revisit.opened(tmp_path, console)
    (each,) = ready.plans
    run = target(ready, each, folder, console)  # from its checkpoint
    last = target(ready, unaveraged(each), folder, console)
    assert_same(run.state.params, last.averaged(0.99).state.params)
    assert differ(run.state.params, last.state.params)
    accuracy = run.evaluate(ready.dataset.test).as_dict()
    assert part["utility"]["test_accuracy"] == accuracy
    assert accuracy != last.evaluate(ready.dataset.test).as_dict()


def unaveraged(each):
    dp = dataclasses.replace(each.config.dp, average=None)
    return dataclasses.replace(each, config=dataclasses.replace(each.config, dp=dp))
