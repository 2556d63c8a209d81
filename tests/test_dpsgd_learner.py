"""DP-SGD: what one record can move, what a padded slot can move, and the noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import (
    Dense,
    ask,
    assert_close,
    assert_normal,
    assert_same,
    assert_uncorrelated,
    batch_of,
    differ,
    start,
    tiny,
)

from rpjax import keys
from rpjax.data.augmentation import Augmentation
from rpjax.errors import InputError
from rpjax.gradients import Adaptive
from rpjax.learners import Inputs, dpsgd
from rpjax.learners.dpsgd_release import noised
from rpjax.learners.losses import cross_entropy
from rpjax.perturbations import Additive

# ------------------------------------------------------------------------------ steps


def learner(**changes):
    options = {"clip_norm": 1.0, "noise_multiplier": 0.0, "batch_size": 4, **changes}
    model = options.pop("model", Dense())
    return dpsgd(model, optax.sgd(0.5), **options)


@pytest.fixture(scope="module")
def state(small):
    return start(learner(), small)


def update(made, state, batch):
    """How far one step moves the parameters, over the learning rate, as a vector."""
    after, info = jax.jit(made.step)(keys.root(0), state, batch)
    moved = jax.tree.map(lambda a, b: (b - a) / 0.5, after.params, state.params)
    return np.asarray(jax.flatten_util.ravel_pytree(moved)[0]), info


def test_without_noise_and_clipping_a_step_is_sgd_on_the_sum_over_the_expected_size(
    small, state
):
    batch = batch_of(small, range(8), np.arange(8) < 3)

    def loss_sum(params):
        scaled = 2 * batch.images[:3].astype(jnp.float32) / 255 - 1
        logits = Dense().apply({"params": params}, None, scaled)
        return jnp.sum(cross_entropy(logits, batch.labels[:3]))

    expected = jax.flatten_util.ravel_pytree(jax.grad(loss_sum)(state.params))[0]
    for expected_size in (4, 10):
        made = learner(clip_norm=1e6, batch_size=expected_size)
        found, info = update(made, state, batch)
        np.testing.assert_allclose(
            found, expected / expected_size, rtol=1e-4, atol=1e-6
        )
        assert info["clipped"] == 0


def test_a_record_moves_a_step_by_at_most_clip_norm_over_batch_size(small, state):
    made = learner(clip_norm=0.05)
    everybody, info = update(made, state, batch_of(small, range(8)))
    without, _ = update(made, state, batch_of(small, range(8), np.arange(8) != 5))
    assert np.linalg.norm(everybody - without) <= 0.05 / 4 * (1 + 1e-3)
    assert np.linalg.norm(everybody - without) >= 0.05 / 4 * 0.9
    assert info["clipped"] == 1


def test_a_padded_slot_moves_a_step_by_nothing(small, state):
    made = learner(noise_multiplier=1.0, model=Dense(Additive(0.5)))
    valid = np.arange(8) < 5
    one, other = (
        update(made, state, batch_of(small, [*range(5), *rest], valid))
        for rest in ([5, 6, 7], [9, 9, 9])
    )
    assert_same(one, other)


def test_microbatches_take_the_same_step(small, state):
    batch = batch_of(small, range(8), np.arange(8) != 2)
    options = {"noise_multiplier": 1.0, "clip_norm": 0.05}
    (one, info), (other, info_other) = (
        update(learner(microbatch=m, **options), state, batch) for m in (None, 3)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert_close(info, info_other)


def test_a_steps_noise_has_the_stated_scale(small, state):
    batch = batch_of(small, range(8))
    quiet, _ = update(learner(clip_norm=0.5), state, batch)
    loud = learner(clip_norm=0.5, noise_multiplier=3.0)
    for step in (0, 1):
        noisy, _ = update(loud, state._replace(step=jnp.int32(step)), batch)
        expected = keys.secret_normal(state.secret, step, len(quiet)) * 3.0 * 0.5 / 4
        np.testing.assert_allclose(noisy - quiet, expected, atol=1e-5)


def test_noise_on_the_sum_is_normal_of_scale_over_the_expected_batch_size(state):
    zero = {"a": jnp.zeros((100, 150)), "b": jnp.zeros(5_000)}
    one, other = (noised(zero, state.secret, jnp.int32(s), 3.0, 4) for s in (0, 1))
    assert_normal(one["a"], 0.75)
    assert_normal(one["b"], 0.75)
    assert_uncorrelated(one["a"], other["a"])
    assert_uncorrelated(one["a"].ravel()[:5_000], one["b"])


def test_an_empty_batch_is_a_step_of_noise_alone(small, state):
    made = learner(noise_multiplier=1.0)
    found, info = update(made, state, batch_of(small, range(8), np.zeros(8, bool)))
    expected = keys.secret_normal(state.secret, 0, len(found)) / 4
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (info["clipped"], info["loss"]) == (0, 0)


def test_the_noise_hangs_on_the_secret_and_not_on_the_root_key(small, state):
    step, batch = jax.jit(learner(noise_multiplier=1.0).step), batch_of(small, range(8))
    one, _ = step(keys.root(0), state, batch)
    assert_same(one.params, step(keys.root(1), state, batch)[0].params)
    other = state._replace(secret=state.secret.at[7].add(jnp.uint32(1)))
    assert differ(one.params, step(keys.root(0), other, batch)[0].params)


# ----------------------------------------------------------------------- rules, parts


def test_a_normalised_step_is_the_clipped_mean_over_the_clip_norm(small, state):
    batch = batch_of(small, range(8))
    for clip_norm in (0.05, 0.5):
        one, _ = update(learner(clip_norm=clip_norm), state, batch)
        other = learner(clip_norm=clip_norm, clipping="normalised")
        np.testing.assert_allclose(
            update(other, state, batch)[0], one / clip_norm, rtol=1e-4, atol=1e-6
        )


def test_the_noise_is_scaled_to_the_rules_sensitivity(small, state):
    batch, noise = batch_of(small, range(8)), {"noise_multiplier": 3.0}
    draw = np.asarray(keys.secret_normal(state.secret, 0, 5_000))
    for rule, sensitivity in (
        ("flat", 0.5),
        ("normalised", 1.0),
        ("automatic", 0.5),
        ("per_layer", 0.5),
    ):
        options = {"clip_norm": 0.5, "clipping": rule}
        quiet, _ = update(learner(**options), state, batch)
        noisy, _ = update(learner(**options, **noise), state, batch)
        expected = draw[: len(quiet)] * 3.0 * sensitivity / 4
        np.testing.assert_allclose(noisy - quiet, expected, atol=1e-5)


def test_the_adaptive_rule_moves_its_clip_norm_by_a_noisy_count(small):
    rule = Adaptive(0.5, quantile=0.9, learning_rate=0.3, count_noise_multiplier=7)
    made = learner(clip_norm=0.5, clipping=rule, noise_multiplier=2.0)
    first = start(made, small)
    assert first.stats == {"clip_norm": 0.5}
    after, info = jax.jit(made.step)(keys.root(0), first, batch_of(small, range(8)))
    size = jax.flatten_util.ravel_pytree(first.params)[0].size
    drawn = float(keys.secret_normal(first.secret, 0, size + 1)[-1])
    below = 8 * (0.5 - float(info["clipped"])) + 7 * drawn
    expected = 0.5 * np.exp(-0.3 * (below / 4 + 0.5 - 0.9))
    assert float(after.stats["clip_norm"]) == pytest.approx(expected, rel=1e-5)
    assert info["clip_norm"] == 0.5
    # the gradient's noise is raised, so that both together have multiplier 2
    own = (2.0**-2 - 14.0**-2) ** -0.5
    quiet, _ = update(
        learner(clip_norm=0.5), first._replace(stats={}), batch_of(small, range(8))
    )
    noisy, _ = update(made, first, batch_of(small, range(8)))
    noise = np.asarray(keys.secret_normal(first.secret, 0, size + 1))[:-1]
    np.testing.assert_allclose(noisy - quiet, noise * own * 0.5 / 4, atol=1e-5)
    assert np.isfinite(ask(made, after, small)).all()


def test_frozen_parameters_stay_and_have_no_part_in_norms_and_noise(small, state):
    part = learner(trainable=("head",), noise_multiplier=1.0, clip_norm=0.05)
    first = start(part, small)
    assert len(jax.tree.leaves(first.opt_state)) < len(jax.tree.leaves(state.params))
    after, _ = jax.jit(part.step)(keys.root(0), first, batch_of(small, range(8)))
    for name in ("widen", "narrow"):
        assert_same(after.params[name], first.params[name])
    assert differ(after.params["head"], first.params["head"])
    head = jax.flatten_util.ravel_pytree(first.params["head"])[0].size
    moved, _ = update(part, first, batch_of(small, range(8), np.zeros(8, bool)))
    noise = keys.secret_normal(first.secret, 0, head) * 0.05 / 4
    np.testing.assert_allclose(moved[moved != 0], noise, atol=1e-6)
    assert part.mechanism.trained == ("head",)


def test_several_views_of_a_record_are_averaged_before_clipping(small):
    shifts = Inputs(augmentation=Augmentation(crop=2))
    options = {"clip_norm": 1e6, "noise_multiplier": 0.0, "batch_size": 1}
    many = dpsgd(
        Dense(), optax.sgd(0.5), shifts, augmentation_multiplicity=3, **options
    )
    first = start(many, small)
    found, _ = update(many, first, batch_of(small, [4]))
    key = keys.at_step(keys.domain(keys.root(0), "augmentation"), 0)
    own = keys.per_record(key, jnp.asarray(small.ids[[4]]))
    pixels = shifts.normalised(jnp.asarray(small.images[[4]]))
    views = shifts.augmentation.views(own, pixels, 3)[0]
    assert differ(views[0], views[1])

    def loss(params):
        logits = Dense().apply({"params": params}, None, views)
        return cross_entropy(logits, jnp.repeat(small.labels[4], 3)).mean()

    expected = jax.flatten_util.ravel_pytree(jax.grad(loss)(first.params))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_gradients_that_are_not_finite_are_counted_and_reported(small, state):
    broken = jax.tree.map(jnp.asarray, state.params)
    broken["head"]["bias"] = broken["head"]["bias"].at[0].set(jnp.inf)
    batch = batch_of(small, range(8), np.arange(8) < 6)
    _, info = update(learner(), state._replace(params=broken), batch)
    assert info["non_finite"] == 1.0
    assert update(learner(), state, batch)[1]["non_finite"] == 0.0


def test_a_loss_that_mixes_the_batch_is_refused(small, state):
    mean = learner(loss=lambda logits, labels: cross_entropy(logits, labels).mean())
    with pytest.raises(InputError, match=r"loss returned shape \(\) for 1 records"):
        update(mean, state, batch_of(small, range(8)))


class Running(nn.Module):
    """Somebody's own net, with BatchNorm inside."""

    @nn.compact
    def __call__(self, record_keys, images, train=False):
        x = nn.BatchNorm(use_running_average=not train)(images)
        return nn.Dense(3)(x.reshape(len(x), -1))


