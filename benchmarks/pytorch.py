"""The same net in rpjax and in PyTorch: one training step beside the other.

First the nets are shown to be the same: as many parameters and, with copied weights,
the same logits and gradients. Then both take steps of SGD with momentum on batches
gathered from bytes on the device, in turns, each framework in a process of its own with
as many threads, so that only one pool of threads is awake at a time.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, look
from benchmarks.processes import Worker, cores, fresh, on_cpu
from benchmarks.timing import in_turns, ratio, reason, steps_of, summary
from benchmarks.workloads import (
    CLASSES,
    SHAPES,
    Dtype,
    Size,
    learner,
    net,
    random_pixels,
    trained,
)
from rpjax import keys
from rpjax.errors import InputError
from rpjax.learners import Inputs
from rpjax.models import ResNet
from rpjax.report.drawing import Theme

TOLERANCE = 1e-4
RPJAX = "rpjax"


@dataclass(frozen=True)
class PyTorch:
    """A ResNet's training step in rpjax and in PyTorch, eager and compiled."""

    model: str = "resnet8"
    size: Size = "cifar10"
    """Whose images are imitated: 8x8x1, 28x28x1 or 32x32x3."""
    batch_size: int = 128
    dtypes: tuple[Dtype, ...] = ()
    """Left out: float32, and bfloat16 (autocast in PyTorch) on an accelerator."""
    modes: tuple[str, ...] = ()
    """Of eager, compiled, graphs; left out: all that there are on the device."""
    records: int = 2048
    threads: int = 0
    """Of each framework; 0 is all cores."""
    rounds: int = 7
    """How often each is timed."""
    turn_seconds: float = 1.0
    """About how long each time."""
    seed: int = 0


def measure(settings: PyTorch, watch: Watch) -> list[Row]:
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed; `pip install torch` adds it")
    if not on_cpu() and not fresh(_torch_has_cuda):
        raise InputError(
            "PyTorch sees no GPU here and JAX does; install its CUDA build"
        )
    watch("comparing the nets")
    same = fresh(differences, settings, environment={"JAX_PLATFORMS": "cpu"})
    if max(same["logits"], same["gradients"]) > TOLERANCE:
        raise InputError(f"the nets differ ({same}); their times cannot be compared")
    threads = settings.threads or cores()
    environment = {"OMP_NUM_THREADS": str(threads)}
    with (
        Worker(environment, threads) as ours,
        Worker(environment, threads) as theirs,
    ):
        clocks, failed = _clocks(settings, ours, theirs, watch)
        times = in_turns(clocks, settings.rounds, watch)
    base = _best_eager(times)
    rows = [
        {
            **_facts(name),
            **summary(own),
            "relative": None if base is None else ratio(own, times[base]),
            "threads": threads,
            "parameters": same["parameters"],
            "torch": importlib.metadata.version("torch"),
            "logits_differ_by": same["logits"],
            "gradients_differ_by": same["gradients"],
        }
        for name, own in times.items()
    ]
    return rows + failed


# -------------------------------------------------------------- the nets are the same


def differences(settings: PyTorch) -> Row:
    """Number of parameters, and how far logits and gradients are apart at most."""
    import torch

    from benchmarks import torch_net

    shape = SHAPES[settings.size]
    data = random_pixels(16, shape, settings.seed)
    model = net(settings.model, convolution="xla")
    pixels = Inputs().normalised(jnp.asarray(data.images))
    params = start(model, shape, settings.seed)
    theirs = torch_copy(model, shape)
    torch_net.load(theirs, params)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = model.apply({"params": params}, None, pixels, True)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
        return each.mean(), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    images = torch_net.normalised(torch.from_numpy(data.images.copy()), True)
    answer = theirs(images)
    labels = torch.from_numpy(data.labels.astype(np.int64))
    torch.nn.functional.cross_entropy(answer, labels).backward()
    ours = torch_net.named(gradients)
    apart = [
        np.abs(ours[torch_net.plain_name(name)] - parameter.grad.numpy()).max()
        for name, parameter in theirs.named_parameters()
    ]
    return {
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "logits": float(np.abs(np.asarray(logits) - answer.detach().numpy()).max()),
        "gradients": float(max(apart)),
    }


