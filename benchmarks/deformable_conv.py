"""Deformable convolution: ours beside a plain TensorFlow function, a plain convolution and ONNX Runtime, in one run.

.venv/bin/python benchmarks/deformable_conv.py            # a quarter of an hour on two cores
.venv/bin/python benchmarks/deformable_conv.py --quick    # minutes: does it work?
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from deformable_conv_shapes import SHAPES, arrays
from interleaved import Contestant, Result, race
from onnx import TensorProto, helper, numpy_helper

import kerasmodels as km
from kerasmodels import export
from kerasmodels.apps import provenance
from kerasmodels.family import Servable, TensorSpec

HERE = Path(__file__).resolve().parent
WORKER = HERE / "deformable_conv_worker.py"


def exported(shape: str, folder: Path) -> dict[str, Path]:
    """The layer with the offsets as an input, as our export writes it."""
    n, height, width, channels, filters = SHAPES[shape]
    given = arrays(shape)
    inputs = [keras.Input((height, width, channels)), keras.Input((height, width, 18))]
    layer = km.layers.DeformableConv2D(filters, 3, padding=1)
    model = keras.Model(inputs, layer(inputs))
    model.set_weights([given["kernel"], given["bias"]])
    specs = tuple(
        TensorSpec(name, (n, height, width, count), "float32", name)
        for name, count in (("inputs", channels), ("offsets", 18))
    )

    def example(dims: Any, seed: int) -> dict[str, np.ndarray]:
        return {spec.name: given[spec.name] for spec in specs}

    servable = Servable(
        lambda inputs, offsets: {"outputs": model([inputs, offsets])},
        model,
        specs,
        (TensorSpec("outputs", (n, height, width, filters), "float32", "outputs"),),
        example,
        {},
    )
    report = export.export_servable(servable, "layer", folder / shape, formats="litert,onnx")
    return {artifact.format: folder / shape / artifact.path for artifact in report.artifacts}


def hand_built(shape: str, folder: Path, kind: str, last: bool = False) -> Path:
    """One node, DeformConv or Conv, channels first; or channels last, with the transpositions that takes."""
    given = arrays(shape)
    names = ["inputs", "offsets"] if kind == "DeformConv" else ["inputs"]
    ready = {name: f"{name}_first" if last else name for name in (*names, "outputs")}
    order = [ready["inputs"], "kernel", *([ready["offsets"]] if kind == "DeformConv" else []), "bias"]
    nodes = [helper.make_node("Transpose", [n], [ready[n]], perm=[0, 3, 1, 2]) for n in names if last]
    nodes.append(helper.make_node(kind, order, [ready["outputs"]], kernel_shape=[3, 3], pads=[1] * 4))
    if last:
        nodes.append(helper.make_node("Transpose", [ready["outputs"]], ["outputs"], perm=[0, 2, 3, 1]))
    weights = {"kernel": np.transpose(given["kernel"], (3, 2, 0, 1)), "bias": given["bias"]}

    def value(name: str, array: np.ndarray) -> Any:
        shape = array.shape if last else np.transpose(array, (0, 3, 1, 2)).shape
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        kind,
        [value(name, given[name]) for name in names],
        [value("outputs", given["seen"])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    path = folder / f"{kind}-{shape}-{last}.onnx"
    onnx.save(model, path)
    return path


def contestants(shape: str, task: str, folder: Path) -> list[Contestant]:
    """Everything that can do the task on the shape."""
    python = Path(sys.executable)
    environment = {"PYTHONPATH": f"{HERE.parent}:{HERE}"}

    def one(name: str, what: str, **more: Any) -> Contestant:
        return Contestant(name, python, WORKER, {"what": what, "shape": shape, "task": task, **more}, environment)

    found = [one("layer", "layer"), one("four gathers, XLA", "four_gathers"), one("Conv2D", "conv2d")]
    if task == "forward":
        files = exported(shape, folder)
        found += [
            one("exported ONNX", "onnx", file=str(files["onnx"]), layout="channels_last"),
            one("DeformConv node", "onnx", file=str(hand_built(shape, folder, "DeformConv")), layout="channels_first"),
            one(
                "DeformConv node, channels last",
                "onnx",
                file=str(hand_built(shape, folder, "DeformConv", last=True)),
                layout="channels_last",
            ),
            one("Conv node", "onnx", file=str(hand_built(shape, folder, "Conv")), layout="channels_first"),
            one("exported LiteRT", "litert", file=str(files["litert"])),
        ]
    return found


def memory_of(shape: str, folder: Path) -> list[dict[str, Any]]:
    """What a forward and backward pass holds at most, beyond one on a tiny picture, inputs and results included."""
    found = []
    for result in race(contestants(shape, "memory", folder), 0, 1, 0.1, lambda line: None):
        found.append({"shape": shape, "name": result.name, "peak_mb": result.facts.get("peak_mb", result.error)})
        print(f"({shape}) backward pass, {result.name}: {found[-1]['peak_mb']} MB")
    return found


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims: how many times as long as ours the others take, or ours as the others."""
    found = []
    by = {(row["shape"], row["task"], row["threads"], row["name"]): row for row in rows}
    for shape, task, threads in dict.fromkeys((r["shape"], r["task"], r["threads"]) for r in rows):

        def of(name: str) -> dict[str, Any]:
            return by.get((shape, task, threads, name), {})  # noqa: B023

        claims = [("four gathers, XLA", "layer", ">", 1.0 if task == "forward" else 1.3)]
        if task == "forward":
            claims += [
                ("layer", "Conv2D", "<=", 2.5),
                ("layer", "DeformConv node", "<=", 1.7),
                ("exported ONNX", "DeformConv node, channels last", "<=", 1.1),
            ]
        for upper, lower, sign, gate in claims:
            if "median_ms" not in of(upper) or "median_ms" not in of(lower):
                continue
            ratio = of(upper)["median_ms"] / of(lower)["median_ms"]
            # On a machine with other work, spinning thread pools lose far more than the others: that settles nothing.
            clean = min(of(name)["clean_rounds"] for name in (upper, lower))
            found.append(
                {
                    "claim": f"({shape}) {task}, {threads} threads: {upper} / {lower}",
                    "ours": round(ratio, 2),
                    "gate": f"{sign} {gate:g}",
                    "clean_rounds": clean,
                    "passed": clean > 0 and (ratio > gate if sign == ">" else ratio <= gate),
                }
            )
    return found


