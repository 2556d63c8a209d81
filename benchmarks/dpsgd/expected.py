"""What every contender must find: the clipped sum, by a loop over single records."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.dpsgd.task import flat
from benchmarks.pytorch import start
from benchmarks.workloads import net, random_pixels
from rpjax.learners import Inputs
from rpjax.learners.losses import cross_entropy

CHECKED = 16
"""Records whose clipped gradients are summed by everybody."""


def write(
    file: Path, model: str, shape: tuple[int, int, int], records: int, seed: int
) -> dict[str, Any]:
    """Images, labels, parameters and the sum, for tasks; and what these must know.

    Half the gradients are clipped: the clip norm is the median of their norms.
    """
    data = random_pixels(max(records, CHECKED), shape, seed)
    own = net(model, convolution="xla")
    params = start(own, shape, seed)

    def loss(params: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        pixels = Inputs().normalised(image[None])
        logits = own.apply({"params": params}, None, pixels, True)
        return cross_entropy(logits, label[None])[0]

    gradient = jax.jit(jax.grad(loss))
    labels = data.labels.astype(np.int64)
    found = [
        flat(gradient(params, jnp.asarray(data.images[i]), labels[i]), "expected")
        for i in range(CHECKED)
    ]
    clip_norm, total = clipped_sum(found)
    entries = {**flat(params, "parameters"), **total}
    np.savez(file, images=data.images, labels=labels, **entries)
    return {
        "stages": own.stages,
        "widths": own.widths,
        "groups": own.groups,
        "stem": own.stem_width,
        "image_shape": shape,
        "classes": own.classes,
        "clip_norm": clip_norm,
    }


def clipped_sum(
    gradients: list[dict[str, np.ndarray]],
) -> tuple[float, dict[str, np.ndarray]]:
    """The median of their norms, and their sum after clipping to it, in float64."""
    wide = [{n: g.astype(np.float64) for n, g in one.items()} for one in gradients]
    norms = [np.sqrt(sum(np.sum(g * g) for g in one.values())) for one in wide]
    clip_norm = float(np.median(norms))
    scales = [min(1.0, clip_norm / norm) for norm in norms]
    total = {
        name: sum(scale * one[name] for scale, one in zip(scales, wide, strict=True))
        for name in wide[0]
    }
    return clip_norm, total
