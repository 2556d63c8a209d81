"""Shadow models by the hundred: one experiment, many coins, in one compiled program.

Model r is what ``fit(learner, records, lists=its list, seed=its seed)`` trains, no more
and no less; `shadow_models` trains many of them side by side, as many at a time as fit,
asks them all, and keeps the answers. Who is in whose list is decided by coins that were
drawn before: see `rpjax.audits` for what may be concluded from which coins.

With a folder, every model that is done is a file of its own. A call that is killed goes
on where it was; one that asks for more models trains only those that are missing.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float

from rpjax.attacks.keeping import Folder, Kept, Memory
from rpjax.attacks.membership import Membership
from rpjax.attacks.questions import Question, ask, models_of
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Learner, State
from rpjax.training import fit
from rpjax.training.devices import MEMBER, Devices
from rpjax.training.progress import Reporter, Silent

DEPLOYED = {"deployed": Question()}


@dataclass(frozen=True, eq=False)
class ShadowModels:
    """Trained models and what they answered.

    seeds: each model's own. answers: to each question, by its name: log-probabilities,
    float32 (models, queries, [members,] records, classes).
    """

    membership: Membership
    seeds: tuple[int, ...]
    answers: dict[str, Float[np.ndarray, "models queries ... n k"]]


def shadow_models(
    learner: Learner,
    membership: Membership,
    *,
    batch_size: int,
    steps: int | None = None,
    epochs: float | None = None,
    asked: Records | Mapping[str, Records],
    questions: Mapping[str, Question] = DEPLOYED,
    seed: int = 0,
    name: str = "A",
    folder: Path | None = None,
    chunk: int = 16,
    weights: bool = False,
    about: Mapping[str, Any] | None = None,
    devices: Devices | Literal["all"] = None,
    report: Reporter | None = None,
    checkpoint_seconds: float = 60.0,
) -> ShadowModels:
    """Train one model for each row of coins, ask them all, keep the answers.

    steps or epochs: how long; an epoch is as many steps as the expected number of
        records takes, the same for every model.
    asked: the records that every model is asked about; or those of each question, by
        its name.
    questions: by the name under which their answers are kept.
    seed, name: from which each model's own seed follows; models of another name have
        others, so that two sets of them share no randomness.
    folder: where to keep everything; None keeps nothing.
    chunk: how many models to train side by side; halved when memory does not suffice.
        It changes no model.
    weights: keep the parameters too, so that later calls can ask other questions.
    devices: see `rpjax.training.devices.layout`; "all" are as many of all devices as
        divide the models that are trained at once.
    checkpoint_seconds: how long to train between two checkpoints of a chunk.
    about: what training depends on and the learner does not tell, such as the hash of
        a configuration: a folder is only used again for the same.

    Raises:
        InputError: for a folder that holds other models, or lacks an answer that can no
            longer be had.
    """
    if (steps is None) == (epochs is None):
        raise InputError(f"steps is {steps} and epochs {epochs}; give exactly one")
    if jax.process_count() > 1:
        raise InputError(
            f"{jax.process_count()} processes take part; shadow models are trained by "
            "one, over all its devices: start one process, or one for each `name`"
        )
    if chunk < 1:
        raise InputError(f"chunk is {chunk}; it must be >= 1")
    if not questions:
        raise InputError("questions is empty; ask at least one")
    if isinstance(asked, Records):
        asked = dict.fromkeys(questions, asked)
    if missing := sorted(questions.keys() - asked.keys()):
        raise InputError(f"asked names no records for the question {missing[0]!r}")
    if steps is None:
        assert epochs is not None
        steps = max(1, round(epochs * membership.expected / batch_size))
    work = _Work(
        learner=learner,
        membership=membership,
        lists=membership.lists(),
        seeds=seeds_of(seed, name, len(membership.inside)),
        options={
            "batch_size": batch_size,
            "steps": steps,
            "checkpoint_seconds": checkpoint_seconds,
        },
        asked=dict(asked),
        questions=dict(questions),
        weights=weights,
        devices=devices,
        report=report or Silent(),
    )
    if folder is None:
        return work.all(Memory(), chunk)
    facts = {"batch_size": batch_size, "steps": steps, "seed": seed, "name": name}
    with Folder(folder, work.facts() | facts | {"about": dict(about or {})}) as kept:
        return work.all(kept, chunk)


def seeds_of(seed: int, name: str, models: int) -> tuple[int, ...]:
    """A seed for each model; the first ones are the same however many there are.

    >>> seeds_of(0, "A", 3) == seeds_of(0, "A", 5)[:3]
    True
    """
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
    words = np.random.SeedSequence(int.from_bytes(digest, "big"))
    drawn = (words.generate_state(models + 64) >> np.uint32(1)).tolist()
    return tuple(dict.fromkeys(drawn))[:models]


# --------------------------------------------------------------------------- the work


@dataclass(frozen=True)
class _Work:
    """What one call has to do."""

    learner: Learner
    membership: Membership
    lists: np.ndarray
    seeds: tuple[int, ...]
    options: dict[str, Any]
    asked: dict[str, Records]
    questions: dict[str, Question]
    weights: bool
    devices: Devices | Literal["all"]
    report: Reporter

    def all(self, kept: Memory | Folder, chunk: int) -> ShadowModels:
        """Every model's answers, from what is kept or from training."""
        numbers = range(len(self.seeds))
        missing, to_ask = [], []
        for number in numbers:
            arrays = kept.found(number)
            if arrays is None:
                missing.append(number)
            elif self._lacks(number, arrays):
                to_ask.append(number)
        # only what can be answered is noted, and before anything is asked
        kept.agree(self.asked_facts())
        for part in _parts(to_ask, chunk):
            self._ask_again(part, kept)
        total = len(missing)
        _in_chunks(
            missing,
            chunk,
            lambda part, before: self._train(part, kept, before, total),
        )
        kept.done()
        everything = [kept.found(number) or {} for number in numbers]
        answers = {
            name: np.stack([arrays[name] for arrays in everything])
            for name in self.questions
        }
        return ShadowModels(self.membership, self.seeds, answers)

    def _lacks(self, number: int, arrays: Kept) -> bool:
        if not np.array_equal(arrays["list"], self.lists[number]):
            raise InputError(
                f"inside: the coins of model {number} are others than those of the "
                "model that is kept; name another folder"
            )
        lacking = [name for name in self.questions if name not in arrays]
        if lacking and "leaf_0" not in arrays:
            raise InputError(
                f"questions: {lacking[0]!r} was not asked when model {number} was "
                "trained, and its weights were not kept; name another folder, or keep "
                "weights=True the next time"
            )
        return bool(lacking)

    def _train(
        self, numbers: list[int], kept: Memory | Folder, before: int, total: int
    ) -> None:
        seeds = [self.seeds[number] for number in numbers]
        run = fit(
            models_of(self.learner, len(numbers)),
            self.membership.pool,
            lists=self.lists[numbers],
            seed=seeds,
            noise_seed="fixed",
            checkpoints=kept.checkpoints(numbers),
            devices=self._devices(len(numbers)),
            report=_Share(self.report, before, len(numbers), total),
            **self.options,
        )
        answers = self._answers(run.state, seeds)
        leaves = jax.tree.leaves(jax.device_get((run.state.params, run.state.stats)))
        for place, number in enumerate(numbers):
            arrays = {name: answer[place] for name, answer in answers.items()}
            if self.weights:
                own = {f"leaf_{i}": leaf[place] for i, leaf in enumerate(leaves)}
                arrays |= own
            kept.keep(number, {"list": self.lists[number], **arrays})

    def _ask_again(self, numbers: list[int], kept: Memory | Folder) -> None:
        """Questions that came later, asked of the weights that were kept."""
        many = models_of(self.learner, len(numbers))
        key, image = jax.random.key(0), self.membership.pool.images[:1]
        like: State = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(many.init, key, image),
        )
        tree = jax.tree.structure((like.params, like.stats))
        found = [kept.found(number) or {} for number in numbers]
        leaves = [
            np.stack([arrays[f"leaf_{i}"] for arrays in found])
            for i in range(tree.num_leaves)
        ]
        params, stats = jax.tree.unflatten(tree, leaves)
        state = like._replace(params=params, stats=stats)
        answers = self._answers(state, [self.seeds[number] for number in numbers])
        for place, number in enumerate(numbers):
            own = {name: answer[place] for name, answer in answers.items()}
            kept.keep(number, found[place] | own)

    def _answers(self, state: State, seeds: list[int]) -> Kept:
        devices = self._devices(len(seeds))
        answers = {
            name: ask(self.learner, state, self.asked[name], question, seeds, devices)
            for name, question in self.questions.items()
        }
        for name, answer in answers.items():
            if np.isnan(answer).any():
                raise InputError(
                    f"a shadow model's answers to {name!r} hold NaN, its training "
                    "diverged; train with a smaller learning rate"
                )
        return answers

    def _devices(self, models: int) -> Devices:
        """Where so many models are trained and asked."""
        if self.devices != "all":
            return self.devices
        counts = range(1, jax.local_device_count() + 1)
        return {MEMBER: max(count for count in counts if models % count == 0)}

    def facts(self) -> dict[str, Any]:
        """What all models have in common, and must in a later call."""
        init = jax.eval_shape(
            self.learner.init, jax.random.key(0), self.membership.pool.images[:1]
        )
        shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), init)
        mechanism = dataclasses.asdict(self.learner.mechanism)
        mechanism["perturbation"] = repr(self.learner.mechanism.perturbation)
        fixed = (self.membership.fixed, self.membership.canaries)
        return {
            "mechanism": mechanism,
            "model": _digest(repr(shapes).encode()),
            "records": _digest(
                *_bytes(self.membership.pool),
                *(np.asarray(a, "<i8").tobytes() for a in fixed),
            ),
        }

    def asked_facts(self) -> dict[str, str]:
        """Each question in words, with a digest of the records that it is about."""
        return {
            name: f"{question} about {_digest_of(self.asked[name])}"
            for name, question in self.questions.items()
        }


@dataclass
class _Share:
    """Progress of one chunk as a share of all."""

    report: Reporter
    before: int
    own: int
    total: int

    def advance(
        self, done: int, total: int, examples: int, info: dict[str, float]
    ) -> None:
        """`done` of `total` steps of this chunk."""
        steps = self.before * total + self.own * done
        self.report.advance(steps, self.total * total, examples, info)


def _in_chunks(
    numbers: list[int], size: int, work: Callable[[list[int], int], None]
) -> None:
    """`work` on so many at a time, and on half as many when memory runs out."""
    start = 0
    while start < len(numbers):
        part = numbers[start : start + size]
        try:
            work(part, start)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or len(part) == 1:
                raise
            size = -(-len(part) // 2)
            continue
        start += len(part)


def _parts(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def _bytes(records: Records) -> tuple[bytes, ...]:
    arrays = (np.asarray(records.images[:]), records.labels, records.ids)
    return tuple(np.ascontiguousarray(array).tobytes() for array in arrays)


def _digest_of(records: Records) -> str:
    return _digest(*_bytes(records))


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
