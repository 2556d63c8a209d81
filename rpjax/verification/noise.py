"""The noise of empty batches: how large, how Gaussian, how independent.

A step without records releases noise alone. Every test here is one of
`STATISTICAL_TESTS`, at level `LEVEL` after a correction for what it tests at once.
"""

import math
from dataclasses import dataclass, replace
from itertools import combinations

import jax
import numpy as np
import scipy
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from rpjax.learners import Batch, State
from rpjax.training import devices, programs
from rpjax.verification.contributions import WHY, Kind
from rpjax.verification.probe import Probe, Vector, flat, recorded
from rpjax.verification.verdict import LEVEL, Finding, Why

FEWEST, MOST = 24, 64  # steps
DRAWS = 800  # of the smallest parameter
PREFIX = 20_000  # numbers of each parameter that are kept
KEPT = 8  # states
SHAPE_SAMPLE = 100_000


@dataclass(frozen=True)
class Noise:
    """What steps without records released for trained parameters.

    leaves: the beginning of each parameter's noise, in units of the claimed standard
        deviation (steps, size or `PREFIX`).
    squares: sums of squares of all of each one's noise (steps,); sizes: of each one.
    states: before the first steps, and before the last.
    first: what the first step released.
    """

    leaves: dict[str, Float[np.ndarray, "t _"]]
    squares: dict[str, Float[np.ndarray, " t"]]
    sizes: dict[str, int]
    states: list[State]
    first: Vector

    @property
    def draws(self) -> Float[np.ndarray, "t p"]:
        """Of all of them (steps, p)."""
        return np.hstack(list(self.leaves.values()))

    @property
    def finite(self) -> bool:
        """Whether all of it is numbers."""
        return bool(np.isfinite(list(self.squares.values())).all())

    @property
    def count(self) -> int:
        """Numbers in all."""
        return sum(len(s) * self.sizes[n] for n, s in self.squares.items())

    @property
    def total(self) -> float:
        """Their sum of squares."""
        return float(sum(s.sum() for s in self.squares.values()))

    @property
    def ratio(self) -> float:
        """Standard deviation over the claim."""
        return math.sqrt(self.total / self.count)

    def once(self) -> "Noise":
        """The first step alone."""
        first = {name: leaf[:1] for name, leaf in self.leaves.items()}
        squares = {name: sums[:1] for name, sums in self.squares.items()}
        return replace(self, leaves=first, squares=squares)

    def largest(self) -> "Noise":
        """The largest parameter alone."""
        name = max(self.leaves, key=lambda n: self.sizes[n])
        only = {name: self.leaves[name]}
        return replace(self, leaves=only, squares={name: self.squares[name]})


