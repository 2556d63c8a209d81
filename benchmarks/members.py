"""How to run the members of an ensemble on this device: mapping x convolution.

    python -m benchmarks.members --out benchmarks/records/members_cpu.json

Times the gradient of ResNet-8 for several members, each with its own batch, and for
per-example gradients. Everything is measured in turns in one process, so that ratios
hold even on a machine that is busy; absolute times are this machine's.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import record
from rpjax import keys
from rpjax.learners.losses import cross_entropy
from rpjax.learners.networks import over_members
from rpjax.models import resnet
from rpjax.perturbations import Additive

ROUNDS = 7


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 28])
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [
        row
        for size in options.sizes
        for row in measured(size, options.members, options.batch)
    ]
    for row in rows:
        print(
            f"{row['size']:>3} px  {row['what']:<28}{row['compile_seconds']:7.1f} s "
            f"{1e3 * row['seconds']:9.1f} ms {row['relative']:6.2f} x"
        )
    if options.out:
        settings = {"members": options.members, "batch": options.batch}
        result = record("members", settings | {"rounds": ROUNDS}, rows)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(size, members, batch):
    """One row for each way, relative to one member's step with the fastest convolution.

    `relative` is per member, so 1 means that members cost what single nets cost.
    """
    programs, compile_seconds = {}, {}
    for name, (function, args) in ways(size, members, batch).items():
        began = time.perf_counter()
        programs[name] = jax.jit(function).lower(*args).compile(), args
        compile_seconds[name] = time.perf_counter() - began
    seconds = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, (program, args) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*args))
            seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    single = min(median["one member, xla"], median["one member, im2col"])
    return [
        {
            "size": size,
            "what": name,
            "seconds": median[name],
            "spread": [min(times), max(times)],
            "compile_seconds": compile_seconds[name],
            "relative": median[name]
            / single
            / (members if name.startswith("members") else 1),
        }
        for name, times in seconds.items()
    ]


def ways(size, members, batch):
    """Name -> (function, arguments)."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(members, batch, size, size, 1)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, (members, batch)))
    own = jax.random.split(keys.root(0), (members, batch))
    found = {}
    for convolution in ("xla", "im2col"):
        model = resnet(8, 10, convolution=convolution, perturbation=Additive(0.5))
        loss = mean_loss(model)
        init = jax.jit(lambda model=model: model.init(keys.root(0), own[0], x[0]))
        params = init()
        stacked = jax.tree.map(lambda a: jnp.stack([a] * members), params)
        one = (params, own[0], x[0], y[0])
        found[f"one member, {convolution}"] = (jax.grad(loss), one)
        found[f"per example, {convolution}"] = (per_example(loss), one)
        for mapping in ("vmap", "map", "unroll"):
            over = over_members(members, mapping)
            grad = jax.grad(loss)
            found[f"members, {mapping}, {convolution}"] = (
                lambda *args, over=over, grad=grad: over(grad, *args),
                (stacked, own, x, y),
            )
    return found


def mean_loss(model):
    def loss(params, own, x, y):
        return cross_entropy(model.apply(params, own, x), y).mean()

    return loss


def per_example(loss):
    def gradients(params, own, x, y):
        one = lambda k, xi, yi: jax.grad(loss)(params, k[None], xi[None], yi[None])
        return jax.vmap(one)(own, x, y)

    return gradients


if __name__ == "__main__":
    main()
