"""Against jax-privacy 2.0: equal clipped sums, equal samplers, parts that interchange.

An independent implementation of the same mechanism. Its `epsilon_from_gdp` is known to
be wrong in this version and is not used.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from support import assert_normal, assert_same

from rpjax.batches import PoissonBatches, is_padding_example, padded
from rpjax.gradients import clipped_grad
from rpjax.noise import gaussian_noise

jax_privacy = pytest.importorskip(
    "jax_privacy", reason="jax-privacy is the oracle; pip install rpjax[dev]"
)

from jax_privacy import batch_selection, noise_addition  # noqa: E402
from jax_privacy.experimental.accounting import truncated_dpsgd_event  # noqa: E402
from jax_privacy.experimental.execution_plan import DPExecutionPlan  # noqa: E402

SECRET = np.arange(8, dtype=np.uint32) * np.uint32(0x9E3779B9)
SLOTS, FEATURES, HIDDEN = 12, 5, 7


def loss(params, inputs, labels):
    """Of a batch, with its leading axis: what both libraries ask for by default."""
    hidden = jnp.tanh(inputs @ params["in"] + params["bias"][None])
    return optax.softmax_cross_entropy_with_integer_labels(
        hidden @ params["out"], labels
    ).mean()


@pytest.fixture(scope="module")
def problem():
    """Parameters and a batch whose gradients lie on both sides of a clip norm of 1."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    sizes = {"in": (FEATURES, HIDDEN), "bias": (HIDDEN,), "out": (HIDDEN, 3)}
    params = {name: draw(*shape) for name, shape in sizes.items()}
    inputs = draw(SLOTS, FEATURES) * jnp.linspace(0.1, 3, SLOTS)[:, None]
    return params, inputs, jnp.asarray(rng.integers(0, 3, SLOTS), jnp.int32)


def both(clip_norm, microbatch=None, engine="bookkeeping", normalised=False):
    """Our clipped gradient and theirs, compiled: total and norms before clipping."""
    ours = clipped_grad(
        loss,
        clip_norm,
        clipping="normalised" if normalised else "flat",
        batch_argnums=(1, 2),
        return_grad_norms=True,
        microbatch=microbatch,
        engine=engine,
    )
    theirs = jax_privacy.clipped_grad(
        loss,
        l2_clip_norm=clip_norm,
        rescale_to_unit_norm=normalised,
        batch_argnums=(1, 2),
        return_grad_norms=True,
        # theirs must divide the batch
        microbatch_size=microbatch if microbatch == 4 else None,
    )
    return ours, theirs


def totals(pair, args, padding):
    found = [
        jax.jit(lambda *given, f=f: f(*given[:-1], is_padding_example=given[-1]))(
            *args, padding
        )
        for f in pair
    ]
    return [total for total, _ in found], [aux.grad_norms for _, aux in found]


def assert_equal_sums(sums):
    """To 1e-6 of the sum's own size."""
    one, other = (np.asarray(jax.flatten_util.ravel_pytree(s)[0]) for s in sums)
    assert np.abs(other).max() > 1e-3, "nothing to compare"
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max())


@pytest.mark.parametrize(
    ("engine", "microbatch"), [("bookkeeping", None), ("bookkeeping", 4), ("vmap", 5)]
)
def test_clipped_sums_are_equal_to_1e_6(problem, engine, microbatch):
    padding = jnp.arange(SLOTS) >= 9
    sums, norms = totals(both(1.0, microbatch, engine), problem, padding)
    assert_equal_sums(sums)
    # theirs leaves what lies in microbatches of padding at zero, so do not compare it
    np.testing.assert_allclose(norms[0][:9], norms[1][:9], rtol=1e-5)
    assert 0 < (np.asarray(norms[1][:9]) > 1.0).sum() < 9, "clipping must bite, in part"