def measured(probe: Probe) -> Noise:
    """The noise of some steps in a row."""
    states, first, sums, begins = [probe.first], np.zeros(0), [], []
    for _ in range(min(max(DRAWS // min(probe.sizes), FEWEST), MOST)):
        claim = probe.claim(states[-1])
        gradient, after = probe.step(states[-1], probe.holding())
        first = first if first.size else gradient
        scale = claim.batch_size / (claim.noise or claim.sensitivity)
        parts = {n: p * scale for n, p in probe.parts(gradient).items()}
        begins.append({n: part[:PREFIX] for n, part in parts.items()})
        sums.append({n: float(part @ part) for n, part in parts.items()})
        states = [*states[:KEPT], after]
    own = [name for name in probe.names if name in probe.trained]
    return Noise(
        leaves={n: np.array([begin[n] for begin in begins]) for n in own},
        squares={n: np.array([each[n] for each in sums]) for n in own},
        sizes=dict(zip(probe.names, probe.sizes, strict=True)),
        states=states,
        first=first,
    )


def noise(
    probe: Probe, found: Noise, kind: Kind, where: devices.Devices = None
) -> list[Finding]:
    """Whether the noise is what the mechanism claims."""
    if not found.finite:
        reason = "an empty batch releases numbers that are not finite"
        cause = WHY["true_size" if kind == "sum" else kind]
        return [Finding("noise", "scale", reason, "noise", False, *cause)]
    if not probe.noisy:
        return [_silent(found)]
    # each test on what the ones before it left independent
    steps = _steps(found)
    found = found if steps.ok else found.once()
    leaves = _leaves(found)
    found = found if leaves.ok else found.largest()
    why = WHY[kind] if kind in ("true_size", "padding") else None
    return [
        _scale(probe, found, why),
        _by_parameter(probe, found, why),
        _shape(found),
        steps,
        leaves,
        _secret(probe, found),
        *on_devices(probe, found, where, why),
    ]


def _silent(found: Noise) -> Finding:
    why = Why("there is noise without a noise multiplier", "state its multiplier")
    words = f"{found.ratio:.3g} clip norms"
    ok = found.total == 0
    return Finding.judged("noise", "scale", words, "none claimed", ok, why)


# ------------------------------------------------------------------------------- scale


def _scale(probe: Probe, found: Noise, why: Why | None) -> Finding:
    adaptive = _adaptive(probe)
    return Finding.judged(
        "noise",
        "standard deviation, all parameters",
        f"{found.ratio:.4g} times the claim",
        "1 times" if not adaptive else "at least 1 times",
        p_scale(found.total, found.count, adaptive) >= LEVEL,
        why or _why_scale(probe, found.ratio),
        f"{100 * seen(found.count):.2g} % too much or too little would be seen",
    )


def _by_parameter(probe: Probe, found: Noise, why: Why | None) -> Finding:
    level, adaptive = LEVEL / len(found.squares), _adaptive(probe)
    counts = {n: len(sums) * found.sizes[n] for n, sums in found.squares.items()}
    totals = {n: float(sums.sum()) for n, sums in found.squares.items()}
    ratios = {n: math.sqrt(totals[n] / counts[n]) for n in counts}
    off = {
        n: ratio
        for n, ratio in ratios.items()
        if p_scale(totals[n], counts[n], adaptive) < level
    }
    worst = max(off or ratios, key=lambda n: abs(math.log(max(ratios[n], 1e-9))))
    words = f"{len(ratios) - len(off)} of {len(ratios)} as claimed"
    if off:
        words += f"; {worst} has {ratios[worst]:.3g} times the claim"
    return Finding.judged(
        "noise",
        "standard deviation, each parameter",
        words,
        "all",
        not off,
        why or _why_parameters(probe, found, off),
        f"{100 * seen(min(counts.values()), level):.2g} % would be seen in the "
        "smallest of them",
    )


def _adaptive(probe: Probe) -> bool:
    """A rule that moves adds more to the gradient, to make up for its noisy count."""
    return probe.learner.mechanism.clipping in ("adaptive", "global_adaptive")


def p_scale(squares: float, count: int, at_least: bool = False) -> float:
    """How plausible a sum of squares of `count` standard normals is.

    at_least: against too small a one alone.
    """
    low = float(scipy.stats.chi2.cdf(squares, count))
    high = float(scipy.stats.chi2.sf(squares, count))
    return low if at_least else min(1.0, 2 * min(low, high))


def seen(count: int, level: float = LEVEL) -> float:
    """Relative error of a standard deviation that is seen with probability 0.999."""
    reach = scipy.stats.norm.isf(level / 2) + scipy.stats.norm.isf(1e-3)
    return float(reach / math.sqrt(2 * count))


def _why_scale(probe: Probe, ratio: float) -> Why:
    """What a wrong scale usually comes from."""
    claim = probe.claim()
    size, norm = claim.batch_size, claim.clip_norm
    near = lambda value: abs(ratio / value - 1) < 0.05
    if ratio == 0:
        return Why("no noise is added", "add it to the sum, in every step")
    if near(1 / size):
        return Why(
            "the noise is scaled to the mean and added to the sum: it is divided by "
            "the batch size twice",
            "add noise of standard deviation noise_multiplier * clip norm to the sum, "
            "then divide once",
        )
    if near(size):
        return Why(
            "noise that is scaled to the sum is added to the mean",
            "add it to the sum and divide both, or divide it by the batch size",
        )
    if near(1 / norm) and not near(1):
        return Why(
            "the noise is scaled by the noise multiplier alone",
            "multiply it by the clip norm too",
        )
    return Why(
        f"the noise has {ratio:.3g} times the standard deviation that is claimed",
        "noise_multiplier * sensitivity on the sum, divided by the expected batch size",
    )


def _why_parameters(probe: Probe, found: Noise, off: dict[str, float]) -> Why:
    if len(off) == len(found.squares):
        return _why_scale(probe, found.ratio)
    listed = ", ".join(f"{name} ({ratio:.3g} times)" for name, ratio in off.items())
    return Why(
        f"the noise of some parameters has another scale: {listed}",
        "add noise of one standard deviation to all trained parameters",
    )


# ------------------------------------------------------------- shape and independence


def _shape(found: Noise) -> Finding:
    draws = found.draws.ravel() / max(found.ratio, 1e-30)
    # in float32 from 23 bits, some values come twice; that is beyond this test
    sample = draws[:: max(1, draws.size // SHAPE_SAMPLE)]
    chance = float(scipy.stats.kstest(sample, "norm").pvalue)
    return Finding.judged(
        "noise",
        "distribution (Kolmogorov-Smirnov)",
        f"p = {chance:.2g} for a Gaussian",
        f"p >= {LEVEL:.1g}",
        chance >= LEVEL,
        Why("the noise is not Gaussian", "draw it from a normal distribution"),
        f"a distance of {2.9 / math.sqrt(sample.size):.2g} in distribution would be "
        "seen",
    )


def _steps(found: Noise) -> Finding:
    """Correlation between any two steps."""
    draws = found.largest().draws  # whatever parameters share
    draws = draws / np.maximum(np.linalg.norm(draws, axis=1, keepdims=True), 1e-30)
    between = draws @ draws.T
    pairs = list(combinations(range(len(draws)), 2))
    worst = max(abs(float(between[pair])) for pair in pairs)
    return _uncorrelated(
        "between steps",
        worst,
        draws.shape[1],
        len(pairs),
        Why(
            "the noise of different steps hangs together: its seed is used again",
            "fold the step's number into the key of the noise, or split the key and "
            "keep the rest in the state",
        ),
    )


def _leaves(found: Noise) -> Finding:
    """Correlation between any two parameters that begin alike."""
    parts = list(found.leaves.values())
    worst, size, pairs = 0.0, 1, list(combinations(range(len(parts)), 2))
    for i, j in pairs:
        shared = min(parts[i].shape[1], parts[j].shape[1])
        a, b = (parts[k][:, :shared].ravel() for k in (i, j))
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        along = abs(float(a @ b)) / max(lengths, 1e-30)
        if along * math.sqrt(a.size) >= worst * math.sqrt(size):
            worst, size = along, a.size
    return _uncorrelated(
        "between parameters",
        worst,
        size,
        max(1, len(pairs)),
        Why(
            "parameters share their noise: one key draws it for several of them",
            "draw one vector for all parameters, or split the key once for each",
        ),
    )


def _uncorrelated(where: str, worst: float, size: int, pairs: int, why: Why) -> Finding:
    # of two independent Gaussian vectors: Student's t, exactly
    level = LEVEL / pairs
    t = float(scipy.stats.t.isf(level / 2, max(size - 1, 1)))
    limit = t / math.sqrt(t**2 + size - 1)
    return Finding.judged(
        "noise",
        f"correlation {where}",
        f"{worst:.2g} at most, of {pairs} pairs",
        f"below {limit:.2g}",
        worst <= limit,
        why,
        f"a correlation of {min(1.0, limit + 3.1 / math.sqrt(size)):.2g} would be seen",
    )


def _secret(probe: Probe, found: Noise) -> Finding:
    state = found.states[0]
    other = state._replace(secret=state.secret ^ np.uint32(1))
    same = np.array_equal(probe.released(other, probe.holding()), found.first)
    return Finding.judged(
        "noise",
        "where it comes from",
        "not the secret bits of the state" if same else "the secret bits of the state",
        "the secret bits of the state",
        not same,
        Why(
            "the noise does not depend on the secret: whoever knows or guesses the "
            "seed can subtract it",
            "draw it from state.secret (rpjax.keys.secret_normal)",
        ),
    )


# ----------------------------------------------------------------------------- devices


def on_devices(
    probe: Probe, found: Noise, where: devices.Devices, why: Why | None
) -> list[Finding]:
    """Whether several devices add the noise once, and all of them the same."""
    question = "on several devices"
    count = devices.number(where) if where is not None else min(2, jax.device_count())
    slots = -(-len(probe.batch.valid) // count) * count
    if count < 2:
        reason = "there is one device; run it with several, real or fake"
        return [Finding.skipped("noise", question, reason)]
    layout = devices.layout({"data": count}, (), slots)
    try:
        squares, alike = _drawn(probe, found.states[:KEPT], layout, slots)
    except (TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        untraced = Why(
            f"a step over several devices cannot be traced: {reason}",
            "sum gradients over the axis that step is given",
        )
        return [Finding("noise", question, "no step", "a step", False, *untraced)]
    return [_once(probe, found, squares, count, why), _same(alike)]


def _drawn(
    probe: Probe, states: list[State], layout: devices.Layout, slots: int
) -> tuple[Float[np.ndarray, " t"], bool]:
    """What steps release on the first device, as mean squares in units of the claim.

    And whether all devices release the same.
    """
    impl = programs.impl_of(probe.root)

    def local(root: Array, state: State, batch: Batch) -> Array:
        key = programs.key_of(root, impl)
        after, _ = probe.learner.step(key, state, batch, layout.axis)
        return flat(recorded(after))[None]

    spec = P(layout.axis)
    step = jax.jit(layout.mapped(local, (P(), P(), spec), spec))
    empty = jax.tree.map(
        lambda leaf: np.resize(np.asarray(leaf), (slots, *leaf.shape[1:])),
        probe.holding(),
    )
    batch, root = layout.put(empty, spec), layout.put(jax.random.key_data(probe.root))
    squares, alike = [], True
    for state in states:
        claim = probe.claim(state)
        seen = np.asarray(step(root, layout.put(jax.device_get(state)), batch))
        own = probe.own(seen[0].astype(np.float64)) * claim.batch_size / claim.noise
        squares.append(float(np.mean(own**2)))
        alike &= bool((seen == seen[:1]).all())
    return np.array(squares), alike


def _once(
    probe: Probe,
    found: Noise,
    squares: Float[np.ndarray, " t"],
    count: int,
    why: Why | None,
) -> Finding:
    size, adaptive = sum(found.sizes[n] for n in found.squares), _adaptive(probe)
    ratio = math.sqrt(squares.mean())
    causes = {
        1.0: None,
        math.sqrt(count): f"each of {count} devices adds noise of its own before the "
        "sum, and not one of them for all",
        float(count): f"each of {count} devices adds the same noise before the sum",
    }
    more = ratio / max(found.ratio, 1e-30)
    cause = causes[min(causes, key=lambda value: abs(more / value - 1))]
    if cause is None:
        why = why or _why_scale(probe, ratio)
    else:
        why = Why(cause, "sum over devices first, then add one draw, the same on each")
    numbers = len(squares) * size
    return Finding.judged(
        "noise",
        f"standard deviation on {count} devices",
        f"{ratio:.4g} times the claim",
        "1 times" if not adaptive else "at least 1 times",
        p_scale(float(squares.sum()) * size, numbers, adaptive) >= LEVEL,
        why,
        f"{100 * seen(numbers):.2g} % too much or too little would be seen",
    )


def _same(alike: bool) -> Finding:
    return Finding.judged(
        "noise",
        "the release on each device",
        "the same" if alike else "not the same",
        "the same",
        alike,
        Why(
            "devices draw different noise after the sum, so that their parameters "
            "drift apart",
            "draw it from the state and the step alone, never from the device's number",
        ),
    )
