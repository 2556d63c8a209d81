"""``rpjax plan``: what a training would take, without training."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from rpjax.errors import InputError
from rpjax.experiments import ExperimentConfig
from rpjax.experiments.checks import check
from rpjax.experiments.config import Method, to_be_released
from rpjax.experiments.planning import Described, described, given, planned
from rpjax.experiments.recipes import Facts, Recipe
from rpjax.files import write_json
from rpjax.training import devices

Hidden = tyro.conf.Suppress


@dataclass(frozen=True)
class Plan:
    """Print what `rpjax train` with these options would take, without training.

    Parameters by group, steps, batches on each device, the guarantee, memory from
    compiling the program for the devices that are asked for, and a rough time. Data
    that are not here are taken to be as their recipe says, or as --records, --classes
    and --shape say. With JAX_PLATFORMS=cpu, any number of devices can be planned for.

    --config FILE takes options from a YAML file, and --recipe NAME those of a known
    training (docs/dpsgd.md); what stands beside them comes on top.
    """

    config: ExperimentConfig = field(default_factory=to_be_released)
    method: Method = "strategy1"
    """By which method."""
    records: int | None = None
    """As if there were so many training records; no data are looked at then."""
    shape: tuple[int, int, int] = (32, 32, 3)
    """Height, width and channels of an image, where no data are looked at."""
    classes: int = 10
    """Of the labels, where no data are looked at."""
    compile: bool = True
    """Compile the step for its memory; without, memory is that of its shapes alone."""
    flops_per_second: float | None = None
    """Floating-point operations that one device does in a second; left out: a
    convolution is timed on this one."""
    json: Path | None = None
    """Write the plan to this file too."""
    of_recipe: Annotated[Recipe | None, Hidden, tyro.conf.Fixed] = None
    """What --recipe named."""


def run(options: Plan, console: Console) -> None:
    """Make the plan, print it and write it."""
    check(options.config)
    speed = options.flops_per_second
    if speed is not None and not speed > 0:
        raise InputError(f"flops_per_second is {speed}; it must be > 0")
    _make_room(devices.number(options.config.training.devices))
    config, data = _described(options)
    with console.status("plan") as status:
        found = planned(
            config,
            options.method,
            data,
            compiled=options.compile,
            flops_per_second=speed,
            tell=status.update,
        )
    console.print(table(found))
    for line in notes(found):
        console.print(line, highlight=False, soft_wrap=True)
    if options.json is not None:
        write_json(options.json, found)
        console.print(f"written: {options.json}", highlight=False, soft_wrap=True)


def _make_room(count: int) -> None:
    """So many devices of a processor, unless they are fixed or there are others."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)


def _described(options: Plan) -> tuple[ExperimentConfig, Described]:
    if options.records is None:
        recipe = options.of_recipe
        return described(options.config, None if recipe is None else recipe.data)
    if options.records < 1:
        raise InputError(f"records is {options.records}; it must be >= 1")
    if options.classes < 2:
        raise InputError(f"classes is {options.classes}; it must be >= 2")
    facts = Facts(options.records, options.classes, options.shape)
    return given(options.config, facts), Described(facts, "as told")


def table(found: dict[str, Any]) -> Table:
    """The plan as rich prints it."""
    made = Table("", found["method"]["label"], title=f"Plan: {found['method']['net']}")
    for name, cell in rows(found):
        made.add_row(name, cell)
    return made


def rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the table."""
    data, training, parts = found["data"], found["training"], found["parameters"]
    time, memory, proved = found["time"], found["memory"], found["guarantee"]
    spread, shape = training["devices"], " x ".join(map(str, data["shape"]))
    lines = [
        (
            "data",
            f"{data['name']}: {data['records']:,} records of {shape}, "
            f"{data['classes']:,} classes",
        ),
        ("start", found["start"] or "from scratch"),
        (
            "parameters",
            f"{parts['all']:,}, of which {parts['trained']:,} are trained and "
            f"{parts['frozen']:,} stay",
        ),
        *(
            (
                f"  group {row['group']}",
                f"{_names(row['names'])}: {row['parameters']:,}, "
                f"{'stays' if not row['trained'] else 'trained'}",
            )
            for row in parts["groups"]
        ),
        ("steps", f"{training['steps']:,}, {training['epochs']:.4g} epochs"),
        (
            "batch",
            f"{training['batch_size']:,} ({training['sampling']}), "
            f"{training['slots']:,} slots",
        ),
        (
            "devices",
            f"member={spread['member']}, data={spread['data']}: "
            f"{training['records_per_device']:,.0f} records and "
            f"{training['slots_per_device']:,} slots each"
            + _microbatch(training["microbatch"]),
        ),
        ("guarantee", _guarantee(proved, found["noise_multiplier"])),
        *_memory(memory, found["device"]),
        (
            "operations",
            f"{_si(time['flops_per_step'])}FLOP a step, "
            f"{_si(time['flops_per_record'])}FLOP a record",
        ),
        (
            "time, rough",
            f"{_duration(time['total_seconds'])}, {time['step_seconds']:.3g} s a step, "
            f"at {_si(time['flops_per_second'])}FLOP/s a device "
            f"({time['speed_from']})",
        ),
    ]
    if found["config"]["data"]["stored"]:
        rate = f"{time['images_per_second']:,.0f} a second"
        lines.append(("images to decode", rate))
    return lines


def notes(found: dict[str, Any]) -> list[str]:
    """What the numbers do not say by themselves."""
    lines = [f"data: {found['data']['how']}"]
    if found["memory"]["compiled"] is not None:
        lines.append(
            f"memory: of the program as compiled for {found['device']['platform']}; "
            "other devices compile others"
        )
    lines.append(
        "time: operations over the speed of each device, as if every one of them were "
        "alone and busy; steps that wait for images, memory or each other take longer"
    )
    return lines


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _microbatch(size: int | None) -> str:
    return "" if size is None else f", {size:,} at a time"


def _guarantee(proved: dict[str, Any], noise: float | None) -> str:
    if proved["epsilon"] is None:
        return "nothing is proved"
    line = f"ε = {proved['epsilon']:.4g} at δ = {proved['delta']:g}"
    line += f", {proved['adjacency']}"
    return line if noise is None else f"{line}; noise multiplier {noise:.4g}"


def _memory(memory: dict[str, Any], device: dict[str, Any]) -> list[tuple[str, str]]:
    parts = [
        f"{name} {_size(memory[name])}"
        for name in ("parameters", "optimiser", "images", "data")
        if memory[name]
    ]
    lines = [("memory a device", ", ".join(parts))]
    compiled = memory["compiled"]
    if compiled is None:
        line = "not asked for; what a step holds in between comes on top"
        return [*lines, ("  compiled", line)]
    line = (
        f"{_size(compiled['peak'])}, of which a step's own "
        f"{_size(compiled['temporaries'])}"
    )
    return [*lines, (f"  compiled ({device['platform']})", line)]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _si(value: float) -> str:
    for unit in ("", "K", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} P"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
