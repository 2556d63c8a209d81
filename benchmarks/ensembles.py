"""Members of an ensemble: by mapping and convolution, against as many single runs.

The mapping says how one device runs several members (`rpjax.learners.ensemble`), the
convolution what each is compiled to (`rpjax.models.conv`). A bank has each member's
batches from its own half of the records, as shadow models have.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import cells
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.drawing import Panel, bars, legend_below, lines, look
from benchmarks.processes import on_cpu
from benchmarks.timing import in_turns, ratio, reason, steps_of, summary
from benchmarks.workloads import (
    SHAPES,
    Dtype,
    Method,
    Size,
    halves,
    learner,
    random_pixels,
    trained,
)
from rpjax.learners import ensemble, side_by_side
from rpjax.learners.networks import Mapping
from rpjax.models.conv import Convolution
from rpjax.report import formats
from rpjax.report.drawing import Theme, blank
from rpjax.training import Run


@dataclass(frozen=True)
class Ensembles:
    """A training step of several members, relative to as many single runs."""

    members: tuple[int, ...] = ()
    """How many; left out: 4 on a CPU, else 1, 4, 16 and 64."""
    mappings: tuple[Mapping, ...] = ("auto", "vmap", "map", "unroll")
    convolutions: tuple[Convolution, ...] = ("auto", "xla", "canonical", "im2col")
    bank: bool = True
    """Also members on their own halves of the records, as rpjax would run them."""
    method: Method = "plain"
    size: Size | None = None
    """Whose images are imitated; left out: digits on a CPU, else cifar10."""
    model: str = "resnet8"
    batch_size: int = 128
    dtype: Dtype = "float32"
    """Of the activations."""
    records: int = 2048
    most_unrolled: int = 16
    """More members are not unrolled: it takes too long to compile."""
    rounds: int = 7
    """How often each is timed."""
    turn_seconds: float = 0.5
    """About how long each time, in one program of many steps."""
    seed: int = 0


class Way(NamedTuple):
    """How several members are run. members: 0 is a single run without any axis.

    bank: each member has records of its own.
    """

    members: int
    mapping: str
    convolution: str
    bank: bool = False

    def __str__(self) -> str:
        if self.members == 0:
            return f"single, {self.convolution}"
        what = f"{self.members} members"
        if self.bank:
            what += " on their own lists"
        return f"{what}, {self.mapping}, {self.convolution}"


SINGLE = Way(0, "", "auto")


def measure(settings: Ensembles, watch: Watch) -> list[Row]:
    runs: dict[Way, Run] = {}
    failed: list[Row] = []
    for way in ways(settings):
        watch(f"compiling {way}")
        try:
            runs[way] = _compiled(settings, way)
        except RuntimeError as error:  # such as too little memory for 64 members
            failed.append(_facts(way) | {"error": reason(error)})
    timed = {
        way: steps_of(run.stopwatch, run.sampler.block, settings.turn_seconds)
        for way, run in runs.items()
    }
    times = in_turns(
        {way: steps.clock for way, steps in timed.items()}, settings.rounds, watch
    )
    base = times[SINGLE]
    return [
        {
            **_facts(way),
            **summary(times[way]),
            "relative": ratio(times[way], base) / max(1, way.members),
            "steps_per_turn": timed[way].count,
            "computed": None if run.choice is None else str(run.choice),
            "compile_seconds": run.cost.compile_seconds,
            "memory_bytes": run.cost.memory_bytes,
        }
        for way, run in runs.items()
    ] + failed


def ways(settings: Ensembles) -> list[Way]:
    """What is compared; first a single run as the library would run it."""
    counts = settings.members or ((4,) if on_cpu() else (1, 4, 16, 64))
    others = [c for c in settings.convolutions if c != "auto"]
    found = [SINGLE, *(Way(0, "", c) for c in others)]
    for count in counts:
        for mapping in settings.mappings:
            if mapping == "unroll" and count > settings.most_unrolled:
                continue
            # what is left to the library is left to it together
            kinds = ["auto"] if mapping == "auto" else others
            found += [Way(count, mapping, kind) for kind in kinds]
        if settings.bank:
            found.append(Way(count, "auto", "auto", True))
    return found


def _compiled(settings: Ensembles, way: Way) -> Run:
    members, mapping, convolution, bank = way
    size = settings.size or ("digits" if on_cpu() else "cifar10")
    data = random_pixels(settings.records, SHAPES[size], settings.seed)
    one = learner(
        settings.method,
        settings.model,
        settings.batch_size,
        dtype=settings.dtype,
        convolution=convolution,
    )
    options: dict[str, Any] = {}
    if bank:
        one = side_by_side(one, members, mapping=mapping)
        options["lists"] = halves(members, settings.records, settings.seed)
    elif members:
        one = ensemble(one, members, mapping=mapping)
    return trained(one, data, settings.batch_size, settings.seed, **options)


def _facts(way: Way) -> Row:
    members, mapping, convolution, bank = way
    return {
        "members": max(1, members),
        "what": "single" if members == 0 else "bank" if bank else "ensemble",
        "mapping": mapping or None,
        "convolution": convolution,
    }


def _name(row: Row) -> str:
    if row["what"] == "single":
        return f"single, {row['convolution']}"
    if row["mapping"] == "auto":
        return f"{row['what']}, as rpjax chooses"
    return f"{row['mapping']}, {row['convolution']}"


def _kind(row: Row) -> str:
    """What has one colour."""
    return row["mapping"] if row["what"] == "ensemble" else row["what"]


def figure(record: dict[str, Any], theme: Theme) -> Figure:
    rows = [row for row in record["rows"] if "error" not in row]
    counts = {row["members"] for row in rows if row["what"] != "single"}
    if len(counts) < 2:
        return _bars(rows, theme)
    made = blank(7.2, 4.4)
    made.set_layout_engine("constrained")
    axes = made.add_subplot()
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row["what"] != "single":
            across, upward = series.setdefault(_name(row), ([], []))
            across.append(row["members"])
            upward.append(row["relative"])
    lines(axes, series, theme)
    axes.axhline(1.0, color=theme.muted, linewidth=1, linestyle=(0, (2, 2)))
    axes.set_yscale("log")
    axes.set_xlabel("Members")
    axes.set_ylabel("Time of a step, per member,\nrelative to a single run")
    legend_below(made, axes)
    return made


def _bars(rows: list[Row], theme: Theme) -> Figure:
    styles = look(list(dict.fromkeys(_kind(row) for row in rows)))
    panel = Panel(
        "time of a step, per member, relative to a single run",
        lambda row: row["relative"],
        lambda row: f"{cells.times(row['relative'])}  {cells.precise(row['seconds'])}",
        rule=1.0,
    )
    return bars({"": rows}, _name, (panel,), lambda row: styles[_kind(row)], theme)


BENCHMARK = Benchmark(
    Ensembles,
    measure,
    (
        ("Members", lambda row: str(row["members"])),
        ("Way", _name),
        ("Step: median [least, most]", cells.median),
        ("Per member, relative to single", lambda r: cells.times(r.get("relative"))),
        ("Program's memory", lambda row: formats.size(row.get("memory_bytes"))),
        ("Compiled in", lambda row: formats.seconds(row.get("compile_seconds"))),
    ),
    figure,
)
