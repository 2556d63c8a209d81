"""Functions written for `jax.pmap` run as they are, and give what it gives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import assert_close, assert_same

from benchmarks.hlo import collectives
from rpjax import pmap
from rpjax.errors import InputError

EIGHT = np.arange(8.0, dtype=np.float32)
ROWS = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)


def pytree(x, scale):
    return {"sum": jax.lax.psum(x["a"], "data"), "own": (x["b"][0] * scale, x["a"])}


FUNCTIONS = {
    "share": (lambda x: x / jax.lax.psum(x, "data"), (EIGHT,), {}),
    "mean": (lambda x: jax.lax.pmean(x, axis_name="data"), (ROWS,), {}),
    "index": (lambda x: x + jax.lax.axis_index("data"), (EIGHT,), {}),
    "count": (lambda x: x * jax.lax.psum(1, "data"), (EIGHT,), {}),
    "gather": (lambda x: jax.lax.all_gather(x, "data"), (EIGHT,), {}),
    "around": (
        lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]),
        (ROWS,),
        {},
    ),
    "pytrees": (
        pytree,
        ({"a": ROWS, "b": [EIGHT]}, np.float32(3)),
        {"in_axes": (0, None)},
    ),
    "other axes": (
        lambda x, y: (x @ y, x.sum()),
        (np.moveaxis(ROWS, 0, 1), np.ones((3, 2), np.float32)),
        {"in_axes": (1, None), "out_axes": (1, 0)},
    ),
    "parts of an argument": (
        lambda x: x["a"] + x["b"],
        ({"a": EIGHT, "b": np.float32(1)},),
        {"in_axes": ({"a": 0, "b": None},)},
    ),
    "one result for all": (
        lambda x: jax.lax.psum(x, "data"),
        (ROWS,),
        {"out_axes": None},
    ),
    "static": (
        lambda x, name, y: x * 2 if name == "twice" else y,
        (EIGHT, "twice", EIGHT),
        {"static_broadcasted_argnums": 1},
    ),
    "static with axes": (
        lambda n, x: jnp.stack([x] * n),
        (3, EIGHT),
        {"static_broadcasted_argnums": (0,), "in_axes": (None, 0)},
    ),
    "fewer slices than devices": (lambda x: jax.lax.psum(x, "data"), (EIGHT[:3],), {}),
}


@pytest.mark.parametrize(
    ("function", "args", "options"), FUNCTIONS.values(), ids=FUNCTIONS
)
def test_it_gives_what_jax_pmap_gives(function, args, options):
    ours = pmap(function, "data", **options)
    theirs = jax.pmap(function, "data", **options)
    for _ in range(2):  # the second from the program of the first
        assert_same(ours(*args), theirs(*args))
    assert len(ours.programs) == 1


def test_keyword_arguments_are_mapped_over_their_first_axis():
    function = lambda x, *, y: x - y
    assert_same(
        pmap(function)(EIGHT, y=2 * EIGHT), jax.pmap(function)(EIGHT, y=2 * EIGHT)
    )


def test_each_device_has_the_key_it_was_given():
    keys = jax.random.split(jax.random.key(0), 8)
    draw = lambda key, x: jax.random.normal(key, x.shape) + x
    ours = pmap(draw)(keys, ROWS)
    assert_close(ours, jax.pmap(draw)(jnp.copy(keys), ROWS), rtol=0, atol=0)
    assert len(np.unique(ours)) == ours.size


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


TX = optax.sgd(0.1, momentum=0.9)


def step(params, state, x, y):
    """What people come with: an average of the devices' gradients."""
    value, gradient = jax.value_and_grad(loss)(params, x, y)
    gradient = jax.lax.pmean(gradient, axis_name="data")
    updates, state = TX.update(gradient, state)
    params = optax.apply_updates(params, updates)
    return params, state, jax.lax.pmean(value, axis_name="data")


@pytest.fixture
def training():
    """Parameters and eight devices' records, (8, 4, features)."""
    rng = np.random.default_rng(1)
    params = {
        "in": rng.normal(size=(3, 5)).astype(np.float32),
        "out": rng.normal(size=(5, 2)).astype(np.float32),
    }
    return params, ROWS, rng.normal(size=(8, 4, 2)).astype(np.float32)


