"""Images from gradients and from noisy features, by mechanism, beside what luck gives.

Small images, on which every attack can be run many times. The attacked images are the
first of the training set, on which the trained nets were trained. The weight of the
total variation is chosen as an attacker can: on images of their own, the ones after
the attacked, under the same mechanism.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import reconstruction_nets as nets
from benchmarks.benchmark import Benchmark, Row, Watch
from benchmarks.reconstruction_attacks import (
    Case,
    Scene,
    features,
    gradients,
    judged,
    pictures,
)
from benchmarks.reconstruction_picture import figure
from rpjax import keys as rp_keys
from rpjax.attacks import reconstruction as rec
from rpjax.data import load
from rpjax.learners import Inputs
from rpjax.training import fit


@dataclass(frozen=True)
class Reconstruction:
    """Gradient and feature inversion of small images, with every mechanism."""

    data: str = "digits"
    """Whose training images, named as for `rpjax train --data`."""
    images: int = 16
    """Attacked one by one; as many others are the attacker's own."""
    batches: int = 8
    """Batches of `batch_size` that are attacked as well."""
    batch_size: int = 4
    mechanisms: tuple[str, ...] = (
        *("plain", "strategy1:0.1", "strategy1:0.5", "strategy1:1", "strategy2:0.5"),
        *("dpsgd:0.01", "dpsgd:0.1", "dpsgd:1"),
    )
    in_batches: tuple[str, ...] = (
        "plain",
        "strategy1:0.5",
        "strategy2:0.5",
        "dpsgd:0.1",
    )
    """Mechanisms whose steps on whole batches are attacked."""
    known: tuple[str, ...] = ("strategy1:0.5",)
    """Mechanisms that are also attacked by someone who knows their noise."""
    resnets: tuple[str, ...] = ("plain",)
    """Mechanisms that are also attacked in a ResNet with GroupNorm and a mean head."""
    sent: tuple[int, ...] = (1, 16)
    """How often an image's noisy features are seen."""
    iterations: int = 300
    draws: int = 2
    """Of noise that the attacker does not know, in every iteration."""
    epochs: float = 10.0
    """Of the trained nets."""
    total_variations: tuple[float, ...] = (1e-1, 1e-2, 1e-4)
    quick: bool = False
    """A tiny run that shows how it goes, and nothing else."""
    seed: int = 0


TINY: dict[str, Any] = {
    "images": 2,
    "batches": 1,
    "mechanisms": ("plain", "strategy1:0.5"),
    "in_batches": (),
    "known": (),
    "resnets": (),
    "iterations": 3,
    "epochs": 0.1,
    "total_variations": (1e-2,),
}


def measure(settings: Reconstruction, watch: Watch) -> list[Row]:
    if settings.quick:
        settings = type(settings)(**{**TINY, "seed": settings.seed})
    data = load(settings.data)
    pixels = np.asarray(Inputs().clean(jnp.asarray(data.train.images)))
    scene = Scene(settings, data.train, pixels, data.classes)
    rows = _baselines(scene)
    for kind, names in (("small", settings.mechanisms), ("resnet", settings.resnets)):
        for name in names:
            watch(f"{name}, {kind}: training")
            cases = _cases(scene, name, kind)
            watch(f"{name}, {kind}: gradients")
            rows += gradients(scene, cases)
            watch(f"{name}, {kind}: features")
            rows += features(scene, cases)
    return rows


def _cases(scene: Scene, name: str, kind: str) -> list[Case]:
    """The net of a mechanism before training and after it."""
    settings = scene.settings
    model = nets.net(name, scene.classes, kind)
    learner = nets.learner(name, model, optax.sgd(0.1, momentum=0.9), 64)
    root = rp_keys.root(settings.seed)
    start = jax.jit(learner.init)(root, jnp.asarray(scene.train.images[:1]))
    run = fit(
        learner,
        scene.train,
        batch_size=64,
        epochs=settings.epochs,
        seed=settings.seed,
        noise_seed="fixed",
    )
    of, size = nets.mechanism(name)
    row = {"net": kind, "mechanism": of, "size": size}
    after = start._replace(params=jax.device_get(run.state.params))
    found = [Case({**row, "trained": False}, name, model, start)]
    return [*found, Case({**row, "trained": True}, name, model, after)]


# --------------------------------------------------------------------------- judgement


def _baselines(scene: Scene) -> list[Row]:
    """What is answered without any gradient, from the images that nobody attacked."""
    settings = scene.settings
    count = settings.images
    rest = max(2 * count, settings.batches * settings.batch_size)
    luck = rec.baselines(
        scene.pixels[:count],
        scene.train.labels[:count],
        scene.pixels[rest:],
        scene.train.labels[rest:],
        settings.seed,
    )
    truth = scene.pixels[:count, None]
    shown = {
        "attack": "true image",
        "images": count,
        "shape": list(scene.train.shape),
        "pictures": pictures(truth),
    }
    made = [
        {"attack": f"no attack: {words}", **judged(guess[:, None], truth)}
        for words, guess in zip(
            ("mean image", "mean of the class", "another of the class"),
            luck,
            strict=True,
        )
    ]
    return [shown, *made]


def _with_reach(name: str, digits: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row.get(name) is None:
            return ""
        reach = row[f"{name}_reach"]
        ends = "" if reach is None else f" ± {reach:.{digits}f}"
        return f"{row[name]:.{digits}f}{ends}"

    return cell


def _case(row: Row) -> str:
    if "mechanism" not in row:
        return ""
    size = f" {row['size']:g}" if row["size"] else ""
    known = ", noise known" if row["noise_known"] else ""
    return f"{row['mechanism']}{size}{known}"


def _state(row: Row) -> str:
    if "net" not in row:
        return ""
    return f"{row['net']}, {'trained' if row['trained'] else 'untrained'}"


BENCHMARK = Benchmark(
    Reconstruction,
    measure,
    (
        ("Attack", lambda row: row["attack"]),
        ("Mechanism", _case),
        ("Net", _state),
        ("Batch", lambda row: str(row.get("batch", ""))),
        ("Draws seen", lambda row: str(row.get("draws") or "")),
        ("PSNR, dB", _with_reach("psnr", 1)),
        ("SSIM", _with_reach("ssim", 2)),
        ("Total variation", lambda row: f"{row.get('total_variation', '')}"),
        (
            "Seconds",
            lambda row: f"{row['took_seconds']:.0f}" if "took_seconds" in row else "",
        ),
    ),
    figure,
)
