"""Transfer: what is carried over, what stays, what is not computed, what is said."""

import itertools

import jax
import numpy as np
import optax
import pytest
from support import assert_same, batch_of, differ, records, start, tiny

from rpjax import keys
from rpjax.averaging import averaged
from rpjax.errors import InputError
from rpjax.learners import (
    Inputs,
    Pretrained,
    dpsgd,
    ensemble,
    side_by_side,
    supervised,
    trainable_after,
)
from rpjax.models import resnet
from rpjax.perturbations import Additive
from rpjax.training import fit

TX = optax.sgd(0.2, momentum=0.9)
NET = {"stages": (1, 1), "widths": (4, 8), "stem_width": 4}
SOURCE = "two drawings, 3 epochs"
PRIVATE = {"clip_norm": 0.5, "noise_multiplier": 1.0, "batch_size": 4}
NAMES = ("stem", "block0", "block1", "head_norm", "head")


def private(frozen=0, begin=None, model=None, **options):
    model = model or tiny(**NET)
    trainable = trainable_after(model, frozen)
    options = {**PRIVATE, **options}
    return dpsgd(model, TX, trainable=trainable, start=begin, **options)


def noisy(frozen=0, begin=None, **net):
    model = tiny(**NET, perturbation=Additive(0.3), **net)
    trainable = trainable_after(model, frozen)
    return supervised(model, TX, Inputs(noise=0.3), trainable=trainable, start=begin)


@pytest.fixture(scope="module")
def data():
    return records(16)


@pytest.fixture(scope="module")
def public(data):
    """Parameters of a net with five classes."""
    learner = supervised(tiny(**NET, classes=5), TX)
    return jax.device_get(start(learner, data, keys.root(9)).params)


@pytest.fixture(scope="module")
def begin(public):
    return Pretrained(public, SOURCE, fresh=("head",))


def fitted(learner, data, steps=3, **options):
    settings = {"batch_size": 4, "steps": steps, "noise_seed": "fixed", **options}
    return fit(learner, data, **settings)


# ------------------------------------------------------------------------------ groups


def test_groups_follow_the_stages_of_a_net():
    net = resnet(20, classes=10)
    assert trainable_after(net, 0) is None
    assert trainable_after(net, 2)[:2] == ("block3", "block4")
    assert trainable_after(net, 3) == ("block6", "block7", "block8", *NAMES[-2:])
    assert trainable_after(net, 4) == ("head_norm", "head")
    every = trainable_after(resnet(18, classes=10), 5)
    assert every == ("head_norm", "head")


def test_the_groups_of_a_net_are_all_of_its_parameters(public):
    named = [name for group in tiny(**NET).block_groups for name in group]
    assert sorted(named) == sorted(public)


def test_what_cannot_be_frozen_is_refused():
    with pytest.raises(InputError, match=r"frozen is 4; this net has 4 groups, .* 3 "):
        trainable_after(tiny(**NET), 4)
    with pytest.raises(InputError, match="frozen is -1"):
        trainable_after(tiny(**NET), -1)
    with pytest.raises(InputError, match="object does not say its block_groups"):
        trainable_after(object(), 1)


# ------------------------------------------------------------------------ carried over


@pytest.mark.parametrize("make", [private, noisy])
def test_all_but_the_fresh_is_carried_over(make, data, public, begin):
    first, own = (start(make(begin=b), data).params for b in (begin, None))
    for name in NAMES[:-1]:
        assert_same(first[name], public[name])
    assert differ(first["block0"], own["block0"])
    assert_same(first["head"], own["head"])


def test_an_average_begins_with_the_parameters_carried_over(data, public, begin):
    learner = dpsgd(tiny(**NET), averaged(TX, [0.9]), start=begin, **PRIVATE)
    copies = jax.tree.leaves(start(learner, data).opt_state)
    kernel = public["stem"]["kernel"]
    assert any(c.shape == kernel.shape and (c == kernel).all() for c in copies)


