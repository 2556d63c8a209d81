"""What models are asked: one question, which target and shadow models answer alike.

An attack compares the answers of models, so all must be asked in the same way: as many
draws of noise, the same views of a record, statistics of training for every batch. What
an attacker can ask is the threat level (T1 to T4) of whatever is found in the answers.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rpjax.attacks.white_box import gradient_norms
from rpjax.data.records import Records
from rpjax.errors import InputError
from rpjax.learners import Learner, State, side_by_side
from rpjax.learners.networks import default_mapping
from rpjax.training import Query, answers_by_draw
from rpjax.training.devices import Devices

COMMON_SEED = 0x9E3779B9 >> 1


class View(NamedTuple):
    """A record as it is shown: mirrored or not, then moved by so many pixels."""

    flip: bool = False
    down: int = 0
    right: int = 0

    def of(self, images: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w c"]:
        """The images in this view; what is moved in is the image, mirrored."""
        shown = images[:, :, ::-1] if self.flip else images
        margin = max(abs(self.down), abs(self.right))
        if not margin:
            return np.ascontiguousarray(shown)
        height, width = images.shape[1:3]
        pad = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        wide = np.pad(shown, pad, mode="symmetric")
        top, left = margin - self.down, margin - self.right
        return np.ascontiguousarray(wide[:, top : top + height, left : left + width])


EIGHTEEN = tuple(
    View(flip, down, right)
    for flip in (False, True)
    for down in (0, -4, 4)
    for right in (0, -4, 4)
)
"""Those of Carlini et al. (arXiv 2112.03570) and Aerni et al. (arXiv 2404.17399)."""


@dataclass(frozen=True)
class Question:
    """How every model is asked about every record.

    query: noise on or off, and the number of draws, each of which is an answer here.
    views: shown one after the other; an answer each, with draws of its own.
    noise: "own" draws for every model, or "common" ones, the same for all: to choose a
        model's noise takes its weights.
    members: the answer of an ensemble "together", or "each" member's own.
    reads: "answers", or the norms of the loss's "gradients" by the parameters, each of
        the mean gradient over all draws (`rpjax.attacks.white_box`).
    """

    query: Query = field(default_factory=Query)
    views: tuple[View, ...] = (View(),)
    noise: Literal["own", "common"] = "own"
    members: Literal["together", "each"] = "together"
    reads: Literal["answers", "gradients"] = "answers"

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) < len(self.views):
            raise InputError(f"views is {self.views}; name one or more, each once")
        for name, allowed in (
            ("noise", ("own", "common")),
            ("members", ("together", "each")),
            ("reads", ("answers", "gradients")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; it is one of {allowed}"
                )

    @property
    def threat(self) -> str:
        """T1: one answer for a record; T2: several; T4: it takes the weights."""
        weights = (self.noise, self.members, self.reads)
        if weights != ("own", "together", "answers"):
            return "T4"
        level = self.query.threat
        return "T2" if level == "T1" and len(self.views) > 1 else level


@functools.lru_cache(maxsize=32)
def models_of(learner: Learner, count: int) -> Learner:
    """``side_by_side(learner, count)``, the same object again: compiled once.

    The mapping is the device's default and not measured: one of the ways to be compared
    writes a program for every single model, and takes minutes to compile.
    """
    return side_by_side(learner, count, mapping=default_mapping())


def ask(
    learner: Learner,
    state: State,
    records: Records,
    question: Question,
    seeds: Sequence[int],
    devices: Devices = None,
) -> Float[np.ndarray, "models queries ... n k"]:
    """Log-probabilities, float32: what each model answers to each view and draw.

    Where gradients are read, a query for each view, and in place of the classes the
    parts of the network (`white_box.gradient_norms`).

    learner: of one model. state: of all, one beside the other (``len(seeds)`` of them),
        as ``side_by_side(learner, models)`` has it. With ``members="each"``, the axis
        of an ensemble's members follows that of the queries.
    seeds: from which each model's noise comes, with the record's id.
    """
    if question.members == "each":
        if learner.part is None or learner.combine is None:
            raise InputError(
                "members is 'each', but a model is no ensemble of nets trained apart"
            )
        learner = learner.part(learner.members[0], 0)
    many = models_of(learner, len(seeds))
    common = question.noise == "common"
    own = [COMMON_SEED] * len(seeds) if common else list(seeds)
    parts = []
    for number, view in enumerate(question.views):
        shown = Records(view.of(records.images[:]), records.labels, records.ids)
        if question.reads == "gradients":
            found = gradient_norms(many, state, shown, question.query, own, devices)
            parts.append(found[None])
            continue
        first = number * question.query.draws
        parts.append(
            answers_by_draw(
                many, state, shown, question.query, own, devices=devices, first=first
            )
        )
    return np.moveaxis(np.concatenate(parts), 0, 1)
