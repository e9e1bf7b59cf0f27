"""Our side of the neural style benchmark, as workers of `interleaved`; jobs: adam, evaluation, lbfgs."""

import threading
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from interleaved import Job, Prepared, serve

from kerasmodels.models import neural_style
from kerasmodels.optimizers import minimize


def prepare(job: Job) -> Prepared:
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    values = {**job["config"], "content": Path(job["content"]), "style": (Path(job["style"]),)}
    model = neural_style.FAMILY.build(neural_style.Config.from_dict(values))
    facts = {"versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}
    if job["task"] == "adam":
        number = np.zeros((1, 0), "float32")

        def step() -> float:
            # Else the losses it returns are means over all calls.
            model.reset_metrics()
            return float(np.ravel(model.train_on_batch(number))[0])

        return step, {**facts, "losses": [step() for _ in range(3)]}
    pixels = model.picture.pixels.value

    def loss() -> tf.Tensor:
        return tf.reduce_sum(sum(model.objective.terms(model(None)).values()))

    if job["task"] == "evaluation":

        @tf.function(autograph=False)
        def evaluate() -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                value = loss()
            return value, tape.gradient(value, pixels)

        return lambda: evaluate()[1].numpy(), facts
    return _one_evaluation_at_a_time(loss, pixels), facts


def _one_evaluation_at_a_time(loss: Callable[[], tf.Tensor], pixels: tf.Variable) -> Callable[[], None]:
    """Each call lets L-BFGS make one more iteration; one that took a second evaluation is followed by another.

    The optimizer runs in a thread of its own, which its callback holds between calls.
    """
    count, seen = tf.Variable(0, dtype=tf.int64), [0, 0]
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def counted() -> tf.Tensor:
        count.assign_add(1)
        return loss()

    def wait(iteration: int, value: float) -> None:
        seen[:] = [seen[1], int(count)]
        done.release()
        go.acquire()

    def run() -> None:
        options = {"tolerance": 0.0, "first_length": float(np.sqrt(pixels.shape.num_elements()))}
        minimize(counted, variables=[pixels], max_iterations=10**6, callback=wait, callback_every=1, **options)

    threading.Thread(target=run, daemon=True).start()
    for _ in range(12):  # until its memory is full
        done.acquire()
        go.release()
    done.acquire()

    def one() -> None:
        for _ in range(5):
            go.release()
            done.acquire()
            if seen[1] - seen[0] == 1:
                return
        raise RuntimeError("every line search takes several evaluations: nothing to compare")

    return one


if __name__ == "__main__":
    serve(prepare)
