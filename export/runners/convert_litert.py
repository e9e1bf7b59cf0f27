"""Convert a SavedModel with fixed batch to a .tflite file.

Job: saved_model, out, precision (fp32, fp16, dynamic, int8), allow_flex, calibration (.npz with "<i>/<input>") or None.
Answer: versions; or `unsupported`, the TensorFlow operators without a built-in counterpart, each with the names of the
graph nodes that use it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from job_protocol import answer  # type: ignore[import-not-found]
from tensorflow.core.protobuf import saved_model_pb2

SIGNATURE = "serving_default"
# Instance normalization in 8 bits costs accuracy and is no faster; its operators stay in floating point.
NORMALIZATION = ["MEAN", "SQUARED_DIFFERENCE", "SQUARE", "RSQRT", "SUB", "MUL", "ADD"]
# Positions in a picture in 8 bits would be off by pixels; what computes and uses them stays in floating point.
SAMPLING = ["ADD", "SUB", "MUL", "FLOOR", "MINIMUM", "MAXIMUM", "SELECT", "SELECT_V2", "CAST", "GATHER", "RESHAPE",
            "TRANSPOSE", "STRIDED_SLICE", "NEG", "SUM", "DIV", "CONCATENATION", "PACK", "LOGISTIC",
            "EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "RELU"]  # fmt: skip


def nodes_using(saved_model: str, operators: set[str]) -> dict[str, list[str]]:
    """Names of the graph nodes of each operator; Keras puts the layers' names in them."""
    found: dict[str, list[str]] = {name: [] for name in sorted(operators)}
    graph = saved_model_pb2.SavedModel.FromString((Path(saved_model) / "saved_model.pb").read_bytes())
    definition = graph.meta_graphs[0].graph_def
    for nodes in [definition.node, *(f.node_def for f in definition.library.function)]:
        for node in nodes:
            if node.op in operators and node.name not in found[node.op]:
                found[node.op].append(node.name)
    return found


def operators_named(message: str) -> set[str]:
    """The operators a converter's error complains of."""
    found = set(re.findall(r"'tf\.(\w+)' op (?:is neither|requires|is not)", message))
    for line in re.findall(r"(?:TF Select|Custom) ops: (.+)", message):
        found.update(name.strip() for name in line.split(",") if name.strip())
    return {name.removeprefix("Flex") for name in found}


def normalizes(saved_model: str) -> bool:
    """Whether the graph computes a mean and a variance of its activations."""
    found = nodes_using(saved_model, {"Mean", "Square", "SquaredDifference"})
    return bool(found["Mean"] and (found["Square"] or found["SquaredDifference"]))


def samples(saved_model: str) -> bool:
    """Whether the graph computes positions of which it gathers values."""
    found = nodes_using(saved_model, {"Floor", "GatherV2"})
    return bool(found["Floor"] and found["GatherV2"])


def convert(job: dict[str, Any]) -> dict[str, Any]:
    converter = tf.lite.TFLiteConverter.from_saved_model(job["saved_model"], signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if job["allow_flex"]:
        converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
    if job["precision"] != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["precision"] == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if job["precision"] == "int8":
        examples: dict[str, dict[str, np.ndarray]] = {}
        with np.load(job["calibration"]) as data:
            for key in data.files:
                index, name = key.split("/", 1)
                examples.setdefault(index, {})[name] = data[key]

        def dataset() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            for example in examples.values():
                yield SIGNATURE, example

        converter.representative_dataset = dataset
    try:
        kept = NORMALIZATION if normalizes(job["saved_model"]) else []
        kept = [*kept, *SAMPLING] if samples(job["saved_model"]) else kept
        if job["precision"] == "int8" and kept:
            options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=sorted(set(kept)))
            content = tf.lite.experimental.QuantizationDebugger(
                converter=converter, debug_dataset=dataset, debug_options=options
            ).get_nondebug_quantized_model()
        else:
            content = converter.convert()
    except Exception as error:
        unsupported = operators_named(str(error))
        if not unsupported:
            raise
        return {"unsupported": nodes_using(job["saved_model"], unsupported)}
    with open(job["out"], "wb") as file:
        file.write(content)
    return {"versions": {"tensorflow": tf.__version__}}


if __name__ == "__main__":
    answer(convert)
