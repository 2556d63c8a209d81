"""Whether sampler, learner and accountant speak of the same mechanism."""

from rpjax.data.sampling import Sampler
from rpjax.errors import InputError
from rpjax.learners import Learner
from rpjax.privacy import Guarantee, dpsgd
from rpjax.training.run import guarantee
from rpjax.verification.sampling import NOT_POISSON
from rpjax.verification.verdict import Finding, Why


def accounting(
    learner: Learner,
    sampler: Sampler,
    records: int,
    batch_size: int,
    steps: int,
    shape: tuple[int, int, int],
    delta: float,
    poisson: bool,
) -> list[Finding]:
    """Whether the facts agree, and whether the epsilon that follows may be stated.

    poisson: whether the batches passed every test of their sampling.
    """
    return [
        _kinds(learner, sampler),
        _sizes(learner, sampler, records, batch_size),
        _epsilon(learner, sampler, steps, shape, delta, poisson),
    ]


def _kinds(learner: Learner, sampler: Sampler) -> Finding:
    claimed = learner.mechanism.sampling
    return Finding.judged(
        "accounting",
        "the kind of batches",
        f"sampler {sampler.kind}, mechanism {claimed}",
        "the same",
        sampler.kind == claimed,
        NOT_POISSON
        if claimed == "poisson"
        else Why(
            f"the mechanism says {claimed} and the sampler draws {sampler.kind}",
            "say sampling='poisson' to the learner, or draw shuffled epochs",
        ),
    )


def _sizes(
    learner: Learner, sampler: Sampler, records: int, batch_size: int
) -> Finding:
    claimed = learner.mechanism.batch_size
    sizes = {claimed, sampler.batch_size, batch_size}
    return Finding.judged(
        "accounting",
        "records and expected batch size",
        f"mechanism {claimed}, sampler {sampler.batch_size} of {sampler.records}",
        f"{batch_size} of {records}",
        sizes == {batch_size} and sampler.records == records,
        Why(
            "the sampling probability of the accountant is not that of the batches",
            "give learner, sampler and accountant the same batch size and records",
        ),
    )


def _epsilon(
    learner: Learner,
    sampler: Sampler,
    steps: int,
    shape: tuple[int, int, int],
    delta: float,
    poisson: bool,
) -> Finding:
    """A Poisson epsilon is stated for Poisson batches alone."""
    question = f"the statement of {steps} steps"
    try:
        stated = guarantee(
            learner, sampler, steps, shape, delta=delta, noise_seed="secret"
        )
    except InputError as error:
        why = Why(str(error), "change the setting that it names")
        return Finding("accounting", question, "refused", "a figure", False, *why)
    expected = "a Poisson epsilon for Poisson batches alone"
    ok = stated.epsilon is None or poisson or sampler.kind != "poisson"
    if stated.epsilon is not None and sampler.kind == "shuffled":
        least = _unamplified(learner, sampler, steps, delta)
        expected = f"at least {least:.4g}, without amplification by sampling"
        ok = stated.epsilon >= 0.99 * least
    return Finding.judged(
        "accounting", question, _words(stated), expected, ok, NOT_POISSON
    )


def _unamplified(learner: Learner, sampler: Sampler, steps: int, delta: float) -> float:
    """Epsilon of as many Gaussian releases as a record takes part in."""
    noise, times = learner.mechanism.noise_multiplier, sampler.participations(steps)
    assert noise is not None
    assert times is not None
    return dpsgd.epsilon(noise, 1.0, times, delta)


def _words(stated: Guarantee) -> str:
    if stated.epsilon is None:
        return "no epsilon"
    return (
        f"epsilon {stated.epsilon:.4g} at delta {stated.delta:g}, {stated.adjacency}, "
        f"by {stated.accountant}"
    )
