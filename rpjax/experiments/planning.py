"""A training on paper: what it trains, proves and takes, before anything is read.

`planned` needs of the data how many records and classes there are and how large an
image is (`Facts`); a recipe knows them, so that a training on ImageNet can be planned
where there is none of it.
"""

import dataclasses
import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rpjax.annotations import PyTree
from rpjax.counts import tally
from rpjax.data.folders import listed
from rpjax.data.membership import design
from rpjax.errors import InputError
from rpjax.experiments.checks import check, check_crop
from rpjax.experiments.config import ExperimentConfig, Method, TransferConfig
from rpjax.experiments.environment import device, versions
from rpjax.experiments.imbalance import on_paper, split_counts
from rpjax.experiments.measures import net_name
from rpjax.experiments.methods import Plan, net, plan
from rpjax.experiments.preparing import loaded
from rpjax.experiments.presets import (
    COMMON,
    MNIST,
    NATURAL,
    SMALL,
    fill,
    resolved,
    sized,
)
from rpjax.experiments.recipes import Facts
from rpjax.experiments.values import as_dict, config_hash
from rpjax.learners.freezing import begins
from rpjax.training import devices, planning
from rpjax.training.loop import sampler_for, split_slots

SCHEMA = "rpjax.plan/1"
FOLDER = "folder:"


class Described(NamedTuple):
    """What is known of the data, and how it is known.

    class_counts: of the records that the configuration leaves of the training part,
    before any imbalance, where they were looked at.
    """

    facts: Facts
    how: str
    class_counts: tuple[int, ...] | None = None


def described(
    config: ExperimentConfig, otherwise: Facts | None = None
) -> tuple[ExperimentConfig, Described]:
    """The data that a configuration names, and what follows from their kind.

    A folder's files are counted and not opened, where `image_size` says what they
    become. Other data are loaded.
    otherwise: what the data hold, for where they are not.
    """
    try:
        found = _counted(config)
        if found is None:
            dataset = loaded(config)
            config = resolved(config, dataset)
            facts = Facts(len(dataset.train), dataset.classes, dataset.shape)
            labels = sized(config, dataset).train.labels
            own = tuple(tally(labels, dataset.classes).tolist())
            found = Described(facts, "loaded", own)
    except (InputError, OSError) as error:
        if otherwise is None:
            raise
        size, shape = config.data.image_size, otherwise.shape
        if size is not None:
            shape = (size, size, shape[-1])
        how = f"as the recipe says, since they cannot be read ({error})"
        found = Described(otherwise._replace(shape=shape), how)
    return given(config, found.facts), found


def given(config: ExperimentConfig, facts: Facts) -> ExperimentConfig:
    """The configuration with every open field filled in, for data that are not here."""
    return fill(config, MNIST if facts.shape[-1] == 1 else NATURAL, COMMON)


def _counted(config: ExperimentConfig) -> Described | None:
    """Of a folder of class folders, whose images `image_size` makes alike."""
    name, size = config.data.name, config.data.image_size
    if not name.startswith(FOLDER) or size is None:
        return None
    root = (config.data.dir or Path()) / Path(name.removeprefix(FOLDER)).expanduser()
    listing = listed(root)
    if len(listing.parts) == 1:
        return None  # a test part is going to be split off
    facts = Facts(listing.parts["train"], len(listing.class_names), (size, size, 3))
    return Described(facts, "files counted, taken for colour images and sound")


