"""TensorFlow Privacy: `DPModel` in a graph, on batches of whatever size they have.

It divides by a batch's own size, which would tell how many records came; the learning
rate of each step takes that to the expected size, as everywhere else.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_privacy import compute_dp_sgd_privacy

from benchmarks.dpsgd import with_tensorflow
from benchmarks.dpsgd.with_tensorflow import normalised
from benchmarks.frameworks.course import Course, Trainer

versions = with_tensorflow.versions


def begin(course: Course) -> Trainer:
    """See `benchmarks.frameworks.course.Framework`."""
    course.check_device(bool(tf.config.list_physical_devices("GPU")))
    tf.config.threading.set_intra_op_parallelism_threads(course.threads)
    tf.random.set_seed(course.seed)
    rate = tf.Variable(course.learning_rate, trainable=False)
    model, _ = with_tensorflow.private_model(
        course, tf.keras.optimizers.legacy.SGD(rate.read_value, course.momentum)
    )
    images, labels = map(tf.constant, course.images())

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def step(where: tf.Tensor) -> tf.Tensor:
        share = tf.cast(tf.size(where), tf.float32) / course.batch_size
        rate.assign(course.learning_rate * share)
        data = (normalised(tf.gather(images, where)), tf.gather(labels, where))
        return model.train_step(data)["loss"]

    def steps(batches: Sequence[np.ndarray]) -> None:
        for batch in batches:
            last = step(tf.constant(batch))
        last.numpy()  # waits

    @tf.function
    def logits(images: tf.Tensor) -> tf.Tensor:
        return model(normalised(images), training=False)

    return Trainer(steps, lambda images: logits(tf.constant(images)).numpy(), {})


def epsilon(course: Course, steps: int) -> tuple[float, str]:
    """See `benchmarks.frameworks.course.Framework`."""
    found, _ = compute_dp_sgd_privacy(
        *(course.records, course.batch_size, course.noise_multiplier),
        steps * course.sampling_probability,
        course.delta,
    )
    return float(found), "RDP"