def test_a_training_step_with_pmean_trains_as_under_jax_pmap_and_as_one_batch(training):
    """Replicated parameters, as users keep them; and whole ones, by in_axes None."""
    params, x, y = training
    repeat = lambda tree: jax.tree.map(lambda leaf: np.stack([leaf] * 8), tree)
    state = TX.init(params)
    start = repeat(params), repeat(state)
    ours, theirs = start, start
    whole = params, state
    mine, jaxs = pmap(step, "data"), jax.pmap(step, "data")
    axes = {"in_axes": (None, None, 0, 0), "out_axes": None}
    once = pmap(step, "data", **axes)
    for _ in range(3):
        *ours, value = mine(*ours, x, y)
        *theirs, expected = jaxs(*theirs, x, y)
        *whole, _ = once(*whole, x, y)
        assert_close(value, expected, rtol=1e-6)
    assert_close(ours, theirs, rtol=1e-6)
    assert_close(repeat(whole), theirs, rtol=1e-6)

    batch = (x.reshape(32, 3), y.reshape(32, 2))
    alone = params, state
    for _ in range(3):
        gradient = jax.grad(loss)(alone[0], *batch)
        updates, after = TX.update(gradient, alone[1])
        alone = optax.apply_updates(alone[0], updates), after
    assert_close(whole[0], alone[0], rtol=1e-4)


def test_the_program_holds_the_collectives_that_the_function_names(optimised, training):
    """One for the gradients and the loss, none that nobody asked for."""
    params, x, y = training
    axes = {"in_axes": (None, None, 0, 0), "out_axes": None}
    args = (params, TX.init(params), x, y)

    def found(function, *args, **axes):
        text = pmap(function, "data", **axes).lower(*args).compile().as_text()
        return {each.kind for each in collectives(text)}

    assert found(step, *args, **axes) == {"all-reduce"}
    assert found(lambda x: jax.lax.all_gather(x, "data"), ROWS) == {"all-gather"}
    assert found(lambda x: x * 2, ROWS) == set()


def test_donated_arguments_give_up_their_memory():
    def place():
        return pmap(lambda x: x)(ROWS)

    kept, given = place(), place()
    add = lambda x, y: x + y
    pmap(add, donate_argnums=0)(given, kept)
    assert given.is_deleted()
    assert not kept.is_deleted()


def test_the_devices_may_be_named():
    three = jax.devices()[5:8]
    out = pmap(lambda x: jax.lax.psum(x, "i"), "i", devices=three)(EIGHT[:3])
    assert out.sharding.device_set == set(three)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((np.ones(9),), {}, "the mapped axis has 9 slices for 8 devices"),
        ((np.ones(3),), {"devices": "two"}, "has 3 slices for 2 devices"),
        ((np.ones(8), np.ones(4)), {}, "the mapped axes have sizes 4, 8; all must"),
        ((np.ones(8), 3.0), {}, "an argument of shape () has no axis 0"),
        ((np.ones(8),), {"in_axes": None}, "no argument has an axis that counts"),
        ((np.ones(8),), {"in_axes": (0, 0)}, "in_axes has 2 entries for 1 arguments"),
        ((np.ones(8),), {"in_axes": -1}, "in_axes holds -1; axes are numbers >= 0"),
        ((np.ones(8),), {"out_axes": -1}, "out_axes holds -1; axes are numbers"),
        ((np.ones(8),), {"out_axes": (0, 0)}, "out_axes is (0, 0), which does not"),
        (
            ({"a": np.ones(8)},),
            {"in_axes": ({"b": 0},)},
            "which does not have the structure",
        ),
    ],
)
def test_axes_that_do_not_fit_are_refused_in_one_line(args, options, message):
    if options.get("devices") == "two":
        options = {"devices": jax.devices()[:2]}
    with pytest.raises(InputError, match=re.escape(message)):
        pmap(lambda *args: args[0], **options)(*args)
