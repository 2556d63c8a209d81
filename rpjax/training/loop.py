"""The one loop: trains any learner, and knows no mechanism by name.

The data lie on the devices, or are decoded ahead of the step that needs them. A block
of steps (an epoch, or some Poisson batches) has its positions drawn at once; a compiled
program runs as many of its steps as fit into about half a second, then the loop looks
up: progress, checkpoint, a signal to stop.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from rpjax import distributed
from rpjax import keys as rp_keys
from rpjax.batches import poisson_slots
from rpjax.data.records import Records
from rpjax.data.sampling import Sampler, poisson, shuffled
from rpjax.data.stored import StoredRecords
from rpjax.errors import InputError, Preempted
from rpjax.learners import Learner
from rpjax.training.budget import Budget, Meter
from rpjax.training.checkpoints import Checkpoints
from rpjax.training.clock import Clock
from rpjax.training.devices import Devices, layout
from rpjax.training.feeds import Resident
from rpjax.training.history import Log
from rpjax.training.preemption import Notice, agreed
from rpjax.training.progress import Reporter, Silent, Speaker
from rpjax.training.run import Run, spending
from rpjax.training.streamed import Streamed
from rpjax.training.tuning import Choice

NoiseSeed = Literal["secret", "fixed"]


def fit(
    learner: Learner,
    records: Records,
    *,
    batch_size: int,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int | Sequence[int] = 0,
    noise_seed: NoiseSeed = "secret",
    lists: Int[np.ndarray, "... n"] | None = None,
    devices: Devices = None,
    workers: int = 0,
    budget: Budget | None = None,
    earlier: Sequence[Run] = (),
    computed: Choice | None = None,
    report: Reporter | None = None,
    checkpoints: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Run:
    """Train `learner` on `records` and return what that leaves behind.

    records: in memory, or stored (`StoredRecords`): then decoded as they are needed.
    steps or epochs: how long; an epoch sees every record once, on average.
    batch_size: records in a step, expected ones under Poisson sampling (DP-SGD); of
        members with shorter lists than others', in proportion.
    seed: the run is a function of it, except for noise that a guarantee rests on. A
        seed for each of the learner's members trains each as a run of its own would be.
    noise_seed: where that noise comes from: "secret" bits from the operating system, or
        "fixed", from `seed`, for a reproduction; the guarantee says which.
    lists: positions of each member's own training records, (members, n), or (n,) for
        all; None is every record. A member with fewer than n has -1 in the rest.
    devices: how many, or the sizes of the mesh axes "member" and "data"
        (`rpjax.training.devices.layout`); None is one, or all of several processes.
    workers: processes that decode stored records; 0 is threads of this process. With
        them, a script must do its work under ``if __name__ == "__main__":``.
    budget: an epsilon that the training's guarantee must not exceed, counted from its
        first step: it stops before the step that would, and says so. The progress and
        the history then show what is spent.
    earlier: other trainings on the same records (restarts, tuning): the guarantee is
        for all of them together.
    computed: how to compute what the learner leaves open, as another run's `choice` is;
        None is to measure. A checkpoint's own way comes first.
    checkpoints: a folder in which to save now and then, and from which to go on. With
        it, SIGTERM to any process ends the training with what it has saved.
    checkpoint_seconds: how long to train between two of them.

    Raises:
        InputError: for a setting that cannot be, or that a checkpoint contradicts.
        Preempted: after SIGTERM.
        StorageError: if a checkpoint cannot be written.
    """
    report = report or Silent()
    if len(np.unique(records.ids)) < len(records):
        # a record's id is its identity: its noise, its participations, its protection
        raise InputError("records holds an id twice; give every record its own")
    table = _table(lists, len(records), learner.members)
    least = int((table >= 0).sum(-1).min())
    sampler = sampler_for(learner, table.shape[-1], batch_size, least)
    steps = step_count(sampler, steps, epochs)
    meter = None
    if budget is not None and earlier:
        raise InputError(
            f"budget is {budget} and earlier names {len(earlier)} trainings; a budget "
            "counts from a training's own first step: give one of the two"
        )
    if budget is not None:
        spent = spending(learner, sampler, records.shape, budget.delta)
        meter = Meter(budget, spent, steps, sampler.block)
        steps = meter.steps
    where = layout(devices, learner.members, split_slots(sampler))
    clock = Clock()

    seed = _seed(seed, learner.members)
    root = rp_keys.roots(seed)
    feed: Resident | Streamed
    if isinstance(records, StoredRecords):
        feed = Streamed(
            *(learner, records, table, sampler, where, root, clock, steps, workers)
        )
    else:
        feed = Resident(learner, records, table, sampler, where, root, clock)
    state = feed.first_state()
    if learner.mechanism.private and noise_seed == "secret":
        # one for all processes: replicas must add the same noise
        fresh = distributed.from_first(_fresh_secrets(learner.members))
        state = state._replace(secret=where.put(fresh, where.member_spec()))
    log, how, choice = Log(), None, None
    keeper = None
    if checkpoints:
        facts = {"seed": seed, "noise_seed": noise_seed, "batch_size": batch_size}
        facts = _ledger(learner, sampler, records) | facts
        keeper = Checkpoints(checkpoints, facts, checkpoint_seconds)
    try:
        # with a budget, the meter says why there are fewer steps
        most = meter.asked if meter else steps
        if keeper and (saved := keeper.restore(state, most)):
            state, log, how = saved
        done = int(np.asarray(where.fetch(state.step)).flat[0])
        if meter:
            meter.refuse(done)
        if done < steps:  # a run that is only picked up again needs no program
            known = Choice(how, "as this training began") if how else computed
            choice = feed.compile(state, steps - done, known)
            how = choice.how
        with Notice(active=keeper is not None) as notice:
            while done < steps:
                block, start = divmod(done, sampler.block)
                fits = min(clock.steps_per_call, sampler.block - start, steps - done)
                stop, save, count = agreed(
                    notice.arrived, keeper is not None and keeper.due(), fits
                )
                if keeper and (stop or (save and done)):
                    keeper.save(done, state, log, how)
                if keeper and stop:
                    keeper.finish()
                    raise Preempted(
                        f"stopped by SIGTERM after step {done} of {steps}, which is "
                        f"saved in {checkpoints}; the same call goes on from there"
                    )
                began = time.perf_counter()
                state, infos = feed.steps(state, block, start, count)
                clock.ran(count, time.perf_counter() - began)
                done += count
                records_seen = math.prod(learner.members) * batch_size * count
                info = log.add(infos)
                if meter:
                    info["epsilon"] = meter.so_far(done)
                report.advance(done, steps, records_seen, info)
                if start + count == sampler.block:
                    log.close(done, done * batch_size / sampler.records)
        if keeper:
            keeper.save(done, state, log, how)
            keeper.finish()
        # the last block may go on in a longer training, so it is saved unfinished
        log.close(done, done * batch_size / sampler.records)
    finally:
        feed.close()
        if keeper:
            keeper.close()
    if jax.process_count() > 1:
        state = jax.tree.map(jnp.asarray, where.fetch(state))
    if how is not None:
        learner = learner.computed(how)
    if meter and (verdict := meter.verdict()) and isinstance(report, Speaker):
        report.say(verdict)
    return Run(
        learner=learner,
        state=state,
        history=log.history | (meter.column(log.history) if meter else {}),
        sampler=sampler,
        steps=steps,
        seed=seed,
        noise_seed=noise_seed,
        records=sampler.records,
        shape=records.shape,
        cost=clock.cost(feed.program),
        stopwatch=feed.stopwatch(state),
        devices=devices,
        choice=choice,
        budget=budget,
        stopped_at_budget=meter is not None and meter.steps < meter.asked,
        left=state,
        earlier=tuple(earlier),
    )


def sampler_for(
    learner: Learner, records: int, batch_size: int, least: int | None = None
) -> Sampler:
    """Poisson batches for DP-SGD, in slots enough; shuffled epochs for all others.

    least: records of the member that has fewest, where they differ. Poisson's
    probability is that of `records`: how many a member has stays its secret.
    """
    if learner.mechanism.kind != "dpsgd":
        return shuffled(records, batch_size, least)
    if learner.mechanism.batch_size != batch_size:
        raise InputError(
            f"batch_size is {batch_size}; the DP-SGD learner divides by "
            f"{learner.mechanism.batch_size}: give both the same"
        )
    if batch_size > records:
        raise InputError(
            f"batch_size is {batch_size}; it must lie between 1 and the number of "
            f"training records = {records}"
        )
    if learner.mechanism.sampling == "shuffled":
        if least is not None and least < records:
            raise InputError(
                f"lists holds {least} positions for one member and {records} for "
                "another; DP-SGD in shuffled epochs is accounted for members with as "
                "many records each: fill the lists, or let records come by coins"
            )
        return shuffled(records, batch_size)
    return poisson(records, batch_size, poisson_slots(records, batch_size))


def step_count(sampler: Sampler, steps: int | None, epochs: float | None) -> int:
    """Steps to take, from exactly one of the two."""
    if (steps is None) == (epochs is None):
        raise InputError(f"steps is {steps} and epochs {epochs}; give exactly one")
    if steps is None:
        assert epochs is not None
        if not epochs > 0:
            raise InputError(f"epochs is {epochs}; it must be > 0")
        per_epoch = sampler.records / sampler.batch_size
        if sampler.kind == "shuffled":
            per_epoch = sampler.block
        steps = max(1, round(epochs * per_epoch))
    if steps < 1:
        raise InputError(f"steps is {steps}; it must be >= 1")
    return steps


def _table(lists: Any, records: int, members: tuple[int, ...]) -> np.ndarray:
    """Each member's training records, (*members, n)."""
    if lists is None:
        lists = np.arange(records)
    lists = np.asarray(lists, np.int32)
    axes = lists.ndim - 1
    if lists.shape[:-1] != members[:axes]:
        raise InputError(
            f"lists has shape {lists.shape}; its leading axes must be those of the "
            f"members {members}"
        )
    if not lists.size or lists.min() < -1 or lists.max() >= records:
        raise InputError(
            f"lists must hold positions from 0 to {records - 1}, or -1 for none"
        )
    if (lists[..., 0] < 0).any() or (
        (lists[..., 1:] >= 0) > (lists[..., :-1] >= 0)
    ).any():
        raise InputError(
            "lists has -1 before a position; a member with fewer records than others "
            "has its positions first and -1 in the rest"
        )
    ordered = np.sort(lists, axis=-1)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any():
        # a guarantee counts how often a record enters training
        raise InputError("lists names a position twice for one member; name each once")
    inner = (1,) * (len(members) - axes)
    spread = lists.reshape(*lists.shape[:-1], *inner, lists.shape[-1])
    return np.broadcast_to(spread, (*members, lists.shape[-1]))


