"""What every contender must find: the clipped sum, by a loop over single records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.dpsgd.task import apart, flat
from benchmarks.pytorch import start
from benchmarks.workloads import net, random_pixels
from rpjax.learners import Inputs
from rpjax.learners.losses import cross_entropy
from rpjax.models import ResNet

CHECKED = 16
"""Records whose clipped gradients are summed by everybody."""
LEAST_TOLERANCE = 1e-5
MOVED = 3e-6
"""By how much of itself each parameter is moved to see what rounding may do: 25 units
in float32's last place. In a deep net some ReLU lies that near to zero."""

Gradients = list[dict[str, np.ndarray]]


def write(
    file: Path, model: str, shape: tuple[int, int, int], records: int, seed: int
) -> tuple[dict[str, Any], float]:
    """Images, labels, parameters and the sum, for tasks; what these must know.

    Half the gradients are clipped: the clip norm is the median of their norms.
    Also how far from this sum, in l2 norm and relative to it, is still rounding.
    """
    data = random_pixels(max(records, CHECKED), shape, seed)
    labels = data.labels.astype(np.int64)
    own = net(model, convolution="xla")
    params = start(own, shape, seed)
    gradients = loop(own, data.images[:CHECKED], labels[:CHECKED])
    found = gradients(params)
    clip_norm = float(np.median(norms(found)))
    total = clipped_sum(found, clip_norm)
    near = clipped_sum(gradients(moved(params, seed)), clip_norm)
    entries = {**flat(params, "parameters"), **total}
    np.savez(file, images=data.images, labels=labels, **entries)
    facts = {**facts_of(own, shape), "clip_norm": clip_norm}
    return facts, max(LEAST_TOLERANCE, apart(near, total))


def facts_of(own: ResNet, shape: tuple[int, int, int]) -> dict[str, Any]:
    """What a task says of its net."""
    return {
        "stages": own.stages,
        "widths": own.widths,
        "groups": own.groups,
        "stem": own.stem_width,
        "image_shape": shape,
        "classes": own.classes,
    }


def loop(
    model: Any, images: np.ndarray, labels: np.ndarray
) -> Callable[[Any], Gradients]:
    """(parameters) -> each record's gradient, one after the other."""

    def loss(params: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        pixels = Inputs().normalised(image[None])
        logits = model.apply({"params": params}, None, pixels, True)
        return cross_entropy(logits, label[None])[0]

    gradient = jax.jit(jax.grad(loss))
    pairs = list(zip(images, labels, strict=True))
    return lambda params: [
        flat(gradient(params, jnp.asarray(image), label), "expected")
        for image, label in pairs
    ]


def moved(params: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    factor = lambda leaf: 1 + MOVED * rng.normal(size=leaf.shape).astype("f")
    return jax.tree.map(lambda leaf: leaf * factor(leaf), params)


def norms(gradients: Gradients) -> list[float]:
    """l2 norm of each over all its leaves, in float64."""
    wide = ([g.astype(np.float64) for g in one.values()] for one in gradients)
    return [float(np.sqrt(sum(np.sum(g * g) for g in one))) for one in wide]


def clipped_sum(gradients: Gradients, clip_norm: float) -> dict[str, np.ndarray]:
    """Their sum, each clipped to this norm, in float64."""
    scales = [min(1.0, clip_norm / norm) for norm in norms(gradients)]
    pairs = list(zip(scales, gradients, strict=True))
    return {
        name: sum(scale * one[name].astype(np.float64) for scale, one in pairs)
        for name in gradients[0]
    }
