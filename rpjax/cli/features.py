"""``rpjax features``: noise once on public features, and a head for each epsilon."""

import datetime
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rpjax.data import load
from rpjax.experiments.environment import device, versions
from rpjax.features import EPSILONS, curve, trunk_named
from rpjax.features.accuracy import Name
from rpjax.features.heads import Kind
from rpjax.files import write_json

SCHEMA = "rpjax.features/1"


@dataclass(frozen=True)
class Features:
    """Accuracy against epsilon where residual perturbation is provable and useful.

    A public frozen trunk turns images into short vectors, which are clipped and get
    noise once per record; a head is trained on what comes out. Each epsilon is that of
    its release alone, for replacing one record's image with labels public
    (docs/features.md).
    """

    data: str = "mnist"
    """Private data, as for `rpjax train`."""
    data_dir: Path | None = None
    """Folder that holds them."""
    trunk: Name = "digits"
    """Public trunk; digits (scikit-learn's, trained on for minutes) and random for grey
    figures, random and photographs for colour images."""
    dimension: int | None = None
    """Of the features; left out: the trunk's own choice."""
    head: Kind = "linear"
    """What is trained on the noisy features."""
    epsilons: tuple[float, ...] = EPSILONS
    """Which; inf for no noise."""
    delta: float = 1e-5
    """At which they hold."""
    seed: int | None = None
    """Of the noise, to repeat a run; left out: secret bits."""
    out: Path | None = None
    """JSON file to write."""


def run(options: Features, console: Console) -> None:
    """Measure the curve, print it and write it."""
    data = load(options.data, options.data_dir)
    chosen = {} if options.dimension is None else {"dimension": options.dimension}
    trunk = trunk_named(options.trunk, data.shape, **chosen)
    console.print(f"trunk: {trunk.source}; {trunk.dimension} features", highlight=False)
    rows = list(
        curve(
            trunk,
            data,
            epsilons=options.epsilons,
            kinds=(options.head,),
            seeds=(options.seed,),
            delta=options.delta,
        )
    )
    console.print(table(rows, options.delta))
    if options.out is not None:
        write_json(options.out, document(options, rows))
        console.print(f"written: {options.out}", highlight=False, soft_wrap=True)


def table(rows: list[dict[str, Any]], delta: float) -> Table:
    """The rows as rich prints them."""
    made = Table("Head", f"ε at δ = {delta:g}", "Noise π", "Test accuracy [95 %]")
    for row in rows:
        epsilon = math.inf if row["epsilon"] is None else row["epsilon"]
        accuracy = [f"{100 * row[name]:.1f}" for name in ("accuracy", "low", "high")]
        text = "{} % [{}, {}]".format(*accuracy)
        made.add_row(row["head"], f"{epsilon:g}", f"{row['input_noise']:.3g}", text)
    return made


def document(options: Features, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written: the rows and how they came about."""
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": options.data,
        "adjacency": "replace one record's features, labels equal",
        "noise_seed": "secret" if options.seed is None else options.seed,
        "device": device(),
        "versions": versions(),
        "rows": rows,
    }
