"""TensorFlow Privacy's `DPModel` on a Keras copy of the net.

ways: "DPModel", with `vectorized_map`, or "DPModel, XLA", compiled.
"""

import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_privacy import DPModel

from benchmarks.dpsgd.task import Task, Training, apart, flat

layers = tf.keras.layers
EPSILON = 1e-6


def versions() -> dict[str, str]:
    names = ("tensorflow", "tensorflow-privacy")
    return {name: importlib.metadata.version(name) for name in names}


def start(task: Task) -> Training:
    """See `benchmarks.dpsgd.task.Library`."""
    gpus = tf.config.list_physical_devices("GPU")
    task.check_device(bool(gpus))
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    if task.dtype != "float32":
        tf.keras.mixed_precision.set_global_policy(f"mixed_{task.dtype}")
    images, labels = map(tf.constant, task.images())
    batches = list(map(tf.constant, task.batches()))
    step, _ = stepper(task)

    @tf.function
    def gathered(where: tf.Tensor) -> Any:
        return step(normalised(tf.gather(images, where)), tf.gather(labels, where))

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        for number in range(steps):
            loss = gathered(batches[number % len(batches)])
        loss["loss"].numpy()  # waits
        return time.perf_counter() - began

    def peak() -> int | None:
        if not gpus:
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])

    return Training(seconds, 10_000, peak, {})


def clipped_sum_differs_by(task: Task) -> float:
    """See `benchmarks.dpsgd.task.Library`."""
    with tf.device("/CPU:0"):
        images, labels = map(tf.constant, task.images())
        step, momenta = stepper(task)
        step(normalised(images), labels)
        # Keras keeps momentum times the last update, less the rate times the gradient
        sums = {
            n: -task.batch_size / task.learning_rate * v for n, v in momenta().items()
        }
    return apart(sums, flat(task.tree("expected"), ""))


def stepper(task: Task) -> tuple[Callable[..., Any], Callable[[], dict[str, Any]]]:
    """A step, and what gives each parameter's momentum by rpjax's name."""
    optimiser = tf.keras.optimizers.legacy.SGD(task.learning_rate, task.momentum)
    model, own = private_model(task, optimiser)
    compiled = task.way.endswith("XLA") or None

    @tf.function(jit_compile=compiled)
    def step(pixels: tf.Tensor, labels: tf.Tensor) -> Any:
        return model.train_step((pixels, labels))

    def momenta() -> dict[str, np.ndarray]:
        return {
            name: optimiser.get_slot(variable, "momentum").numpy()
            for name, variable in own.items()
        }

    return step, momenta


def private_model(task: Task, optimiser: Any) -> tuple[Any, dict[str, Any]]:
    """A `DPModel` with rpjax's parameters, and each variable by rpjax's name."""
    pixels = layers.Input((*task.image_shape,))
    model = DPModel(
        task.clip_norm,
        task.noise_multiplier,
        use_xla=False,
        inputs=pixels,
        outputs=network(task, pixels),
    )
    own = {name_of(variable): variable for variable in model.trainable_variables}
    for name, value in flat(task.tree("parameters"), "").items():
        own[name].assign(value)
    model.compile(
        optimiser, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model, own


def network(task: Task, x: Any) -> Any:
    """rpjax's pre-activated ResNet with GroupNorm, its layers named like rpjax's."""
    x = conv(task.stem, 3, 1, "stem")(x)
    index = 0
    for stage, (blocks, width) in enumerate(zip(task.stages, task.widths, strict=True)):
        for position in range(blocks):
            stride = 2 if stage and not position else 1
            x = block(x, width, stride, task.groups, f"block{index}.")
            index += 1
    x = activated(x, task.groups, "head_norm")
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return layers.Dense(task.classes, name="head", dtype="float32")(x)


def block(x: Any, width: int, stride: int, groups: int, name: str) -> Any:
    before = x.shape[-1]
    first = activated(x, groups, f"{name}norm0")
    f = conv(width, 3, stride, f"{name}conv0")(first)
    f = conv(width, 3, 1, f"{name}conv1")(activated(f, groups, f"{name}norm1"))
    if before != width or stride != 1:
        x = conv(width, 1, stride, f"{name}shortcut")(first)
    return layers.Add()([x, f])


def conv(width: int, size: int, stride: int, name: str) -> Any:
    return layers.Conv2D(width, size, stride, "same", use_bias=False, name=name)


def activated(x: Any, groups: int, name: str) -> Any:
    most = max(g for g in range(1, groups + 1) if x.shape[-1] % g == 0)
    norm = layers.GroupNormalization(most, epsilon=EPSILON, name=name)
    return layers.ReLU()(norm(x))


def name_of(variable: Any) -> str:
    """rpjax's name of a Keras variable, such as /block0/norm0/scale."""
    layer, kind = variable.name.removesuffix(":0").split("/")
    kind = {"gamma": "scale", "beta": "bias"}.get(kind, kind)
    return "/" + "/".join([*layer.split("."), kind])


def normalised(images: tf.Tensor) -> tf.Tensor:
    """Stored bytes as float32 in [-1, 1]."""
    return (tf.cast(images, tf.float32) / 255 - 0.5) / 0.5
