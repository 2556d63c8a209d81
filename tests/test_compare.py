"""The main comparison: complete, repeatable, and true to what was proved."""

import dataclasses
import importlib
import json
import math

import jax
import jsonschema
import numpy as np
import optax
import pytest
from support import Dense
from tiny_experiment import FLAGS, rpjax

from rpjax import intervals, report
from rpjax.attacks import ATTACKS
from rpjax.errors import InputError
from rpjax.experiments import ExperimentConfig, config, prepare, values
from rpjax.experiments.compare import as_plain, converged, training_options
from rpjax.experiments.costs import relative
from rpjax.experiments.methods import plan
from rpjax.learners import Implementation, supervised
from rpjax.privacy import documents, gdp
from rpjax.privacy import dpsgd as accounting
from rpjax.privacy.residual import box_diameter
from rpjax.training import Budget, fit
from rpjax.training.loop import sampler_for
from rpjax.training.tuning import Choice

pytest_plugins = ["tiny_experiment"]

METHODS = config.METHODS
NOISY = ("strategy1", "strategy2", "ensemble")
STEPS, DP_STEPS, RECORDS = 4, 8, 256


def put(settings, **groups):
    """The configuration with fields of its groups replaced."""
    parts = {
        name: dataclasses.replace(getattr(settings, name), **fields)
        for name, fields in groups.items()
    }
    return dataclasses.replace(settings, **parts)


@pytest.fixture(scope="module")
def settings(compared):
    """The configuration that the experiment wrote down."""
    return values.from_yaml((compared.folder / "config.yaml").read_text())


@pytest.fixture(params=METHODS)
def method(compared, request):
    return compared.method(request.param)


# ------------------------------------------------------------------------ what is there


def test_results_are_complete_and_of_the_schema(compared):
    assert report.check(compared.results) == compared.results
    assert [m["name"] for m in compared.results["methods"]] == list(METHODS)
    assert "NaN" not in (compared.folder / "results.json").read_text()


def test_every_method_was_trained_as_long_as_asked_on_the_members(method):
    training = method["training"]
    dpsgd = method["name"] == "dpsgd"
    assert training["steps"] == (DP_STEPS if dpsgd else STEPS)
    assert training["epochs"] == 1.0
    assert training["history"]["step"][-1] == training["steps"]
    assert training["seconds"] > 0
    utility = method["utility"]
    assert utility["train_accuracy"]["n"] == RECORDS
    assert utility["test_accuracy"]["n"] == 360
    gap = utility["train_accuracy"]["value"] - utility["test_accuracy"]["value"]
    assert utility["generalization_gap"]["value"] == pytest.approx(gap)


def test_every_query_of_every_method_met_every_attack(method):
    noisy = method["name"] in NOISY
    assert [e["threat"] for e in method["exposure"]] == ["T1", "T4"][: 1 + noisy]
    for exposure in method["exposure"]:
        assert [a["name"] for a in exposure["attacks"]] == list(ATTACKS)
        assert exposure["members"] == exposure["non_members"] == RECORDS
        for attack in exposure["attacks"]:
            assert attack["threshold_from"] == "shadow models"
            assert attack["auc"]["n"] == 2 * RECORDS
    assert (method["utility"]["noise_off_test_accuracy"] is not None) == noisy


def test_switching_the_noise_off_is_another_query(compared):
    for name in NOISY:
        one, other = compared.method(name)["exposure"]
        assert one["attacks"] != other["attacks"]


def test_scores_on_disk_give_the_figures_again(compared, method):
    with np.load(compared.folder / "methods" / f"{method['name']}.npz") as scores:
        for exposure in method["exposure"]:
            for attack in exposure["attacks"]:
                prefix = f"{exposure['threat']}_{attack['name']}"
                inside = scores[f"{prefix}_members"]
                outside = scores[f"{prefix}_non_members"]
                wins = (inside[:, None] > outside).mean()
                ties = (inside[:, None] == outside).mean()
                assert attack["auc"]["value"] == pytest.approx(wins + ties / 2)


