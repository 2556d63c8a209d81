"""Proof by experiment that a training is the mechanism which it claims to be."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import get_args

import numpy as np

from rpjax.data.records import Records
from rpjax.data.sampling import Sampler
from rpjax.errors import InputError
from rpjax.learners import Learner, State
from rpjax.learners.losses import Losses, cross_entropy
from rpjax.training.devices import Devices
from rpjax.training.loop import sampler_for, step_count
from rpjax.verification import contributions, noise, sampling
from rpjax.verification.accounting import accounting
from rpjax.verification.parameters import parameters
from rpjax.verification.parity import class_weights, parity
from rpjax.verification.probe import Make, Probe, made
from rpjax.verification.resume import resume
from rpjax.verification.sensitivity import divisor, sensitivity
from rpjax.verification.verdict import Check, Finding, Verdict

CHECKS: tuple[Check, ...] = get_args(Check)


def verify(
    learner: Learner | Make,
    records: Records,
    *,
    batch_size: int,
    steps: int | None = None,
    sampler: Sampler | None = None,
    loss: Losses | None = cross_entropy,
    devices: Devices = None,
    delta: float = 1e-5,
    seed: int = 0,
    checks: Sequence[Check] | None = None,
) -> Verdict:
    """Prove by experiment that training is what its mechanism claims.

    Works through `init`, `step`, `predict` and the mechanism alone, so that any learner
    of this protocol can be verified, one with a step of your own too.

    learner: one of `rpjax.dpsgd`; or, of your own, (optimiser) -> the learner. Its
        optimiser is exchanged for one that writes down what it is given.
    records: the training records. batch_size: as for `fit`.
    steps: of the training, for the accountant; None is one epoch.
    sampler: what draws the batches; None is what `fit` would take.
    loss: the learner's, (logits (b, k), labels (b,)) -> losses (b,), for the loop over
        records; None if it cannot be computed from `predict`'s answers.
    devices: over which a step is tried, such as 2; None is two if there are two.
    delta: of the statement that is checked.
    seed: of the experiments; with the same one they come out the same.
    checks: some of `CHECKS`, by name; None is all.

    An intact training fails with probability `ALARM` = 0.001 at most, over all checks
    together; what each would have seen stands in its finding's `power`.

    Raises:
        InputError: for what is no learner of one member, or settings that cannot be.
    """
    chosen = _chosen(checks)
    subject = made(learner)
    sampler = sampler or sampler_for(subject, len(records), batch_size)
    seen = _Evidence(Probe(subject, records, sampler.capacity, seed), sampler, seed)
    steps_asked = set(chosen) - {"sampling", "accounting"}
    if steps_asked and not seen.contributed[0].repeatable:
        return Verdict((_unrepeatable(seen.contributed[0].again),))
    experiments: dict[Check, Callable[[], list[Finding]]] = {
        "isolation": lambda: contributions.isolation(seen.contributed[0]),
        "parameters": lambda: parameters(
            seen.probe,
            seen.contributed,
            seen.silent.states,
            seen.silent.first,
        ),
        "noise": lambda: noise.noise(seen.probe, seen.silent, seen.kind, devices),
        "sampling": lambda: seen.drawn,
        "sensitivity": lambda: sensitivity(seen.probe, seen.contributed),
        "parity": lambda: [parity(seen.probe, seen.states, seen.contributed, loss)],
        "divisor": lambda: [
            divisor(
                seen.contributed[0],
                seen.silent.ratio if seen.probe.noisy else None,
                seen.shares(loss),
            )
        ],
        "accounting": lambda: accounting(
            subject,
            sampler,
            len(records),
            batch_size,
            steps or step_count(sampler, None, 1),
            records.shape,
            delta,
            all(row.ok for row in seen.drawn),
        ),
        "resume": lambda: [resume(seen.probe, seen.contributed[0].unrest)],
    }
    return Verdict(tuple(row for name in chosen for row in experiments[name]()))


class _Evidence:
    """What several checks look at, found when the first of them asks."""

    def __init__(self, probe: Probe, sampler: Sampler, seed: int) -> None:
        self.probe, self.sampler, self.seed = probe, sampler, seed

    @cached_property
    def states(self) -> list[State]:
        """One whose gradients are clipped, and one near the start."""
        return [contributions.saturated(self.probe), self.probe.moved(1.0)]

    def shares(self, loss: Losses | None) -> np.ndarray | float:
        """Class weights of the records that count, over the largest weight."""
        probe, state = self.probe, self.states[0]
        own = class_weights(loss, state, probe.batch.labels[np.array(probe.at)])
        shares: np.ndarray = own / probe.learner.mechanism.largest_weight(
            int(state.step)
        )
        return shares if (shares > 0).all() else 1.0

    @cached_property
    def contributed(self) -> list[contributions.Contributions]:
        """In each of these states."""
        return [contributions.measured(self.probe, state) for state in self.states]

    @cached_property
    def silent(self) -> noise.Noise:
        """Of empty batches."""
        return noise.measured(self.probe)

    @cached_property
    def drawn(self) -> list[Finding]:
        """What is found of the batches."""
        claimed = self.probe.learner.mechanism.sampling
        return sampling.sampling(self.sampler, claimed, self.probe.first, self.seed)

    @property
    def kind(self) -> contributions.Kind:
        """What a batch does to its records."""
        return self.contributed[0].kind


def _chosen(checks: Sequence[Check] | None) -> tuple[Check, ...]:
    for name in checks or ():
        if name not in CHECKS:
            raise InputError(f"checks names {name!r}; known: {', '.join(CHECKS)}")
    return tuple(name for name in CHECKS if checks is None or name in checks)


def _unrepeatable(again: float) -> Finding:
    """Without repeatable steps no two of them can be compared."""
    return Finding(
        "resume",
        "the same step from the same state, twice",
        f"they differ by up to {again:.2g}",
        "the same",
        False,
        "a step depends on something that is not in the state, such as a generator of "
        "the host; nothing else can be examined",
        "draw everything from the root key and from state.secret, by the step's number",
    )
