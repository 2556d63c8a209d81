"""What is proved, in numbers: the noise that each guarantee needs, on real images.

No training and no attack: everything follows from formulas, and from the norms of the
images. Each row belongs to one of six tables (`table`):

==================  ==================================================================
"images"            norms of training images after centring, and the diameter of all
                    images there could be
"noise over bound"  pi / R for an epsilon, exact and by the theorem as recalled
"epsilon"           epsilon of a ratio pi / R, exact
"noise"             pi for an epsilon on these images, one draw kept per record
"strategy II"       what a block with a floor proves, by two methods
"depth"             mu of a trunk with noise 1 in every layer, for inputs 1 apart
==================  ==================================================================
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import RULE, WIDTH, look
from rpjax.data import Dataset, load
from rpjax.privacy import depth, multiplicative, residual, theorem
from rpjax.report.drawing import Theme, blank

QUANTILES = {"least": 0, "one_percent": 1, "median": 50, "most": 100}
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 16.0, 32.0, 64.0, 128.0, 256.0)
USES = (1, 10, 50, 100, 200)
RATIOS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
CONSTANTS, LAYERS = (0.9, 1.0, 1.1, 1.5), (1, 3, 9, 18)


@dataclass(frozen=True)
class Guarantees:
    """The noise that guarantees need, for the norms of real images."""

    data: tuple[str, ...] = ("digits", "mnist")
    """Whose training images, named as for `rpjax train --data`."""
    data_dir: Path | None = None
    """Folder of their files."""
    delta: float = 1e-5
    ratios: tuple[float, ...] = multiplicative.RATIOS
    """Largest activation of Strategy II over its floor."""
    coordinates: tuple[int, ...] = multiplicative.COORDINATES
    """How many activations there are."""
    seed: int = 0
    """Not used: nothing here is random."""


def measure(settings: Guarantees, watch: Watch) -> list[Row]:
    rows = []
    for name in settings.data:
        watch(f"norms of {name}")
        rows += _of_images(load(name, settings.data_dir), settings.delta)
    watch("formulas")
    rows += [*_over_bound(settings.delta), *_epsilons(settings.delta), *_depth()]
    for ratio in settings.ratios:
        watch(f"Strategy II, scales up to {ratio:g} : 1")
        rows += [_strategy2(ratio, n, settings.delta) for n in settings.coordinates]
    return rows


def _of_images(data: Dataset, delta: float) -> list[Row]:
    """Pixels from -1 to 1, as rpjax centres them; the range is public."""
    pixels = data.train.images.reshape(len(data.train), -1).astype(np.float64)
    norms = np.linalg.norm(pixels / 127.5 - 1, axis=1)
    kind = {"data": _title(data.name), "pixels": pixels.shape[1]}
    diameter = residual.box_diameter(pixels.shape[1], -1.0, 1.0)
    ends = {
        name: float(np.percentile(norms, share)) for name, share in QUANTILES.items()
    }
    found: Row = {"table": "images", **kind, "images": len(norms), "diameter": diameter}
    return [
        {**found, **ends},
        *(
            {
                "table": "noise",
                **kind,
                "epsilon": epsilon,
                "box": _noise(epsilon, delta, diameter),
                "clipped": _noise(epsilon, delta, 2 * ends["median"]),
            }
            for epsilon in EPSILONS
        ),
    ]


def _noise(epsilon: float, delta: float, diameter: float) -> float:
    return residual.NoisyInputs(diameter).noise_for(epsilon, delta)


def _over_bound(delta: float) -> list[Row]:
    return [
        {
            "table": "noise over bound",
            "uses": uses,
            "epsilon": epsilon,
            "recalled": theorem.noise_for(epsilon, delta, 1.0, uses),
            "exact": residual.NoisyInputs(2.0, uses).noise_for(epsilon, delta),
        }
        for uses in USES
        for epsilon in EPSILONS
    ]


def _epsilons(delta: float) -> list[Row]:
    return [
        {
            "table": "epsilon",
            "ratio": ratio,
            "uses": uses,
            "epsilon": residual.NoisyInputs(2.0, uses).curve(ratio).epsilon(delta),
        }
        for ratio in RATIOS
        for uses in (1, 10, 50, 200)
    ]


def _depth() -> list[Row]:
    return [
        {
            "table": "depth",
            "lipschitz": c,
            "layers": layers,
            "mu": depth.curve(1.0, [c] * layers, [1.0] * layers).mu,
        }
        for c in CONSTANTS
        for layers in LAYERS
    ]


def _strategy2(ratio: float, coordinates: int, delta: float) -> Row:
    found = multiplicative.row(ratio, coordinates, delta)._asdict()
    names = ("ratio", "coordinates", "largest_order", "renyi", "proved", "attained")
    return {"table": "strategy II", **{name: found[name] for name in names}}


def _title(name: str) -> str:
    """What the files of a data set are called, as people call it."""
    known = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
    return next((known[k] for k in known if name.startswith(k)), name)


# ------------------------------------------------------------------------------ figure


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    made = blank(WIDTH, 3.9)
    made.set_layout_engine("constrained")
    left, right = made.subplots(1, 2)
    _draw_images(left, record["rows"], theme)
    _draw_bounds(right, record["rows"], theme)
    return made


def _draw_images(axes: Axes, rows: list[Row], theme: Theme) -> None:
    """Noise on a pixel for a draw that is kept, in units of a pixel's range of 2."""
    rows = [row for row in rows if row["table"] == "noise"]
    names = list(dict.fromkeys(row["data"] for row in rows))
    for name, style in look(names).items():
        own = [row for row in rows if row["data"] == name]
        across = [row["epsilon"] for row in own]
        options = {"color": style.colour(theme), "markersize": 4}
        box = [row["box"] / 2 for row in own]
        clipped = [row["clipped"] / 2 for row in own]
        label = f"{name}, {own[0]['pixels']:,} pixels"
        axes.plot(across, box, style.marker, linestyle="solid", label=label, **options)
        axes.plot(across, clipped, linestyle="dotted", **options)
    axes.axhline(1, color=theme.muted, linewidth=1, linestyle=RULE)
    axes.annotate("a pixel's whole range", (0.5, 1), (0, 3), **NOTE)
    axes.set_title("Noise on each pixel, one draw kept")
    axes.set_ylabel("standard deviation / range of a pixel")
    _logarithmic(axes, "clipped to the median norm", theme)