def planned(
    config: ExperimentConfig,
    method: Method,
    data: Described,
    *,
    compiled: bool = True,
    flops_per_second: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Everything about a training that is known before it.

    config: with its open fields filled in.
    compiled: compile the program of the steps, for its memory.
    flops_per_second: of one device; None times a convolution.
    tell: hears what is going on.
    """
    check(config)
    facts, asked = data.facts, config
    check_crop(config, facts.shape)
    config, start = _startable(config)
    pool, kept = _pool(config, facts.records), data.class_counts
    if config.imbalance.split != "none":
        kept = split_counts(config.imbalance, facts.classes, data.class_counts)
        pool = _of_all(sum(kept), pool)
    records = _trained_on(config, pool)
    counts = on_paper(config, facts.classes, records, kept)
    each = plan(config, method, facts.classes, records, counts)
    learner = planning.as_fitted(each.learner, facts.shape)
    sampler = sampler_for(learner, records, each.batch_size)
    layout = devices.layout(
        config.training.devices, learner.members, split_slots(sampler)
    )
    state = planning.first_state(learner, layout, facts.shape)
    slots = -(-sampler.capacity // layout.data)
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": device(devices.number(config.training.devices)),
        "config": as_dict(asked),
        "config_hash": config_hash(asked),
        "method": {"name": method, "label": each.label, "net": net_name(config)},
        "data": {"name": config.data.name, "how": data.how, "records": records}
        | {"classes": facts.classes, "shape": list(facts.shape)},
        "start": start,
        "parameters": parameters(config, facts.classes, each, state),
        "training": {
            "steps": each.steps,
            "epochs": each.steps * each.batch_size / records,
            "batch_size": each.batch_size,
            "slots": sampler.capacity,
            "sampling": sampler.kind,
            "devices": {"member": layout.members, "data": layout.data},
            "records_per_device": each.batch_size / layout.data,
            "slots_per_device": slots,
            "microbatch": config.dp.microbatch if method == "dpsgd" else None,
        },
    }
    tell("guarantee")
    told["noise_multiplier"] = learner.mechanism.noise_multiplier
    told["guarantee"] = each.guarantee(facts.shape).as_dict()
    tell("operations")
    told["time"] = _time(told, config, each, facts, layout, flops_per_second)
    tell("memory: compiling")
    stored = config.data.stored
    program = (learner, sampler, layout, records, facts.shape, stored)
    told["memory"] = _parts(state, slots, records, facts, layout, stored)
    told["memory"]["compiled"] = (
        dict(planning.memory(*program)._asdict()) if compiled else None
    )
    return told


def _startable(config: ExperimentConfig) -> tuple[ExperimentConfig, str | None]:
    """A start that is not here changes no shape: planned without it, and said so."""
    start = config.transfer.start
    if start is None or start.exists():
        return config, None if start is None else str(start)
    options = TransferConfig(None, config.transfer.frozen_groups)
    words = f"{start}, not here; the guarantee does not name it yet"
    return dataclasses.replace(config, transfer=options), words


def _pool(config: ExperimentConfig, records: int) -> int:
    """Of so many records in the training part, those that the configuration leaves."""
    wanted = config.data.train_records
    if wanted is None and config.data.size == "small":
        wanted = min(SMALL, records)
    if wanted is not None and not 1 <= wanted <= records:
        raise InputError(f"train_records is {wanted}; the data set has {records}")
    return records if wanted is None else wanted


def _of_all(kept: int, pool: int) -> int:
    """The records that an imbalance keeps, of those that there are."""
    if kept > pool:
        raise InputError(
            f"imbalance.split keeps {kept} records; there are {pool}: take a smaller "
            "imbalance.largest, or --size full"
        )
    return kept


def _trained_on(config: ExperimentConfig, count: int) -> int:
    """Of so many records, those that this training takes."""
    if config.train_on == "all":
        return count
    options = config.attack
    members = design(count, options.shadows or 1, config.seed, options.protocol).members
    return len(members)


def parameters(
    config: ExperimentConfig, classes: int, each: Plan, state: Any
) -> dict[str, Any]:
    """How many there are, group by group, and which are trained."""
    trained = each.learner.mechanism.trained
    sizes = {
        "/".join(str(key.key) for key in path): leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    moves = lambda path: trained is None or any(begins(path, n) for n in trained)
    rows = []
    for number, group in enumerate(net(config, classes).block_groups):
        own = [path for path in sizes if any(begins(path, name) for name in group)]
        rows.append(
            {
                "group": number + 1,
                "names": list(group),
                "parameters": sum(sizes[path] for path in own),
                "trained": sum(sizes[path] for path in own if moves(path)),
            }
        )
    whole = sum(row["parameters"] for row in rows)
    moving = sum(row["trained"] for row in rows)
    return {
        "all": whole,
        "trained": moving,
        "frozen": whole - moving,
        "groups": rows,
    }


def _time(
    told: dict[str, Any],
    config: ExperimentConfig,
    each: Plan,
    facts: Facts,
    layout: devices.Layout,
    given: float | None,
) -> dict[str, Any]:
    """A rough estimate: operations over those a device does in a second."""
    whole = _whole_batches(config, each)
    one = plan(whole, _of_one(each), facts.classes, each.records, each.counts)
    learner = planning.as_fitted(one.learner, facts.shape)
    found = planning.operations(learner, facts.shape)
    step = found.of(each.batch_size) * math.prod(each.learner.members)
    speed = given
    if speed is None:
        speed = planning.operations_per_second(jnp.dtype(config.model.dtype))
    count = layout.members * layout.data
    seconds = step / (speed * count)
    return {
        "flops_per_record": found.per_record,
        "flops_per_step": step,
        "flops_per_second": speed,
        "speed_from": "a convolution timed here" if given is None else "as given",
        "step_seconds": seconds,
        "total_seconds": seconds * each.steps,
        "images_per_second": each.batch_size / seconds,
    }


def _of_one(each: Plan) -> Method:
    """A method whose step is that of one member."""
    return "strategy1" if each.name == "ensemble" else each.name


def _whole_batches(config: ExperimentConfig, each: Plan) -> ExperimentConfig:
    """Without microbatches: operations in a loop would be counted once.

    The noise is the one that was found, so that nobody looks for it again.
    """
    noise = each.learner.mechanism.noise_multiplier
    noise = config.dp.noise_multiplier if noise is None else noise
    dp = dataclasses.replace(config.dp, microbatch=None, noise_multiplier=noise)
    return dataclasses.replace(config, dp=dp)


def _parts(
    state: Any,
    slots: int,
    records: int,
    facts: Facts,
    layout: devices.Layout,
    stored: bool,
) -> dict[str, Any]:
    """Bytes on one device that follow from shapes alone."""
    members = max(1, _members(state) // layout.members)
    image = math.prod(facts.shape)
    return {
        "parameters": _bytes(state.params) // layout.members,
        "optimiser": _bytes(state.opt_state) // layout.members,
        "images": members * slots * image * (2 if stored else 1),
        "data": 0 if stored else records * image,
    }


def _members(state: Any) -> int:
    return int(math.prod(state.step.shape))


def _bytes(tree: PyTree) -> int:
    return int(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))