def test_given_parameters_are_a_copy(data, public):
    own = jax.tree.map(np.array, public)
    begun = Pretrained(own, SOURCE, fresh=("head",))
    before = str(begun)
    own["stem"]["kernel"][:] = 0
    assert str(begun) == before
    assert_same(start(private(begin=begun), data).params["stem"], public["stem"])


def test_the_digest_is_of_what_is_carried_over(public, begin):
    other = jax.tree.map(np.array, public)
    other["head"]["kernel"][:] = 0
    assert Pretrained(other, SOURCE, fresh=("head",)).digest == begin.digest
    other["stem"]["kernel"][0] += 1e-3
    assert Pretrained(other, SOURCE, fresh=("head",)).digest != begin.digest


def test_running_statistics_are_carried_over_too(data):
    learner = supervised(tiny(**NET, norm="batch"), TX)
    run = fitted(learner, data)
    begun = Pretrained(run.state.params, SOURCE, stats=run.state.stats)
    first = start(supervised(tiny(**NET, norm="batch"), TX, start=begun), data)
    assert_same(first.stats, run.state.stats)
    assert_same(first.params, run.state.params)


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ({}, {}, r"head/bias has shape \(5,\) in the pre-trained net and \(3,\) here"),
        (
            {"stages": (1, 2)},
            {"fresh": ("head",)},
            "the pre-trained net has no parameter block2/conv0/kernel",
        ),
        (
            {"stages": (1,), "widths": (4,)},
            {"fresh": ("head", "head_norm")},
            "the net has no parameter block1/conv0/kernel, .* and 3 more, which the",
        ),
        (
            {},
            {"fresh": ("heads",)},
            "fresh names 'heads', which is the beginning of no",
        ),
        ({}, {"fresh": "head"}, "fresh is 'head'; it is a list"),
        ({}, {"source": " "}, "source is empty; name the public data"),
        ({}, {"fresh": ("head",), "stats": {"a": np.ones(2)}}, "no statistic a"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(net, options, message, data, public):
    def begun():
        given = Pretrained(public, **{"source": SOURCE, **options})
        start(private(begin=given, model=tiny(**{**NET, **net})), data)

    with pytest.raises(InputError, match=message):
        begun()


# ---------------------------------------------------------------------------- frozen


@pytest.mark.parametrize("make", [private, noisy])
@pytest.mark.parametrize("frozen", [1, 3])
def test_frozen_groups_are_bit_equal_after_training(make, frozen, data, public, begin):
    run = fitted(make(frozen, begin), data)
    groups = tiny(**NET).block_groups
    for group in groups[:frozen]:
        for name in group:
            assert_same(run.state.params[name], public[name])
    for group in groups[frozen:]:
        for name in group:
            assert differ(run.state.params[name], public[name])
    trace = run.state.opt_state[0].trace
    assert set(trace) == {name for group in groups[frozen:] for name in group}


def test_the_noise_and_the_norm_are_of_the_trained_alone(data, begin):
    """An empty batch moves the head by noise of the clip norm, and nothing else."""
    learner = private(3, begin, clip_norm=0.05)
    first = start(learner, data)
    empty = batch_of(data, range(8), np.zeros(8, bool))
    after, _ = jax.jit(learner.step)(keys.root(0), first, empty)
    own = {name: first.params[name] for name in NAMES[-2:]}
    flat, back = jax.flatten_util.ravel_pytree(own)
    noise = back(keys.secret_normal(first.secret, 0, flat.size) * 0.05 / 4 * 0.2)
    moved = jax.tree.map(lambda a, b: a - b, first.params, after.params)
    for name in NAMES[:-2]:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(moved[name]))
    for name in NAMES[-2:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            moved[name],
            noise[name],
        )


def flops(learner, data):
    """Of a step's program as written: fusion computes some numbers several times."""
    batch, images = batch_of(data, range(8)), data.images[:1]
    state = jax.eval_shape(learner.init, keys.root(0), images)
    return (
        jax.jit(learner.step).lower(keys.root(0), state, batch).cost_analysis()["flops"]
    )


