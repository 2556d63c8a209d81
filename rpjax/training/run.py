"""What fitting a learner leaves behind, and what can be asked of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

from rpjax import intervals
from rpjax.averaging import with_average
from rpjax.data.records import Records
from rpjax.data.sampling import Sampler
from rpjax.errors import InputError
from rpjax.learners import Learner, State
from rpjax.perturbations import Additive, Multiplicative
from rpjax.privacy import Guarantee, dpsgd_guarantee, feature_guarantee, stated_epsilon
from rpjax.privacy.certificate import withdrawn
from rpjax.privacy.residual import box_diameter
from rpjax.privacy.together import together
from rpjax.privacy.wording import failed
from rpjax.training.budget import Budget
from rpjax.training.devices import Devices
from rpjax.training.evaluation import Query, accuracy, answers
from rpjax.training.history import History
from rpjax.training.tuning import Choice


@dataclass(frozen=True)
class Cost:
    """What a training took.

    step_seconds: median time of a step, compilation apart.
    train_seconds, compile_seconds: in all.
    memory_bytes: of the compiled program: its arguments (the data included), results
        and temporaries; None where the compiler does not tell.
    """

    step_seconds: float
    train_seconds: float
    compile_seconds: float
    memory_bytes: int | None


@dataclass(frozen=True)
class Run:
    """A trained learner with its history and the facts that a guarantee needs.

    records: how many each member was trained on; shape: (height, width, channels).
    stopwatch: (steps) -> seconds that so many steps take now, on a copy of the state;
        None for a run that was only picked up again.
    devices: what it was trained on, and what answers its queries.
    choice: how it was computed, and why; None for a run that was only picked up again.
    budget: that it was given; stopped_at_budget: whether it took fewer steps for it.
    left: the state as training left it, of which a guarantee can speak.
    earlier: other trainings on the same records, with which this one composes.
    """

    learner: Learner
    state: State
    history: History
    sampler: Sampler
    steps: int
    seed: int | tuple[int, ...]
    noise_seed: Literal["secret", "fixed"]
    records: int
    shape: tuple[int, int, int]
    cost: Cost
    stopwatch: Callable[[int], float] | None = None
    devices: Devices = None
    choice: Choice | None = None
    budget: Budget | None = None
    stopped_at_budget: bool = False
    left: State | None = None
    earlier: tuple["Run", ...] = ()

    @property
    def epochs(self) -> float:
        """How often a record was seen, on average."""
        return self.steps * self.sampler.batch_size / self.records

    def answers(self, records: Records, query: Query | None = None) -> np.ndarray:
        """Log-probabilities (n, classes), see `rpjax.training.answers`."""
        return answers(
            self.learner, self.state, records, query, self.seed, devices=self.devices
        )

    def evaluate(
        self, records: Records, query: Query | None = None
    ) -> intervals.Estimate:
        """Accuracy with its exact 95 % interval."""
        return accuracy(self.answers(records, query), records.labels)

    def averaged(self, decay: float) -> "Run":
        """This run with the average of that decay in place of the last parameters.

        For a run whose optimiser keeps one (`rpjax.averaging.averaged`). It is computed
        from what training goes through anyway, so the guarantee is the same.
        """
        state = self.state
        params = with_average(state.params, state.opt_state, decay)
        state = state._replace(params=params)
        return replace(self, state=state, left=state)

    def guarantee(
        self,
        delta: float = 1e-5,
        *,
        earlier: Sequence["Run"] = (),
        releases_clean_statistics: bool = False,
    ) -> Guarantee:
        """What is proved of the released weights, for which neighbours.

        delta: at which epsilon is stated.
        earlier: more trainings on the same records (restarts, tuning, what this one
            was fine-tuned from) than `fit` was told of; the figure is for all together.
        releases_clean_statistics: whether anything computed from un-noised training
            records is released with the weights.
        """
        before = (*self.earlier, *earlier)
        proved = guarantee(
            self.learner,
            self.sampler,
            self.steps,
            self.shape,
            delta=delta,
            noise_seed=self.noise_seed,
            noise_reused=any(_share_noise(self, each) for each in before),
            batch_statistics=(
                "training"
                if self.left is None or _same(self.state.stats, self.left.stats)
                else "re-estimated"
            ),
            releases_clean_statistics=releases_clean_statistics,
        )
        if proved.curve is not None and (broken := self._broken()):
            return withdrawn(proved, *broken)
        return together(proved, [each.guarantee(delta) for each in before])

    def _broken(self) -> tuple[str, ...]:
        """Premises about the weights themselves that do not hold."""
        taken = int(np.asarray(self.state.step).max())
        changed = self.left is not None and not _same(
            self.state.params, self.left.params
        )
        return failed(
            {
                f"the weights have taken {taken} steps, and {self.steps} are stated": (
                    taken > self.steps
                ),
                "the weights are not those that training left": changed,
            }
        )


def guarantee(
    learner: Learner,
    sampler: Sampler,
    steps: int,
    shape: tuple[int, int, int],
    *,
    delta: float,
    noise_seed: Literal["secret", "fixed"],
    noise_reused: bool = False,
    batch_statistics: Literal["training", "re-estimated"] = "training",
    releases_clean_statistics: bool = False,
) -> Guarantee:
    """The guarantee of training `learner` for `steps` steps, trained already or not.

    The last three are facts of a run that was made; see `feature_guarantee`.
    """
    facts = learner.mechanism
    if facts.kind == "dpsgd":
        return dpsgd_guarantee(
            **_accounted(learner, sampler),
            steps=steps,
            delta=delta,
            clipping=facts.clipping,
            noise_source=facts.noise_source,
            trained=facts.trained_words,
            batch_norm=facts.batch_norm,
            releases_clean_statistics=releases_clean_statistics,
            models=facts.models,
            noise_seed=noise_seed,
            noise_reused=noise_reused,
            released_counts=facts.released_counts,
            pretrained=facts.pretrained,
            public_counts=facts.public_counts,
        )
    bound = facts.input_bound
    pixels = int(np.prod(shape))
    return feature_guarantee(
        input_noise=facts.input_noise,
        delta=delta,
        participations=sampler.participations(steps) or steps,
        bound=bound,
        # stored pixels are bytes, so a normalised one cannot leave its range
        diameter=None if bound else box_diameter(pixels, *facts.pixel_range),
        # an augmented image has no range of its own: then clipping alone bounds it
        bound_enforced=bound is not None or facts.augmentation != "before_noise",
        constants_public=facts.constants_public,
        releases_clean_statistics=releases_clean_statistics,
        draw=facts.draw,
        members=facts.members,
        noise_per_member="shared" if facts.shared_input else "own",
        augmentation=facts.augmentation,
        batch_norm=facts.batch_norm,
        batch_statistics=batch_statistics,
        residual_bound=facts.residual_bound,
        label_epsilon=facts.label_epsilon,
        classes=facts.classes,
        models=facts.models,
        noise_seed=noise_seed,
        noise_reused=noise_reused,
        trained=facts.trained_words,
        pretrained=facts.pretrained,
        **_strategy(facts.perturbation),
    )


def spending(
    learner: Learner, sampler: Sampler, shape: tuple[int, int, int], delta: float
) -> Callable[[int], float]:
    """(steps) -> the epsilon that `guarantee` states for a training of so many steps.

    Raises:
        InputError: where it states none.
    """

    def epsilon(steps: int) -> float:
        if learner.mechanism.kind == "dpsgd":
            return stated_epsilon(
                **_accounted(learner, sampler), steps=steps, delta=delta
            )
        proved = guarantee(
            *(learner, sampler, steps, shape), delta=delta, noise_seed="secret"
        )
        if proved.epsilon is None:
            raise InputError(
                f"budget needs a training that guarantees something; {proved.mechanism}"
                " guarantees nothing"
            )
        return proved.epsilon

    return epsilon


def _share_noise(one: Run, other: Run) -> bool:
    """Whether some of the noise of two trainings comes from the same secret."""
    ours, theirs = (
        {row.tobytes() for row in np.asarray(run.state.secret).reshape(-1, 8)}
        for run in (one, other)
    )
    return bool(ours & theirs)


def _same(one: Any, other: Any) -> bool:
    """Whether two trees are equal, leaf by leaf."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a is b or np.array_equal(a, b) for a, b in pairs)


def _accounted(learner: Learner, sampler: Sampler) -> dict[str, Any]:
    """What the figures of DP-SGD are a function of, but for the steps and delta."""
    return {
        "noise_multiplier": learner.mechanism.noise_multiplier,
        "sampling_probability": sampler.batch_size / sampler.records,
        "records": sampler.records,
        "capacity": sampler.capacity,
        "members": learner.mechanism.members,
        # what was done, whatever the learner says
        "sampling": sampler.kind,
        "releases": learner.mechanism.releases,
    }


def _strategy(perturbation: Any) -> dict[str, Any]:
    match perturbation:
        case Additive(gamma):
            return {"strategy": "additive", "gamma": gamma}
        case Multiplicative(gamma, floor):
            return {"strategy": "multiplicative", "gamma": gamma, "floor": floor}
        case _:
            return {}
