"""A worker of `deformable_conv.py`: prepares one contestant and times it.

Job: what (layer, four_gathers, conv2d, onnx, hand_built, litert), shape (name), task (forward, both, memory), file.
"""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from deformable_conv_shapes import SHAPES, arrays
from interleaved import Job, Prepared, megabytes, serve


def four_gathers(x: Any, offsets: Any, kernel: Any, bias: Any) -> Any:
    """The plain way: each corner is gathered, weighted and added; padding 1, kernel 3x3."""
    import tensorflow as tf

    n, height, width, channels = x.shape
    taps = np.stack(np.meshgrid(*[np.arange(3) - 1] * 2, indexing="ij"), -1).reshape(1, 1, 9, 2)
    pixels = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)[:, :, None]
    places = tf.reshape(offsets, (n, height, width, 9, 2)) + (pixels + taps).astype("float32")
    y, x_ = places[..., 0], places[..., 1]
    top, left = tf.floor(y), tf.floor(x_)
    far_y, far_x = y - top, x_ - left
    flat, picture = tf.reshape(x, (-1, channels)), tf.reshape(tf.range(n) * height * width, (n, 1, 1, 1))
    total: Any = 0.0
    for down, weight_y in ((0, 1 - far_y), (1, far_y)):
        for right, weight_x in ((0, 1 - far_x), (1, far_x)):
            row, column = top + down, left + right
            inside = tf.cast((row >= 0) & (row < height) & (column >= 0) & (column < width), tf.float32)
            index = tf.cast(tf.clip_by_value(row, 0, height - 1), tf.int32) * width
            index += picture + tf.cast(tf.clip_by_value(column, 0, width - 1), tf.int32)
            total += tf.gather(flat, index) * (weight_y * weight_x * inside)[..., None]
    y = tf.matmul(tf.reshape(total, (-1, 9 * channels)), tf.reshape(kernel, (9 * channels, -1)))
    return tf.reshape(y, (n, height, width, -1)) + bias


def in_tensorflow(job: Job) -> Prepared:
    """The layer's operator, the four gathers or a plain convolution, forward or with all gradients."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])

    def tensors_of(shape: str) -> list[Any]:
        given = arrays(shape)
        return [tf.constant(given[name]) for name in ("inputs", "offsets", "kernel", "bias", "seen")]

    compiled = None
    if job["what"] == "layer":
        import kerasmodels as km

        def call(x: Any, offsets: Any, kernel: Any, bias: Any) -> Any:
            return km.ops.deform_conv2d(x, offsets, kernel, bias=bias, padding=1)
    elif job["what"] == "four_gathers":
        call, compiled = four_gathers, True
    else:

        def call(x: Any, offsets: Any, kernel: Any, bias: Any) -> Any:
            return tf.nn.conv2d(x, kernel, 1, "SAME") + bias

    def forward(*tensors: Any) -> Any:
        return call(*tensors[:4])

    def both(*tensors: Any) -> Any:
        *watched, seen = tensors
        with tf.GradientTape() as tape:
            tape.watch(watched)
            total = tf.reduce_sum(call(*watched) * seen)
        return [g for g in tape.gradient(total, watched) if g is not None]

    function = tf.function(forward if job["task"] == "forward" else both, jit_compile=compiled)
    tensors = tensors_of(job["shape"])
    if job["task"] == "memory":
        peak = _peak(lambda: function(*tensors_of("tiny")), lambda: function(*tensors))
    answer = [np.asarray(a) for a in tf.nest.flatten(function(*tensors))]
    facts = {
        "checks": [float(np.abs(a.astype("float64")).mean()) for a in answer],
        "tensorflow": tf.__version__,
    }
    if job["task"] == "memory":
        facts["peak_mb"] = peak
    return (lambda: [a.numpy() for a in tf.nest.flatten(function(*tensors))]), facts


def _peak(before: Callable[[], object], call: Callable[[], object]) -> float:
    """MB that the process has held at most after `call`, beyond what it held after `before` (Linux).

    `before` is the same on a picture of a few pixels, so that what compilers need is not counted.
    """

    before()
    held = megabytes("VmHWM")
    for _ in range(3):
        call()
    return round(megabytes("VmHWM") - held, 1)


def in_onnxruntime(job: Job) -> Prepared:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])
    given = arrays(job["shape"])
    feed = {}
    for wanted in session.get_inputs():
        array = given[wanted.name]
        channels_last = job["layout"] == "channels_last"
        feed[wanted.name] = array if channels_last else np.ascontiguousarray(np.transpose(array, (0, 3, 1, 2)))
    answer = session.run(None, feed)[0]
    facts = {"checks": [float(np.abs(answer.astype("float64")).mean())], "onnxruntime": onnxruntime.__version__}
    return (lambda: session.run(None, feed)), facts


def in_litert(job: Job) -> Prepared:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(job["file"], num_threads=job["threads"])
    runner = interpreter.get_signature_runner("serving_default")
    given = arrays(job["shape"])
    feed = {name: given[name] for name in runner.get_input_details()}
    answer = next(iter(runner(**feed).values()))
    return (lambda: runner(**feed)), {"checks": [float(np.abs(answer.astype("float64")).mean())]}


def prepare(job: Job) -> Prepared:
    assert job["shape"] in SHAPES
    return {"onnx": in_onnxruntime, "litert": in_litert}.get(job["what"], in_tensorflow)(job)


if __name__ == "__main__":
    serve(prepare)
