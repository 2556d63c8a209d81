"""Members: each does exactly what it would do alone, and together they average."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from support import (
    CLASSES,
    Dense,
    ask,
    assert_close,
    assert_same,
    assert_uncorrelated,
    batch_of,
    differ,
    start,
    tiny,
)

from rpjax import keys
from rpjax.errors import InputError
from rpjax.learners import Inputs, dpsgd, ensemble, side_by_side, supervised
from rpjax.learners.networks import averaged, combined, linen
from rpjax.perturbations import Additive

MAPPINGS = ["vmap", "map", "unroll"]
MEMBERS, STEPS = 2, 3


def plain():
    """A noisy, stateful learner: momentum, residual and input noise."""
    tx = optax.sgd(0.2, momentum=0.9)
    return supervised(Dense(Additive(0.5)), tx, Inputs(noise=0.3))


def private():
    return dpsgd(
        Dense(Additive(0.5)),
        optax.sgd(0.2, momentum=0.9),
        clip_norm=0.5,
        noise_multiplier=1.0,
        batch_size=4,
    )


def batches(data, shape=(MEMBERS,), size=6, seed=0):
    """Positions of each member's records in each step."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, len(data), (*shape, size)) for _ in range(STEPS)]


def trained(learner, root, data, plan):
    """A few steps, one call each."""
    state = start(learner, data, root)
    step = jax.jit(learner.step)
    for positions in plan:
        state, _ = step(root, state, batch_of(data, positions))
    return state


