"""Several devices do what one does: the same sums, the same noise, added once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import Dense, assert_close, tiny

from rpjax.errors import InputError
from rpjax.learners import Inputs, dpsgd, ensemble, side_by_side, supervised
from rpjax.perturbations import Additive
from rpjax.training import answers, fit
from rpjax.training.devices import data_mesh, over_devices

TX = optax.sgd(0.2, momentum=0.9)


def plain(model=None):
    """Noise on the input and on the block."""
    return supervised(model or Dense(Additive(0.5)), TX, Inputs(noise=0.3))


def private(model=None, microbatch=None):
    """Every gradient is clipped, so that a wrong norm would show."""
    return dpsgd(
        model or Dense(Additive(0.5)),
        TX,
        clip_norm=0.05,
        noise_multiplier=1.0,
        batch_size=8,
        microbatch=microbatch,
    )


def residual_net(convolution):
    return tiny(perturbation=Additive(0.5), convolution=convolution)


# the compiler's own convolutions are the ones that go wrong where devices are mixed in
LEARNERS = {
    "supervised": lambda: plain(residual_net("im2col")),
    "bank": lambda: side_by_side(plain(residual_net("xla")), 2, mapping="vmap"),
    "ensemble": lambda: ensemble(plain(), 2),
    "joint": lambda: ensemble(plain(), 2, joint=True),
    "DP-SGD": lambda: private(residual_net("xla")),
    "DP-SGD in microbatches": lambda: private(microbatch=2),
    "DP-SGD ensemble": lambda: ensemble(private(), 2),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_training_on_four_devices_equals_one(small, make):
    learner = make()
    options = {"batch_size": 8, "steps": 4, "seed": 1, "noise_seed": "fixed"}
    one, four = (fit(learner, small, devices=n, **options) for n in (1, 4))
    assert_close(four.state, one.state)
    assert_close(four.history, one.history)
    assert len(jax.tree.leaves(four.state.params)[0].devices()) == 4
    assert_close(
        answers(learner, four.state, small),
        answers(learner, one.state, small),
        atol=1e-4,
    )
    assert four.sampler.capacity == one.sampler.capacity


def test_a_run_resumes_on_several_devices_and_moves_between_their_numbers(
    small, tmp_path
):
    learner = supervised(Dense(Additive(0.5)), TX)
    whole = fit(learner, small, batch_size=8, steps=6)
    for number, devices in enumerate([4, 4, 1]):
        run = fit(
            learner,
            small,
            batch_size=8,
            steps=2 * number + 2,
            devices=devices,
            checkpoints=tmp_path,
        )
    assert_close(run.state, whole.state)


def test_a_batch_is_really_split(small):
    """Each device sees its quarter of the slots, and the whole table of records."""
    mesh = data_mesh(4, 16)

    def local(batch, table, axis):
        assert (batch.shape, table.shape) == ((2, 4), (16,))
        return jax.lax.psum(batch.sum(), axis) + table.sum()

    total = jax.jit(over_devices(local, mesh, split={0: 1}))(
        jnp.arange(32.0).reshape(2, 16), jnp.arange(16.0)
    )
    assert total == np.arange(32).sum() + np.arange(16).sum()


def test_one_device_needs_no_mesh():
    assert data_mesh(1, 7) is None
    assert over_devices(lambda x, axis: (x, axis), None, {})(3) == (3, None)


def test_devices_that_are_not_there_or_do_not_divide_are_refused():
    with pytest.raises(InputError, match="devices is 9; this machine has 8"):
        data_mesh(9, 18)
    with pytest.raises(
        InputError, match="devices is 4, which does not divide the batch"
    ):
        data_mesh(4, 6)


def test_poisson_slots_are_made_to_divide(small):
    learner = dpsgd(Dense(), TX, clip_norm=1.0, noise_multiplier=1.0, batch_size=4)
    run = fit(learner, small, batch_size=4, steps=1, devices=3)
    assert run.sampler.capacity % 3 == 0
