"""The configuration of an experiment: nested frozen dataclasses.

The command line, a YAML file (`rpjax.experiments.values`) and a program all build the
same objects. A field that is None takes the value of its data set's preset
(`rpjax.experiments.presets`), and what an experiment writes down has no such gaps left.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from rpjax.counts import Noise
from rpjax.data.augmentation import Padding
from rpjax.data.membership import Protocol
from rpjax.data.survey import Broken
from rpjax.learners.inputs import Draw, Order
from rpjax.learners.networks import Combine, Mapping
from rpjax.models.conv import Convolution
from rpjax.models.resnet import Norm, Shortcut, Stem
from rpjax.training.loop import NoiseSeed

named = tyro.conf.arg
Clipping = Literal[
    "flat",
    "normalised",
    "automatic",
    "per_layer",
    "adaptive",
    "global",
    "global_adaptive",
    "per_group",
]
Engine = Literal["auto", "vmap", "two_pass", "bookkeeping"]
Split = Literal["none", "step", "exponential", "weights"]
LossName = Literal[
    "cross_entropy",
    "focal",
    "class_weighted",
    "class_balanced",
    "ldam_drw",
    "logit_adjusted",
    "balanced_softmax",
    "mfe",
    "msfe",
]
Method = Literal["plain", "strategy1", "strategy2", "ensemble", "dpsgd"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class DataConfig:
    """Which images."""

    name: Annotated[str, named(name="data")] = "digits"
    """digits (comes along), mnist, cifar10, tfds:NAME, npz:FILE, folder:FOLDER."""
    dir: Annotated[Path | None, named(name="data-dir")] = None
    """Folder that holds the files of mnist, or prepared TFDS data sets."""
    size: Literal["small", "full"] = "small"
    """small: at most 10,000 training records, so that a laptop can do it; full: all."""
    train_records: int | None = None
    """Use so many training records, whatever the size."""
    image_size: int | None = None
    """Resize images of a folder or of tfds to so many pixels, and cut them square."""
    stored: bool = False
    """Leave such images on disk, and decode them as they are needed."""
    workers: int = 0
    """Processes that decode them; 0: threads of this one."""
    broken: Broken = "refuse"
    """skip: leave out images that cannot be decoded; refuse: name the first."""


@dataclass(frozen=True)
class ImbalanceConfig:
    """Which training records are left out to make classes unequal; never test ones."""

    split: Annotated[Split, named(name="imbalance")] = "none"
    """step: half the classes are rare; exponential: a long tail; weights: as given."""
    largest: Annotated[int | None, named(name="imbalance-largest")] = None
    """Records of the largest class, before members are drawn; left out: as many as the
    smallest class has."""
    ratio: Annotated[float, named(name="imbalance-ratio")] = 100.0
    """Records of the largest class over those of the smallest, for step and
    exponential."""
    weights: Annotated[tuple[float, ...], named(name="imbalance-weights")] = ()
    """Proportions of the classes, for weights: the largest part that has them."""
    seed: Annotated[int | None, named(name="imbalance-seed")] = None
    """Of the choice within each class; left out: the experiment's."""


@dataclass(frozen=True)
class LossConfig:
    """What every method minimises, and what it may know of the classes."""

    name: Annotated[LossName, named(name="loss")] = "cross_entropy"
    """All but cross_entropy, focal and msfe are made of class counts."""
    counts: Annotated[
        Literal["data", "public", "released"], named(name="loss-counts")
    ] = "data"
    """data: counted on the training records, which DP-SGD refuses; residual
    perturbation's guarantee takes labels for known anyway. public: the pool's, in
    proportion; you say that everyone may know them, and the guarantee names that.
    released: counted with noise, for which DP-SGD's epsilon pays."""
    count_noise: float = 4.0
    """Scale of the noise on each released count, in records."""
    count_noise_kind: Noise = "gaussian"
    """gaussian: count_noise is the standard deviation; geometric: discrete Laplace."""
    exponent: Annotated[float, named(name="focal-exponent")] = 1.0
    """Of focal."""
    tau: Annotated[float, named(name="loss-tau")] = 1.0
    """Of logit_adjusted: how far logits are shifted; 1 is balanced_softmax."""
    beta: Annotated[float, named(name="loss-beta")] = 0.9999
    """Of class_balanced and ldam_drw: 0 weighs all alike, near 1 by inverse counts."""
    deferred: Annotated[float, named(name="loss-deferred")] = 0.8
    """Of ldam_drw: share of the steps before its weights begin."""
    margin: Annotated[float, named(name="ldam-margin")] = 0.5
    """Of ldam_drw: margin of the rarest class."""
    scale: Annotated[float, named(name="ldam-scale")] = 1.0
    """Of ldam_drw: factor of the logits; 30 is for nets whose logits are cosines."""


