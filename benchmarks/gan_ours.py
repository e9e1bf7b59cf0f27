"""Our side of the benchmark of adversarial training, as workers of `interleaved`; jobs: cyclegan, wgan.

A step is what `fit` executes for one batch.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from interleaved import Job, Prepared, serve

from kerasmodels.models import WGAN, CycleGAN


def prepare(job: Job) -> Prepared:
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    random = np.random.default_rng(0)
    if job["task"] == "cyclegan":
        model: Any = CycleGAN(CycleGAN.Config(blocks=job["blocks"], size=job["size"]), dtype=job["precision"])
        shape: tuple[int, ...] = (1, job["size"], job["size"], 3)
        batch: Any = tuple(tf.constant(random.uniform(0, 255, shape), tf.float32) for _ in range(2))
    else:
        model = WGAN(WGAN.Config(batch=job["batch"]), dtype=job["precision"])
        batch = tf.constant(random.integers(0, 256, (5, job["batch"], 64, 64, 3)), tf.uint8)
    model.compile()
    model.make_train_function()
    data = iter(tf.data.Dataset.from_tensors(batch).repeat())
    versions = {"versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}
    return lambda: float(model.train_function(data)["loss"]), versions


if __name__ == "__main__":
    serve(prepare)
