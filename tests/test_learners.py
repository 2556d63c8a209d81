"""Supervised learners: their gradient, the source of their noise, their answers."""

import dataclasses

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
    batch_of,
    differ,
    start,
    tiny,
)

from rpjax import keys
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.learners import Inputs, supervised
from rpjax.learners.losses import correct, cross_entropy
from rpjax.perturbations import Additive, Multiplicative

ROOT_SEED = 0


class Spy:
    """A linear net that notes what it is given; for steps that are not compiled."""

    def __init__(self, perturbation=None):
        self.perturbation, self.seen = perturbation, []

    def clone(self, perturbation):
        quiet = Spy(perturbation)
        quiet.seen = self.seen
        return quiet

    def init(self, key, record_keys, pixels):
        return {"params": {"w": jnp.zeros((pixels[0].size, CLASSES))}}

    def apply(self, variables, record_keys, pixels, train=False):
        if record_keys is not None:
            record_keys = np.asarray(jax.random.key_data(record_keys))
        self.seen.append((record_keys, np.asarray(pixels), train))
        return pixels.reshape(len(pixels), -1) @ variables["params"]["w"]


def spied(
    data, positions, *, step=0, secret=0, root=ROOT_SEED, draw="step", inputs=None
):
    """What the net is given in one training step: (keys, pixels), by record id."""
    spy = Spy(Additive(0.5))
    inputs = inputs or Inputs(noise=0.3)
    learner = supervised(spy, optax.sgd(0.1), inputs, draw)
    state = learner.init(keys.root(7), jnp.asarray(data.images[:1]))
    state = state._replace(
        step=jnp.int32(step), secret=jnp.arange(8, dtype=jnp.uint32) + secret
    )
    learner.step(keys.root(root), state, batch_of(data, positions))
    record_keys, pixels, train = spy.seen[-1]
    assert train
    ids = data.ids[np.asarray(positions)]
    return dict(zip(ids.tolist(), zip(record_keys, pixels, strict=True), strict=True))


# ------------------------------------------------------------------------------ noise


def test_fresh_noise_differs_from_step_to_step(small):
    one, other = (spied(small, [1, 2], step=step) for step in (3, 4))
    for record in one:
        assert differ(one[record][0], other[record][0])
        assert differ(one[record][1], other[record][1])


def test_kept_noise_is_the_records_own_in_every_batch_and_step(small):
    one = spied(small, [1, 2, 3], step=3, draw="record")
    other = spied(small, [5, 3, 0, 1], step=4, draw="record")
    shared = one.keys() & other.keys()
    assert len(shared) == 2
    for record in shared:
        assert_same(one[record], other[record])


def test_fresh_noise_does_not_depend_on_companions_either(small):
    one, other = (spied(small, list(p)) for p in ([1, 2, 3], [5, 3, 0, 1]))
    for record in one.keys() & other.keys():
        assert_same(one[record], other[record])


@pytest.mark.parametrize("draw", ["step", "record"])
def test_training_noise_hangs_on_the_secret_and_not_on_the_root_key(small, draw):
    one = spied(small, [1, 2], draw=draw)
    assert_same(one, spied(small, [1, 2], draw=draw, root=5))
    other = spied(small, [1, 2], draw=draw, secret=1)
    for record in one:
        assert differ(one[record][0], other[record][0])
        assert differ(one[record][1], other[record][1])


def test_every_record_has_its_own_noise(small):
    seen = spied(small, range(16))
    assert len({k.tobytes() for k, _ in seen.values()}) == 16
    clean = np.asarray(Inputs().normalised(jnp.asarray(small.images)))
    noise = np.array([pixels for _, pixels in seen.values()]) - clean
    assert np.abs(np.corrcoef(np.reshape(noise, (16, -1))) - np.eye(16)).max() < 0.7


