"""Our side of the benchmark of DQN, a worker of `interleaved`: a call is some steps of the game, with learning."""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from interleaved import Job, Prepared, serve

from kerasmodels.models import dqn


def prepare(job: Job) -> Prepared:
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    config = dqn.Config(
        game="pong", network="nature", batch=32, train_every=4, target_every=1000, learning_rate=1e-4, stack=4,
        replay=job["replay"], learning_starts=job["starts"], epsilon_first=0.1, epsilon_last=0.1, clip_rewards=True,
        precision=job["precision"],
    )  # fmt: skip
    model: Any = dqn.FAMILY.build(config)
    source = dqn.Playing(config)
    model.make_train_function()
    data = iter(source.batches(model, 0))

    def play() -> float:
        for _ in range(job["steps"] // config.train_every):
            logs = model.train_function(data)
        return float(logs["loss"])

    play()
    rows, told = source._replay.rows, tf.constant(job["starts"], tf.int64)
    state = np.zeros((1, 84, 84, 4), "uint8")
    draw = tf.function(lambda: model.sampler(rows, told, 32, model.seed_generator)["states"])
    step = tf.function(lambda: model.train_step((rows, {n: tf.zeros(1) + 600 for n in _TOLD}))["loss"])
    parts = {"sample_ms": draw, "learner_step_ms": step, "act_ms": lambda: model.values(state)}
    parts["game_ms"] = lambda: source._environment.step(0)
    facts = {name: _milliseconds(part) for name, part in parts.items()}
    facts["replay_bytes_per_transition"] = source._replay.bytes_per_transition
    return play, {**facts, "versions": {"tensorflow": tf.__version__, "keras": keras.__version__}}


_TOLD = ("count", "score", "held_out_q", "epsilon")


def _milliseconds(part: Any, calls: int = 20) -> float:
    """CPU time of a call."""
    part()
    began = time.process_time()
    for _ in range(calls):
        part()
    return round(1000 * (time.process_time() - began) / calls, 3)


if __name__ == "__main__":
    serve(prepare)
