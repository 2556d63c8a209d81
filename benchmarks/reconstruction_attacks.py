"""One mechanism attacked: its steps' gradients, its first block's features."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from benchmarks import reconstruction_nets as nets
from benchmarks.benchmark import Row
from rpjax import keys as rp_keys
from rpjax.attacks import reconstruction as rec
from rpjax.data.records import Records
from rpjax.learners import Batch, State

SHOWN = 6
"""Images of each row that the record keeps, for the picture."""


class Scene(NamedTuple):
    """What is attacked: settings, the records, their normalised pixels."""

    settings: Any
    train: Records
    pixels: np.ndarray
    classes: int


class Case(NamedTuple):
    """One net in one state: what a row says of it, the net, and its state."""

    row: Row
    mechanism: str
    model: Any
    state: State


# --------------------------------------------------------------------------- gradients


def gradients(scene: Scene, cases: Sequence[Case]) -> list[Row]:
    """Steps on one record, and on whole batches where the settings ask for them."""
    settings, rows = scene.settings, []
    for case in cases:
        small, name = case.row["net"] == "small", case.mechanism
        unknown = _tuned(scene, case, False)
        rows.append(unknown)
        if small and name in settings.known:
            rows.append(_tuned(scene, case, True))
        if small and name in settings.in_batches:
            size, count = settings.batch_size, settings.batches
            at = np.arange(size * count).reshape(count, size)
            # under the weight that did best for one image at a time
            weight = unknown["total_variation"]
            rows.append(_attacked(scene, case, at, weight, False))
    return rows


def _tuned(scene: Scene, case: Case, known: bool) -> Row:
    """The attack under the weight that did best on the attacker's own images."""
    count = scene.settings.images
    own = np.arange(count, 2 * count)[:, None]
    tried = {
        weight: _attacked(scene, case, own, weight, known)["psnr"]
        for weight in scene.settings.total_variations
    }
    weight = max(tried, key=lambda w: tried[w])
    return _attacked(scene, case, own - count, weight, known)


def _attacked(
    scene: Scene, case: Case, at: np.ndarray, weight: float, known: bool
) -> Row:
    """One step on each row of positions `at` (steps, b), inverted and judged."""
    settings, size = scene.settings, at.shape[1]
    began = time.perf_counter()
    batches = _batches(scene.train, at)
    key = rp_keys.root(settings.seed)
    seen, noise = _released(case.mechanism, case.model, size, key, case.state, batches)
    found = rec.invert_gradients(
        nets.imitation(case.mechanism, case.model, size, settings.draws),
        case.state.params,
        seen,
        scene.train.shape,
        rp_keys.root(settings.seed + 1),
        labels=None if size == 1 else batches.labels,
        noise=noise if known else None,
        settings=rec.Descent(settings.iterations, 2, total_variation=weight),
    )
    truth, guess = scene.pixels[at], np.asarray(found.images)
    pairs = zip(guess, truth, strict=True)
    guess = np.stack([own[rec.matched(own, of)] for own, of in pairs])
    read = np.asarray(rec.read_labels(seen)) == scene.train.labels[at[:, 0]]
    return {
        "attack": "gradient",
        **case.row,
        "noise_known": known,
        "batch": size,
        "draws": None,
        "total_variation": weight,
        "labels_right": float(read.mean()) if size == 1 else None,
        **judged(guess, truth),
        "cost": float(np.mean(found.cost)),
        "took_seconds": time.perf_counter() - began,
    }


@partial(jax.jit, static_argnums=(0, 1, 2))
def _released(
    name: str, model: Any, size: int, key: Any, state: State, batches: Batch
) -> tuple[Any, Any]:
    """Each step's gradient, and the keys of its noise; each has noise of its own."""
    learner = nets.learner(name, model, rec.READING, size)

    def one(given: tuple[Any, Batch]) -> tuple[Any, Any]:
        now = state._replace(step=given[0])
        seen = rec.released_gradient(learner, key, now, given[1])
        return seen, rec.step_noise(now, given[1].ids)

    return jax.lax.map(one, (jnp.arange(len(batches.labels)), batches))