def test_the_order_is_normalise_clip_noise_augment(small):
    """A crop cuts the noisy image, whose margin is exactly zero."""
    inputs = Inputs(noise=0.3, bound=1.0, augmentation=Augmentation(crop=6))
    plain = Inputs(noise=0.3, bound=1.0)
    cropped, whole = (spied(small, range(16), inputs=i) for i in (inputs, plain))
    moved = 0
    for record, (_, after) in cropped.items():
        before = whole[record][1]
        padded = np.pad(before, ((6, 6), (6, 6), (0, 0)))
        windows = [padded[i : i + 6, j : j + 6] for i in range(13) for j in range(13)]
        assert any(np.array_equal(after, window) for window in windows)
        moved += not np.array_equal(after, before)
    assert moved >= 12
    signal = np.array([before for _, before in whole.values()])
    noise_only = spied(small, range(16), inputs=Inputs(noise=0.3, bound=1e-9))
    signal -= np.array([before for _, before in noise_only.values()])
    assert np.linalg.norm(signal.reshape(16, -1), axis=1).max() < 1 + 1e-5


def test_what_changes_images_is_told_with_its_side_of_the_noise():
    for changes in ({"crop": 1}, {"flip": True}, {"resized_crop": (0.5, 1.0)}):
        inputs = Inputs(augmentation=Augmentation(**changes))
        assert inputs.augmented == "after_noise"
        first = dataclasses.replace(inputs, order="augment_then_noise")
        assert first.augmented == "before_noise"
    idle = Augmentation(padding="symmetric", aspect=(1.0, 1.0))
    assert Inputs(augmentation=idle).augmented == "none"


def test_augmentation_is_fresh_at_each_step_and_hangs_on_the_root_key(small):
    inputs = Inputs(augmentation=Augmentation(crop=3, flip=True))
    one = spied(small, range(16), inputs=inputs, draw="record")
    assert_same(one, spied(small, range(16), inputs=inputs, secret=1) | one)
    for changes in ({"step": 1}, {"root": 1}):
        other = spied(small, range(16), inputs=inputs, draw="record", **changes)
        assert sum(differ(one[r][1], other[r][1]) for r in one) >= 12


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_draw_is_refused():
    with pytest.raises(InputError, match="draw is 'epoch'; it is 'step' or 'record'"):
        supervised(Dense(), optax.sgd(0.1), draw="epoch")


# ----------------------------------------------------------------------------- inputs


def test_normalised_pixels_are_the_textbook_formula_and_stay_in_their_range():
    inputs = Inputs(mean=0.3, std=0.2)
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    found = np.asarray(inputs.normalised(jnp.asarray(images))).ravel()
    np.testing.assert_allclose(found, [-1.5, -0.5, 3.5], rtol=1e-5, atol=1e-6)
    assert inputs.pixel_range == pytest.approx((-1.5, 3.5))


@pytest.mark.parametrize(
    ("field", "values"),
    [("std", (0.0, -1.0)), ("noise", (-1.0, float("inf"))), ("bound", (0.0, -1.0))],
)
def test_impossible_inputs_are_refused_in_one_line(field, values):
    for value in values:
        with pytest.raises(
            InputError, match=f"{field} is {value}; it must be"
        ) as error:
            Inputs(**{field: value})
        assert "\n" not in str(error.value)


# --------------------------------------------------------------------------- gradient


@pytest.fixture(scope="module")
def noisy():
    return supervised(Dense(Additive(0.5)), optax.sgd(0.5), Inputs(noise=0.3))


@pytest.fixture(scope="module")
def state(noisy, small):
    return start(noisy, small)


