"""Objax: `PrivateGradValues` with its own momentum, on a copy of the net.

ways: "vmap", or the same with the newest jax. Its mean and its noise are over the slots
of a batch: the learning rate takes them to the expected batch size, and a slot without
a record has a weight of 0, so that its gradient is 0.
"""

import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import objax

from benchmarks.dpsgd.task import Task, Training, apart, flat

EPSILON = 1e-6


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "objax")}


def start(task: Task) -> Training:
    """See `benchmarks.dpsgd.task.Library`."""
    task.check_device(jax.default_backend() != "cpu")
    images, labels = map(jnp.asarray, task.images())
    batches = list(map(jnp.asarray, task.batches()))
    valid = jnp.ones(task.batch_size)
    step, momenta = stepper(task, Net(task), task.batch_size)

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        for number in range(steps):
            step(images, labels, batches[number % len(batches)], valid)
        jax.block_until_ready(list(momenta().values()))
        return time.perf_counter() - began

    return Training(seconds, 10_000, peak, {})


def clipped_sum_differs_by(task: Task) -> float:
    """See `benchmarks.dpsgd.task.Library`."""
    with jax.default_device(jax.devices("cpu")[0]):
        images, labels = map(jnp.asarray, task.images())
        net = Net(task)
        step, momenta = stepper(task, net, task.batch_size)
        step(images, labels, jnp.arange(len(labels)), jnp.ones(len(labels)))
        expected = flat(task.tree("expected"), "")
        sums = {
            name: task.batch_size * np.asarray(value).reshape(expected[name].shape)
            for name, value in momenta().items()
        }
        return apart(sums, expected)


def stepper(
    task: Task, net: "Net", slots: int
) -> tuple[Callable[..., None], Callable[[], dict[str, Any]]]:
    """A step, and what gives each parameter's momentum by rpjax's name.

    slots: of a batch; the step takes all images and labels, and of each slot the
    record's position and 1, or 0 where there is none.
    """

    def loss(pixels: Any, labels: Any, valid: Any) -> Any:
        each = objax.functional.loss.cross_entropy_logits_sparse(net(pixels), labels)
        return (each * valid).mean()

    gradients = objax.privacy.dpsgd.PrivateGradValues(
        loss,
        net.vars(),
        noise_multiplier=task.noise_multiplier,
        l2_norm_clip=task.clip_norm,
        microbatch=1,
        batch_axis=(0, 0, 0),
        keygen=objax.random.Generator(task.seed),
    )
    optimiser = objax.optimizer.Momentum(net.vars(), task.momentum)
    rate = task.learning_rate * slots / task.batch_size

    def updated(images: Any, labels: Any, where: Any, valid: Any) -> None:
        private, _ = gradients(normalised(images[where]), labels[where], valid)
        optimiser(rate, private)

    everything = net.vars() + gradients.vars() + optimiser.vars()
    names = [net.names()[id(ref.ref)] for ref in optimiser.train_vars]

    def momenta() -> dict[str, Any]:
        return {name: m.value for name, m in zip(names, optimiser.m, strict=True)}

    return objax.Jit(updated, everything), momenta


class Net(objax.Module):
    """rpjax's pre-activated ResNet with GroupNorm and rpjax's parameters."""

    def __init__(self, task: Task) -> None:
        self.stem = conv(task.image_shape[-1], task.stem, 3, 1)
        blocks, before = [], task.stem
        for stage, (count, width) in enumerate(
            zip(task.stages, task.widths, strict=True)
        ):
            for position in range(count):
                stride = 2 if stage and not position else 1
                blocks.append(Block(before, width, stride, task.groups))
                before = width
        self.blocks = objax.ModuleList(blocks)
        self.head_norm = norm(before, task.groups)
        self.head = objax.nn.Linear(before, task.classes)
        values, own = flat(task.tree("parameters"), ""), self.variables()
        if values.keys() != own.keys():
            raise ValueError("the nets have different parameters")
        for name, variable in own.items():
            variable.assign(jnp.asarray(values[name]).reshape(variable.shape))

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = objax.functional.relu(self.head_norm(x))
        return self.head(x.mean((2, 3)))

    def variables(self) -> dict[str, Any]:
        """Each variable by rpjax's name."""
        found = {}
        for name in ("stem", "head_norm", "head"):
            found |= leaves(f"/{name}", getattr(self, name))
        for index, block in enumerate(self.blocks):
            for name, layer in vars(block).items():
                found |= leaves(f"/block{index}/{name}", layer)
        return found

    def names(self) -> dict[int, str]:
        return {id(variable): name for name, variable in self.variables().items()}


class Block(objax.Module):
    """x + F(x); where the shape changes x is a 1x1 convolution of the activated x."""

    def __init__(self, before: int, width: int, stride: int, groups: int) -> None:
        self.norm0 = norm(before, groups)
        self.conv0 = conv(before, width, 3, stride)
        self.norm1 = norm(width, groups)
        self.conv1 = conv(width, width, 3, 1)
        if before != width or stride != 1:
            self.shortcut = conv(before, width, 1, stride)

    def __call__(self, x: Any) -> Any:
        activated = objax.functional.relu(self.norm0(x))
        f = self.conv0(activated)
        f = self.conv1(objax.functional.relu(self.norm1(f)))
        return f + (self.shortcut(activated) if hasattr(self, "shortcut") else x)


def leaves(name: str, layer: Any) -> dict[str, Any]:
    if isinstance(layer, objax.nn.GroupNorm):
        return {f"{name}/scale": layer.gamma, f"{name}/bias": layer.beta}
    kernel = {f"{name}/kernel": layer.w}
    return kernel if layer.b is None else {**kernel, f"{name}/bias": layer.b}


def conv(before: int, after: int, size: int, stride: int) -> Any:
    return objax.nn.Conv2D(before, after, size, stride, use_bias=False)


def norm(width: int, groups: int) -> Any:
    most = max(g for g in range(1, groups + 1) if width % g == 0)
    return objax.nn.GroupNorm2D(width, most, EPSILON)


def normalised(images: Any) -> Any:
    """Stored bytes (b, h, w, c) as float32 (b, c, h, w), in [-1, 1]."""
    return (images.transpose(0, 3, 1, 2).astype(jnp.float32) / 255 - 0.5) / 0.5


def peak() -> int | None:
    """The most bytes that JAX had in use on its accelerator."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use")
