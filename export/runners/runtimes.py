"""What executes artifacts: one function for each runtime, used where artifacts are verified and where they are timed.

A verifying process imports this file by itself, so it knows NumPy only; the runtimes are imported when they are needed.
"""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, Any]
DEFAULT = "serving_default"


@dataclass(frozen=True)
class Loaded:
    """An artifact that can be called.

    Args:
        call: (signature, arrays, or lists of bytes, by input) -> arrays by output.
        inputs, outputs: name, dtype and shape of each as the artifact declares them; what may vary is None or a name.
        versions: of the runtime's package.
    """

    call: Callable[[str, Arrays], Arrays]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    versions: dict[str, str]


def tensorflow(path: str, threads: int | None) -> Loaded:
    """A SavedModel. Its threads belong to the whole process, whatever is asked for."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def call(signature: str, inputs: Arrays) -> Arrays:
        # Through `loaded`, which owns the variables that the signature reads.
        found = loaded.signatures[signature](**{k: tf.constant(v) for k, v in inputs.items()})
        # Strings as bytes of a fixed length, which can be written without pickle.
        return {k: v.numpy().astype("S") if v.dtype == tf.string else v.numpy() for k, v in found.items()}

    def declared(specs: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"name": k, "dtype": s.dtype.name, "shape": list(s.shape)} for k, s in specs.items()]

    main = loaded.signatures[DEFAULT]
    inputs = declared(main.structured_input_signature[1])
    return Loaded(call, inputs, declared(main.structured_outputs), {"tensorflow": tf.__version__})


def ai_edge_litert(path: str, threads: int | None) -> Loaded:
    """A .tflite file."""
    from ai_edge_litert.interpreter import Interpreter

    main = Interpreter(path, num_threads=threads).get_signature_runner(DEFAULT)

    def declared(details: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": k,
                "dtype": np.dtype(d["dtype"]).name,
                "shape": [None if n < 0 else int(n) for n in d["shape_signature"]],
            }
            for k, d in details.items()
        ]

    return Loaded(
        lambda signature, inputs: main(**inputs),
        declared(main.get_input_details()),
        declared(main.get_output_details()),
        {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")},
    )


def onnxruntime(path: str, threads: int | None) -> Loaded:
    """An .onnx file, on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # Its waiting threads would otherwise burn the neighbors' time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    dtypes = {"float": "float32", "double": "float64", "half": "float16"}

    def declared(nodes: Any) -> list[dict[str, Any]]:
        found = []
        for node in nodes:
            dtype = node.type.removeprefix("tensor(").removesuffix(")")
            found.append({"name": node.name, "dtype": dtypes.get(dtype, dtype), "shape": list(node.shape)})
        return found

    return Loaded(
        lambda signature, inputs: dict(zip(names, session.run(None, inputs), strict=True)),
        declared(session.get_inputs()),
        declared(session.get_outputs()),
        {"onnxruntime": ort.__version__},
    )


RUNTIMES: dict[str, Callable[[str, int | None], Loaded]] = {
    loader.__name__: loader for loader in (tensorflow, ai_edge_litert, onnxruntime)
}