def _draw_bounds(axes: Axes, rows: list[Row], theme: Theme) -> None:
    """pi / R by how often a record is used with fresh noise."""
    rows = [row for row in rows if row["table"] == "noise over bound"]
    uses = [str(count) for count in (1, 50, 200)]
    for name, style in look(uses).items():
        own = [row for row in rows if row["uses"] == int(name)]
        across = [row["epsilon"] for row in own]
        options = {"color": style.colour(theme), "markersize": 4}
        label = f"used {name} times" if name != "1" else "used once, or one draw kept"
        exact = [row["exact"] for row in own]
        recalled = [row["recalled"] for row in own]
        axes.plot(
            across, exact, style.marker, linestyle="solid", label=label, **options
        )
        axes.plot(across, recalled, linestyle="dotted", **options)
    axes.set_title("Noise over the bound of an image's norm")
    _logarithmic(axes, "the theorem as recalled", theme)


NOTE: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}


def _logarithmic(axes: Axes, dotted: str, theme: Theme) -> None:
    axes.set(xscale="log", yscale="log", xlabel="ε at δ = 1e-5")
    plain = FuncFormatter(lambda x, _: f"{x:g}")
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
        axis.set_minor_locator(NullLocator())
    axes.plot([], [], linestyle="dotted", color=theme.muted, label=dotted)
    axes.legend(loc="best", handlelength=2.0, fontsize=8)


def _number(row: Row, *names: str) -> str:
    """The row's first number of these names."""
    return next((f"{row[name]:.4g}" for name in names if name in row), "")


CASE = {
    "images": lambda row: f"{row['data']}, {row['images']:,} images",
    "noise": lambda row: f"{row['data']}, ε = {row['epsilon']:g}",
    "noise over bound": lambda row: f"E = {row['uses']}, ε = {row['epsilon']:g}",
    "epsilon": lambda row: f"E = {row['uses']}, π / R = {row['ratio']:g}",
    "depth": lambda row: f"c = {row['lipschitz']:g}, {row['layers']} layers",
    "strategy II": lambda row: f"{row['ratio']:g} : 1, {row['coordinates']:,} numbers",
}
BENCHMARK = Benchmark(
    Guarantees,
    measure,
    (
        ("Table", lambda row: row["table"]),
        ("Case", lambda row: CASE[row["table"]](row)),
        (
            "Diameter; π; ε; μ",
            lambda row: _number(
                row, "diameter", "box", "exact", "proved", "mu", "epsilon"
            ),
        ),
        (
            "Median norm; clipped there; recalled; Rényi",
            lambda row: _number(row, "median", "clipped", "recalled", "renyi"),
        ),
    ),
    figure,
)
