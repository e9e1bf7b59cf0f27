"""Execute an artifact in its own runtime on the cases of a job and write down what came out.

Job: runtime, path, data (.npz of inputs, keys "<case>/<input>" or "<case>/<input>/<i>" for byte strings), cases
(list of {signature, inputs: {name: None or the number of byte strings}}), out (.npz to write), rounds, seconds.
Answer: inputs and outputs as declared by the artifact, latency_ms of case 0, versions.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from job_protocol import answer  # type: ignore[import-not-found]

Arrays = dict[str, Any]
Runner = Callable[[str, Arrays], Arrays]
Declared = list[dict[str, Any]]


def saved_model(path: str) -> tuple[Runner, Declared, Declared, dict[str, str]]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(signature: str, inputs: Arrays) -> Arrays:
        found = loaded.signatures[signature](**{k: tf.constant(v) for k, v in inputs.items()})
        return {k: v.numpy() for k, v in found.items()}

    def declared(specs: Mapping[str, Any]) -> Declared:
        return [{"name": k, "dtype": s.dtype.name, "shape": list(s.shape)} for k, s in specs.items()]

    main = loaded.signatures["serving_default"]
    return (
        run,
        declared(main.structured_input_signature[1]),
        declared(main.structured_outputs),
        {"tensorflow": tf.__version__},
    )


def litert(path: str) -> tuple[Runner, Declared, Declared, dict[str, str]]:
    import importlib.metadata

    from ai_edge_litert.interpreter import Interpreter

    interpreter, version = Interpreter(path), {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")}
    main = interpreter.get_signature_runner("serving_default")

    def declared(details: Mapping[str, Any]) -> Declared:
        return [
            {
                "name": k,
                "dtype": np.dtype(d["dtype"]).name,
                "shape": [None if n < 0 else int(n) for n in d["shape_signature"]],
            }
            for k, d in details.items()
        ]

    return (
        lambda signature, inputs: main(**inputs),
        declared(main.get_input_details()),
        declared(main.get_output_details()),
        version,
    )


def onnx(path: str) -> tuple[Runner, Declared, Declared, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    dtypes = {"float": "float32", "double": "float64", "half": "float16"}

    def run(signature: str, inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(None, inputs), strict=True))

    def declared(nodes: Any) -> Declared:
        found = []
        for node in nodes:
            dtype = node.type.removeprefix("tensor(").removesuffix(")")
            found.append({"name": node.name, "dtype": dtypes.get(dtype, dtype), "shape": list(node.shape)})
        return found

    return (
        run,
        declared(session.get_inputs()),
        declared(session.get_outputs()),
        {"onnxruntime": onnxruntime.__version__},
    )


RUNTIMES = {
    "tensorflow": saved_model,
    "ai_edge_litert": litert,
    "onnxruntime": onnx,
}


def execute(job: dict[str, Any]) -> dict[str, Any]:
    run, inputs, outputs, versions = RUNTIMES[job["runtime"]](job["path"])
    results, first = {}, None
    with np.load(job["data"]) as data:
        for index, case in enumerate(job["cases"]):
            arrays: Arrays = {}
            for name, count in case["inputs"].items():
                if count is None:
                    arrays[name] = data[f"{index}/{name}"]
                else:
                    arrays[name] = [data[f"{index}/{name}/{i}"].tobytes() for i in range(count)]
            first = first or (case["signature"], arrays)
            for name, value in run(case["signature"], arrays).items():
                results[f"{index}/{name}"] = np.array(value)
    np.savez(job["out"], **results)  # type: ignore[arg-type]

    latency: list[float] = []
    if first is not None:
        run(*first)
        began = time.perf_counter()
        while len(latency) < job["rounds"] and (not latency or time.perf_counter() - began < job["seconds"]):
            start = time.perf_counter()
            run(*first)
            latency.append(1000 * (time.perf_counter() - start))
    return {
        "inputs": inputs,
        "outputs": outputs,
        "latency_ms": latency,
        "versions": versions,
        "foreign": sorted(m for m in sys.modules if m.partition(".")[0] == "kerasmodels"),
    }


if __name__ == "__main__":
    answer(execute)
