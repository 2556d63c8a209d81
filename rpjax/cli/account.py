"""``rpjax account``: what trainings would guarantee, and the noise for a target."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from rpjax.errors import InputError
from rpjax.experiments import ExperimentConfig, prepare
from rpjax.experiments.checks import check
from rpjax.experiments.config import to_be_released
from rpjax.experiments.imbalance import on_paper
from rpjax.experiments.methods import Plan, plan
from rpjax.experiments.planning import given
from rpjax.experiments.recipes import Facts
from rpjax.experiments.targets import check_target, needed
from rpjax.files import write_json
from rpjax.privacy.documents import document
from rpjax.report.tables import incomparable


@dataclass(frozen=True)
class Account:
    """Print what each method's training would guarantee, without training.

    With --target-epsilon, say how much noise each method needs for it, and print what
    it guarantees then.

    --config FILE takes options from a YAML file, and --recipe NAME those of a known
    training (docs/dpsgd.md); what stands beside them comes on top.
    """

    config: ExperimentConfig = field(default_factory=to_be_released)
    records: int | None = None
    """As if there were so many training records; no data are loaded then."""
    shape: tuple[int, int, int] = (32, 32, 3)
    """Height, width and channels of an image, where no data are loaded."""
    classes: int = 10
    """Of the labels, where no data are loaded; counts with --label-epsilon alone."""
    target_epsilon: float | None = None
    """Find each method's noise for this epsilon, for the neighbours of its own."""
    target_delta: float | None = None
    """At this delta; left out: that of the configuration."""
    json: Path | None = None
    """Write the guarantees to this file too, as a training does (guarantee.json)."""


def run(options: Account, console: Console) -> None:
    """Print the guarantees, for the noise asked for or calibrated; write them."""
    if options.target_epsilon is not None:
        check_target(options.target_epsilon, options.target_delta)
    elif options.target_delta is not None:
        raise InputError(
            f"target_delta is {options.target_delta}; it needs a target_epsilon"
        )
    plans, classes, shape = _planned(options)
    if options.target_epsilon is not None:
        plans = _calibrated(options, plans, classes, shape, console)
    proofs = [(each.name, each.label, each.guarantee(shape)) for each in plans]
    for _, label, proved in proofs:
        console.print(label, style="bold")
        # its lines are broken already, and a table's must not be
        console.print(str(proved), highlight=False, soft_wrap=True)
        console.print()
    if warning := incomparable(proved.adjacency for _, _, proved in proofs):
        console.print(warning, highlight=False, soft_wrap=True)
    if options.json is not None:
        written = [(name, label, proved.as_dict()) for name, label, proved in proofs]
        write_json(options.json, document(written))
        console.print(f"written: {options.json}", highlight=False, soft_wrap=True)


def _planned(
    options: Account,
) -> tuple[tuple[Plan, ...], int, tuple[int, int, int]]:
    """The methods' plans, and the classes and shape of the images."""
    if options.records is None:
        ready = prepare(options.config)
        return ready.plans, ready.dataset.classes, ready.dataset.shape
    if options.records < 1:
        raise InputError(f"records is {options.records}; it must be >= 1")
    if options.classes < 2:
        raise InputError(f"classes is {options.classes}; it must be >= 2")
    check(options.config)
    facts = Facts(options.records, options.classes, options.shape)
    config = given(options.config, facts)
    if config.imbalance.split != "none":
        raise InputError(
            f"records is {options.records} and imbalance.split "
            f"{config.imbalance.split}, which says itself how many there are; give one"
        )
    counts = on_paper(config, options.classes, options.records, None)
    plans = (
        plan(config, name, options.classes, options.records, counts)
        for name in config.methods
    )
    return tuple(plans), options.classes, options.shape


def _calibrated(
    options: Account,
    plans: tuple[Plan, ...],
    classes: int,
    shape: tuple[int, int, int],
    console: Console,
) -> tuple[Plan, ...]:
    """The plans with noise enough for the target; says what each needs, or why not."""
    assert options.target_epsilon is not None
    delta = options.target_delta or plans[0].config.dp.delta
    target = (options.target_epsilon, delta)
    found: list[Plan] = []
    lines = []
    for each in plans:
        facts = (each.config, each.name, classes, each.records, shape)
        try:
            answer = needed(*facts, *target, each.counts)
            found.append(answer.plan)
            lines.append(f"{each.label}: {answer}")
        except InputError as error:
            lines.append(f"{each.label}: {error}")
    if not found:
        raise InputError("; ".join(lines))
    for line in (f"For ε = {target[0]:g} at δ = {delta:g}:", *lines, ""):
        console.print(line, highlight=False, soft_wrap=True)
    return tuple(found)