def test_batch_norm_is_found_inside_of_any_model(small):
    with pytest.raises(InputError, match="the model has running statistics"):
        start(learner(model=Running()), small)


def test_no_batch_that_poisson_draws_compiles_anything_anew(small):
    """Batches from nobody to everybody are one program."""
    for microbatch in (None, 3):
        made = learner(noise_multiplier=1.0, microbatch=microbatch)
        traces = []

        def step(state, batch, made=made, traces=traces):
            traces.append(1)
            return made.step(keys.root(0), state, batch)

        compiled, after = jax.jit(step), start(made, small)
        for count in (0, 1, 5, 12):
            after, _ = compiled(
                after, batch_of(small, range(12), np.arange(12) < count)
            )
        assert len(traces) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipping": Adaptive(0.5)}, "clip_norm is 1.0, but the rule's is 0.5"),
        ({"trainable": ()}, "trainable is empty"),
        ({"trainable": ("heads",)}, "trainable names 'heads', which is the beginning"),
        ({"augmentation_multiplicity": 0}, "augmentation_multiplicity is 0; it must"),
        ({"engine": "two_pass", "clipping": "per_layer"}, "engine is 'two_pass'"),
        ({"clipping": "adaptive", "noise_multiplier": 9.0}, "nothing is left"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(small, options, message):
    with pytest.raises(InputError, match=message):
        start(learner(**options), small)


# ------------------------------------------------------------------------------ facts


def test_the_mechanism_states_the_settings():
    facts = learner(clip_norm=0.3, noise_multiplier=1.5, batch_size=7).mechanism
    assert facts.kind == "dpsgd"
    assert facts.private
    found = (facts.clip_norm, facts.noise_multiplier, facts.batch_size)
    assert found == (0.3, 1.5, 7)


def test_batch_norm_is_refused():
    with pytest.raises(InputError, match="BatchNorm's statistics mix"):
        learner(model=tiny(norm="batch"))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("clip_norm", (0.0, -1.0, float("inf"), float("nan"))),
        ("noise_multiplier", (-1.0, float("inf"), float("nan"))),
        ("batch_size", (0,)),
        ("microbatch", (0,)),
    ],
)
def test_impossible_settings_are_refused_in_one_line(field, values):
    for value in values:
        with pytest.raises(
            InputError, match=f"{field} is {value}; it must be"
        ) as error:
            learner(**{field: value})
        assert "\n" not in str(error.value)
