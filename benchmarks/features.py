"""Accuracy against epsilon: noisy features with heads that know the noise, and DP-SGD.

Public trunks, noise once per record, heads as long as one likes (`rpjax.features`), on
all of MNIST or CIFAR-10; DP-SGD on the same features and on a whole net beside it. The
neighbours differ, and each row says which are its own.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

import rpjax as rp
from benchmarks import features_beside as beside
from benchmarks import features_dpsgd
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import WIDTH, look
from benchmarks.jpeg_copies import read_jpeg_copies
from rpjax.features import narrowed, releases
from rpjax.features.accuracy import curve, figures, trunk_named
from rpjax.report.drawing import Theme, blank

Head = Literal["linear", "mlp"]


@dataclass(frozen=True)
class Features:
    """Test accuracy at each epsilon, by trunk, dimension, head and method."""

    data: str = "mnist"
    """mnist; cifar10 with data_dir the folder of its two files of JPEG copies; or any
    other name that `rpjax train --data` takes."""
    data_dir: Path | None = None
    """Folder that holds them."""
    trunks: tuple[str, ...] = ("digits:100", "digits:30", "digits:9", "random:40")
    """Public trunks with their dimensions, the largest of a name first: all heads and
    DP-SGD go on that, the linear head alone on its others."""
    heads: tuple[Head, ...] = ("linear", "mlp")
    epsilons: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """Beside these, no noise at all."""
    delta: float = 1e-5
    runs: int = 3
    """Draws of the noise at each epsilon."""
    trunk_steps: int = 1500
    """Of the digits trunk, 128 drawings each."""
    linear_steps: int = 300
    """Of DP-SGD on the features."""
    net_epsilons: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """At which DP-SGD trains a whole net; minutes each."""
    net_steps: int = 100
    """Of DP-SGD on the net."""
    train_records: int | None = None
    """Of the private records, a stratified part; left out: all."""
    seed: int = 0


def measure(settings: Features, watch: Watch) -> list[Row]:
    """The rows; the last one's `until_seconds` is what all of them took."""
    start = time.monotonic()
    rows = []
    for row in _rows(settings, watch):
        rows.append({**row, "until_seconds": time.monotonic() - start})
    return rows


def _rows(settings: Features, watch: Watch) -> Iterator[Row]:
    data = _data(settings).limit(train=settings.train_records)
    made: dict[str, Any] = {}
    for number, spec in enumerate(settings.trunks):
        watch(f"trunk {spec}", number, len(settings.trunks))
        name, _, dimension = spec.partition(":")
        begun, whole = time.monotonic(), name not in made
        trunk = _trunk(settings, made, name, int(dimension), data.shape)
        seconds = {"trunk_seconds": time.monotonic() - begun}
        for row in _of_trunk(settings, trunk, data, whole):
            yield {**row, **seconds}
    for number, epsilon in enumerate(settings.net_epsilons):
        watch("DP-SGD on a whole net", number, len(settings.net_epsilons))
        yield _net(settings, data, epsilon)


def _of_trunk(
    settings: Features, trunk: Any, data: rp.Dataset, whole: bool
) -> Iterator[Row]:
    kinds = settings.heads if whole else settings.heads[:1]
    seeds = tuple(range(settings.seed, settings.seed + settings.runs))
    epsilons = (*settings.epsilons, math.inf)
    options = {"epsilons": epsilons, "seeds": seeds, "delta": settings.delta}
    for row in curve(trunk, data, kinds=kinds, **options):
        yield {"method": "noisy features", "adjacency": beside.FEATURES, **row}
    if not whole:
        return
    clean = next(releases(trunk, data.train, [(math.inf, None)]))
    test = trunk(data.test.images), data.test.labels
    yield from beside.rows(clean, data, test, settings.epsilons, seeds, settings.delta)
    train = clean.features, clean.labels
    for epsilon in settings.epsilons:
        begun = time.monotonic()
        hits, multiplier = features_dpsgd.linear_head(
            *(train, test, epsilon, settings.delta, settings.linear_steps),
            trunk.bound,
        )
        yield {
            "method": "DP-SGD, linear head",
            "adjacency": features_dpsgd.ADJACENCY,
            **beside.facts(trunk, settings.delta),
            "head": "linear",
            **figures(epsilon, [hits]),
            "noise_multiplier": multiplier,
            "train_seconds": time.monotonic() - begun,
        }