def test_classes_are_those_of_the_strongest_attack(compared, settings, method):
    ready = prepare(settings)
    inside, outside = ready.design.members, ready.design.non_members
    labels = ready.dataset.train.labels
    with np.load(compared.folder / "methods" / f"{method['name']}.npz") as scores:
        for exposure in method["exposure"]:
            table = exposure["by_class"]
            areas = {a["name"]: a["auc"]["value"] for a in exposure["attacks"]}
            assert areas[table["attack"]] == max(areas.values())
            prefix = f"{exposure['threat']}_{table['attack']}"
            assert [c["label"] for c in table["classes"]] == list(range(10))
            for found in table["classes"]:
                own = scores[f"{prefix}_members"][labels[inside] == found["label"]]
                rest = labels[outside] == found["label"]
                others = scores[f"{prefix}_non_members"][rest]
                counts = (found["members"], found["non_members"])
                assert counts == (len(own), len(others))
                area = intervals.auc(own, others, table["confidence_each"])
                assert found["auc"] == area.as_dict()


def test_an_ensemble_has_the_parameters_of_all_its_members(compared):
    one, many = compared.method("strategy1")["model"], compared.method("ensemble")
    assert (one["name"], one["members"]) == ("resnet8, 4 channels", 1)
    assert many["model"]["members"] == 2
    assert many["model"]["parameters"] == 2 * one["parameters"]


def test_cost_is_relative_to_plain_training(compared):
    costs = {m["name"]: m["cost"] for m in compared.results["methods"]}
    assert costs["plain"]["relative_time"] == costs["plain"]["relative_memory"] == 1
    for cost in costs.values():
        assert cost["step_seconds"] > 0
        ratio = cost["epoch_seconds"] / costs["plain"]["epoch_seconds"]
        assert cost["relative_time"] == pytest.approx(ratio)
        assert "in turn in one process" in cost["timing_note"]
    plain, dpsgd = (costs[n]["epoch_seconds"] for n in ("plain", "dpsgd"))
    assert plain == pytest.approx(costs["plain"]["step_seconds"] * STEPS)
    assert dpsgd == pytest.approx(costs["dpsgd"]["step_seconds"] * DP_STEPS)
    assert all(cost["memory_bytes"] > 0 for cost in costs.values())


def test_strategies_are_computed_as_plain_was_and_others_as_they_like(settings):
    """So that relative times are those of the noise and not of two measurements."""
    parts = [{"name": "plain", "cost": {"convolution": "canonical"}}]
    how = {each.name: as_plain(each, parts) for each in prepare(settings).plans}
    told = Choice(Implementation("canonical"), "as plain training")
    assert how == {
        **dict.fromkeys(METHODS),
        **dict.fromkeys(("strategy1", "strategy2"), told),
    }
    (each,) = (p for p in prepare(settings).plans if p.name == "strategy1")
    for cost in ({}, {"convolution": None}):  # an older folder, and nothing to choose
        assert as_plain(each, [{"name": "plain", "cost": cost}]) is None
    assert as_plain(each, []) is None