def member(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


@pytest.fixture(scope="module", params=[plain, private], ids=["supervised", "dpsgd"])
def alone(request, small):
    """A learner, and each member trained by itself on its own batches."""
    learner, plan = request.param(), batches(small)
    root = keys.root(0)
    states = [
        trained(learner, keys.member(root, i), small, [p[i] for p in plan])
        for i in range(MEMBERS)
    ]
    return learner, states


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_members_train_and_answer_as_they_would_alone(alone, small, mapping):
    learner, states = alone
    many = side_by_side(learner, MEMBERS, mapping=mapping)
    state = trained(many, keys.root(0), small, batches(small))
    answers = ask(many, state, small, root=keys.root(1))
    for index, expected in enumerate(states):
        assert_close(member(state, index), expected)
        own = ask(learner, expected, small, root=keys.member(keys.root(1), index))
        assert_close(answers[index], own, atol=1e-4)
    assert differ(states[0].params, states[1].params)


def test_members_of_a_real_net_train_as_they_would_alone(small):
    learner = supervised(tiny(perturbation=Additive(0.5)), optax.sgd(0.1))
    plan = batches(small, (2,))
    state = trained(side_by_side(learner, 2), keys.root(0), small, plan)
    for index in range(2):
        own = trained(
            learner, keys.member(keys.root(0), index), small, [p[index] for p in plan]
        )
        assert_close(member(state, index), own)


def test_a_bank_of_ensembles_is_a_nest_of_members(small):
    learner, plan = plain(), batches(small, (2, 2))
    nest = side_by_side(ensemble(learner, 2), 2)
    assert nest.members == (2, 2)
    state = trained(nest, keys.root(0), small, plan)
    inner = keys.member(keys.member(keys.root(0), 1), 0)
    own = trained(learner, inner, small, [p[1, 0] for p in plan])
    assert_close(member(state, 1, 0), own)
    answers = ask(nest, state, small, root=keys.root(1))
    assert answers.shape == (2, 16, CLASSES)
    inner = keys.member(keys.root(1), 1)
    second = ask(ensemble(learner, 2), member(state, 1), small, root=inner)
    assert_close(answers[1], second)


def test_members_start_differently_and_have_secrets_of_their_own(small):
    state = start(side_by_side(plain(), MEMBERS), small)
    for field in (state.params, state.secret):
        assert differ(member(field, 0), member(field, 1))


def test_members_noise_is_independent():
    draws = [
        jax.random.normal(keys.domain(keys.from_secret(s), "residual_noise"), (4096,))
        for s in (keys.fixed_secret(keys.member(keys.root(0), i)) for i in range(2))
    ]
    assert_uncorrelated(*draws)


# ---------------------------------------------------------------------------- answers


def test_an_ensemble_trains_as_a_bank_and_answers_with_the_average(small):
    bank = side_by_side(plain(), MEMBERS)
    state = trained(bank, keys.root(0), small, batches(small)[:1])
    each = ask(bank, state, small)
    for combine, expected in (
        ("probabilities", np.log(scipy.special.softmax(each, -1).mean(0))),
        ("logits", each.mean(0)),
    ):
        made = ensemble(plain(), MEMBERS, combine=combine)
        found = ask(made, state, small)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert made.members == (MEMBERS,)


def test_combining_is_stable_for_certain_members():
    logits = jnp.array([[[1000.0, 0.0, 0.0]], [[0.0, 1000.0, 0.0]]])
    expected = np.log([[0.5, 0.5]])
    np.testing.assert_allclose(
        combined(logits, "probabilities")[:, :2], expected, rtol=1e-5
    )


def test_the_number_of_models_released_together_is_a_fact_of_the_mechanism():
    learner = plain()
    assert ensemble(learner, 3).mechanism.members == 3
    assert ensemble(ensemble(learner, 3), 2).mechanism.members == 6
    assert ensemble(learner, 3, joint=True).mechanism.members == 3
    assert side_by_side(learner, 3).mechanism.members == 1
    assert side_by_side(ensemble(learner, 3), 2).mechanism.members == 3


# ------------------------------------------------------------------------------ joint


@pytest.mark.parametrize(
    ("combine", "mapping"),
    [("probabilities", "map"), ("logits", "vmap"), ("probabilities", "unroll")],
)
def test_a_joint_step_descends_the_loss_of_the_averaged_answer(small, combine, mapping):
    """The gradient is that of -log mean_m p_m(label), written with a Python loop.

    All members see the same noisy images, on which the guarantee counts.
    """
    model = Dense(Additive(0.5))
    learner = ensemble(
        supervised(model, optax.sgd(1.0), Inputs(noise=0.3)),
        2,
        joint=True,
        combine=combine,
        mapping=mapping,
    )
    root, batch = keys.root(0), batch_of(small, range(6))
    state = start(learner, small, root)
    domains = ("input_noise", "residual_noise")
    of_input, of_blocks = (
        keys.at_step(keys.domain(keys.from_secret(state.secret), name), state.step)
        for name in domains
    )
    added = [
        jax.random.normal(k, (6, 6, 1)) for k in keys.per_record(of_input, batch.ids)
    ]
    images = 2 * batch.images.astype(jnp.float32) / 255 - 1 + 0.3 * jnp.stack(added)

    def loss(params):
        outputs = []
        for i in range(2):
            own = jnp.stack(
                [keys.member(jax.random.fold_in(of_blocks, r), i) for r in batch.ids]
            )
            outputs.append(
                model.apply({"params": member(params, i)}, own, images, True)
            )
        if combine == "logits":
            log_probs = jax.nn.log_softmax(sum(outputs) / 2)
        else:
            log_probs = jnp.log(sum(jax.nn.softmax(o) for o in outputs) / 2)
        return -jnp.mean(log_probs[jnp.arange(6), batch.labels])

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    after, info = jax.jit(learner.step)(root, state, batch)
    assert_close(after.params, jax.tree.map(lambda p, g: p - g, state.params, gradient))
    assert info["loss"] == pytest.approx(float(value), rel=1e-4)


def test_members_of_a_joint_net_start_differently_and_draw_their_own_noise(small):
    network = averaged(linen(Dense(Additive(0.5))), 2, "unroll", "logits")
    params, stats = network.init(keys.root(0), jnp.zeros((1, 6, 6, 1)))
    assert differ(member(params, 0), member(params, 1))
    twins = jax.tree.map(lambda a: jnp.stack([a[0], a[0]]), params)
    own, zeros = keys.per_record(keys.root(0), jnp.arange(2)), jnp.zeros((2, 6, 6, 1))
    together, _ = network.apply(own, twins, stats, zeros)
    single = linen(Dense(Additive(0.5)))
    each = [
        single.apply(
            jax.vmap(lambda k, i=i: keys.member(k, i))(own),
            member(params, 0),
            {},
            zeros,
        )[0]
        for i in range(2)
    ]
    assert differ(*each)
    assert_close(together, sum(each) / 2)


def test_a_joint_net_without_noise_answers_as_without_perturbation(small):
    noisy, quiet = (
        ensemble(supervised(Dense(p), optax.sgd(1.0)), 2, joint=True)
        for p in (Additive(0.5), None)
    )
    state = start(noisy, small)
    assert_same(ask(noisy, state, small, noise=False), ask(quiet, state, small))


def test_what_cannot_be_joined_or_counted_is_refused():
    with pytest.raises(InputError, match="joint is True; only supervised learners"):
        ensemble(private(), 2, joint=True)
    for make in (ensemble, side_by_side, lambda x, n: ensemble(x, n, joint=True)):
        with pytest.raises(InputError, match="members is 0; it must be >= 1"):
            make(plain(), 0)