@pytest.mark.parametrize(
    "make",
    [
        noisy,
        private,
        lambda frozen: private(frozen, engine="vmap"),
        lambda frozen: private(frozen, engine="two_pass"),
    ],
    ids=["supervised", "bookkeeping", "vmap", "two_pass"],
)
def test_gradients_of_frozen_parameters_are_not_computed(make, data):
    counted = [flops(make(frozen), data) for frozen in range(4)]
    assert counted == sorted(counted, reverse=True)
    assert all(more > fewer for more, fewer in itertools.pairwise(counted))
    # a head's gradient costs next to nothing: what is left is the forward pass
    assert counted[3] < 0.6 * counted[0]


# --------------------------------------------------------------------------- guarantee


def test_a_guarantee_names_what_it_was_pre_trained_on_as_public(data, begin):
    proved = fitted(private(2, begin), data, noise_seed="secret").guarantee(1e-3)
    assert f"pre-trained on public data: {begin}" in proved.mechanism
    assert "trained: block1, head_norm, head" in proved.mechanism
    assert any(SOURCE in line for line in proved.public)
    (line,) = [a for a in proved.assumptions if "trained on public data" in a]
    assert line.startswith("Left to the user: the parameters that it starts from")
    assert SOURCE in line
    assert proved.parameters["pretrained"] == str(begin)
    plain = fitted(private(2), data, noise_seed="secret").guarantee(1e-3)
    assert plain.epsilon == proved.epsilon
    assert "pre-trained" not in str(plain)
    assert "pretrained" not in plain.parameters


def test_so_does_that_of_residual_perturbation(data, begin):
    proved = fitted(noisy(2, begin), data, noise_seed="secret").guarantee()
    assert f"pre-trained on public data: {begin}" in proved.mechanism
    assert "trained: block1, head_norm, head" in proved.mechanism
    assert any(SOURCE in line for line in proved.public)
    assert (
        sum("Left to the user: the parameters that" in a for a in proved.assumptions)
        == 2
    )
    plain = fitted(noisy(), data, noise_seed="secret").guarantee()
    assert plain.epsilon == proved.epsilon
    assert not {"trained", "pretrained"} & set(plain.parameters)


# ------------------------------------------------------------ going on, and many of it


@pytest.mark.parametrize("make", [private, noisy])
def test_a_training_that_went_on_is_the_one_that_did_not_stop(
    make, data, begin, tmp_path
):
    whole = fitted(make(2, begin), data, 5)
    fitted(make(2, begin), data, 2, checkpoints=tmp_path)
    resumed = fitted(make(2, begin), data, 5, checkpoints=tmp_path)
    assert_same(resumed.state, whole.state)


def test_a_training_does_not_go_on_from_another_start(data, public, begin, tmp_path):
    fitted(private(2, begin), data, 2, checkpoints=tmp_path)
    other = jax.tree.map(lambda leaf: leaf + 1, public)
    for begun in (None, Pretrained(other, SOURCE, fresh=("head",))):
        with pytest.raises(InputError, match=r"pretrained is .* was trained with"):
            fitted(private(2, begun), data, 4, checkpoints=tmp_path)


@pytest.mark.parametrize("make", [private, noisy])
def test_side_by_side_is_one_by_one(make, data, public, begin):
    seeds = [4, 7]
    bank = fitted(side_by_side(make(2, begin), 2), data, seed=seeds)
    for place, seed in enumerate(seeds):
        one = fitted(make(2, begin), data, seed=seed)
        assert_same(jax.tree.map(lambda a, i=place: a[i], bank.state), one.state)
        assert_same(one.state.params["block0"], public["block0"])


@pytest.mark.parametrize("joint", [False, True])
def test_members_of_an_ensemble_start_from_the_same(joint, data, public, begin):
    run = fitted(ensemble(noisy(2, begin), 2, joint=joint), data)
    for place in range(2):
        own = jax.tree.map(lambda a, i=place: a[i], run.state.params)
        assert_same(own["block0"], public["block0"])
        assert differ(own["block1"], public["block1"])
    assert differ(
        run.state.params["head"]["kernel"][0], run.state.params["head"]["kernel"][1]
    )
    assert run.learner.mechanism.pretrained == str(begin)