def test_a_comparison_chooses_convolutions_once(tmp_path, monkeypatch):
    module = importlib.import_module("rpjax.experiments.compare")
    monkeypatch.setattr(module, "shadow_bank", lambda *_: None)
    monkeypatch.setattr(module, "exposed", lambda *_: ([], {}))
    words = ("--methods", "plain", "strategy1", "--channels", 4)
    short = ("--train-records", 256, "--epochs", 0.5)
    said = rpjax("compare", *words, *short, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "computed with im2col convolutions: as plain training" in said.out


def test_without_plain_training_nothing_is_relative(compared):
    others = [m for m in compared.results["methods"] if m["name"] != "plain"]
    assert relative(others) is others


def test_the_configuration_in_the_results_is_whole_and_named(compared, settings):
    written = compared.results["config"]
    assert written == values.as_dict(settings)
    assert compared.results["config_hash"] == values.config_hash(settings)
    assert written["noise"]["gamma"] == 0.5, "the preset's values are filled in"
    assert written["seed"] == compared.results["seed"] == 3


def test_what_is_proved_of_all_methods_stands_in_a_file_of_its_own(compared):
    file = compared.folder / "guarantee.json"
    values = json.loads(file.read_text())
    jsonschema.validate(values, documents.schema())
    methods = compared.results["methods"]
    for one, other in zip(values["methods"], methods, strict=True):
        assert (one["name"], one["label"]) == (other["name"], other["label"])
        assert one["guarantee"] == other["guarantee"]
        assert one["guarantee"]["configuration"] == compared.results["config_hash"]
    kinds = [each["guarantee"]["kind"] for each in values["methods"]]
    assert kinds == ["none", "none", "none", "none", "dp"]
    assert documents.read(file)["dpsgd"].as_dict() == methods[-1]["guarantee"]


def test_account_writes_the_guarantees_that_the_training_wrote(compared, tmp_path):
    """Equal texts, equal figures, equal hash: for the same configuration."""
    file = tmp_path / "account.json"
    options = ["--train-on", "members", "--noise-seed", "fixed", "--json", file]
    said = rpjax("account", *FLAGS, *options)
    assert said.code == 0, said.err
    assert file.read_bytes() == (compared.folder / "guarantee.json").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_the_report_and_its_figures_are_written(compared):
    names = {str(p.relative_to(compared.folder)) for p in compared.folder.glob("*")}
    assert names == {
        *("config.yaml", "methods", "checkpoints", "results.json", "guarantee.json"),
        *("figures", "report.html", "report.md"),
    }
    figures = {p.name for p in (compared.folder / "figures").iterdir()}
    shown = ("tradeoff", "roc", "by_class", "training", "cost")
    assert figures == {f"{name}.{kind}" for name in shown for kind in ("png", "svg")}
    page = (compared.folder / "report.html").read_text().replace("\xa0", " ")
    for method in compared.results["methods"]:
        assert method["label"] in page


def test_the_printed_table_names_every_method(compared):
    words = " ".join(compared.printed.split())
    for label in ("Plain", "Strategy I", "Strategy II", "Ensemble of 2", "DP-SGD"):
        assert label in words
    assert str(compared.folder / "results.json") in "".join(compared.printed.split())


# -------------------------------------------------------------------------- repeatable


def figures(results):
    """Everything of each method that must not depend on when or where it ran."""
    same = ("utility", "guarantee", "exposure", "model")
    return {
        m["name"]: {**{key: m[key] for key in same}, **m["training"]["history"]}
        for m in results["methods"]
    }


def test_two_runs_of_one_seed_agree_in_every_figure(compared, interrupted):
    """The second was interrupted and resumed besides."""
    again = interrupted.resumed.results
    assert figures(again) == figures(compared.results)
    assert again["config_hash"] == compared.results["config_hash"]
    assert again["data"] == compared.results["data"]
    for name in METHODS:
        with (
            np.load(compared.folder / "methods" / f"{name}.npz") as one,
            np.load(interrupted.resumed.folder / "methods" / f"{name}.npz") as other,
        ):
            assert one.files == other.files
            for key in one.files:
                np.testing.assert_array_equal(one[key], other[key])


def test_a_resumed_comparison_keeps_the_times_of_each_training(interrupted):
    """There is no program of the first method left to be timed beside the others."""
    for method in interrupted.resumed.results["methods"]:
        assert method["cost"]["timing_note"].startswith("median step")
        assert method["cost"]["step_seconds"] > 0


# ------------------------------------------------------------------------- guarantees


def test_dpsgd_states_the_accountant_s_epsilon_for_what_was_done(compared, settings):
    """Noise multiplier, sampling probability and steps of the learner that trained."""
    stated = compared.method("dpsgd")["guarantee"]
    each = prepare(settings).plans[-1]
    sigma = each.learner.mechanism.noise_multiplier
    slots = sampler_for(each.learner, RECORDS, 32).capacity
    # a batch that outgrows its slots is paid for, with either neighbour's records
    overflow = accounting.overflow_probability(RECORDS + 1, 32 / RECORDS, slots)
    expected = accounting.epsilon(
        sigma, 32 / RECORDS, DP_STEPS, 1e-5, overflow_probability=overflow
    )
    assert stated["kind"] == "dp"
    assert stated["epsilon"] == pytest.approx(expected, rel=1e-12)
    assert 7.9 < stated["epsilon"] <= 8
    assert stated["delta"] == 1e-5
    assert f"σ = {sigma:.4g}, sampling probability q = 0.125" in stated["mechanism"]
    assert f"{DP_STEPS} steps" in stated["mechanism"]
    assert stated["adjacency"] == "add or remove one record"


def test_the_epsilon_to_stop_at_reaches_dpsgd_alone_and_shortens_its_guarantee():
    limit = config.DPConfig(noise_multiplier=1.0, stop_at_epsilon=8.0, delta=1e-4)
    ready = prepare(ExperimentConfig(methods=("plain", "dpsgd"), dp=limit))
    plain, private = ready.plans
    assert training_options(ready, plain)["budget"] is None
    assert training_options(ready, private)["budget"] == Budget(8.0, 1e-4)
    proved = private.guarantee(ready.dataset.shape)
    assert 7.8 < proved.epsilon <= 8.0
    assert proved.delta == 1e-4
    free = plan(put(ready.config, dp={"stop_at_epsilon": None}), "dpsgd", 10, 718)
    assert free.guarantee(ready.dataset.shape).epsilon > 12.0
    with pytest.raises(InputError, match=r"^dp.stop_at_epsilon is -1"):
        prepare(ExperimentConfig(dp=config.DPConfig(stop_at_epsilon=-1.0)))


def test_noise_in_the_blocks_alone_guarantees_nothing(compared):
    for name in ("plain", *NOISY):
        stated = compared.method(name)["guarantee"]
        assert stated["kind"] == "none", name
        assert stated["epsilon"] is stated["mu"] is None


@pytest.mark.parametrize(("epochs", "participations"), [(3, 3), (2.5, 3)])
def test_input_noise_gives_the_theorem_s_mu(epochs, participations, settings):
    """mu = diameter sqrt(E) / pi, E the epochs begun; sqrt(members) for an ensemble."""
    noisy = put(settings, noise={"input_noise": 0.5}, training={"epochs": epochs})
    plans = {p.name: p.guarantee((8, 8, 1)) for p in prepare(noisy).plans}
    mu = box_diameter(64, -1, 1) * math.sqrt(participations) / 0.5
    assert box_diameter(64, -1, 1) == 16
    for name in ("strategy1", "strategy2"):
        assert plans[name].mu == pytest.approx(mu, rel=1e-12)
        assert plans[name].epsilon == pytest.approx(gdp.epsilon(1e-5, mu))
        assert plans[name].adjacency == "replace one record's features, labels equal"
    assert plans["ensemble"].mu == pytest.approx(mu * math.sqrt(2), rel=1e-12)
    assert plans["plain"].kind == "none", "plain training sees clean images"
    assert plans["dpsgd"].mu is None


def test_an_input_bound_replaces_the_diameter_of_the_pixels(settings):
    noise = {"input_noise": 0.5, "input_bound": 2.0}
    bounded = plan(put(settings, noise=noise), "strategy1", 10, RECORDS)
    assert bounded.guarantee((8, 8, 1)).mu == pytest.approx(4 / 0.5)


def test_the_label_of_a_method_says_how_much_noise(settings):
    given = put(settings, dp={"noise_multiplier": 1.5}, noise={"gamma": 0.25})
    labels = [plan(given, name, 10, RECORDS).label for name in METHODS]
    assert labels == [
        *("Plain", "Strategy I (γ = 0.25)", "Strategy II (γ = 0.5)"),
        *("Ensemble of 2 (Strategy I)", "DP-SGD (σ = 1.5)"),
    ]


# ---------------------------------------------------------------------------- prepared


def test_who_trains_on_what_follows_the_protocol():
    halves = prepare(ExperimentConfig(methods=("plain",)))
    assert len(halves.training_positions) == 1437 // 2
    quarters = prepare(
        put(ExperimentConfig(methods=("plain",)), attack={"protocol": "quarters"})
    )
    assert len(quarters.training_positions) == 1437 // 4
    everyone = prepare(ExperimentConfig(methods=("plain",), train_on="all"))
    np.testing.assert_array_equal(everyone.training_positions, np.arange(1437))
    assert everyone.plans[0].records == 1437


def test_a_diverged_training_is_refused_in_one_line(settings, small):
    """One parameter, or one loss on the way, that is no number is enough."""
    learner = supervised(Dense(), optax.sgd(0.1))
    run = fit(learner, small, batch_size=4, steps=1)

    def left(factor, loss):
        params = jax.tree.map(lambda a: a * factor, run.state.params)
        history = {**run.history, "loss": [1.0, loss]}
        state = run.state._replace(params=params)
        return dataclasses.replace(run, state=state, history=history)

    fields = {"plain": "training.learning_rate", "dpsgd": "dp.learning_rate"}
    for name, field in fields.items():
        each = plan(settings, name, 10, RECORDS)
        converged(left(0.0, 2.0), each)
        for broken in (left(math.inf, 2.0), left(math.nan, 2.0), left(0.0, math.nan)):
            with pytest.raises(InputError, match=f"^{field} is too large") as error:
                converged(broken, each)
            assert "\n" not in str(error.value)
