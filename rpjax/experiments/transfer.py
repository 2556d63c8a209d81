"""What an experiment carries over from a run on public data.

`rpjax train` on the public data leaves a folder. The parameters of its last checkpoint
are where this experiment starts; the folder's results say in a line what they were
trained on, which the guarantee repeats. That the data are public is for the user to see
to, except that a training on the very same records is refused.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

from flax import traverse_util

from rpjax.annotations import PyTree
from rpjax.data.records import Dataset
from rpjax.errors import InputError
from rpjax.experiments.config import ExperimentConfig, ModelConfig, TransferConfig
from rpjax.experiments.runs import RunFolder
from rpjax.learners import Pretrained, trainable_after
from rpjax.training.checkpoints import newest

# fields of a net that change how it is computed, and not what its parameters mean
COMPUTING = ("convolution", "dtype", "residual_bound")
HEAD = ("head",)


class Carried(NamedTuple):
    """What a learner takes: parameters to start from, and which of all are trained."""

    start: Pretrained | None
    trainable: tuple[str, ...] | None


class Public(NamedTuple):
    """A finished run on public data.

    facts: what its results.json says of its data; params, stats: of the released net.
    """

    config: ExperimentConfig
    facts: dict[str, Any]
    params: PyTree
    stats: PyTree
    source: str


def carried(config: ExperimentConfig, model: Any) -> Carried:
    """What a net of this configuration starts from, and what of it is trained.

    Raises:
        InputError: a number of groups that the net does not have, or a folder that
            holds no finished run of one such net.
    """
    options = config.transfer
    groups = len(model.block_groups)
    if options.frozen_groups >= groups:
        raise InputError(
            f"transfer.frozen_groups is {options.frozen_groups}; this net has {groups} "
            f"groups, of which 0 to {groups - 1} can stay as they are"
        )
    trainable = trainable_after(model, options.frozen_groups)
    if options.start is None:
        return Carried(None, trainable)
    public = opened(options.start)
    _check_net(options.start, public.config.model, config.model)
    other = public.facts["classes"] != model.classes
    start = Pretrained(
        public.params, public.source, HEAD if other else (), public.stats
    )
    return Carried(start, trainable)


def check_start(
    options: TransferConfig, dataset: Dataset, private: bool = False
) -> None:
    """Refuse a start that does not fit the images, or that saw these very records.

    private: whether a guarantee is going to call the start's data public.
    """
    if options.start is None:
        return
    facts, channels = opened(options.start).facts, dataset.shape[-1]
    if facts["shape"][-1] != channels:
        raise InputError(
            f"transfer.start is {options.start}, a net for images of "
            f"{facts['shape'][-1]} channels; these have {channels}: name another run"
        )
    if private and facts["data_hash"] == dataset.data_hash:
        raise InputError(
            f"transfer.start is {options.start}, which was trained on these very "
            "records; a start has to come from public data: name another run, or "
            "account for both trainings with rpjax.fit(..., earlier=[run])"
        )


def opened(folder: Path) -> Public:
    """The finished run in a folder; read once, unless the folder changes.

    Raises:
        InputError: no such run, or one of several methods or members.
    """
    results = folder / "results.json"
    if not RunFolder(folder).holds_one() or not results.is_file():
        raise InputError(
            f"transfer.start is {folder}, which holds no finished run; name the folder "
            "of an `rpjax train` on public data"
        )
    return _read(folder, results.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read(folder: Path, written: int) -> Public:
    run = RunFolder(folder)
    config, results = run.config(), run.concluded()
    parts = results["methods"]
    if len(parts) != 1 or parts[0]["model"]["members"] != 1:
        names = ", ".join(part["name"] for part in parts)
        raise InputError(
            f"transfer.start is {folder}, which holds {names}; a training starts from "
            "one net: name the folder of an `rpjax train` by plain, strategy1, "
            "strategy2 or dpsgd"
        )
    (part,) = parts
    state = newest(run.checkpoints(part["name"]))
    params, decay = state["params"], part["training"].get("average")
    if decay is not None:  # of what is trained; the rest is as it is
        average = state["opt_state"]["averages"][repr(decay)]
        flat = traverse_util.flatten_dict(params) | traverse_util.flatten_dict(average)
        params = traverse_util.unflatten_dict(flat)
    # private learners keep other things in their place
    stats = state["stats"] if config.model.norm == "batch" else {}
    data = results["data"]
    return Public(config, data, params, stats, _told(part, data))


def _told(part: dict[str, Any], data: dict[str, Any]) -> str:
    """What a net was trained on, in a line; of what it started from itself, too."""
    digest = data["data_hash"].removeprefix("sha256:")[:16]
    line = (
        f"{data['name']} ({data['members']:,} records, SHA-256 {digest}), "
        f"{part['training']['steps']:,} steps of {part['name']}"
    )
    before = part["model"].get("start")
    return line if before is None else f"{line}, from {before}"


def _check_net(folder: Path, theirs: ModelConfig, ours: ModelConfig) -> None:
    for field in dataclasses.fields(ModelConfig):
        given, own = getattr(theirs, field.name), getattr(ours, field.name)
        if field.name not in COMPUTING and given != own:
            raise InputError(
                f"model.{field.name} is {own}; the net in transfer.start, {folder}, "
                f"has {given}: give the same, or name another run"
            )
