"""A learner: a named triple of pure functions.

Plain training, residual perturbation and DP-SGD are learners. A wrapper takes a learner
and returns one: `rpjax.learners.ensemble` adds a leading member axis to every leaf of
the state, and ensembles, shadow models and sweeps are the same thing from then on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from jaxtyping import Array

from rpjax.annotations import PRNGKey, PyTree
from rpjax.counts import Release
from rpjax.perturbations import Perturbation

Info = dict[str, Array]
"""What a step reports: scalars on the device, with the learner's member axes."""


class Batch(NamedTuple):
    """The records of one step; with members, each leaf has their axes in front.

    images: uint8 (b, h, w, c).
    labels: int32 (b,).
    ids: int32 (b,), the records' ids, from which their keys come.
    valid: bool (b,); an invalid slot is padding and must have no influence at all.
    """

    images: Array
    labels: Array
    ids: Array
    valid: Array


class State(NamedTuple):
    """What training changes.

    step: int32, steps taken; every key of a step comes from it.
    params: float32 parameters.
    stats: running statistics (BatchNorm's), else empty.
    opt_state: the optimiser's state.
    secret: 256 bits from which all training noise and the coins of Poisson sampling
        come, uint32 (8,): from the root key by `init`, replaced by fresh ones where a
        guarantee rests on them (`fit`).
    """

    step: Array
    params: PyTree
    stats: PyTree
    opt_state: PyTree
    secret: Array


@dataclass(frozen=True)
class Mechanism:
    """The facts about a learner on which a guarantee rests.

    kind: "dpsgd", or "forward" where all the noise is in the forward pass (or absent).
    augmentation: whether images are augmented, and on which side of the input noise.
    members: models that are trained on the same records and released together.
    models: trained side by side, each released by itself.
    residual_bound: norm to which each record's F(x) is clipped in a block, if it is.
    label_epsilon, classes: of randomised response on the labels, where there is one.
    shared_input: whether all members read one and the same noisy copy of a record.
    clipping: the rule by which records' gradients are bounded (DP-SGD).
    sampling: how records come into batches (DP-SGD): each by its own coin, or in
        shuffled epochs.
    noise_source: what draws DP-SGD's noise from the secret bits.
    trained: beginnings of the paths of the parameters that are trained; None is all.
    pretrained: public data from which the initial parameters come, in words with a
        digest of them; None where they are drawn at random.
    class_weights: (first step, largest weight), rising, where classes have weights
        after clipping (DP-SGD): what the clip norm is multiplied with from there on.
    released_counts: whether the loss knows counts or class losses that a mechanism of
        its own released, which one is not known, so that its cost comes on top.
    public_counts: whether the loss knows class counts that are said to be public.
    releases: the mechanisms that released class counts for the loss, which a guarantee
        composes with (DP-SGD).
    The other fields: see `rpjax.learners.supervised` and `rpjax.learners.dpsgd`.
    """

    kind: Literal["forward", "dpsgd"]
    perturbation: Perturbation | None = None
    input_noise: float = 0.0
    input_bound: float | None = None
    constants_public: bool = True
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    draw: Literal["step", "record"] = "step"
    augmentation: Literal["none", "before_noise", "after_noise"] = "none"
    members: int = 1
    models: int = 1
    shared_input: bool = False
    batch_norm: bool = False
    residual_bound: float | None = None
    label_epsilon: float | None = None
    classes: int | None = None
    clip_norm: float | None = None
    noise_multiplier: float | None = None
    batch_size: int | None = None
    clipping: str = "flat"
    sampling: Literal["poisson", "shuffled"] = "poisson"
    noise_source: Literal["threefry", "secure"] = "threefry"
    trained: tuple[str, ...] | None = None
    class_weights: tuple[tuple[int, float], ...] = ()
    released_counts: bool = False
    pretrained: str | None = None
    public_counts: bool = False
    releases: tuple[Release, ...] = ()

    def largest_weight(self, step: int) -> float:
        """The largest class weight at this step, 1 where there are none."""
        begun = [weight for start, weight in self.class_weights if start <= step]
        return begun[-1] if begun else 1.0

    @property
    def trained_words(self) -> str | None:
        """What is trained, as certificates print it; None is all."""
        return None if self.trained is None else ", ".join(self.trained)

    @property
    def private(self) -> bool:
        """Whether a guarantee rests on the noise being secret."""
        labels = self.label_epsilon is not None
        return self.kind == "dpsgd" or self.input_noise > 0 or labels

    @property
    def noisy(self) -> bool:
        """Whether a prediction depends on a key."""
        return self.perturbation is not None or self.input_noise > 0


class Implementation(NamedTuple):
    """How to compute what a model and a learner leave to "auto".

    It changes speed and the last bits, and nothing else: not the records drawn, not the
    noise, not a guarantee.
    """

    convolution: str | None = None
    mapping: str | None = None
    engine: str | None = None

    def __str__(self) -> str:
        words = [f"{self.convolution} convolutions"] if self.convolution else []
        words += [f"gradients by {self.engine}"] if self.engine else []
        words += [f"members by {self.mapping}"] if self.mapping else []
        return ", ".join(words)


class Init(Protocol):
    """(root key, images uint8 (b, h, w, c)) -> state at step 0."""

    def __call__(self, key: PRNGKey, images: Array) -> State:
        """See the class."""
        ...


class Step(Protocol):
    """(root key, state, batch) -> state one step on, and what it reports.

    The root key is the run's, the same at every step: a step derives its own from the
    counter in the state. axis: name of the mesh axis over which the batch is split, or
    None; gradients are summed over it.
    """

    def __call__(
        self, key: PRNGKey, state: State, batch: Batch, axis: str | None = None
    ) -> tuple[State, Info]:
        """See the class."""
        ...


class Predict(Protocol):
    """(query key, state, images uint8, record ids) -> logits (..., b, classes).

    Each record's noise comes from the key and its id. noise=False asks the same weights
    with all noise switched off.
    """

    def __call__(
        self,
        key: PRNGKey,
        state: State,
        images: Array,
        ids: Array,
        noise: bool = True,
    ) -> Array:
        """See the class."""
        ...


class Learner(NamedTuple):
    """What can be trained and asked.

    init, step, predict: the triple.
    mechanism: the facts for a guarantee.
    members: sizes of the member axes that every leaf of the state and of a batch has.
    joint: (members, mapping, combine) -> the learner that trains so many as one
        averaged net.
    part: (count, first) -> the learner of `count` members from number `first` on, whose
        predictions are each member's own: what one device holds of this one.
    combine: (members, b, classes) -> (b, classes), the answer of all members together;
        None if each answers for itself.
    open: which fields of `Implementation` this learner leaves open.
    using: (implementation) -> this learner, computed in that way where it is open.
    with_optimiser: (optimiser) -> this learner with that one; None if it is fixed.
    """

    init: Init
    step: Step
    predict: Predict
    mechanism: Mechanism
    members: tuple[int, ...] = ()
    joint: Callable[..., "Learner"] | None = None
    part: Callable[[int, Array], "Learner"] | None = None
    combine: Callable[[Array], Array] | None = None
    open: frozenset[str] = frozenset()
    using: Callable[[Implementation], "Learner"] | None = None
    with_optimiser: Callable[..., "Learner"] | None = None

    def computed(self, how: Implementation) -> "Learner":
        """This learner, computed in that way where it is left open."""
        return self if self.using is None else self.using(how)
