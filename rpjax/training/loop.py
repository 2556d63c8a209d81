"""The one loop: trains any learner, and knows no mechanism by name.

The data lie on the device. A block of steps (an epoch, or some Poisson batches) has its
positions drawn at once; a compiled program runs as many of its steps as fit into about
half a second, then the loop looks up: progress, checkpoint. How many steps that is can
change from call to call, since their number is an argument and not a shape.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from rpjax import keys as rp_keys
from rpjax.annotations import PRNGKey
from rpjax.data.records import Records
from rpjax.data.sampling import Sampler, poisson, shuffled
from rpjax.errors import InputError
from rpjax.learners import Batch, Info, Learner, State
from rpjax.privacy import dpsgd as accounting
from rpjax.training.checkpoints import Checkpoints, History
from rpjax.training.devices import data_mesh, over_devices
from rpjax.training.progress import Reporter, Silent
from rpjax.training.run import Cost, Run

NoiseSeed = Literal["secret", "fixed"]

# most that one Poisson batch may outgrow its slots; it is paid for out of delta
OVERFLOW = 1e-20
SECONDS_PER_CALL = 0.5


def fit(
    learner: Learner,
    records: Records,
    *,
    batch_size: int,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int = 0,
    noise_seed: NoiseSeed = "secret",
    lists: Int[np.ndarray, "... n"] | None = None,
    devices: int = 1,
    report: Reporter | None = None,
    checkpoints: Path | None = None,
) -> Run:
    """Train `learner` on `records` and return what that leaves behind.

    steps or epochs: how long; an epoch sees every record once, on average.
    batch_size: records in a step, expected ones under Poisson sampling (DP-SGD).
    seed: the run is a function of it, except for noise that a guarantee rests on.
    noise_seed: where that noise comes from: "secret" bits from the operating system, or
        "fixed", from `seed`, for a reproduction; the guarantee says which.
    lists: positions of each member's own training records, (members, n), or (n,) for
        all; None is every record.
    devices: how many of this machine's to split each batch over.
    checkpoints: a folder in which to save now and then, and from which to go on.
    """
    report = report or Silent()
    if len(np.unique(records.ids)) < len(records):
        # a record's id is its identity: its noise, its participations, its protection
        raise InputError("records holds an id twice; give every record its own")
    table = _table(lists, len(records), learner.members)
    sampler = sampler_for(learner, table.shape[-1], batch_size, devices)
    steps = step_count(sampler, steps, epochs)
    mesh = data_mesh(devices, sampler.capacity)
    clock = _Clock()

    root, zero = rp_keys.root(seed), jnp.int32(0)
    data = jax.device_put((records.images, records.labels, records.ids, table))
    init = clock.compiled(learner.init, root, data[0][:1], once=True)
    state = init(root, data[0][:1])
    if learner.mechanism.private and noise_seed == "secret":
        state = state._replace(secret=_fresh_secrets(learner.members))
    facts = {"seed": seed, "noise_seed": noise_seed, "batch_size": batch_size}
    keeper = Checkpoints(checkpoints, facts) if checkpoints else None
    history: History = {"step": [], "epoch": []}
    if keeper and (saved := keeper.restore(state, steps)):
        state, history = saved

    program: Any = None
    done = int(np.asarray(state.step).flat[0])
    if done < steps:  # a run that is only picked up again needs no program
        plan_keys = _plan_keys(sampler, learner.members, root, state)
        draw = clock.compiled(_draw(sampler, learner.members), plan_keys, zero)
        plan = draw(plan_keys, zero)
        program = clock.compiled(
            _program(learner, mesh), root, state, data, plan, zero, zero, donate=(1,)
        )
    records_per_step = math.prod(learner.members) * batch_size
    while done < steps:
        block, start = divmod(done, sampler.block)
        plan, infos = draw(plan_keys, jnp.int32(block)), []
        while start < sampler.block and done < steps:
            count = min(clock.steps_per_call, sampler.block - start, steps - done)
            began = time.perf_counter()
            state, info = program(
                root, state, data, plan, jnp.int32(start), jnp.int32(count)
            )
            infos.append({k: np.asarray(v)[start:][:count] for k, v in info.items()})
            clock.ran(count, time.perf_counter() - began)
            start, done = start + count, done + count
            report.advance(done, steps, count * records_per_step, _means(infos[-1:]))
        _log(history, done, done * batch_size / sampler.records, _means(infos))
        if keeper and (keeper.due() or done == steps):
            keeper.save(done, state, history)
    if keeper:
        keeper.close()
    return Run(
        learner=learner,
        state=state,
        history=history,
        sampler=sampler,
        steps=steps,
        seed=seed,
        noise_seed=noise_seed,
        records=sampler.records,
        shape=records.shape,
        cost=clock.cost(program),
        stopwatch=program and _stopwatch(program, root, state, data, plan),
    )


def sampler_for(
    learner: Learner, records: int, batch_size: int, devices: int = 1
) -> Sampler:
    """Poisson batches for DP-SGD, in slots enough; shuffled epochs for the others."""
    if learner.mechanism.kind != "dpsgd":
        return shuffled(records, batch_size)
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
    return poisson(records, batch_size, poisson_slots(records, batch_size, devices))


def poisson_slots(records: int, batch_size: int, devices: int = 1) -> int:
    """Slots that a Poisson batch outgrows with probability `OVERFLOW` at most."""
    # one record more, so that the overflow is bounded for either neighbour
    slots = accounting.capacity(records + 1, batch_size / records, OVERFLOW)
    multiple = math.lcm(8, devices)
    return -(-slots // multiple) * multiple


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


def _program(learner: Learner, mesh: Mesh | None) -> Callable[..., Any]:
    """(root, state, data, plan, start, count) -> state `count` steps on, and infos."""

    def run(
        root: PRNGKey,
        state: State,
        data: tuple[Array, ...],
        plan: tuple[Array, Array],
        start: Array,
        count: Array,
        axis: str | None,
    ) -> Any:
        images, labels, ids, table = data
        positions, valid = plan

        def batch_of(step: Array) -> Batch:
            where = jnp.take_along_axis(table, positions[step], -1)
            return Batch(images[where], labels[where], ids[where], valid[step])

        def one(step: Array, carry: tuple[State, Info]) -> tuple[State, Info]:
            state, infos = carry
            state, info = learner.step(root, state, batch_of(step), axis)
            infos = jax.tree.map(lambda all, new: all.at[step].set(new), infos, info)
            return state, infos

        _, shapes = jax.eval_shape(
            lambda state: learner.step(root, state, batch_of(start), axis), state
        )
        infos = jax.tree.map(
            lambda s: jnp.zeros((len(positions), *s.shape), s.dtype), shapes
        )
        return jax.lax.fori_loop(start, start + count, one, (state, infos))

    # a plan's leaves are (block, *members, capacity): the slots are split
    return over_devices(run, mesh, split={3: 1 + len(learner.members)})


def _stopwatch(
    program: Any, root: PRNGKey, state: State, data: Any, plan: Any
) -> Callable[[int], float]:
    """Times steps of an already compiled program without changing the run."""

    def seconds(steps: int) -> float:
        copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
        steps = min(steps, len(plan[0]))
        began = time.perf_counter()
        last = program(root, copy, data, plan, jnp.int32(0), jnp.int32(steps))
        jax.block_until_ready(last)
        return time.perf_counter() - began

    return seconds


def _plan_keys(
    sampler: Sampler, members: tuple[int, ...], root: PRNGKey, state: State
) -> Array:
    """Each member's key for its batches.

    Poisson sampling amplifies privacy only while nobody knows who was drawn, so its
    coins come from the secret; the order of an epoch is no secret of any guarantee.
    """
    if sampler.kind == "shuffled":
        return rp_keys.members(root, members)
    one: Callable[[Array], PRNGKey] = rp_keys.from_secret
    for _ in members:
        one = jax.vmap(one)
    return one(jnp.asarray(state.secret))


def _draw(sampler: Sampler, members: tuple[int, ...]) -> Callable[..., Any]:
    """(keys, block's number) -> positions and valid, (block, *members, capacity)."""

    def draw(keys: Array, number: Array) -> Any:
        one: Callable[[PRNGKey], Any] = lambda key: sampler.draw(key, number)
        for _ in members:
            one = jax.vmap(one, out_axes=1)
        return one(keys)

    return draw


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
    if not lists.size or lists.min() < 0 or lists.max() >= records:
        raise InputError(f"lists must hold positions from 0 to {records - 1}")
    ordered = np.sort(lists, axis=-1)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        # a guarantee counts how often a record enters training
        raise InputError("lists names a position twice for one member; name each once")
    inner = (1,) * (len(members) - axes)
    spread = lists.reshape(*lists.shape[:-1], *inner, lists.shape[-1])
    return np.broadcast_to(spread, (*members, lists.shape[-1]))


def _fresh_secrets(members: tuple[int, ...]) -> np.ndarray:
    drawn = [rp_keys.fresh_secret() for _ in range(math.prod(members))]
    return np.array(drawn, np.uint32).reshape(*members, 8)


def _means(infos: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Each figure's mean over steps and members."""
    return {
        name: float(np.concatenate([info[name] for info in infos]).mean())
        for name in infos[0]
    }


def _log(history: History, step: int, epoch: float, means: dict[str, float]) -> None:
    for name, value in {"step": step, "epoch": epoch, **means}.items():
        history.setdefault(name, []).append(value)


class _Clock:
    """Times compilation and steps, and says how many steps fit into a call."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self.calls: list[tuple[int, float]] = []
        self.steps_per_call = 1

    def compiled(
        self,
        function: Callable[..., Any],
        *args: Any,
        donate: tuple[int, ...] = (),
        once: bool = False,
    ) -> Any:
        """`function` compiled for the shapes of `args`; `once` if it is run once."""
        began = time.perf_counter()
        lowered = jax.jit(function, donate_argnums=donate).lower(*args)
        # optimising random initialisation takes the CPU's compiler five times longer
        # than running it as it is
        quick = once and jax.default_backend() == "cpu"
        options = {"xla_backend_optimization_level": 0} if quick else None
        program = lowered.compile(compiler_options=options)
        self.compile_seconds += time.perf_counter() - began
        return program

    def ran(self, steps: int, seconds: float) -> None:
        """Take note of a call of so many steps."""
        self.calls.append((steps, seconds))
        fitting = int(SECONDS_PER_CALL * steps / max(seconds, 1e-9))
        # the first call may be slow for other reasons, so growth is not trusted at once
        self.steps_per_call = max(1, min(fitting, 8 * self.steps_per_call))

    def cost(self, program: Any) -> Cost:
        """All of it, with the memory of the program that took the steps."""
        rates = [seconds / steps for steps, seconds in self.calls for _ in range(steps)]
        memory = None if program is None else program.memory_analysis()
        return Cost(
            step_seconds=statistics.median(rates) if rates else 0.0,
            train_seconds=sum(seconds for _, seconds in self.calls),
            compile_seconds=self.compile_seconds,
            memory_bytes=None if memory is None else _peak(memory),
        )


def _peak(memory: Any) -> int:
    """Bytes of arguments, results and temporaries; donated memory counts once."""
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
