"""One measured decision on how to compute, and never another result."""

import json

import jax
import numpy as np
import optax
import pytest
from support import Dense, assert_close, tiny

from rpjax.learners import Implementation, dpsgd, ensemble, side_by_side, supervised
from rpjax.perturbations import Additive
from rpjax.training import fit, tuning
from rpjax.training.tuning import Choice, Trial, candidates, decided

TX = optax.sgd(0.1, momentum=0.9)
PATCHES, CANON = Implementation("im2col"), Implementation("canonical")


def net(**options):
    return supervised(tiny(perturbation=Additive(0.5), **options), TX)


LEARNERS = {
    "one net": net,
    "ensemble": lambda: ensemble(net(), 2),
    "joint": lambda: ensemble(net(), 2, joint=True),
    "bank of ensembles": lambda: side_by_side(ensemble(net(), 2), 2),
    "DP-SGD": lambda: dpsgd(
        tiny(), TX, clip_norm=0.1, noise_multiplier=1.0, batch_size=8
    ),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_how_it_is_computed_does_not_change_what_is_learned(small, make):
    learner = make()
    ways = [
        Implementation("im2col", "map", "vmap"),
        Implementation("xla", "vmap", "bookkeeping"),
    ]
    options = {"batch_size": 8, "steps": 3, "noise_seed": "fixed"}
    one, other = (fit(learner.computed(way), small, **options) for way in ways)
    assert_close(one.state, other.state, rtol=1e-3, atol=1e-4)
    assert_close(one.answers(small), other.answers(small), rtol=1e-3, atol=1e-3)


def test_only_what_is_left_open_is_filled_in():
    assert net().open == {"convolution"}
    assert net(convolution="xla").open == set()
    assert ensemble(net(), 2).open == {"convolution", "mapping"}
    assert ensemble(net(convolution="xla"), 2, mapping="vmap").open == set()
    assert ensemble(net(), 2, mapping="vmap").open == {"convolution"}
    fixed = ensemble(net(convolution="xla"), 2, mapping="unroll")
    assert candidates(fixed, 36) == [Implementation()]


def test_the_ways_of_a_cpu_begin_with_what_is_fast_there():
    small, large = 8 * 8, 32 * 32
    assert candidates(net(), large) == [CANON, PATCHES]
    assert candidates(net(), small) == [PATCHES, CANON]
    assert candidates(LEARNERS["DP-SGD"](), large) == [
        Implementation("canonical", engine="bookkeeping"),
        Implementation("im2col", engine="bookkeeping"),
        Implementation("im2col", engine="vmap"),
    ]
    pinned = dpsgd(
        tiny(),
        TX,
        clip_norm=0.1,
        noise_multiplier=1.0,
        batch_size=8,
        engine="vmap",
    )
    assert candidates(pinned, large) == [PATCHES, CANON]
    assert candidates(ensemble(net(), 2), large)[0] == Implementation(
        "canonical", "map"
    )


@pytest.mark.parametrize("clipping", ["flat", "per_layer", "adaptive"])
def test_every_way_of_an_accelerator_can_be_built(monkeypatch, clipping):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    options = {"clip_norm": 0.1, "noise_multiplier": 0.1, "batch_size": 8}
    made = dpsgd(tiny(), TX, clipping=clipping, **options)
    ways = candidates(made, 32 * 32)
    assert ways[0] == Implementation("xla", engine="bookkeeping")
    assert ("two_pass" in [way.engine for way in ways]) == (clipping != "per_layer")
    for way in ways:
        assert not made.computed(way).open & {"convolution", "engine"}


class Lowered:
    def __init__(self, name):
        self.name = name

    def as_text(self):
        return self.name


class Bench:
    """Programs whose times are known, and a note of what was compiled."""

    def __init__(self, seconds, compile_seconds=1.0):
        self.seconds, self.compile_seconds = seconds, compile_seconds
        self.compiled = []

    def trial(self):
        def compiled(lowered):
            self.compiled.append(lowered.name)
            return lowered.name, self.compile_seconds

        def timed(program, steps):
            return self.seconds[program] * steps

        return Trial(lambda learner: Lowered(learner.step), compiled, timed)


def named(how):
    """A learner that is called as it is computed."""
    return net()._replace(step=how.convolution, using=named)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(tuning, "_decisions", {})
    monkeypatch.setattr(tuning, "_file", lambda: None)


def decide(bench, steps=1_000_000, known=None):
    way = named(Implementation())
    learner, *rest = decided(way, bench.trial(), steps, 32 * 32, known)
    return learner.step, *rest


def test_the_fastest_way_is_taken_and_its_reason_told():
    bench = Bench({"canonical": 0.02, "im2col": 0.01})
    learner, program, choice = decide(bench)
    assert (learner, program, choice.how) == ("im2col", "im2col", PATCHES)
    assert "canonical convolutions 20 ms, im2col convolutions 10 ms" in choice.reason
    assert str(choice).startswith("im2col convolutions: measured")


def test_the_default_stays_unless_another_is_clearly_faster():
    _, _, choice = decide(Bench({"canonical": 0.0100, "im2col": 0.0098}))
    assert choice.how == CANON
    tuning._decisions.clear()
    _, _, choice = decide(Bench({"canonical": 0.0100, "im2col": 0.0090}))
    assert choice.how == PATCHES


def test_a_way_for_which_there_is_no_room_is_passed_over():
    class Small(Bench):
        def trial(self):
            lower, compiled, timed = super().trial()

            def refusing(lowered):
                if lowered.name == "im2col":
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
                return compiled(lowered)

            return Trial(lower, refusing, timed)

    _, _, choice = decide(Small({"canonical": 0.02}))
    assert choice.how == CANON
    assert choice.reason.endswith("im2col convolutions failed")


def test_a_short_training_is_not_measured():
    bench = Bench({"canonical": 0.02, "im2col": 0.01}, compile_seconds=5.0)
    _, _, choice = decide(bench, steps=2_000)  # 40 s; another program takes 5
    assert bench.compiled == ["canonical"]
    assert choice == Choice(
        CANON, "this device's default; 2000 steps are too few to measure others"
    )


def test_with_very_few_steps_not_even_the_default_is_timed():
    bench = Bench({})
    decide(bench, steps=49)
    assert bench.compiled == ["canonical"]


def test_a_decision_is_measured_once(tmp_path, monkeypatch):
    file = tmp_path / "choices.json"
    monkeypatch.setattr(tuning, "_file", lambda: file)
    decide(Bench({"canonical": 0.02, "im2col": 0.01}))
    monkeypatch.setattr(tuning, "_decisions", {})  # another process
    again = Bench({"canonical": 0.01, "im2col": 0.02})
    learner, program, choice = decide(again)
    assert (learner, program) == ("im2col", "im2col")
    assert choice == Choice(PATCHES, "measured before on this device")
    assert again.compiled == ["im2col"]
    assert [p.name for p in tmp_path.iterdir()] == ["choices.json"]


@pytest.mark.parametrize("damage", ["", "[1, 2", "[]", '{"a": 3}'])
def test_a_damaged_note_of_decisions_costs_a_measurement(tmp_path, monkeypatch, damage):
    file = tmp_path / "choices.json"
    file.write_text(damage)
    monkeypatch.setattr(tuning, "_file", lambda: file)
    _, _, choice = decide(Bench({"canonical": 0.02, "im2col": 0.01}))
    assert choice.how == PATCHES
    assert json.loads(file.read_text())


def test_what_a_training_began_with_it_goes_on_with():
    """Though the device's default, and the faster one, is another."""
    bench = Bench({"canonical": 0.01, "im2col": 0.02})
    began = Choice(PATCHES, "as this training began")
    learner, program, choice = decide(bench, known=began)
    assert (learner, program) == ("im2col", "im2col")
    assert bench.compiled == ["im2col"]
    assert choice == began


def test_a_resumed_training_is_computed_as_it_began(small, tmp_path):
    options = {"batch_size": 8, "checkpoints": tmp_path / "ck"}
    first = fit(net(), small, steps=2, **options)
    assert first.choice.how == PATCHES  # the default for so small an image
    whole = fit(net(), small, steps=4, batch_size=8)
    again = fit(net(), small, steps=4, **options)
    assert again.choice == Choice(PATCHES, "as this training began")
    for one, other in zip(
        *map(jax.tree.leaves, (whole.state, again.state)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert fit(net(), small, steps=4, **options).choice is None  # nothing left to do


def test_a_training_is_computed_as_it_is_told_and_goes_on_so(small, tmp_path):
    options = {"batch_size": 8, "checkpoints": tmp_path / "ck"}
    told = Choice(CANON, "as plain training")  # images are small: not the default
    first = fit(net(), small, steps=2, computed=told, **options)
    assert first.choice == told
    assert not first.learner.open
    again = fit(net(), small, steps=4, **options)
    assert again.choice == Choice(CANON, "as this training began")
    other = fit(net(), small, steps=6, computed=Choice(PATCHES, "other"), **options)
    assert other.choice.how == CANON


def test_a_learner_without_choices_says_so(small):
    run = fit(supervised(Dense(Additive(0.5)), TX), small, steps=1, batch_size=8)
    assert str(run.choice) == "no other way is known"
