"""Imbalanced classes and their losses, from a configuration to what a run leaves."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import WAYS, experiment, rpjax

from rpjax import report
from rpjax.counts import Counts, Release, tally
from rpjax.data import load
from rpjax.data.imbalance import exponential_counts, with_counts
from rpjax.errors import InputError
from rpjax.experiments import ExperimentConfig, imbalance, planning, prepare
from rpjax.experiments.clipping import rule_of
from rpjax.experiments.config import METHODS, LossName
from rpjax.experiments.methods import plan
from rpjax.experiments.planning import described, planned
from rpjax.experiments.presets import resolved
from rpjax.experiments.targets import needed
from rpjax.experiments.values import from_yaml
from rpjax.gradients import (
    Adaptive,
    Flat,
    Global,
    GlobalAdaptive,
    GroupClipping,
    Normalised,
)
from rpjax.learners import losses
from rpjax.privacy import dpsgd as accounting

DIGITS = load("digits")
SHAPE = DIGITS.shape
STEP = "imbalance: {split: step, largest: 60, ratio: 6}\nseed: 3\n"
TINY = "model: {channels: 4}\ndp: {epochs: 1, batch_size: 32}\n"
RELEASED = "loss: {name: balanced_softmax, counts: released, count_noise: 3.0}\n"
PUBLIC = "loss: {name: balanced_softmax, counts: public}\n"
SPLIT = (60,) * 5 + (10,) * 5


def config(*parts):
    return from_yaml("".join(parts) + "attack: {shadows: 1}\n")


def ready(*parts, **options):
    return prepare(config(TINY, *parts), **options)


# --------------------------------------------------------------------------- the split


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("{split: step, largest: 60, ratio: 6}", SPLIT),
        ("{split: exponential, largest: 90, ratio: 9}", exponential_counts(90, 10, 9)),
        ("{split: weights, weights: [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]}", None),
        # as many as the smallest class has
        ("{split: step, ratio: 2}", (139,) * 5 + (69,) * 5),
    ],
)
def test_a_split_thins_the_training_part_out_and_leaves_the_test_part(text, counts):
    settings = config(f"imbalance: {text}\n")
    thinned, made = imbalance.split(settings, DIGITS)
    own = tuple(tally(thinned.train.labels, 10).tolist())
    assert own == made.counts
    if counts is None:
        counts = (own[0], *(own[0] // 2,) * 9)
    assert own == counts
    assert np.isin(thinned.train.ids, DIGITS.train.ids).all()
    assert thinned.test is DIGITS.test
    assert made.kind in (settings.imbalance.split, "given")


def test_the_choice_follows_from_a_seed_of_its_own_or_the_experiments():
    def ids(*parts):
        return imbalance.split(config(*parts), DIGITS)[0].train.ids.tolist()

    own = STEP.replace("6}", "6, seed: 3}").replace("seed: 3\n", "seed: 8\n")
    assert ids(STEP) == ids(own) != ids(STEP.replace("seed: 3", "seed: 8"))
    expected = with_counts(DIGITS.train.labels, SPLIT, 3).positions
    assert ids(STEP) == DIGITS.train.ids[expected].tolist()


def test_without_a_split_the_data_are_what_they_were():
    assert imbalance.split(config(), DIGITS) == (DIGITS, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imbalance: {split: step, largest: 500}", "largest is 500.*has|there are"),
        ("imbalance: {split: step, largest: 60}", "ratio is 100, which leaves nothing"),
        ("imbalance: {split: weights}", "needs one for each class"),
        ("imbalance: {split: step, weights: [1.0]}", "weights belong to the split"),
        ("imbalance: {largest: 5}", "belongs to step and exponential"),
        ("imbalance: {split: weights, weights: [1, 2]}", "weights: 2 for 10 classes"),
        ("imbalance: {ratio: 0.5}", "^imbalance.ratio is 0.5"),
        ("loss: {count_noise: 0}", "^loss.count_noise is 0"),
        ("loss: {beta: 1.0}", "^loss.beta is 1.0"),
        ("loss: {deferred: 1.5}", "^loss.deferred is 1.5"),
        ("loss: {tau: -1}", "^loss.tau is -1"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(text, message):
    with pytest.raises(InputError, match=message):
        ready(text + "\n", "methods: [plain]\n")


# ---------------------------------------------------------------------------- the loss


def loss_of(name, source="public"):
    options = dataclasses.replace(ExperimentConfig().loss, name=name, counts=source)
    counts = Counts(SPLIT, "public") if imbalance.knows_counts(options) else None
    return imbalance.loss_of(options, counts, 100)


def test_every_loss_that_can_be_named_is_the_librarys():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(20, 10)), jnp.float32)
    labels = jnp.arange(20) % 10
    counts = Counts(SPLIT, "public")
    expected = {
        "cross_entropy": losses.cross_entropy,
        "focal": losses.focal(1.0),
        "class_weighted": losses.class_weighted(counts),
        "class_balanced": losses.class_balanced(counts),
        "ldam_drw": losses.deferred(counts, 80, base=losses.ldam(counts, scale=1.0)),
        "logit_adjusted": losses.logit_adjusted(counts),
        "balanced_softmax": losses.balanced_softmax(counts),
        "mfe": losses.mfe(counts),
        "msfe": losses.msfe(),
    }
    assert list(expected) == list(LossName.__args__)
    for name, wanted in expected.items():
        made = loss_of(name)
        assert (made(logits, labels) == wanted(logits, labels)).all()
        if name != "cross_entropy":
            assert (made.name, made.phases) == (wanted.name, wanted.phases)


def test_every_option_reaches_its_loss():
    def named(name, **fields):
        options = dataclasses.replace(ExperimentConfig().loss, name=name, **fields)
        return imbalance.loss_of(options, Counts(SPLIT, "public"), 100).name

    assert "tau 2" in named("logit_adjusted", tau=2.0)
    assert "beta 0.9" in named("class_balanced", beta=0.9)
    late = named("ldam_drw", deferred=0.25, margin=0.7, scale=9.0, beta=0.5)
    assert late == "deferred (step 25, beta 0.5) LDAM (margin 0.7, scale 9)"
    focal = dataclasses.replace(ExperimentConfig().loss, name="focal", exponent=2.0)
    assert "exponent 2" in imbalance.loss_of(focal, None, 100).name


@pytest.mark.parametrize("method", METHODS)
def test_every_method_minimises_it(method):
    each = plan(
        resolved(config(TINY, STEP, PUBLIC), DIGITS),
        method,
        *(10, 175, Counts(SPLIT, "public")),
    )
    assert each.loss.name == "balanced softmax"
    if method == "dpsgd":
        assert each.learner.mechanism.public_counts
        assert "class counts" in str(each.guarantee(SHAPE).public)


# -------------------------------------------------------------- what is private, or not


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: {name: balanced_softmax}\n", "loss.counts is data.*are data; say"),
        ("loss: {name: class_weighted}\n", "loss.counts is data"),
        ("loss: {name: msfe}\n", "couple|from the records of a batch"),
    ],
)
def test_dpsgd_refuses_what_is_not_private_before_anything_is_written(text, message):
    with pytest.raises(InputError, match=message):
        ready(STEP, text, "methods: [dpsgd]\n")
    # which others may have
    assert ready(STEP, text, "methods: [plain]\n").plans


def test_counts_are_the_datas_unless_someone_says_otherwise():
    assert ExperimentConfig().loss.counts == "data"
    made = ready(STEP, "loss: {name: mfe}\n", "methods: [plain, strategy1]\n")
    labels = made.dataset.train.labels[made.training_positions]
    assert made.counts == Counts(tuple(tally(labels, 10).tolist()), "data")


def test_public_counts_do_not_tell_which_records_are_members():
    one, other = (
        ready(STEP, PUBLIC, f"{rest}methods: [plain]\n")
        for rest in ("", "train_on: all\n")
    )
    assert one.counts.source == other.counts.source == "public"
    assert other.counts.values == SPLIT
    share = len(one.training_positions) / sum(SPLIT)
    assert one.counts.values == pytest.approx([c * share for c in SPLIT])


def test_released_counts_are_those_of_the_records_trained_on():
    def released(scale, **options):
        text = RELEASED.replace("3.0", str(scale))
        return ready(STEP, text, "methods: [plain]\n", **options)

    made = released(1e-3)
    labels = made.dataset.train.labels[made.training_positions]
    assert made.counts.values == tuple(tally(labels, 10))
    assert made.counts.release == Release(1e-3)
    noisy = released(3.0).counts
    assert noisy.values != made.counts.values
    assert released(3.0).counts == noisy, "a fixed noise seed repeats the noise"
    assert released(3.0, secret=b"x" * 32).counts != noisy
    kept = imbalance.as_dict(noisy)
    assert released(3.0, secret=b"x" * 32, kept=kept).counts == noisy
    assert imbalance.from_dict(json.loads(json.dumps(kept))) == noisy


def test_secret_noise_on_counts_is_fresh():
    secret = "training: {noise_seed: secret}\n"
    one, other = (imbalance.secret_of(config(secret)) for _ in range(2))
    assert one != other
    assert imbalance.secret_of(config()) == imbalance.secret_of(config())


# ---------------------------------------------------------------------------- the total


@pytest.mark.parametrize("sampling", ["poisson", "shuffled"])
def test_training_and_release_together_cost_the_target(sampling):
    text = f"dp: {{epochs: 1, batch_size: 32, sampling: {sampling}, epsilon: 3.0}}\n"
    settings = resolved(config(STEP, RELEASED, text), DIGITS)
    counts = imbalance.on_paper(settings, 10, 175, SPLIT)
    each = plan(settings, "dpsgd", 10, 175, counts)
    proved = each.guarantee(SHAPE)
    assert 0.998 * 3.0 < proved.epsilon <= 3.0
    alone = dataclasses.replace(
        each,
        learner=plan(resolved(config(STEP, text), DIGITS), "dpsgd", 10, 175).learner,
    )
    noise, less = (e.learner.mechanism.noise_multiplier for e in (each, alone))
    assert noise > 1.01 * less
    assert proved.parameters["count_scale"] == 3.0


def test_a_release_that_is_dearer_than_the_target_is_refused():
    text = "dp: {epochs: 1, batch_size: 32, epsilon: 0.5}\n"
    with pytest.raises(InputError, match="class counts alone costs"):
        ready(STEP, RELEASED, text, "methods: [dpsgd]\n")


def test_a_budget_counts_the_release():
    text = (
        "dp: {epochs: 4, batch_size: 32, noise_multiplier: 1.0, stop_at_epsilon: 4}\n"
    )
    taken = []
    for loss in (PUBLIC, RELEASED):
        settings = resolved(config(STEP, loss, text), DIGITS)
        counts = imbalance.on_paper(settings, 10, 175, SPLIT)
        each = plan(settings, "dpsgd", 10, 175, counts)
        proved = each.guarantee(SHAPE)
        assert proved.epsilon <= 4.0
        taken.append(proved.parameters["steps"])
    assert taken[1] < taken[0] < 22


def test_noise_for_another_target_leaves_room_for_the_release():
    settings = resolved(config(TINY, STEP, RELEASED), DIGITS)
    counts = imbalance.on_paper(settings, 10, 175, SPLIT)
    found = needed(settings, "dpsgd", 10, 175, SHAPE, 4.0, 1e-5, counts)
    assert found.plan.guarantee(SHAPE).epsilon <= 4.0
    run = (32 / 175, found.plan.steps)
    assert found.noise > accounting.noise_multiplier_for(4.0, 1e-5, *run)


# ----------------------------------------------------------- plans, other commands


def test_a_plan_on_paper_is_the_trainings(monkeypatch):
    monkeypatch.setattr(planning, "_time", lambda *_: None)  # it compiles
    settings = config(TINY, STEP, RELEASED, "methods: [dpsgd]\n")
    full, data = described(settings)
    told = planned(full, "dpsgd", data, compiled=False, flops_per_second=1e9)
    (each,) = prepare(settings).plans
    assert told["data"]["records"] == each.records == sum(SPLIT) // 2
    assert told["guarantee"]["epsilon"] == each.guarantee(SHAPE).epsilon
    assert told["noise_multiplier"] == each.learner.mechanism.noise_multiplier


def test_without_data_a_split_has_to_say_its_counts():
    options = config("imbalance: {split: weights, weights: [1, 2]}\n").imbalance
    with pytest.raises(InputError, match="follow from those of the data"):
        imbalance.split_counts(options, 2, None)
    said = rpjax("account", "--records", 500, "--imbalance", "step")
    assert said.code == 2
    assert "says itself how many there are" in said.err


def test_an_audit_takes_data_as_they_are(tmp_path):
    for words in (("--imbalance", "step"), ("--loss", "mfe", "--methods", "plain")):
        said = rpjax("audit", *words, "--out", tmp_path / "audit")
        assert said.code == 2
        assert "audit" in said.err
        assert not (tmp_path / "audit").exists()


# ------------------------------------------------------------------ rules of clipping

MADE = {
    "": Flat(1.0),
    "clipping: normalised": Normalised(1.0),
    "clipping: adaptive, count_noise_multiplier: 30": Adaptive(
        1.0, count_noise_multiplier=30.0
    ),
    "clipping: global, clip_norm: 20, clipping_bound: 100": Global(20.0, 100.0),
    "clipping: global_adaptive, clipping_bound: 50": GlobalAdaptive(1.0, 50.0),
    "clipping: per_group": GroupClipping(1.0, 10),
    "clipping: per_group, clip_norm: 0.5, count_noise_multiplier: 8": GroupClipping(
        0.5, 10, 8.0
    ),
}


@pytest.mark.parametrize(("text", "rule"), MADE.items(), ids=MADE)
def test_every_clipping_rule_comes_from_a_configuration(text, rule):
    dp = config(f"dp: {{{text}}}\n").dp
    assert rule_of(dp, 10) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clipping: global", "clipping_bound is left out"),
        ("clipping_bound: 3", "clipping_bound is 3.0; it belongs to clipping global"),
        ("count_noise_multiplier: 3", "it belongs to clipping adaptive"),
        ("clipping: global, clipping_bound: 0", "bound is 0.0"),
        ("clipping: groups", "per_group"),
    ],
)
def test_settings_of_another_rule_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        rule_of(config(f"dp: {{{text}}}\n").dp, 10)


def test_a_plan_clips_by_class_at_the_noise_of_any_other_rule():
    both = [
        ready(STEP, "methods: [dpsgd]\n" + text).plans[0].learner.mechanism
        for text in ("", "dp: {epochs: 1, batch_size: 32, clipping: per_group}\n")
    ]
    assert [each.clipping for each in both] == ["flat", "per_group"]
    assert both[0].noise_multiplier == both[1].noise_multiplier


# -------------------------------------------------------------------------- end to end

WORDS = (
    *("--imbalance", "step", "--imbalance-largest", 60, "--imbalance-ratio", 6),
    *("--loss", "balanced_softmax", "--loss-counts", "released", "--count-noise", 3),
    *("--dp-steps", 3, "--dp-batch-size", 32, "--channels", 4, *WAYS, "--seed", 3),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """DP-SGD from the command line, with secret noise."""
    folder = tmp_path_factory.mktemp("imbalanced") / "out"
    said = rpjax("train", "--method", "dpsgd", *WORDS, "--out", folder)
    assert said.code == 0, said.err
    return experiment(folder, said.out)


def test_results_hold_the_split_the_counts_and_the_recalls(trained):
    data = trained.results["data"]
    assert data["class_counts"] == data["member_class_counts"] == list(SPLIT)
    assert data["imbalance"]["kind"] == "step"
    method = trained.method("dpsgd")
    found = method["utility"]["classes"]
    assert sum(found["test_records"]) == 360
    recalls = [each["value"] for each in found["recalls"]]
    assert found["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    hits = np.dot(recalls, found["test_records"])
    assert hits == pytest.approx(360 * method["utility"]["test_accuracy"]["value"])
    assert method["training"]["loss"]["counts"]["source"] == "released"
    assert report.check(trained.results) == trained.results


def test_the_certificate_of_a_run_composes_with_its_release(trained):
    proved = trained.method("dpsgd")["guarantee"]
    assert 0.998 * 8 < proved["epsilon"] <= 8.0
    assert proved["parameters"]["count_scale"] == 3.0
    file = json.loads((trained.folder / "guarantee.json").read_text())
    assert file["methods"][0]["guarantee"] == proved


def test_counts_are_released_once_for_a_folder(trained):
    kept = json.loads((trained.folder / "counts.json").read_text())
    assert kept == trained.method("dpsgd")["training"]["loss"]["counts"]
    words = ("train", "--method", "dpsgd", *WORDS, "--out", trained.folder, "--resume")
    assert rpjax(*words).code == 0
    again = experiment(trained.folder).method("dpsgd")["training"]["loss"]["counts"]
    assert again == kept
    file = trained.folder / "counts.json"
    text = file.read_text()
    file.unlink()
    for command in (words, ("evaluate", trained.folder)):
        said = rpjax(*command)
        assert said.code == 2
        assert "counts.json is gone" in said.err
    file.write_text(text)


def test_the_report_shows_the_classes(trained):
    for name in ("report.md", "report.html"):
        text = (trained.folder / name).read_text()
        assert "Balanced accuracy" in text
        assert "Loss: balanced softmax." in text
        assert "Training records of each class, before the split" in text
    assert (trained.folder / "figures" / "class_counts.png").exists()
    rows = report.classes.grid(trained.results).rows
    assert [row.cells[1].value for row in rows] == [*map(str, SPLIT), str(sum(SPLIT))]


def test_a_run_on_equal_classes_says_nothing_of_them(trained):
    results = json.loads(json.dumps(trained.results))
    results["methods"][0]["utility"]["classes"] = None
    assert report.classes.grid(results) is None
    assert not imbalance.uneven([139, 147, 146])
    assert imbalance.uneven([60, 10])
