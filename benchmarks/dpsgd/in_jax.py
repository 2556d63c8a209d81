"""DP-SGD by jax-privacy and by optax, on rpjax's own net, in one jitted step.

ways: "xla", "canonical" or "im2col", how the net's convolutions are computed
(`rpjax.models.conv`); for jax-privacy also "im2col, 16 at a time", its microbatches.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.dpsgd.task import Task, Training, apart, flat
from rpjax.learners import Inputs
from rpjax.learners.losses import cross_entropy
from rpjax.models import ResNet

Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""(parameters, pixels of some records, labels) -> their mean loss."""
Private = tuple[Callable[..., Any], optax.GradientTransformation]
"""(parameters, pixels, labels) -> what the transformation makes private."""


def start(task: Task, private: Callable[[Task, Loss], Private]) -> Training:
    """A training whose step is one compiled program."""
    task.check_device(jax.default_backend() != "cpu")
    gradients, tx = private(task, loss_of(task))
    images, labels = map(jnp.asarray, task.images())
    batches = list(map(jnp.asarray, task.batches()))
    params = jax.tree.map(jnp.asarray, task.tree("parameters"))
    state = [(params, tx.init(params))]

    def step(state: Any, images: Any, labels: Any, where: Any) -> Any:
        return stepped(gradients, tx, state, images[where], labels[where])

    began = time.perf_counter()
    jitted = jax.jit(step, donate_argnums=0)
    program = jitted.lower(state[0], images, labels, batches[0]).compile()
    compile_seconds = time.perf_counter() - began

    def seconds(steps: int) -> float:
        jax.block_until_ready(state)
        began = time.perf_counter()
        for number in range(steps):
            where = batches[number % len(batches)]
            state[0] = program(state[0], images, labels, where)
        jax.block_until_ready(state)
        return time.perf_counter() - began

    memory = program.memory_analysis()
    return Training(
        seconds,
        10_000,
        peak,
        {"compile_seconds": compile_seconds, "memory_bytes": planned_bytes(memory)},
    )


def clipped_sum_differs_by(
    task: Task, private: Callable[[Task, Loss], Private]
) -> float:
    """See `benchmarks.dpsgd.task.Library`."""
    with jax.default_device(jax.devices("cpu")[0]):
        gradients, tx = private(task, loss_of(task))
        images, labels = map(jnp.asarray, task.images())
        params = jax.tree.map(jnp.asarray, task.tree("parameters"))
        state = (params, tx.init(params))
        _, after = jax.jit(lambda *args: stepped(gradients, tx, *args))(
            state, images, labels
        )
        return momentum_apart(after, task)


def momentum_apart(opt_state: Any, task: Task) -> float:
    """How far the first momentum, times the batch size, is from what is expected."""
    trace = optax.tree.get(opt_state, "trace")
    sums = jax.tree.map(lambda leaf: np.asarray(leaf) * task.batch_size, trace)
    return apart(flat(sums, ""), flat(task.tree("expected"), ""))


def stepped(
    gradients: Any, tx: Any, state: Any, images: jax.Array, labels: jax.Array
) -> Any:
    params, opt_state = state
    private = gradients(params, Inputs().normalised(images), labels)
    updates, opt_state = tx.update(private, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def loss_of(task: Task) -> Loss:
    model = network(task, convolution=task.way.split(",")[0])

    def loss(params: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, None, pixels, True)
        return cross_entropy(logits, labels).mean()

    return loss


def network(task: Task, **options: Any) -> ResNet:
    return ResNet(
        stages=tuple(task.stages),
        widths=tuple(task.widths),
        classes=task.classes,
        groups=task.groups,
        stem_width=task.stem,
        dtype=jnp.dtype(task.dtype),
        **options,
    )


def sgd(task: Task) -> optax.GradientTransformation:
    return optax.sgd(task.learning_rate, momentum=task.momentum)


def planned_bytes(memory: Any) -> int:
    """Of arguments, results and temporaries; donated memory counts once."""
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def peak() -> int | None:
    """The most bytes that JAX had in use on its accelerator."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")
