"""Our side of the benchmark of segmentation networks, as workers of `interleaved`; tasks: keras, litert, onnx."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Job, Prepared, megabytes, serve


def prepare(job: Job) -> Prepared:
    folder = Path(job["folder"])
    picture = np.load(folder / "picture.npy")
    empty = 0.0
    call: Callable[[], np.ndarray]
    if job["task"] == "litert":
        from ai_edge_litert.interpreter import Interpreter

        empty = megabytes("VmRSS")
        (path,) = (folder / "served").rglob("*.tflite")
        runner: Any = Interpreter(str(path), num_threads=job["threads"]).get_signature_runner()
        call = lambda: runner(rgb=picture)["scores"]  # noqa: E731
    elif job["task"] == "onnx":
        import onnxruntime

        empty = megabytes("VmRSS")
        (path,) = (folder / "served").rglob("*.onnx")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = job["threads"]
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        call = lambda: session.run(None, {"rgb": picture})[0]  # noqa: E731
    else:
        import segmentation
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(1)
        empty = megabytes("VmRSS")
        net = getattr(segmentation, job["network"])(job["width"])
        from kerasmodels import storage

        storage.assign_arrays(net, storage.load_npz(folder / "weights.npz"), folder)
        function, given = tf.function(net, autograph=False), tf.constant(picture)
        call = lambda: function(given).numpy()  # noqa: E731
    answer = call()
    facts = {"check": float(np.abs(answer).mean()), "peak_mb": round(megabytes("VmHWM") - empty, 1)}
    return call, facts


if __name__ == "__main__":
    serve(prepare)