def test_normalised_sums_and_sensitivities_are_equal(problem):
    import dp_accounting

    normalised = both(0.5, normalised=True)
    assert_equal_sums(totals(normalised, problem, jnp.zeros(SLOTS, bool))[0])
    for pair in (normalised, both(0.5)):
        for relation in dp_accounting.NeighboringRelation:
            ours, theirs = (f.sensitivity(relation) for f in pair)
            assert ours == theirs


def test_padding_anywhere_and_examples_that_are_not_finite_count_for_nothing(problem):
    params, inputs, labels = problem
    broken = inputs.at[3].set(jnp.nan).at[7].set(jnp.inf).at[8].set(jnp.nan)
    padding = jnp.arange(SLOTS) % 4 == 0  # slot 8 is both
    sums, _ = totals(both(1.0), (params, broken, labels), padding)
    assert_equal_sums(sums)
    counted = ~padding & ~jnp.isin(jnp.arange(SLOTS), jnp.array([3, 7]))
    clean, _ = totals(both(1.0), problem, ~counted)
    assert_equal_sums([sums[0], clean[1]])


def test_of_a_gradient_that_is_partly_finite_nothing_is_kept():
    """Here the libraries differ, both within the sensitivity: theirs keeps the part."""
    linear = lambda params, x: jnp.sum(params[None] * x)
    batch = jnp.array([[0.3, jnp.inf], [0.1, 0.2]])
    ours = clipped_grad(linear, 1.0)(jnp.zeros(2), batch)
    theirs = jax_privacy.clipped_grad(linear, l2_clip_norm=1.0)(jnp.zeros(2), batch)
    np.testing.assert_allclose(ours, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(theirs, [0.4, 0.2], rtol=1e-6)


def test_nothing_but_padding_sums_to_exactly_zero(problem):
    for microbatch in (None, 4):
        sums, _ = totals(both(1.0, microbatch), problem, jnp.ones(SLOTS, bool))
        for total in sums:
            assert all((np.asarray(leaf) == 0).all() for leaf in total.values())


# ------------------------------------------------------------------------- samplers


RECORDS, EXPECTED, STEPS, CAPACITY = 30, 9, 4_000, 10


@pytest.fixture(scope="module")
def drawn():
    """Inclusions (steps, records) of our sampler and theirs, cut at 10 of 30."""
    ours = PoissonBatches(RECORDS, EXPECTED, STEPS, CAPACITY)
    theirs = batch_selection.CyclicPoissonSampling(
        sampling_prob=EXPECTED / RECORDS,
        iterations=STEPS,
        truncated_batch_size=CAPACITY,
    )
    rngs = (SECRET, np.random.default_rng(0))
    return [
        np.array(
            [
                np.bincount(indices[indices >= 0], minlength=RECORDS)
                for indices in sampler.batch_iterator(RECORDS, rng)
            ]
        )
        for sampler, rng in zip((ours, theirs), rngs, strict=True)
    ]


def test_batch_sizes_have_one_distribution(drawn):
    """Two samples of 4 000 sizes; error rate 1e-6."""
    sizes = [taken.sum(1) for taken in drawn]
    table = np.array([np.bincount(s, minlength=CAPACITY + 1) for s in sizes])
    table = np.column_stack([table[:, :5].sum(1), table[:, 5:]])
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-6
    # the last cell are the batches that were full or cut: more than half
    assert table[0, -1] > STEPS / 3
    # power: another capacity or a rate 10 % off would be seen
    off = np.minimum(scipy.stats.binom(30, 0.33).rvs(STEPS, random_state=1), CAPACITY)
    other = np.bincount(off, minlength=CAPACITY + 1)
    other = np.append(other[:5].sum(), other[5:])
    assert scipy.stats.chi2_contingency([other, table[1]]).pvalue < 1e-6


def test_truncation_leaves_every_record_the_same_chance_as_theirs(drawn):
    """Inclusion by record: cutting by order would favour the first; error rate 1e-6."""
    counts = np.array([taken.sum(0) for taken in drawn])
    assert scipy.stats.chi2_contingency(counts).pvalue > 1e-6
    # power: what cutting in the order of the records gives, from the same coins
    coins = np.random.default_rng(1).random((STEPS, RECORDS)) < EXPECTED / RECORDS
    first = (coins & (np.cumsum(coins, 1) <= CAPACITY)).sum(0)
    assert scipy.stats.chi2_contingency([first, counts[1]]).pvalue < 1e-6


# -------------------------------------------------------------------------- exchange


def regression(params, features, targets):
    return ((features @ params - targets) ** 2).mean()


GRADS = {
    "ours": lambda: clipped_grad(
        regression, 1.0, batch_argnums=(1, 2), return_grad_norms=True
    ),
    "theirs": lambda: jax_privacy.clipped_grad(
        regression, l2_clip_norm=1.0, batch_argnums=(1, 2), return_grad_norms=True
    ),
}
NOISES = {
    "ours": lambda std: gaussian_noise(std, SECRET),
    "ours, secure": lambda std: gaussian_noise(std, SECRET, "secure"),
    "theirs": lambda std: noise_addition.gaussian_privatizer(stddev=std, prng_key=0),
}
SAMPLERS = {
    "ours": lambda: PoissonBatches(200, 40, 60, 64),
    "theirs": lambda: batch_selection.CyclicPoissonSampling(
        sampling_prob=0.2, iterations=60, truncated_batch_size=64
    ),
}


@pytest.mark.parametrize(
    ("grad", "noise", "sampler"),
    [
        ("ours", "theirs", "theirs"),
        ("theirs", "ours", "ours"),
        ("theirs", "theirs", "ours"),
        ("ours", "ours, secure", "theirs"),
    ],
)
def test_parts_of_both_make_one_loop(grad, noise, sampler):
    """Their documented loop, with any of the parts exchanged, learns a regression."""
    grad_fn = GRADS[grad]()
    plan = DPExecutionPlan(
        clipped_grad=lambda _: grad_fn,
        batch_selection_strategy=SAMPLERS[sampler](),
        noise_addition_transform=NOISES[noise](0.5 * grad_fn.sensitivity()),
        dp_event=SAMPLERS["ours"]().event(0.5),
    )
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3)).astype(np.float32)
    truth = np.array([1.0, -0.5, 0.25], np.float32)
    targets = features @ truth

    @jax.jit
    def step(params, state, features, targets, padding):
        total, _ = plan.clipped_grad(regression)(
            params, features, targets, is_padding_example=padding
        )
        noisy, state = plan.noise_addition_transform.update(total, state)
        return params - 0.3 * noisy / 40, state

    params = jnp.zeros(3)
    state = plan.noise_addition_transform.init(params)
    for indices in plan.batch_selection_strategy.batch_iterator(200, rng=1):
        indices = padded(indices[indices >= 0], 64)
        batch = features[indices], targets[indices]
        params, state = step(params, state, *batch, is_padding_example(indices))
    # noise of 0.5 / 40 a step, 0.3 of it kept: a spread of 0.006; no learning: 1
    np.testing.assert_allclose(params, truth, atol=0.1)
    assert plan.dp_event == truncated_dpsgd_event(
        0.5, 60, sampling_prob=0.2, num_examples=200, truncated_batch_size=64
    )
    assert step._cache_size() == 1


def test_both_noises_have_one_law(problem):
    zeros = jax.tree.map(jnp.zeros_like, problem[0] | {"wide": jnp.zeros(9_000)})
    for make in NOISES.values():
        tx = make(2.5)
        noisy, _ = jax.jit(tx.update)(zeros, tx.init(zeros))
        assert_normal(jax.flatten_util.ravel_pytree(noisy)[0], 2.5)


def test_their_padding_is_ours():
    indices = np.arange(7)
    assert_same(padded(indices, 8), batch_selection.pad_to_multiple_of(indices, 8))