def _seed(seed: int | Sequence[int], members: tuple[int, ...]) -> int | tuple[int, ...]:
    """One seed, or one for each member of the leading axis."""
    if isinstance(seed, int | np.integer):
        return int(seed)
    if members[:1] != (len(seed),) or len(set(seed)) < len(seed):
        raise InputError(
            f"seed has {len(seed)} values, of which {len(set(seed))} differ; it is one "
            f"number, or one for each member of {members}, each its own"
        )
    return tuple(int(each) for each in seed)


def _fresh_secrets(members: tuple[int, ...]) -> np.ndarray:
    drawn = [rp_keys.fresh_secret() for _ in range(math.prod(members))]
    return np.array(drawn, np.uint32).reshape(*members, 8)


def split_slots(sampler: Sampler) -> int:
    """Slots that devices must divide; those of Poisson batches are padded until so."""
    return sampler.capacity if sampler.kind == "shuffled" else 0


def _ledger(learner: Learner, sampler: Sampler, records: Records) -> dict[str, Any]:
    """What a guarantee counts on: no training may change it on its way."""
    facts = dataclasses.asdict(learner.mechanism)
    digest = hashlib.sha256()
    for array in (records.ids, records.labels):
        digest.update(np.ascontiguousarray(array, "<i4").data)
    return {
        **facts,
        "perturbation": repr(learner.mechanism.perturbation),
        "sampling": sampler.kind,
        "records": sampler.records,
        "the records' ids and labels": digest.hexdigest()[:16],
    }