def test_a_plain_step_is_gradient_descent_on_the_mean_loss(small):
    model = Dense()
    learner = supervised(model, optax.sgd(0.5))
    before = start(learner, small)
    batch = batch_of(small, range(6))

    def mean_loss(params):
        pixels = 2 * jnp.asarray(small.images[:6], jnp.float32) / 255 - 1
        log_probs = jax.nn.log_softmax(model.apply({"params": params}, None, pixels))
        return -jnp.mean(log_probs[jnp.arange(6), small.labels[:6]])

    loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(before.params)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, before.params, gradient)
    after, info = jax.jit(learner.step)(keys.root(0), before, batch)
    assert_close(after.params, expected, rtol=1e-5, atol=1e-6)
    assert after.step == 1
    assert info["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_padded_slot_has_no_influence_and_does_not_count(small, noisy, state):
    step = jax.jit(noisy.step)
    valid = np.arange(8) < 5
    batches = [
        batch_of(small, [*range(5), *rest], valid) for rest in ([5, 6, 7], [9, 9, 9])
    ]
    (one, info), (other, _) = (step(keys.root(0), state, b) for b in batches)
    assert_same(one, other)
    alone, info_alone = step(keys.root(0), state, batch_of(small, range(5)))
    assert_close(one.params, alone.params, atol=1e-6)
    assert_close(info, info_alone, atol=1e-6)


def test_an_empty_batch_changes_no_parameter(small, noisy, state):
    batch = batch_of(small, range(8), np.zeros(8, bool))
    after, _ = jax.jit(noisy.step)(keys.root(0), state, batch)
    assert_same(after.params, state.params)


def test_a_step_is_a_function_of_its_arguments(small, noisy, state):
    step = jax.jit(noisy.step)
    one, other = (
        step(keys.root(0), state, batch_of(small, range(8))) for _ in range(2)
    )
    assert_same(one, other)
    later, _ = step(
        keys.root(0), state._replace(step=jnp.int32(1)), batch_of(small, range(8))
    )
    assert differ(one[0].params, later.params)


def test_losses_are_the_textbook_formulas():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)) * 20, rng.integers(0, 3, 5)
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(5), labels]
    found = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    hits = correct(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_array_equal(hits, logits.argmax(1) == labels)


def test_losses_of_bfloat16_logits_are_float32():
    loss = cross_entropy(jnp.ones((2, 3), jnp.bfloat16), jnp.zeros(2, int))
    assert loss.dtype == jnp.float32


# ---------------------------------------------------------------------------- answers


def test_an_answer_depends_on_the_query_and_the_record_but_not_on_its_place(
    small, noisy, state
):
    order = np.array([3, 1, 2, 0])
    one = ask(noisy, state, small, range(4))
    assert_same(ask(noisy, state, small, order), one[order])
    assert differ(one, ask(noisy, state, small, range(4), keys.root(1)))
    twins = small.take([0, 0])
    images, ids = jnp.asarray(twins.images), jnp.asarray([1, 2])
    first, second = noisy.predict(keys.root(0), state, images, ids)
    assert differ(first, second)


def test_a_query_noise_is_not_the_training_noise(small, noisy, state):
    one = ask(noisy, state, small, range(4))
    secret = state._replace(secret=state.secret + jnp.uint32(1), step=jnp.int32(9))
    assert_same(one, ask(noisy, secret, small, range(4)))


@pytest.mark.parametrize(
    "strategy", [Additive(0.5), Multiplicative(0.5)], ids=["I", "II"]
)
def test_without_noise_a_net_answers_as_the_same_net_without_perturbation(
    small, strategy
):
    noisy = supervised(tiny(perturbation=strategy), optax.sgd(0.5), Inputs(noise=0.3))
    plain = supervised(tiny(), optax.sgd(0.5))
    state = start(noisy, small)
    assert_same(
        ask(noisy, state, small, range(4), noise=False),
        ask(plain, state, small, range(4)),
    )
    assert differ(
        ask(noisy, state, small, range(4)), ask(plain, state, small, range(4))
    )


def test_answers_are_not_augmented_and_inputs_are_clipped(small):
    kinds = [
        Inputs(bound=1.0),
        Inputs(bound=1.0, augmentation=Augmentation(crop=3, flip=True)),
        Inputs(),
    ]
    learners = [supervised(Dense(), optax.sgd(0.5), inputs) for inputs in kinds]
    state = start(learners[0], small)
    clipped, augmented, free = (ask(x, state, small, range(4)) for x in learners)
    assert_same(clipped, augmented)
    assert differ(clipped, free)


def test_the_mechanism_states_the_facts_of_model_and_inputs():
    inputs = Inputs(mean=0.0, std=1.0, noise=0.3, bound=2.0, constants_public=False)
    model = tiny(perturbation=Additive(0.5), norm="batch")
    facts = supervised(model, optax.sgd(0.1), inputs, "record").mechanism
    assert facts.kind == "forward"
    assert facts.perturbation == Additive(0.5)
    assert (facts.input_noise, facts.input_bound, facts.draw) == (0.3, 2.0, "record")
    assert (facts.pixel_range, facts.constants_public) == ((0.0, 1.0), False)
    assert facts.batch_norm
    assert facts.private
    assert facts.noisy
    plain = supervised(tiny(), optax.sgd(0.1)).mechanism
    assert (plain.private, plain.noisy, plain.batch_norm) == (False, False, False)
    residual = supervised(model, optax.sgd(0.1)).mechanism
    assert residual.noisy
    assert not residual.private