@dataclass(frozen=True)
class ModelConfig:
    """The residual network that every method trains."""

    depth: int = 8
    """8, 20, 26, 32, 44, 56, 110 (CIFAR nets), 18, 34, 50, or that of a wide ResNet."""
    width: int | None = None
    """Makes it a wide ResNet, WRN-depth-width."""
    channels: int | None = None
    """Of a ResNet's first stage, if not 16 (or 64); later ones have twice as many."""
    stem: Stem = "cifar"
    """imagenet: 7x7 convolution and pooling first, for large images."""
    norm: Norm = "group"
    """batch: statistics over the batch; not with DP-SGD."""
    groups: int = 8
    """Most groups of the group normalisation."""
    norm_last: bool = False
    """Normalise after the activation, not before it."""
    shortcut: Shortcut = "shared"
    """own: an activation and normalisation for the projections of the skip alone."""
    standardise: bool = False
    """Weight-standardised convolutions."""
    skip: bool = True
    """Identity connections; off for the paper's ablation."""
    residual_bound: float | None = None
    """Clip each record's F(x) in every block to this l2 norm; proves nothing more."""
    convolution: Convolution = "auto"
    """How convolutions are computed; auto: what measures fastest."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the activations; parameters are float32."""


@dataclass(frozen=True)
class NoiseConfig:
    """The noise of residual perturbation."""

    gamma: float | None = None
    """Strategy I: standard deviation of the noise in each block."""
    gamma_relative: float | None = None
    """Strategy II: standard deviation relative to the block's input."""
    floor: float = 0.1
    """Strategy II: least magnitude that the noise scales with."""
    input_noise: float = 0.0
    """Its standard deviation; pixels lie in [-1, 1]. This alone gives a guarantee."""
    input_bound: float | None = None
    """Clip images to this l2 norm before the noise."""
    draw: Draw = "step"
    """record: one draw per record, kept for the whole training."""
    label_epsilon: float | None = None
    """Draw labels once by randomised response of this epsilon; not for DP-SGD."""
    noise_order: Order = "noise_then_augment"
    """augment_then_noise: augment, clip to the bound, then fresh noise."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the methods other than DP-SGD are trained: SGD, cosine schedule."""

    epochs: float | None = None
    """Passes over the training records."""
    batch_size: int | None = None
    """Records in a step."""
    learning_rate: float | None = None
    """At its highest; falls to zero along a cosine."""
    warmup: float = 0.0
    """Epochs in which the learning rate first rises, in equal steps."""
    momentum: float = 0.9
    """Nesterov's."""
    weight_decay: float = 0.0
    """Added to the gradient."""
    crop: int | None = None
    """Random shifts by up to so many pixels."""
    resized_crop: float | None = None
    """Instead, a random part of at least this share of the image, resized; 0.08 for
    ImageNet."""
    flip: bool | None = None
    """Random mirror images."""
    padding: Padding = "zeros"
    """What a shift moves in; symmetric: the image, mirrored."""
    devices: int | str | None = None
    """How many, such as 8, or member=2,data=4; left out: one, or all of several
    processes."""
    noise_seed: NoiseSeed = "fixed"
    """secret: private noise from the operating system; fixed: repeatable, from seed."""