def main() -> None:
    """Time everything and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "deformable_conv.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    memory: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for shape in SHAPES:
            for task in ("forward", "both"):
                field = contestants(shape, task, Path(name))
                for threads in (2,) if options.quick else (1, 2):
                    results: list[Result] = race(
                        field,
                        2 if options.quick else options.rounds,
                        threads,
                        0.3 if options.quick else 1.0,
                        lambda line: print(line, file=sys.stderr),
                    )
                    for result in results:
                        row = {"shape": shape, "task": task, "threads": threads, **result.to_dict()}
                        rows.append(row)
                        print(f"({shape}) {task} {threads}t {result.name}: {row.get('median_ms', row.get('error'))} ms")
            memory += memory_of(shape, Path(name))
    claims = ratios(rows)
    for claim in claims:
        verdict = "passed" if claim["passed"] else "MISSED" if claim["clean_rounds"] else "contended, unsettled"
        print(f"{verdict}: {claim['claim']} = {claim['ours']} ({claim['gate']})")
    written = {
        "command": " ".join(["benchmarks/deformable_conv.py", *sys.argv[1:]]),
        "date": provenance.now(),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "shapes": {key: list(value) for key, value in SHAPES.items()},
        "claims": claims,
        "memory": memory,
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=2, default=str) + "\n")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
