"""Members with seeds of their own, and lists of records of different lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, assert_close, assert_same, differ, records

from rpjax import keys
from rpjax.data.sampling import poisson, shuffled
from rpjax.errors import InputError
from rpjax.learners import Inputs, dpsgd, ensemble, side_by_side, supervised
from rpjax.perturbations import Additive, Multiplicative
from rpjax.training import Query, answers, fit

TX = optax.sgd(0.2, momentum=0.9)
LEARNERS = {
    "plain": supervised(Dense(), TX),
    "noisy": supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3)),
    "strategy2": supervised(Dense(Multiplicative(0.5)), TX),
    "ensemble": ensemble(supervised(Dense(Additive(0.5)), TX), 2),
    "joint": ensemble(supervised(Dense(Additive(0.5)), TX), 2, joint=True),
    "dpsgd": dpsgd(Dense(), TX, clip_norm=0.5, noise_multiplier=1.0, batch_size=4),
}
SEEDS = (4, 7, 9)
# fourteen, nine and eleven of the sixteen
LISTS = np.full((3, 16), -1)
for number, count in enumerate((14, 9, 11)):
    order = np.random.default_rng(number).permutation(16)
    LISTS[number, :count] = np.sort(order[:count])
OPTIONS = {"batch_size": 4, "steps": 9, "noise_seed": "fixed"}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_member_is_what_it_would_be_trained_alone(name, small):
    """Whatever the others' seeds and lists: that is what shadow models rest on."""
    learner = LEARNERS[name]
    many = fit(side_by_side(learner, 3), small, seed=SEEDS, lists=LISTS, **OPTIONS)
    asked = many.answers(small, Query(draws=2))
    one = fit(learner, small, seed=SEEDS[1], lists=LISTS[1], **OPTIONS)
    assert_close(jax.tree.map(lambda leaf: leaf[1], many.state), one.state, atol=1e-5)
    assert_close(asked[1], one.answers(small, Query(draws=2)), atol=1e-4)


def test_a_member_with_all_records_of_its_list_needs_no_padding(small):
    """A seed for each member is the same as one for each run, with full lists too."""
    learner = LEARNERS["noisy"]
    full = np.stack([np.arange(12), np.arange(4, 16)])
    many = fit(side_by_side(learner, 2), small, seed=[4, 7], lists=full, **OPTIONS)
    one = fit(learner, small, seed=7, lists=full[1], **OPTIONS)
    assert_close(jax.tree.map(lambda leaf: leaf[1], many.state), one.state)


def test_only_the_records_on_a_members_list_train_it(small):
    changed = records(16, seed=9)
    outside = np.setdiff1d(np.arange(16), LISTS[1])
    images, labels = small.images.copy(), small.labels.copy()
    images[outside], labels[outside] = changed.images[outside], changed.labels[outside]
    mixed = type(small)(images, labels, small.ids)
    learner = side_by_side(LEARNERS["noisy"], 3)
    runs = [
        fit(learner, data, seed=SEEDS, lists=LISTS, **OPTIONS)
        for data in (small, mixed)
    ]
    own, other = (
        [jax.tree.map(lambda leaf, i=i: leaf[i], run.state.params) for run in runs]
        for i in (1, 0)
    )
    assert_same(*own)
    assert differ(*other)


def test_devices_share_members_with_their_seeds_and_lists(small):
    learner = side_by_side(LEARNERS["noisy"], 4)
    four = {"seed": (4, 7, 9, 2), "lists": LISTS[[0, 1, 2, 1]], **OPTIONS}
    one = fit(learner, small, **four)
    many = fit(learner, small, devices="member=2,data=2", **four)
    assert_close(many.state, one.state, atol=1e-5)
    assert_close(many.answers(small), one.answers(small), atol=1e-3)