def _net(settings: Features, data: rp.Dataset, epsilon: float) -> Row:
    begun = time.monotonic()
    hits, multiplier = features_dpsgd.whole_net(
        data, epsilon, settings.delta, settings.net_steps
    )
    return {
        "method": "DP-SGD, whole net",
        "adjacency": features_dpsgd.ADJACENCY,
        "trunk": None,
        "dimension": None,
        "delta": settings.delta,
        "head": None,
        **figures(epsilon, [hits]),
        "noise_multiplier": multiplier,
        "train_seconds": time.monotonic() - begun,
    }


def _trunk(
    settings: Features, made: dict[str, Any], name: str, dimension: int, shape: Any
) -> Any:
    """The trunk, from a wider one of the same name where that can be."""
    if name in made and made[name].sample is not None:
        return narrowed(made[name], dimension)
    options: dict[str, Any] = {"dimension": dimension, "seed": settings.seed}
    if name == "digits":
        options["steps"] = settings.trunk_steps
    made[name] = trunk_named(name, shape, **options)
    return made[name]


def _data(settings: Features) -> rp.Dataset:
    if settings.data == "cifar10":
        return read_jpeg_copies(settings.data_dir)
    return rp.data.load(settings.data, settings.data_dir)


# ------------------------------------------------------------------------- the figure


def label(row: Row) -> str:
    """Which line of the figure a row belongs to."""
    if row["trunk"] is None:
        return str(row["method"])
    return f"{row['method']}, {row['trunk']} {row['dimension']}"


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    """Accuracy against epsilon, a line a method; no noise apart, zero shot as a rule.

    On a logit scale, where 98 and 99 % are as far apart as 50 and 67 %.
    """
    curves = [row for row in record["rows"] if row["head"] in ("linear", None)]
    curves = [row for row in curves if row["method"] in DRAWN]
    targets = sorted({row["epsilon"] for row in curves if row["epsilon"]})
    apart = 2 * targets[-1]
    made = blank(WIDTH, 4.8)
    made.set_layout_engine("constrained")
    axes = made.subplots()
    for name, style in look(list(dict.fromkeys(map(label, curves)))).items():
        rows = [row for row in curves if label(row) == name]
        noisy = [row for row in rows if row["epsilon"]]
        across = [row["epsilon"] for row in noisy]
        colour = style.colour(theme)
        axes.plot(
            across,
            [row["mean"] for row in noisy],
            color=colour,
            marker=style.marker,
            linestyle=style.line,
            label=name,
        )
        ends = [[row[end] for row in noisy] for end in ("least", "most")]
        axes.fill_between(across, *ends, color=colour, alpha=0.2)
        clean = [row["mean"] for row in rows if not row["epsilon"]]
        axes.plot([apart] * len(clean), clean, style.marker, color=colour)
    if zero := [r for r in record["rows"] if r["head"] == "zero-shot linear"][:1]:
        axes.axhline(zero[0]["mean"], color=theme.muted, linestyle=(0, (2, 2)))
        text = f"zero shot, {zero[0]['trunk']} {zero[0]['dimension']}"
        axes.annotate(text, (0, zero[0]["mean"]), (4, -11), **LEFT)
    axes.set_xscale("log", base=2)
    axes.set_xticks([*targets, apart], [*(f"{each:g}" for each in targets), "∞"])
    axes.set_xlabel(f"ε at δ = {record['rows'][0]['delta']:g}, each for its neighbours")
    _logit(axes, [row[end] for row in curves for end in ("least", "most")])
    made.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return made


def _logit(axes: Any, accuracies: list[float]) -> None:
    """Percentages on a logit scale, as far as there are any."""
    axes.set_yscale("logit")
    low, high = min(accuracies), min(max(accuracies), 0.999)
    ticks = [t for t in TICKS if low / 1.3 <= t <= 1 - (1 - high) / 1.3]
    axes.set_yticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel("test accuracy, %")


TICKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
DRAWN = ("noisy features", "DP-SGD, linear head", "DP-SGD, whole net")
LEFT: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "textcoords": "offset points",
    "fontsize": 9,
}


def _epsilon(row: Row) -> str:
    return "∞" if row["epsilon"] is None else f"{row['epsilon']:g}"


def _accuracy(row: Row) -> str:
    return " ".join(
        f"{100 * row[name]:.2f}" + end
        for name, end in (("mean", " %"), ("least", " to"), ("most", ""))
    )


BENCHMARK = Benchmark(
    Features,
    measure,
    (
        ("Method", label),
        ("Head", lambda row: row["head"] or ""),
        ("ε", _epsilon),
        ("Neighbours", lambda row: row["adjacency"]),
        ("Test accuracy: mean, least to most", _accuracy),
    ),
    figure,
)