@dataclass(frozen=True)
class DPConfig:
    """How DP-SGD is trained."""

    epsilon: float = 8.0
    """Privacy target, for adding or removing one record (shuffled: emptying one), what
    released class counts cost included; inf: gradients are clipped, no noise is added,
    and nothing is proved."""
    delta: float = 1e-5
    """Privacy target; also where residual perturbation's epsilon is stated."""
    clip_norm: float = 1.0
    """l2 norm to which each record's gradient is clipped."""
    clipping: Clipping = "flat"
    """normalised: divided by the clip norm, so that it does not set the step's size;
    global, global_adaptive: every gradient scaled alike; per_group: a norm for each
    class, larger where more of its gradients are long."""
    clipping_bound: float | None = None
    """Norm that clipping global and global_adaptive scale to the clip norm."""
    count_noise_multiplier: float | None = None
    """Noise on the counts by which clipping adaptive, global_adaptive and per_group
    move; left out: the rule's own."""
    noise_multiplier: float | None = None
    """Noise over clip norm; left out, it is found from epsilon and delta."""
    stop_at_epsilon: float | None = None
    """Stop before the step that would exceed this epsilon at delta, released class
    counts included."""
    epochs: Annotated[float | None, named(name="dp-epochs")] = None
    """Passes over the training records, on average."""
    steps: Annotated[int | None, named(name="dp-steps")] = None
    """Updates, in place of epochs."""
    batch_size: Annotated[int | None, named(name="dp-batch-size")] = None
    """Expected records in a step."""
    learning_rate: Annotated[float | None, named(name="dp-learning-rate")] = None
    """At its highest."""
    warmup: Annotated[float, named(name="dp-warmup")] = 0.0
    """Epochs in which the learning rate first rises, in equal steps."""
    schedule: Annotated[Literal["cosine", "constant"], named(name="dp-schedule")] = (
        "cosine"
    )
    """cosine: falls to zero; constant: stays. Either after the warm-up."""
    momentum: Annotated[float | None, named(name="dp-momentum")] = None
    """Nesterov's; left out: the other methods'."""
    augmentation_multiplicity: Annotated[int, named(name="augmult")] = 1
    """Random views of each record whose mean gradient is clipped."""
    trainable: tuple[str, ...] = ()
    """Beginnings of the paths of the parameters to train, such as head; none: all."""
    averages: tuple[float, ...] = ()
    """Decays of the averages of the parameters that are kept, such as 0.99 0.999."""
    average: float | None = None
    """Which of them is evaluated and attacked; left out: the last parameters."""
    sampling: Literal["poisson", "shuffled"] = "poisson"
    """shuffled: epochs in random order, with a guarantee of their own."""
    noise_source: Literal["threefry", "secure"] = "threefry"
    """secure: the noise comes from the host's cryptographic generator."""
    engine: Engine = "auto"
    """How gradients of single records are computed; auto: what measures fastest."""
    microbatch: int | None = None
    """Records whose gradients are in memory at once; left out: all."""


@dataclass(frozen=True)
class TransferConfig:
    """What a training starts from, and how much of it stays as it is."""

    start: Path | None = None
    """Folder of an `rpjax train` on public data, whose parameters are carried over."""
    frozen_groups: int = 0
    """Groups that stay as they are: 1 the stem, 2 the stem and the first stage, ..."""


@dataclass(frozen=True)
class EnsembleConfig:
    """The ensemble of Strategy I nets."""

    members: int = 5
    """How many."""
    joint: bool = False
    """Train them as one averaged net (EnResNet) and not each for itself."""
    combine: Combine = "probabilities"
    """What is averaged for an answer."""
    mapping: Mapping = "auto"
    """How members run on one device; auto: what measures fastest."""


@dataclass(frozen=True)
class AttackConfig:
    """What the attacker may do."""

    shadows: int | None = None
    """Shadow models for each method."""
    protocol: Protocol = "halves"
    """halves: each on a random half of the records; quarters: four disjoint parts."""
    draws: int = 1
    """Noisy answers per record, averaged, in the deployed query."""


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that a comparison is a function of."""

    data: DataConfig = field(default_factory=DataConfig)
    imbalance: ImbalanceConfig = field(default_factory=ImbalanceConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    dp: DPConfig = field(default_factory=DPConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    methods: tuple[Method, ...] = METHODS
    """Which methods, in this order."""
    train_on: Literal["members", "all"] = "members"
    """members: the attacks' part of the training records; all: no one to attack."""
    seed: int = 0
    """Of initialisation, order, augmentation, splits, queries."""


def to_be_released() -> ExperimentConfig:
    """Trained on everything, with noise that nobody can repeat."""
    return ExperimentConfig(
        train_on="all", training=TrainingConfig(noise_seed="secret")
    )