def test_members_are_asked_with_the_same_noise_or_with_their_own(small):
    """Common random numbers: members of equal weights then answer alike."""
    many = fit(side_by_side(LEARNERS["noisy"], 2), small, batch_size=4, steps=1)
    alike = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 2), many.state)
    assert differ(*answers(many.learner, alike, small, seed=[3, 5]))
    assert_same(*answers(many.learner, alike, small, seed=[3, 3]))


# ----------------------------------------------------------------------- the samplers


def stream(sampler, own, steps, seed=0):
    draw = jax.jit(sampler.draw)
    blocks = range(-(-steps // sampler.block))
    drawn = [draw(keys.root(seed), jnp.int32(b), jnp.int32(own)) for b in blocks]
    positions, valid = (np.concatenate(leaf) for leaf in zip(*drawn, strict=True))
    return positions[:steps], valid[:steps]


@pytest.mark.parametrize("own", [9, 10, 13, 20])
def test_a_shorter_list_is_gone_through_without_a_gap(own):
    """Every epoch of one's own length is a whole new order, whatever the block."""
    positions, valid = stream(shuffled(20, 4, least=9), own, 3 * own)
    assert valid.all()
    epochs = positions.reshape(-1)[: 12 * own].reshape(12, own)
    for epoch in epochs:
        assert sorted(epoch) == list(range(own))
    assert len({tuple(epoch) for epoch in epochs}) == 12
    for least in (4, 8):
        again, _ = stream(shuffled(20, 4, least=least), own, 3 * own)
        np.testing.assert_array_equal(again, positions)


def test_every_position_of_a_shorter_list_comes_first_equally_often():
    """Of 2,400 epochs; chi-squared, which a uniform order fails once in 10,000."""
    draw = jax.vmap(
        lambda e: shuffled(7, 5, least=5).draw(keys.root(0), e, jnp.int32(5))[0]
    )
    first = np.asarray(draw(jnp.arange(2_400)))[:, 0, 0]
    counts = np.bincount(first, minlength=5)
    assert len(counts) == 5
    assert ((counts - 480) ** 2 / 480).sum() < 23.5


def test_coins_of_a_shorter_list_have_the_probability_of_the_longest():
    """1,280 steps of 9 records at 4 in 20; each share within 5 standard errors."""
    positions, valid = stream(poisson(20, 4, 20), 9, 1_280)
    assert positions[valid].max() == 8
    shares = np.bincount(positions[valid], minlength=9) / 1_280
    np.testing.assert_allclose(shares, 0.2, atol=5 * np.sqrt(0.16 / 1_280))


# ---------------------------------------------------------------------------- refusals


def test_seeds_and_lists_are_checked(small, unchecked):
    two = side_by_side(LEARNERS["noisy"], 2)
    hole = np.array([[0, -1, 2], [0, 1, 2]])
    empty = np.array([[-1, -1, -1], [0, 1, 2]])
    few = np.array([[0, -1, -1], [0, 1, 2]])
    order = {"sampling": "shuffled"}
    private = {"clip_norm": 0.5, "noise_multiplier": 1.0, "batch_size": 2}
    ordered = side_by_side(dpsgd(Dense(), TX, **private, **order), 2)
    for learner, options, message in (
        (two, {"seed": [1, 2, 3]}, "seed has 3 values"),
        (two, {"seed": [1, 1]}, "of which 1 differ"),
        (LEARNERS["noisy"], {"seed": [1]}, "one for each member of \\(\\)"),
        (two, {"lists": hole}, "-1 before a position"),
        (two, {"lists": empty}, "-1 before a position"),
        (two, {"lists": few}, "batch_size is 2"),
        (two, {"lists": np.array([[0, -2], [0, 1]])}, "or -1 for none"),
        (ordered, {"lists": np.array([[0, 1, -1], [0, 1, 2]])}, "shuffled epochs"),
    ):
        with pytest.raises(InputError, match=message):
            fit(learner, small, batch_size=2, steps=1, **options)
