"""Our side of the fast style benchmark, as workers of `interleaved`; jobs: litert, onnx, train."""

import importlib.metadata
from typing import Any

import numpy as np
from interleaved import Job, Prepared, serve


def litert(job: Job) -> Prepared:
    """An exported .tflite file: uint8 pictures in and out."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(job["path"], num_threads=job["threads"]).get_signature_runner("serving_default")
    picture = np.load(job["picture"])
    return lambda: runner(image=picture), {"versions": {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")}}


def onnx(job: Job) -> Prepared:
    """An .onnx file, ours or the peer's, with ONNX Runtime's default options."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job["path"], options, providers=["CPUExecutionProvider"])
    facts: dict[str, Any] = {"versions": {"onnxruntime": onnxruntime.__version__}}
    if "answer" in job:
        # The peer's file comes with an input and PyTorch's answer to it.
        with np.load(job["answer"]) as data:
            picture, expected = data["image"], data["painted"]
        error = np.abs(session.run(None, {"image": picture})[0] - expected).max()
        facts["difference_to_torch"] = float(error / np.abs(expected).max())
        if not facts["difference_to_torch"] < 1e-3:
            raise ValueError(f"the ONNX file differs from PyTorch by {facts['difference_to_torch']:.2g} of its range")
    else:
        picture = np.load(job["picture"])
    return lambda: session.run(None, {"image": picture}), facts


def train(job: Job) -> Prepared:
    """A compiled training step, as `fit` does it, on one batch."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    from kerasmodels.models import fast_style

    config = fast_style.Config.from_dict(job["config"])
    keras.utils.set_random_seed(0)
    model = fast_style.FAMILY.build(config)
    photos = np.load(job["photos"]).astype("float32")

    def step() -> float:
        loss = model.train_on_batch(photos)
        return float(np.ravel(loss)[0])

    return step, {
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "parameters": model.count_params(),
    }


def prepare(job: Job) -> Prepared:
    return {"litert": litert, "onnx": onnx, "train": train}[job["task"]](job)


if __name__ == "__main__":
    serve(prepare)