def start(model: ResNet, shape: tuple[int, int, int], seed: int) -> Any:
    """First parameters, and scales and biases that are not one and zero."""
    init = jax.jit(lambda key: model.init(key, None, jnp.zeros((1, *shape)))["params"])
    params = init(keys.root(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype("f"), params
    )


def torch_copy(model: ResNet, shape: tuple[int, int, int]) -> Any:
    """The same net in PyTorch, with weights of its own."""
    from benchmarks import torch_net

    if model.bottleneck or model.stem != "cifar" or model.norm != "group":
        raise InputError(
            "model: PyTorch's copy has basic blocks, GroupNorm, a 3x3 stem"
        )
    options = {"groups": model.groups, "stem": model.stem_width}
    return torch_net.Net(model.stages, model.widths, CLASSES, shape[-1], **options)


# ------------------------------------------------------------------------- the clocks

Name = tuple[str, str, str, str]
"""Framework, mode, layout, dtype."""
_HELD: dict[Name, Callable[[int], float]] = {}


def _clocks(
    settings: PyTorch, ours: Worker, theirs: Worker, watch: Watch
) -> tuple[dict[Name, Callable[[], float]], list[Row]]:
    """A warm clock for each way, in the process of its framework."""
    clocks: dict[Name, Callable[[], float]] = {}
    failed: list[Row] = []
    for name in ways(settings):
        worker = ours if name[0] == RPJAX else theirs
        watch(f"compiling {label(_facts(name))}")
        try:
            most = worker(_hold, settings, name)

            def stopwatch(
                steps: int, worker: Worker = worker, name: Name = name
            ) -> float:
                return worker(_seconds, name, steps)

            clocks[name] = steps_of(stopwatch, most, settings.turn_seconds).clock
        except RuntimeError as error:  # such as no compiler for torch.compile
            failed.append(_facts(name) | {"error": reason(error)})
    return clocks, failed


def ways(settings: PyTorch) -> list[Name]:
    """Everything that is compared."""
    cpu = on_cpu()
    modes = settings.modes or (
        ("eager", "compiled") if cpu else ("eager", "compiled", "graphs")
    )
    found: list[Name] = []
    for dtype in settings.dtypes or (("float32",) if cpu else ("float32", "bfloat16")):
        found.append((RPJAX, "compiled", "channels last", dtype))
        for mode in modes:
            for layout in ("channels first", "channels last"):
                found.append(("PyTorch", mode, layout, dtype))
    return found


def _hold(settings: PyTorch, name: Name) -> int:
    """Build a stopwatch in this process, and say how many steps it can take at once."""
    data = random_pixels(settings.records, SHAPES[settings.size], settings.seed)
    if name[0] == RPJAX:
        one = learner("plain", settings.model, settings.batch_size, dtype=name[3])
        run = trained(one, data, settings.batch_size, settings.seed)
        _HELD[name] = run.stopwatch
        return run.sampler.block
    import torch

    from benchmarks import torch_net

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    _HELD[name] = torch_net.stopwatch(
        torch_copy(net(settings.model), SHAPES[settings.size]),
        data.images,
        data.labels,
        settings.batch_size,
        mode=name[1],
        channels_last=name[2] == "channels last",
        dtype=name[3],
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    return 10_000


def _torch_has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _seconds(name: Name, steps: int) -> float:
    return _HELD[name](steps)


def _best_eager(times: dict[Name, list[float]]) -> Name | None:
    """The fastest eager PyTorch in the first dtype: what `relative` is relative to."""
    first = next(iter(times), ("", "", "", ""))[3]
    eager = [name for name in times if name[1] == "eager" and name[3] == first]
    return min(eager, key=lambda name: summary(times[name])["seconds"], default=None)


# ----------------------------------------------------------------------- how it looks


def _facts(name: Name) -> Row:
    return dict(zip(("framework", "mode", "layout", "dtype"), name, strict=True))


def label(row: Row) -> str:
    if row["framework"] == RPJAX:
        return RPJAX
    mode = {"graphs": "compiled, CUDA graphs"}.get(row["mode"], row["mode"])
    return f"PyTorch {mode}, {row['layout']}"


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = [row for row in record["rows"] if "error" not in row]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["dtype"], []).append(row)
    kind = lambda row: f"{row['framework']} {row['mode']}"
    styles = look(list(dict.fromkeys(map(kind, rows))))
    panel = Panel(
        "time of a step, relative to the fastest eager PyTorch",
        lambda row: row["relative"],
        lambda row: f"{cells.times(row['relative'])}  {cells.precise(row['seconds'])}",
        rule=1.0,
    )
    return bars(groups, label, (panel,), lambda row: styles[kind(row)], theme)


BENCHMARK = Benchmark(
    PyTorch,
    measure,
    (
        ("What", label),
        ("Type", lambda row: row["dtype"]),
        ("Step: median [least, most]", cells.median),
        ("Relative to eager PyTorch", lambda row: cells.times(row.get("relative"))),
        ("Threads", lambda row: str(row.get("threads", ""))),
    ),
    figure,
)