def _batches(train: Records, at: np.ndarray) -> Batch:
    """The records at `at` (steps, b), with a leading axis of steps."""
    fields = (train.images, train.labels, train.ids)
    return Batch(*(jnp.asarray(of[at]) for of in fields), jnp.ones(at.shape, bool))


# ---------------------------------------------------------------------------- features


def features(scene: Scene, cases: Sequence[Case]) -> list[Row]:
    """Of one image at a time, as often as it was sent."""
    noisy = cases[0].row["mechanism"].startswith("strategy")
    sent = scene.settings.sent if noisy else (1,)
    return [_inverted(scene, case, draws) for case in cases for draws in sent]


def _inverted(scene: Scene, case: Case, draws: int) -> Row:
    """The first block's features, seen so many times, inverted and judged."""
    settings, began = scene.settings, time.perf_counter()
    count = settings.images

    def attack(first: int, weight: float) -> tuple[np.ndarray, float]:
        at = slice(first, first + count)
        pixels, ids = map(jnp.asarray, (scene.pixels[at], scene.train.ids[at]))
        key = rp_keys.root(settings.seed)
        seen = _seen(case.model, draws, case.state.params, key, pixels, ids)
        search = rec.Descent(settings.iterations, 1, 0.05, weight, signed=False)
        shape, key = scene.train.shape, rp_keys.root(settings.seed + 1)
        found = rec.invert_features(
            case.model, case.state.params, seen, shape, key, "block0", search
        )
        return np.asarray(found.images), float(np.mean(found.cost))

    own = scene.pixels[count : 2 * count]
    tried = {
        weight: rec.psnr(attack(count, weight)[0], own).mean()
        for weight in settings.total_variations
    }
    weight = max(tried, key=lambda w: tried[w])
    guess, cost = attack(0, weight)
    return {
        "attack": "features",
        **case.row,
        "noise_known": False,
        "batch": 1,
        "draws": draws,
        "total_variation": weight,
        "labels_right": None,
        **judged(guess[:, None], scene.pixels[:count, None]),
        "cost": cost,
        "took_seconds": time.perf_counter() - began,
    }


@partial(jax.jit, static_argnums=(0, 1))
def _seen(
    model: Any, draws: int, params: Any, key: Any, pixels: Any, ids: Any
) -> jax.Array:
    return rec.seen_features(model, params, key, pixels, ids, "block0", draws)


# --------------------------------------------------------------------------- judgement


def judged(guess: np.ndarray, truth: np.ndarray) -> Row:
    """Means over images (steps, b, h, w, c), with 95 % intervals by Student's t.

    Images of one batch depend on each other, so the interval is that of steps.
    """
    row: Row = {"images": int(np.prod(truth.shape[:2]))}
    for name, of in (("psnr", rec.psnr), ("ssim", rec.ssim)):
        steps = of(guess, truth).mean(1)
        spread = steps.std(ddof=1) / np.sqrt(len(steps)) if len(steps) > 1 else np.inf
        reach = scipy.stats.t.ppf(0.975, max(1, len(steps) - 1)) * spread
        reach = float(reach) if np.isfinite(reach) else None
        row[name] = float(steps.mean())
        row[f"{name}_reach"] = reach
    return {**row, "pictures": pictures(guess)}


def pictures(images: np.ndarray) -> list[list[int]]:
    """The first few, each as whole numbers 0 to 255 in a row, for the figure."""
    few = images.reshape(-1, int(np.prod(images.shape[2:])))[:SHOWN]
    made: list[list[int]] = (
        np.clip(np.rint((few + 1) * 127.5), 0, 255).astype(int).tolist()
    )
    return made
