"""Several devices do what one does: the same sums, the same noise, added once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from support import CLASSES, Dense, assert_close, batch_of, records, start, tiny

from benchmarks.hlo import collectives
from benchmarks.workloads import training_program
from rpjax import keys
from rpjax.errors import InputError
from rpjax.gradients import GroupClipping
from rpjax.learners import Inputs, dpsgd, ensemble, side_by_side, supervised
from rpjax.models import resnet
from rpjax.perturbations import Additive, Multiplicative
from rpjax.training import Query, answers, fit
from rpjax.training.devices import Layout, layout, number

TX = optax.sgd(0.2, momentum=0.9)


def plain(model=None):
    """Noise on the input and on the block."""
    return supervised(model or Dense(Additive(0.5)), TX, Inputs(noise=0.3))


def private(model=None, microbatch=None, clipping="flat"):
    """Every gradient is clipped, so that a wrong norm would show."""
    return dpsgd(
        model or Dense(Additive(0.5)),
        TX,
        clip_norm=0.05,
        noise_multiplier=1.0,
        batch_size=8,
        microbatch=microbatch,
        clipping=clipping,
    )


HALF = Additive(0.5)


def residual_net(convolution, perturbation=HALF, **options):
    return tiny(perturbation=perturbation, convolution=convolution, **options)


# the compiler's own convolutions are the ones that go wrong where devices are mixed in
LEARNERS = {
    "supervised": lambda: plain(residual_net("im2col")),
    "Strategy II": lambda: plain(residual_net("xla", Multiplicative(0.5))),
    "BatchNorm": lambda: supervised(residual_net("xla", None, norm="batch"), TX),
    "bank": lambda: side_by_side(plain(residual_net("xla")), 2, mapping="vmap"),
    "ensemble": lambda: ensemble(plain(), 4),
    "joint": lambda: ensemble(plain(), 2, joint=True),
    "bank of ensembles": lambda: side_by_side(ensemble(plain(), 3), 2),
    "DP-SGD": lambda: private(residual_net("xla")),
    "DP-SGD in microbatches": lambda: private(microbatch=2),
    "DP-SGD by class": lambda: private(
        microbatch=1, clipping=GroupClipping(0.05, CLASSES, 1.5)
    ),
    "DP-SGD ensemble": lambda: ensemble(private(), 2),
    "DP-SGD bank, convolutions": lambda: side_by_side(
        private(residual_net("im2col")), 4
    ),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_training_on_eight_devices_equals_one(small, make):
    learner = make()
    options = {"batch_size": 8, "steps": 4, "seed": 1, "noise_seed": "fixed"}
    one, eight = (fit(learner, small, devices=n, **options) for n in (1, 8))
    assert_close(eight.state, one.state)
    assert_close(eight.history, one.history)
    assert len(jax.tree.leaves(eight.state.params)[0].sharding.device_set) == 8
    assert_close(eight.answers(small), one.answers(small), atol=1e-4)
    assert_close(
        answers(learner, eight.state, small, seed=1), one.answers(small), atol=1e-4
    )
    assert eight.sampler.capacity == one.sampler.capacity


@pytest.mark.parametrize("devices", ["member=4,data=2", {"member": 2, "data": 2}])
def test_members_on_their_own_lists_may_lie_on_devices_of_their_own(small, devices):
    """Shadow models: each its own records, whatever device holds it."""
    learner = side_by_side(private(residual_net("xla")), 4)
    lists = np.stack([np.random.default_rng(i).permutation(16)[:12] for i in range(4)])
    options = {"batch_size": 8, "steps": 3, "noise_seed": "fixed", "lists": lists}
    one, many = (fit(learner, small, devices=n, **options) for n in (1, devices))
    assert_close(many.state, one.state)
    assert_close(many.answers(small), one.answers(small), atol=1e-4)
    kernel = jax.tree.leaves(many.state.params)[0]
    assert kernel.addressable_shards[0].data.shape[0] == 4 // (
        4 if isinstance(devices, str) else 2
    )


@pytest.mark.parametrize("engine", ["vmap", "two_pass", "bookkeeping"])
def test_the_clipped_sum_of_eight_devices_equals_a_python_loop(small, engine):
    """One step from zero noise, learning rate one: what moved is the clipped mean.

    The known failure of sharded `jit` is that the gradients of convolution kernels are
    zero for all examples but the first device's; that of `shard_map`, that gradients by
    what does not vary over devices are summed once too often. The net has layers whose
    gradients book-keeping keeps, and layers where it takes the ghost.
    """
    model = resnet(8, CLASSES, convolution="xla")
    learner = dpsgd(
        model,
        optax.sgd(1.0),
        clip_norm=0.5,
        noise_multiplier=0.0,
        batch_size=16,
        engine=engine,
    )
    root = keys.root(0)
    state = start(learner, small, root)
    batch = batch_of(small, np.arange(16))
    where = layout(8, (), 16)
    step = where.mapped(
        lambda state, batch: learner.step(root, state, batch, where.axis),
        (P(), P("data")),
        P(),
    )
    after, _ = jax.jit(step)(state, batch)
    moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)

    @jax.jit
    def gradient(image, label):
        def loss(params):
            pixels = (image.astype(jnp.float32)[None] / 255 - 0.5) / 0.5
            logits = model.apply({"params": params}, None, pixels)
            return optax.softmax_cross_entropy_with_integer_labels(logits[0], label)

        return jax.grad(loss)(state.params)

    total = jax.tree.map(np.zeros_like, jax.device_get(state.params))
    for image, label in zip(small.images, small.labels, strict=True):
        own = jax.device_get(gradient(image, label))
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(own)))
        scale = min(1.0, 0.5 / norm)
        total = jax.tree.map(lambda a, b, s=scale: a + s * b, total, own)
    assert_close(moved, jax.tree.map(lambda t: t / 16, total), atol=2e-6)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(total))


PARALLEL = {
    "perturbed": (lambda: plain(residual_net("xla")), 1),
    # all slots at once: of a loop over some, the compiler counts one turn
    "DP-SGD": (lambda: private(residual_net("im2col"), microbatch=64), 1),
    "ensemble over data": (
        lambda: ensemble(plain(residual_net("xla")), 3, mapping="vmap"),
        1,
    ),
    "ensemble over members": (
        lambda: ensemble(plain(residual_net("xla")), 8, mapping="vmap"),
        0,
    ),
    "bank over both": (
        lambda: side_by_side(
            private(residual_net("im2col"), microbatch=64), 4, mapping="vmap"
        ),
        1,
    ),
}


@pytest.mark.parametrize(("make", "reductions"), PARALLEL.values(), ids=PARALLEL)
def test_devices_speak_once_a_step_and_share_the_work_evenly(
    optimised, make, reductions
):
    """No gather, one all-reduce of the gradient, FLOPs within 5 % of an eighth.

    Every device draws DP-SGD's noise whole, so its records need some work to divide.
    """
    learner = make()
    private = learner.mechanism.kind == "dpsgd"
    side = 32 if private and not learner.members else 16
    data, batch = records(64, shape=(side, side, 1)), 8 if private else 64
    one, eight = (training_program(learner, data, batch, n)[0] for n in (1, 8))
    found = [each.kind for each in collectives(eight.as_text())]
    assert found == ["all-reduce"] * reductions
    flops = [program.cost_analysis()["flops"] for program in (one, eight)]
    assert flops[1] <= 1.05 * flops[0] / 8


def test_the_compiler_of_sharded_jit_shows_up_in_these_counts(optimised):
    """The counting sees what it is there to see: members under sharded `jit`."""
    learner = side_by_side(plain(residual_net("xla")), 2, mapping="vmap")
    data = records(16)
    where = Layout(layout(8, (), 8).mesh, 1, 8)
    state = start(learner, data)
    batch = batch_of(data, np.arange(16).reshape(2, 8))
    batch = where.put(jax.device_get(batch), P(None, "data"))
    state = where.put(jax.device_get(state))
    step = jax.jit(lambda s, b: learner.step(keys.root(0), s, b))
    found = collectives(step.lower(state, batch).compile().as_text())
    assert "all-gather" in {each.kind for each in found}


def test_a_run_resumes_on_several_devices_and_moves_between_their_numbers(
    small, tmp_path
):
    learner = ensemble(plain(), 2)
    whole = fit(learner, small, batch_size=8, steps=8, noise_seed="fixed")
    for part, devices in enumerate([4, "member=2,data=4", 1, 8]):
        run = fit(
            learner,
            small,
            batch_size=8,
            steps=2 * part + 2,
            devices=devices,
            checkpoints=tmp_path,
            noise_seed="fixed",
        )
    assert_close(run.state, whole.state)
    assert_close(run.history, whole.history)


def test_answers_do_not_depend_on_devices(small):
    run = fit(ensemble(plain(), 4), small, batch_size=8, steps=1, noise_seed="fixed")
    for query in (Query(), Query(noise=False), Query(draws=3)):
        one = run.answers(small, query)
        for devices in (3, 8, "member=4"):
            many = answers(
                run.learner, run.state, small, query, run.seed, devices=devices
            )
            assert_close(many, one)


def test_members_come_first_and_data_take_the_rest():
    assert layout(8, (4,), 8)[1:] == (4, 2)
    assert layout(8, (5,), 8)[1:] == (1, 8)
    assert layout(8, (16,), 8)[1:] == (8, 1)
    assert layout(8, (), 8)[1:] == (1, 8)
    assert layout(6, (4, 3), 9)[1:] == (2, 3)
    assert layout("member=2,data=4", (4,), 8)[1:] == (2, 4)
    assert layout("data=4", (4,), 8)[1:] == (1, 4)


def test_one_device_needs_no_mesh():
    assert layout(1, (), 7) == layout(None, (5,), 7) == layout("1", (), 7) == Layout()
    assert Layout().mapped(max, None, None) is max


def test_the_number_of_devices():
    assert [number(d) for d in (None, 3, "8", "member=2,data=3")] == [1, 3, 8, 6]


@pytest.mark.parametrize(
    ("devices", "members", "batch", "message"),
    [
        (9, (), 18, "devices is 9; there are 8"),
        (0, (), 18, "devices is 0; there are 8"),
        (4, (), 6, "devices is 4, which does not divide the batch of 6"),
        ("member=3", (4,), 6, "member=3, which does not divide the number of members"),
        ("member=2", (), 6, "does not divide the number of members = 1"),
        ("data=4", (4,), 6, "data=4, which does not divide the slots of a batch = 6"),
        ("model=2", (4,), 6, "names the axis 'model'; the axes are member and data"),
        ({"x": 2}, (4,), 6, "names the axis 'x'"),
        ("data=0", (4,), 6, "sizes must be >= 1"),
        ("eight", (), 8, "devices is 'eight'; it is a number"),
        ("member=2;data=2", (2,), 8, "it is a number such as 8, or the sizes"),
    ],
)
def test_devices_that_cannot_be_are_refused(devices, members, batch, message):
    with pytest.raises(InputError, match=re.escape(message)):
        layout(devices, members, batch)


def test_poisson_slots_are_padded_to_what_devices_divide(small):
    """Five devices share 24 slots: the record of the padding has no influence."""
    one, five = (
        fit(private(), small, batch_size=8, steps=3, devices=n, noise_seed="fixed")
        for n in (1, 5)
    )
    assert five.sampler.capacity % 5
    assert_close(five.state, one.state)
