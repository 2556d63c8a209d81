"""How far one record really moves the sum, and by what the sum is divided."""

import math
from collections.abc import Set

import numpy as np
from jaxtyping import Float

from rpjax.verification.contributions import FACTORS, WHY, Contributions, alone
from rpjax.verification.probe import LARGEST, Probe, Vector
from rpjax.verification.verdict import Finding, Why

NOT_FINITE = Why(
    "a gradient that is NaN or infinite is let into the sum",
    "count it as zero before the sum, whatever the other records are: multiplying by "
    "a weight of 0 is not enough, since 0 * inf is NaN",
)
LONGER = Why(
    "records' gradients are longer than the claim: they are not clipped, or by another "
    "norm than that of the mechanism",
    "clip the whole gradient of each record to the clip norm: "
    "rpjax.gradients.clipped_sum",
)


def sensitivity(probe: Probe, measured: list[Contributions]) -> list[Finding]:
    """Whether any record moves the sum by more than the mechanism claims."""
    ratios = [found.farthest / found.claim.sensitivity for found in measured]
    worst = measured[int(np.argmax(np.nan_to_num(ratios, nan=np.inf)))]
    allowed = 1 + worst.tolerance / worst.claim.sensitivity
    ratio = max(ratios) if np.isfinite(ratios).all() else float("nan")
    row = Finding.judged(
        "sensitivity",
        "the farthest that one record moves the sum",
        f"{ratio:.4g} times the claim",
        f"at most {allowed:.4g} times",
        ratio <= allowed,
        too_long(probe, worst),
    )
    return [row, _broken(probe)]


def too_long(probe: Probe, found: Contributions) -> Why:
    """Why contributions are longer than the claim."""
    if found.kind != "sum":
        return WHY[found.kind]
    if not found.finite:
        return NOT_FINITE
    left_out = _outside_the_norm(probe)
    if left_out:
        return Why(
            f"the norm leaves out {left_out}: the rest of each gradient has exactly "
            "the clip norm",
            "take the norm over all trained parameters",
        )
    constant, ratio = _constant(found.norms), found.norms.mean()
    ratio /= found.claim.sensitivity
    if constant and abs(ratio / found.claim.batch_size - 1) < 0.02:
        return UNDIVIDED
    if constant and ratio > 1.5 and abs(ratio - round(ratio)) < 0.02:
        return Why(
            f"every record counts {ratio:.0f} times: microbatches overlap, or their "
            "padding counts, or the clip norm is that of another mechanism",
            "count each record once; calibrate noise to what one record can move",
        )
    if constant:
        return Why(
            f"every record is clipped to {ratio:.3g} times the claim",
            "hand the same clip norm to the clipping and to the mechanism",
        )
    return LONGER


UNDIVIDED = Why(
    "the sum is not divided by the expected batch size",
    "divide the noisy sum by the expected batch size, a constant",
)


def _outside_the_norm(probe: Probe) -> str:
    """The parameters without which gradients have the clip norm, if there are."""
    # some gradients must be so long that what is left of them is clipped too
    for factor in FACTORS:
        state = probe.moved(factor)
        claim = probe.claim(state)
        parts = [probe.parts(one * claim.batch_size) for one in alone(probe, state)]
        long = [p for p in parts if _norm(p) > 1.01 * claim.sensitivity]
        for label, group in _groups(probe.names).items():
            rest = np.array([_norm(part, group) for part in long]) / claim.sensitivity
            if (np.abs(rest - 1) < 2e-3).sum() >= 2 and (rest < 1.002).all():
                return label
    return ""


def _groups(names: list[str]) -> dict[str, set[str]]:
    """Parameters that may have been forgotten together: one, a layer, all of a kind."""
    groups = {name: {name} for name in names}
    for name in names:
        layer, _, kind = name.rpartition("/")
        if layer:
            groups.setdefault(layer, set()).add(name)
            groups.setdefault(f"every {kind}", set()).add(name)
    return groups


def _norm(parts: dict[str, Vector], without: Set[str] = frozenset()) -> float:
    squares = (float(part @ part) for n, part in parts.items() if n not in without)
    return math.sqrt(sum(squares))


def _constant(norms: Float[np.ndarray, " m"]) -> bool:
    return bool(np.ptp(norms) <= 2e-3 * norms.mean())


def _broken(probe: Probe) -> Finding:
    """Gradients that are not finite: parameters that overflow, or are no numbers."""
    batch = probe.holding(*probe.at)
    spoiled = [probe.moved(factor, 1.0) for factor in (LARGEST, np.nan)]
    released = [probe.released(state, batch) for state in spoiled]
    finite = all(np.isfinite(vector).all() for vector in released)
    return Finding.judged(
        "sensitivity",
        "a release with gradients that are NaN or infinite",
        "finite" if finite else "not finite",
        "finite",
        finite,
        NOT_FINITE,
    )


def divisor(
    found: Contributions,
    noise_ratio: float | None,
    shares: Float[np.ndarray, " m"] | float = 1.0,
) -> Finding:
    """Whether the sum is divided by the expected batch size.

    noise_ratio: the noise's standard deviation over the claim, where it was measured.
    shares: each record's class weight over the largest; above zero.
    """
    size, ratio = found.claim.batch_size, None
    norms = found.norms / shares
    if found.finite and _constant(norms) and norms.mean() > 0:
        ratio = float(norms.mean() / found.claim.sensitivity)
    apparent = size if ratio is None else size / ratio
    whole = False
    if noise_ratio is not None and ratio is not None:
        # scaled as a whole: it has another divisor, and nothing else is wrong with it
        whole = abs(noise_ratio / ratio - 1) < 0.05 and abs(ratio - 1) > 0.02
    ok = found.kind not in ("true_size", "together") and not whole
    words = (
        f"{apparent:.4g}"
        if found.kind not in ("true_size", "together")
        else (
            "the number of records in the batch"
            if found.kind == "true_size"
            else "no constant that records share"
        )
    )
    why = WHY[found.kind] if found.kind != "sum" else UNDIVIDED
    return Finding.judged(
        "divisor",
        "what the sum is divided by",
        words,
        f"{size}, the expected batch size",
        ok,
        why,
    )
