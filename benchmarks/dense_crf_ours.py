"""Our side of the dense CRF benchmark, as workers of `interleaved`: lattice, lattice again, window, litert, onnx."""

from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Job, Prepared, serve


def prepare(job: Job) -> Prepared:
    folder, task = Path(job["folder"]), job["task"]
    picture, probabilities = (np.load(folder / f"{name}.npy")[None] for name in ("picture", "probabilities"))
    if task == "litert":
        from ai_edge_litert.interpreter import Interpreter

        (path,) = (folder / "served").rglob("*.tflite")
        runner = Interpreter(str(path), num_threads=job["threads"]).get_signature_runner()
        return lambda: runner(image=picture, probabilities=probabilities), {"bytes": path.stat().st_size}
    if task == "onnx":
        import onnxruntime

        (path,) = (folder / "served").rglob("*.onnx")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = job["threads"]
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        given = {"image": picture, "probabilities": probabilities}
        return lambda: session.run(None, given), {"bytes": path.stat().st_size}
    return _tensorflow(job, folder, task, picture, probabilities)


def _tensorflow(job: Job, folder: Path, task: str, picture: Any, probabilities: Any) -> Prepared:
    import tensorflow as tf

    from kerasmodels.models.dense_crf import Config, FullyConnectedCRF

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    # One operation at a time, on all cores: two at a time would share them.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    config = Config(labels=probabilities.shape[-1], iterations=10)
    facts = {"versions": {"tensorflow": tf.__version__}}
    given = {"image": tf.constant(picture), "probabilities": tf.constant(probabilities)}
    if task == "lattice again":
        crf = FullyConnectedCRF(config).crf
        logits = tf.math.log(tf.maximum(given["probabilities"], 1e-5))
        message = crf._message(tf.cast(given["image"], tf.float32))

        def again() -> np.ndarray:
            answer = logits
            for _ in range(config.iterations):
                answer = logits + message(tf.nn.softmax(answer))
            return tf.nn.softmax(answer).numpy()

        return again, facts
    model = FullyConnectedCRF(config, task)
    call = tf.function(model.call, autograph=False) if task == "window" else model
    np.save(folder / f"{task}.npy", call(given)[0].numpy())
    return lambda: call(given).numpy(), facts


if __name__ == "__main__":
    serve(prepare)
