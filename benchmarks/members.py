"""How to run the members of an ensemble on this device: mapping x convolution.

Times the gradient of a net for several members, each with its own batch, and for
per-example gradients, outside any loop over steps. `ensembles` asks the same of whole
training steps.
"""

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.timing import calls_of, in_turns, ratio, summary
from benchmarks.workloads import CLASSES, net
from rpjax import keys
from rpjax.learners.losses import cross_entropy
from rpjax.learners.networks import over_members
from rpjax.perturbations import Additive


@dataclass(frozen=True)
class Members:
    """Gradients of several members, and of single examples, by mapping."""

    sizes: tuple[int, ...] = (8, 28)
    """Height and width of the images, of one channel."""
    members: int = 5
    model: str = "resnet8"
    batch: int = 64
    rounds: int = 7
    """How often each is timed."""
    seed: int = 0


def measure(settings: Members, watch: Watch) -> list[Row]:
    return [row for size in settings.sizes for row in _of_size(settings, size, watch)]


def _of_size(settings: Members, size: int, watch: Watch) -> list[Row]:
    """One row for each way, relative to one member's step with the fastest convolution.

    `relative` is per member, so 1 means that members cost what single nets cost.
    """
    clocks, compile_seconds = {}, {}
    for name, (function, args) in ways(settings, size).items():
        watch(f"compiling {name}, {size} pixels")
        began = time.perf_counter()
        program = jax.jit(function).lower(*args).compile()
        compile_seconds[name] = time.perf_counter() - began
        clocks[name] = calls_of(program, args)
    times = in_turns(clocks, settings.rounds, watch)
    singles = [name for name in times if name.startswith("one member")]
    single = min(singles, key=lambda name: summary(times[name])["seconds"])
    return [
        {
            "size": size,
            "what": name,
            **summary(own),
            "compile_seconds": compile_seconds[name],
            "relative": ratio(own, times[single])
            / (settings.members if name.startswith("members") else 1),
        }
        for name, own in times.items()
    ]


def ways(settings: Members, size: int) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Name -> (function, arguments)."""
    members, batch = settings.members, settings.batch
    rng = np.random.default_rng(settings.seed)
    x = jnp.asarray(rng.normal(size=(members, batch, size, size, 1)), jnp.float32)
    y = jnp.asarray(rng.integers(0, CLASSES, (members, batch)))
    own = jax.random.key_data(
        jax.random.split(keys.root(settings.seed), (members, batch))
    )
    found = {}
    for convolution in ("xla", "im2col"):
        model = net(settings.model, convolution=convolution, perturbation=Additive(0.5))
        loss = mean_loss(model)
        quiet = model.clone(perturbation=None)
        init = jax.jit(lambda key, net=quiet: net.init(key, None, x[0]))
        params = init(keys.root(settings.seed))
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


def mean_loss(model: Any) -> Any:
    def loss(params: Any, own: Any, x: Any, y: Any) -> jax.Array:
        logits = model.apply(params, jax.random.wrap_key_data(own), x)
        return cross_entropy(logits, y).mean()

    return loss


def per_example(loss: Any) -> Any:
    def gradients(params: Any, own: Any, x: Any, y: Any) -> Any:
        one = lambda k, xi, yi: jax.grad(loss)(params, k[None], xi[None], yi[None])
        return jax.vmap(one)(own, x, y)

    return gradients


def figure(record: dict[str, Any], theme: Any) -> Figure:
    groups: dict[str, list[Row]] = {}
    for row in record["rows"]:
        groups.setdefault(f"{row['size']} pixels", []).append(row)
    styles = look(["one member", "per example", "members"])
    panel = Panel(
        "time, per member",
        lambda row: row["relative"],
        lambda row: f"{cells.times(row['relative'])}  {cells.precise(row['seconds'])}",
        rule=1.0,
    )
    return bars(
        groups,
        lambda row: row["what"],
        (panel,),
        lambda row: styles[row["what"].split(",")[0]],
        theme,
    )


BENCHMARK = Benchmark(
    Members,
    measure,
    (
        ("Pixels", lambda row: str(row["size"])),
        ("What", lambda row: row["what"]),
        ("Gradient: median [least, most]", cells.median),
        ("Per member, relative", lambda row: cells.times(row["relative"])),
        ("Compiled in", lambda row: cells.precise(row["compile_seconds"])),
    ),
    figure,
)
